//! Weights compiled for lookup: `total` slots, of which entry `i` owns as many as its weight.
//!
//! A slot is looked up through a guide: the slots in buckets, twice as many as entries, each with the first entry
//! that owns a slot in it. From there the search is linear; over all slots it takes less than one step on average,
//! however uneven the weights are.

use std::num::NonZeroU32;

use crate::rng::Rng;

/// Entries by weight; never empty.
#[derive(Debug)]
pub(super) struct Weighted {
    total: NonZeroU32,
    /// None where every entry owns one slot.
    slots: Option<Slots>,
}

#[derive(Debug)]
struct Slots {
    /// End of each entry's slots.
    ends: Box<[u32]>,
    /// First entry of each bucket.
    guide: Box<[u32]>,
    /// A bucket is this power of two of slots.
    shift: u32,
}

// === impl Weighted ===

impl Weighted {
    /// Compiles weights; none of no weights. A sum above `u32` is scaled down, each entry keeping at least a slot.
    pub(super) fn new(weights: &[NonZeroU32]) -> Option<Self> {
        let first = weights.first()?;
        if weights.iter().all(|w| w == first) {
            let total = NonZeroU32::new(u32::try_from(weights.len()).ok()?)?;
            return Some(Self { total, slots: None });
        }
        let scaled = |shift: u32| {
            let mut sum = 0u64;
            let ends = weights.iter().map(move |w| {
                sum += u64::from((w.get() >> shift).max(1));
                u32::try_from(sum).ok()
            });
            ends.collect::<Option<Box<[u32]>>>()
        };
        let ends = (0..u32::BITS).find_map(scaled)?;
        let total = NonZeroU32::new(*ends.last()?)?;
        Some(Self { total, slots: Some(Slots::new(ends, total)) })
    }

    /// How many slots there are.
    pub(super) fn total(&self) -> NonZeroU32 {
        self.total
    }

    /// Whether every entry owns one slot.
    pub(super) fn is_even(&self) -> bool {
        self.slots.is_none()
    }

    /// Whose slot it is.
    pub(super) fn at(&self, slot: u32) -> usize {
        self.slots.as_ref().map_or(slot as usize, |slots| slots.owner(slot))
    }

    /// An entry at random.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> usize {
        self.at(rng.below(self.total.get().into()) as u32)
    }
}

// === impl Slots ===

impl Slots {
    fn new(ends: Box<[u32]>, total: NonZeroU32) -> Self {
        let last = total.get() - 1;
        let most = ends.len() * 2;
        let shift = (0..u32::BITS).find(|shift| ((last >> shift) as usize) < most).unwrap_or(0);
        let mut entry = 0;
        let guide = (0..=last >> shift).map(|bucket| {
            entry += ends.iter().skip(entry).take_while(|end| **end <= bucket << shift).count();
            entry as u32
        });
        Self { guide: guide.collect(), ends, shift }
    }

    fn owner(&self, slot: u32) -> usize {
        let first = self.guide.get((slot >> self.shift) as usize).map_or(0, |entry| *entry as usize);
        first + self.ends.iter().skip(first).take_while(|end| **end <= slot).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::weight;

    proptest! {
        #[test]
        fn every_entry_owns_as_many_neighbouring_slots_as_its_weight(
            weights in prop::collection::vec(prop_oneof![1u32..4, 1u32..60, Just(900)], 1..16),
        ) {
            let compiled = Weighted::new(&weights.iter().map(|w| weight(*w)).collect::<Vec<_>>()).unwrap();
            let owners: Vec<usize> = (0..compiled.total().get()).map(|slot| compiled.at(slot)).collect();
            let expected: Vec<usize> = if compiled.is_even() {
                (0..weights.len()).collect()
            } else {
                weights.iter().enumerate().flat_map(|(i, w)| vec![i; *w as usize]).collect()
            };
            prop_assert_eq!(owners, expected);
        }

        #[test]
        fn any_weights_at_all_can_be_compiled(
            weights in prop::collection::vec(1u32..=u32::MAX, 1..40), seed in any::<u64>(),
        ) {
            let compiled = Weighted::new(&weights.iter().map(|w| weight(*w)).collect::<Vec<_>>()).unwrap();
            let mut rng = crate::rng::Xoshiro::seeded(seed);
            for slot in [0, compiled.total().get() - 1] {
                prop_assert!(compiled.at(slot) < weights.len());
            }
            prop_assert!((0..100).all(|_| compiled.draw(&mut rng) < weights.len()));
        }
    }
}
