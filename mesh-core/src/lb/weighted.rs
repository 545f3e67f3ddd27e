//! Weights compiled for lookup: `total` slots, of which entry `i` owns as many as its weight.

use std::num::NonZeroU32;

use crate::rng::Rng;

/// Entries by weight; never empty.
#[derive(Debug)]
pub(super) struct Weighted {
    total: NonZeroU32,
    /// End of each entry's slots; none where every entry owns one slot.
    ends: Option<Box<[u32]>>,
}

impl Weighted {
    /// Compiles weights; none of no weights. A sum above `u32` is scaled down, each entry keeping at least a slot.
    pub(super) fn new(weights: &[NonZeroU32]) -> Option<Self> {
        let first = weights.first()?;
        if weights.iter().all(|w| w == first) {
            let total = NonZeroU32::new(u32::try_from(weights.len()).ok()?)?;
            return Some(Self { total, ends: None });
        }
        let mut shift = 0;
        loop {
            let mut sum = 0u64;
            let ends = weights.iter().map(|w| {
                sum += u64::from((w.get() >> shift).max(1));
                u32::try_from(sum)
            });
            match ends.collect::<Result<Box<[u32]>, _>>() {
                Ok(ends) => {
                    let total = NonZeroU32::new(*ends.last()?)?;
                    return Some(Self { total, ends: Some(ends) });
                }
                Err(_) if shift < u32::BITS - 1 => shift += 1,
                Err(_) => return None, // more than four billion entries
            }
        }
    }

    /// How many slots there are.
    pub(super) fn total(&self) -> NonZeroU32 {
        self.total
    }

    /// Whether every entry owns one slot.
    pub(super) fn is_even(&self) -> bool {
        self.ends.is_none()
    }

    /// Whose slot it is.
    pub(super) fn at(&self, slot: u32) -> usize {
        match &self.ends {
            None => slot as usize,
            Some(ends) => ends.partition_point(|end| *end <= slot),
        }
    }

    /// An entry at random.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> usize {
        self.at(rng.below(self.total.get().into()) as u32)
    }
}
