//! What the open targets reach: listener → routes → clusters → endpoints, by mark and sweep.
//!
//! Reference: gRFC A74 (one watcher of everything that a target needs). What is no longer reached is no longer
//! subscribed to, and forgotten. A resource that is not there reaches nothing.

use std::collections::BTreeSet;

use crate::ads::{Kind, Name};
use crate::store::{ListenerRoutes, Store};

/// One resource.
pub(crate) type Key = (Kind, Name);

/// The resources that are subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    live: BTreeSet<Key>,
}

/// What changed between two sweeps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) added: Vec<Key>,
    pub(crate) removed: Vec<Key>,
}

// === impl Graph ===

impl Graph {
    /// Marks what `roots` reach, and sweeps the rest.
    pub(crate) fn sweep(&mut self, roots: impl Iterator<Item = Key>, store: &Store) -> Swept {
        let mut marked = BTreeSet::new();
        let mut open: Vec<Key> = roots.collect();
        while let Some(key) = open.pop() {
            if !marked.contains(&key) {
                references(&key, store, &mut open);
                marked.insert(key);
            }
        }
        let added = marked.difference(&self.live).cloned().collect();
        let removed = self.live.difference(&marked).cloned().collect();
        self.live = marked;
        Swept { added, removed }
    }
}

fn references((kind, name): &Key, store: &Store, found: &mut Vec<Key>) {
    let clusters =
        |names: &[Name]| names.iter().map(|name| (Kind::Cluster, name.clone())).collect::<Vec<_>>();
    match kind {
        Kind::Listener => {
            for routes in store.listener(name).into_iter().flat_map(|listener| &listener.routes) {
                match routes {
                    ListenerRoutes::Named(name) => found.push((Kind::Route, name.clone())),
                    ListenerRoutes::Inline(table) => found.extend(clusters(table.clusters())),
                }
            }
        }
        Kind::Route => {
            found.extend(store.route(name).into_iter().flat_map(|table| clusters(table.clusters())))
        }
        Kind::Cluster => {
            let service = store.cluster(name).ok().and_then(|cluster| cluster.eds_service());
            found.extend(service.map(|name| (Kind::Endpoints, name.clone())));
        }
        Kind::Endpoints => {}
    }
}
