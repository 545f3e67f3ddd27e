//! The endpoints of a cluster in their order, and what a new list changes: survivors keep their runtime (connections,
//! counters), newcomers get one, the rest is handed back. Neither opens nor closes anything itself.
//!
//! A list is compared with the one before from both ends; only what lies between is looked up, and what the two have in
//! common is shared. One endpoint that changes among 100,000 costs a comparison of two lists and one look-up.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use mesh_core::chunked::Chunked;
use mesh_core::config::endpoints::{Address, EndpointConfig, EndpointExtra, EndpointsConfig};

/// The endpoints of a cluster.
#[derive(Debug)]
pub(crate) struct Roster<E> {
    /// By position in [`EndpointsConfig::iter`].
    slots: Chunked<EndpointSlot<E>>,
    by_address: HashMap<Address, Held<E>>,
}

/// An endpoint at its position.
#[derive(Debug)]
pub(crate) struct EndpointSlot<E> {
    pub(crate) runtime: Arc<E>,
    pub(crate) extra: Option<Arc<EndpointExtra>>,
}

/// What a new list changed.
#[derive(Debug)]
pub(crate) struct Change<E> {
    /// The positions of the old list that were replaced.
    pub(crate) replaced: Range<usize>,
    /// How many positions they were replaced by.
    pub(crate) by: usize,
    /// Who is no longer there, to be dropped outside any lock.
    pub(crate) removed: Vec<Arc<E>>,
}

/// A runtime, and at how many positions it is.
#[derive(Debug)]
struct Held<E> {
    runtime: Arc<E>,
    places: usize,
}

// === impl Roster ===

impl<E> Roster<E> {
    pub(crate) fn slots(&self) -> &Chunked<EndpointSlot<E>> {
        &self.slots
    }

    /// Each endpoint once, in no order.
    pub(crate) fn runtimes(&self) -> impl Iterator<Item = &Arc<E>> {
        self.by_address.values().map(|held| &held.runtime)
    }

    /// Goes from the list that it has taken last to a new one.
    pub(crate) fn update(
        &mut self,
        old: &EndpointsConfig,
        new: &EndpointsConfig,
        mut make: impl FnMut(&Address) -> Arc<E>,
    ) -> Change<E> {
        let (old_len, new_len) = (self.slots.len(), new.iter().count());
        let from = old.iter().zip(new.iter()).take_while(|(a, b)| is_same_place(a, b)).count();
        let most = old_len.min(new_len).saturating_sub(from);
        let from_end = old.iter().rev().zip(new.iter().rev()).take(most);
        let kept_at_end = from_end.take_while(|(a, b)| is_same_place(a, b)).count();
        let (replaced, by) = (from..old_len - kept_at_end, new_len - from - kept_at_end);
        // In before out, so that who only moves is never gone.
        let come = new.iter().skip(from).take(by);
        let come: Vec<_> = come.map(|endpoint| self.enter(endpoint, &mut make)).collect();
        let gone = old.iter().skip(from).take(replaced.len());
        let removed = gone.filter_map(|endpoint| self.leave(&endpoint.address)).collect();
        self.slots.splice(replaced.clone(), come);
        Change { replaced, by, removed }
    }

    /// Gives each endpoint that `is_gone` names a fresh runtime. Returns the old ones.
    pub(crate) fn renew(
        &mut self,
        is_gone: impl Fn(&Arc<E>) -> bool,
        mut make: impl FnMut(&Address) -> Arc<E>,
    ) -> Vec<Arc<E>> {
        let mut renewed = HashMap::new();
        for (address, held) in self.by_address.iter_mut().filter(|(_, held)| is_gone(&held.runtime)) {
            let old = std::mem::replace(&mut held.runtime, make(address));
            renewed.insert(Arc::as_ptr(&old), (old, held.runtime.clone()));
        }
        if renewed.is_empty() {
            return Vec::new();
        }
        let fresh = |(position, slot): (usize, &EndpointSlot<E>)| {
            let (_, runtime) = renewed.get(&Arc::as_ptr(&slot.runtime))?;
            Some((position, EndpointSlot { runtime: runtime.clone(), extra: slot.extra.clone() }))
        };
        let places: Vec<_> = self.slots.iter().enumerate().filter_map(fresh).collect();
        for (position, slot) in places {
            self.slots.set(position, slot);
        }
        renewed.into_values().map(|(old, _)| old).collect()
    }

    fn enter(
        &mut self,
        endpoint: &EndpointConfig,
        make: &mut impl FnMut(&Address) -> Arc<E>,
    ) -> EndpointSlot<E> {
        let address = &endpoint.address;
        let held = self.by_address.entry(address.clone());
        let held = held.or_insert_with(|| Held { runtime: make(address), places: 0 });
        held.places += 1;
        EndpointSlot { runtime: held.runtime.clone(), extra: endpoint.extra.clone() }
    }

    fn leave(&mut self, address: &Address) -> Option<Arc<E>> {
        let held = self.by_address.get_mut(address)?;
        held.places -= 1;
        if held.places > 0 {
            return None;
        }
        self.by_address.remove(address).map(|held| held.runtime)
    }
}

impl<E> Default for Roster<E> {
    fn default() -> Self {
        Self { slots: Chunked::default(), by_address: HashMap::new() }
    }
}

// === impl EndpointSlot ===

impl<E> Clone for EndpointSlot<E> {
    fn clone(&self) -> Self {
        let Self { runtime, extra } = self;
        Self { runtime: runtime.clone(), extra: extra.clone() }
    }
}

/// Weight, health and locality are the picker's business.
fn is_same_place(a: &EndpointConfig, b: &EndpointConfig) -> bool {
    a.address == b.address && a.extra == b.extra
}

#[cfg(test)]
mod tests {
    use mesh_core::rng::{Rng as _, Xoshiro};
    use mesh_core::testing::{endpoints, loopback};

    use super::*;

    fn place(address: &Address) -> Arc<Address> {
        Arc::new(address.clone())
    }

    #[test]
    fn survivors_keep_their_runtime_whatever_the_change() {
        let mut rng = Xoshiro::seeded(11);
        let mut roster: Roster<Address> = Roster::default();
        let mut old_ports: Vec<u16> = Vec::new();
        for _ in 0..300 {
            let mut ports: Vec<u16> = (1..=200).filter(|_| rng.below(8) > 0).collect();
            if rng.below(4) == 0 {
                ports.rotate_left(rng.below(100) as usize);
            }
            let before: HashMap<Address, Arc<Address>> =
                roster.runtimes().map(|runtime| ((**runtime).clone(), runtime.clone())).collect();
            let mut made = 0;
            let change = roster.update(&endpoints(old_ports.clone()), &endpoints(ports.clone()), |address| {
                made += 1;
                place(address)
            });
            let fresh = ports.iter().filter(|port| !before.contains_key(&loopback(**port))).count();
            assert_eq!((roster.runtimes().count(), made), (ports.len(), fresh));
            assert_eq!(roster.slots().len(), ports.len());
            for (port, slot) in ports.iter().zip(roster.slots()) {
                assert_eq!(*slot.runtime, loopback(*port));
                if let Some(before) = before.get(&loopback(*port)) {
                    assert!(Arc::ptr_eq(before, &slot.runtime));
                }
            }
            let gone = old_ports.iter().filter(|port| !ports.contains(port)).count();
            assert_eq!(change.removed.len(), gone);
            assert_eq!(old_ports.len() - change.replaced.len() + change.by, ports.len());
            old_ports = ports;
        }
    }

    #[test]
    fn an_address_that_is_listed_twice_has_one_runtime_until_both_are_gone() {
        let mut roster = Roster::default();
        let lists = [endpoints([]), endpoints([1, 1, 2]), endpoints([2, 1]), endpoints([2])];
        let change = roster.update(&lists[0], &lists[1], place);
        assert_eq!((roster.runtimes().count(), roster.slots().len(), change.removed.len()), (2, 3, 0));
        assert!(Arc::ptr_eq(&roster.slots()[0].runtime, &roster.slots()[1].runtime));
        let one = roster.slots()[0].runtime.clone();
        assert_eq!(roster.update(&lists[1], &lists[2], place).removed.len(), 0);
        assert!(Arc::ptr_eq(&roster.slots()[1].runtime, &one));
        let gone = roster.update(&lists[2], &lists[3], place).removed;
        assert!(gone.len() == 1 && Arc::ptr_eq(&gone[0], &one));
    }

    #[test]
    fn one_of_many_that_changes_leaves_the_places_of_the_others_alone() {
        let mut roster = Roster::default();
        let (before, after) =
            (endpoints(1..=1000), endpoints((1..=1000).map(|p| if p == 500 { 2000 } else { p })));
        roster.update(&endpoints([]), &before, place);
        let shared = roster.slots().clone();
        let change = roster.update(&before, &after, place);
        assert_eq!((change.replaced, change.by, change.removed.len()), (499..500, 1, 1));
        assert_eq!(roster.slots().unshared(&shared).len(), 16, "one chunk");
    }

    #[test]
    fn who_is_renewed_is_renewed_at_every_place() {
        let mut roster = Roster::default();
        roster.update(&endpoints([]), &endpoints([1, 2, 1]), place);
        let gone = roster.renew(|runtime| **runtime == loopback(1), place);
        assert_eq!(gone.len(), 1);
        let slots = roster.slots();
        assert!(
            !Arc::ptr_eq(&slots[0].runtime, &gone[0]) && Arc::ptr_eq(&slots[0].runtime, &slots[2].runtime)
        );
    }
}
