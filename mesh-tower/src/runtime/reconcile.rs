//! What a new list of endpoints changes: survivors keep their runtime (connections, counters), newcomers get one,
//! the rest is left out. Pure: it neither opens nor closes anything itself.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::config::endpoints::{Address, EndpointsConfig};

/// The endpoints of a cluster after a change.
#[derive(Debug)]
pub(crate) struct Reconciled<E> {
    /// By address, each once.
    pub(crate) by_address: HashMap<Address, Arc<E>>,
    /// By position in [`EndpointsConfig::iter`].
    pub(crate) in_order: Vec<Arc<E>>,
}

/// Takes what survives from `old`, and makes what is new.
pub(crate) fn reconcile<E>(
    old: &HashMap<Address, Arc<E>>,
    new: &EndpointsConfig,
    mut make: impl FnMut(&Address) -> Arc<E>,
) -> Reconciled<E> {
    let mut by_address: HashMap<Address, Arc<E>> = HashMap::with_capacity(old.len());
    let mut in_order = Vec::new();
    for endpoint in new.iter() {
        let address = &endpoint.address;
        let runtime = by_address
            .entry(address.clone())
            .or_insert_with(|| old.get(address).cloned().unwrap_or_else(|| make(address)));
        in_order.push(runtime.clone());
    }
    Reconciled { by_address, in_order }
}

#[cfg(test)]
mod tests {
    use mesh_core::rng::{Rng as _, Xoshiro};
    use mesh_core::testing::{endpoints, loopback};

    use super::*;

    #[test]
    fn survivors_keep_their_runtime_whatever_the_change() {
        let mut rng = Xoshiro::seeded(11);
        let mut old: HashMap<Address, Arc<Address>> = HashMap::new();
        for _ in 0..200 {
            let ports: Vec<u16> = (1..=20).filter(|_| rng.below(2) == 1).collect();
            let mut made = 0;
            let next = reconcile(&old, &endpoints(ports.clone()), |address| {
                made += 1;
                Arc::new(address.clone())
            });
            let fresh = ports.iter().filter(|port| !old.contains_key(&loopback(**port))).count();
            assert_eq!((next.by_address.len(), made), (ports.len(), fresh));
            for (port, runtime) in ports.iter().zip(&next.in_order) {
                assert_eq!(**runtime, loopback(*port));
                if let Some(before) = old.get(&loopback(*port)) {
                    assert!(Arc::ptr_eq(before, runtime));
                }
            }
            old = next.by_address;
        }
    }

    #[test]
    fn an_address_that_is_listed_twice_has_one_runtime() {
        let next = reconcile(&HashMap::new(), &endpoints([1, 1, 2]), |address| Arc::new(address.clone()));
        assert_eq!((next.by_address.len(), next.in_order.len()), (2, 3));
        assert!(Arc::ptr_eq(&next.in_order[0], &next.in_order[1]));
    }
}
