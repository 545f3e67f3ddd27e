//! The targets that are open, shared by those who open them and the driver that serves them.
//!
//! A target is open while somebody holds a subscription to it. Opening and closing never wait: they change this table
//! and wake the driver, which takes the table as it is then, whatever the number of changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{ClientSnapshot, ServerSnapshot, SnapshotCell, Subscription};
use tokio::sync::Notify;

use super::engine::first_resolution;
use crate::resolve::{Resolver, Root};

/// The open targets of one source.
#[derive(Debug)]
pub(crate) struct Targets {
    resolver: Resolver,
    /// Protects the two tables and nothing else; held for a look-up, never across an await.
    open: Mutex<Open>,
    wake: Notify,
}

/// Every open target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open {
    pub(crate) clients: BTreeMap<Arc<str>, Entry<ClientSnapshot>>,
    pub(crate) servers: BTreeMap<Address, Entry<ServerSnapshot>>,
}

/// One open target.
#[derive(Debug)]
pub(crate) struct Entry<S> {
    pub(crate) root: Root,
    pub(crate) cell: Arc<SnapshotCell<S>>,
    users: usize,
}

/// Closes a target when its last holder is dropped.
struct Guard<K: Key> {
    targets: Arc<Targets>,
    key: K,
}

/// What a target is opened by.
trait Key: Ord + Clone + Send + Sync + 'static {
    type Snapshot: Send + Sync + 'static;

    fn table(open: &mut Open) -> &mut BTreeMap<Self, Entry<Self::Snapshot>>;

    fn root(&self, resolver: &Resolver) -> Root;
}

// === impl Targets ===

impl Targets {
    pub(crate) fn new(resolver: Resolver) -> Arc<Self> {
        Arc::new(Self { resolver, open: Mutex::default(), wake: Notify::new() })
    }

    pub(crate) fn client(self: &Arc<Self>, target: &str) -> Subscription<ClientSnapshot> {
        self.subscribe(Arc::<str>::from(target))
    }

    pub(crate) fn server(self: &Arc<Self>, address: &Address) -> Subscription<ServerSnapshot> {
        self.subscribe(address.clone())
    }

    /// The table as it is now.
    pub(crate) fn open(&self) -> Open {
        self.lock().clone()
    }

    /// Waits until the table has changed since the last wait. Cancel safe: a change is never lost.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    fn subscribe<K: Key>(self: &Arc<Self>, key: K) -> Subscription<K::Snapshot> {
        let mut open = self.lock();
        let entry = K::table(&mut open).entry(key.clone()).or_insert_with(|| {
            let root = key.root(&self.resolver);
            let cell = SnapshotCell::new(first_resolution(&root, self.resolver.node()));
            Entry { root, cell, users: 0 }
        });
        entry.users += 1;
        let cell = entry.cell.clone();
        drop(open);
        self.wake.notify_one();
        Subscription::new(cell, Guard { targets: self.clone(), key })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Entries are inserted, counted and removed whole, so the tables are valid after any panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Guard ===

impl<K: Key> Drop for Guard<K> {
    fn drop(&mut self) {
        let mut open = self.targets.lock();
        let table = K::table(&mut open);
        if let Some(entry) = table.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
                table.remove(&self.key);
                drop(open);
                self.targets.wake.notify_one();
            }
        }
    }
}

// === impl Entry ===

impl<S> Clone for Entry<S> {
    fn clone(&self) -> Self {
        let Self { root, cell, users } = self;
        Self { root: root.clone(), cell: cell.clone(), users: *users }
    }
}

// === impl Key ===

impl Key for Arc<str> {
    type Snapshot = ClientSnapshot;

    fn table(open: &mut Open) -> &mut BTreeMap<Self, Entry<ClientSnapshot>> {
        &mut open.clients
    }

    fn root(&self, resolver: &Resolver) -> Root {
        resolver.client(self)
    }
}

impl Key for Address {
    type Snapshot = ServerSnapshot;

    fn table(open: &mut Open) -> &mut BTreeMap<Self, Entry<ServerSnapshot>> {
        &mut open.servers
    }

    fn root(&self, resolver: &Resolver) -> Root {
        resolver.server(self)
    }
}
