//! The versioned set of resources, and the handle through which it is changed.
//!
//! Every effective change takes the next number of one counter. A resource carries the number of the change that last
//! altered it, a kind the highest of its resources' numbers and removals: that is the version that clients see.
//! Setting a resource to what it already is changes nothing, so nobody is sent anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::clients::Clients;
use super::resource::{Resource, Resources};
use super::status::ClientStatus;
use crate::ads::Kind;

/// An embedded control plane. Clones share everything; dropping the last one changes nothing for clients that are
/// still being served.
#[derive(Debug, Clone, Default)]
pub struct ControlPlane {
    pub(super) shared: Arc<Shared>,
}

/// What all streams of one control plane share.
#[derive(Debug)]
pub(super) struct Shared {
    resources: Mutex<Cache>,
    version: watch::Sender<u64>,
    pub(super) clients: Clients,
}

/// A change in progress: everything done through it becomes visible to clients at once.
#[derive(Debug)]
pub struct Edit<'a> {
    cache: &'a mut Cache,
    next: u64,
    effective: bool,
}

/// The resources by kind and name.
#[derive(Debug, Default)]
pub(super) struct Cache {
    version: u64,
    clusters: KindCache,
    endpoints: KindCache,
    listeners: KindCache,
    routes: KindCache,
}

/// The resources of one kind.
#[derive(Debug, Default)]
pub(super) struct KindCache {
    pub(super) version: u64,
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
}

/// A resource and the change that last altered it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) resource: Resource,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// A control plane without resources.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces resources, all of them in one step. Returns the version that holds them.
    pub fn set(&self, resources: impl Resources) -> u64 {
        self.edit(|edit| edit.set(resources))
    }

    /// Removes a resource. Removing what is not there changes nothing.
    pub fn remove(&self, kind: Kind, name: &str) -> u64 {
        self.edit(|edit| edit.remove(kind, name))
    }

    /// Makes the given resources the only ones, in one step.
    pub fn replace(&self, resources: impl Resources) -> u64 {
        self.edit(|edit| edit.replace(resources))
    }

    /// Makes several changes in one step: no client ever sees a part of them.
    pub fn edit(&self, change: impl FnOnce(&mut Edit<'_>)) -> u64 {
        let version = {
            let mut cache = self.shared.resources();
            let next = cache.version + 1;
            let mut edit = Edit { cache: &mut cache, next, effective: false };
            change(&mut edit);
            if edit.effective {
                cache.version = next;
            }
            cache.version
        };
        // Readers compare with what they saw last, so publishing an equal number wakes nobody.
        self.shared.version.send_if_modified(|seen| {
            let newer = *seen < version;
            *seen = (*seen).max(version);
            newer
        });
        version
    }

    /// The number of the last effective change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.resources().version
    }

    /// The resources of one kind, by name.
    #[must_use]
    pub fn resources(&self, kind: Kind) -> Vec<Resource> {
        self.shared.resources().kind(kind).entries.values().map(|entry| entry.resource.clone()).collect()
    }

    /// Every connected client: what it asked for, got, acknowledged and refused.
    #[must_use]
    pub fn status(&self) -> Vec<ClientStatus> {
        self.shared.clients.status(&self.shared.resources())
    }

    /// Waits until the connected clients satisfy a condition. Bound the wait from outside.
    ///
    /// Cancel safe: the wait has no effect.
    pub async fn wait_for(&self, mut condition: impl FnMut(&[ClientStatus]) -> bool) {
        let mut version = self.shared.version.subscribe();
        let mut events = self.shared.clients.events();
        loop {
            version.borrow_and_update();
            events.borrow_and_update();
            if condition(&self.status()) {
                return;
            }
            // Both senders live in `self.shared`, so neither can end while we borrow it.
            tokio::select! {
                _ = version.changed() => {}
                _ = events.changed() => {}
            }
        }
    }

    /// Waits until every connected client (of at least `clients`) has answered everything that there is for it.
    ///
    /// Cancel safe: the wait has no effect.
    pub async fn settled(&self, clients: usize) {
        self.wait_for(|status| status.len() >= clients && status.iter().all(ClientStatus::is_settled)).await;
    }
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        Self { resources: Mutex::default(), version: watch::Sender::new(0), clients: Clients::default() }
    }
}

impl Shared {
    pub(super) fn resources(&self) -> MutexGuard<'_, Cache> {
        // The critical sections only move values between maps, so a poisoned lock still guards a consistent cache.
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

// === impl Edit ===

impl Edit<'_> {
    /// Adds or replaces resources.
    pub fn set(&mut self, resources: impl Resources) {
        for resource in resources.into_resources() {
            self.set_one(resource);
        }
    }

    /// Removes a resource.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        let cache = self.cache.kind_mut(kind);
        if cache.entries.remove(name).is_some() {
            cache.version = self.next;
            self.effective = true;
        }
    }

    /// Makes the given resources the only ones.
    pub fn replace(&mut self, resources: impl Resources) {
        let resources = resources.into_resources();
        for kind in Kind::ALL {
            let gone: Vec<Arc<str>> = self
                .cache
                .kind(kind)
                .entries
                .keys()
                .filter(|name| !resources.iter().any(|new| new.kind() == kind && new.name() == *name))
                .cloned()
                .collect();
            for name in gone {
                self.remove(kind, &name);
            }
        }
        self.set(resources);
    }

    fn set_one(&mut self, resource: Resource) {
        let cache = self.cache.kind_mut(resource.kind());
        if cache.entries.get(resource.name()).is_some_and(|entry| entry.resource == resource) {
            return;
        }
        cache.version = self.next;
        self.effective = true;
        cache.entries.insert(Arc::clone(resource.name()), Entry { version: self.next, resource });
    }
}

// === impl Cache ===

impl Cache {
    pub(super) fn kind(&self, kind: Kind) -> &KindCache {
        match kind {
            Kind::Cluster => &self.clusters,
            Kind::Endpoints => &self.endpoints,
            Kind::Listener => &self.listeners,
            Kind::Route => &self.routes,
        }
    }

    fn kind_mut(&mut self, kind: Kind) -> &mut KindCache {
        match kind {
            Kind::Cluster => &mut self.clusters,
            Kind::Endpoints => &mut self.endpoints,
            Kind::Listener => &mut self.listeners,
            Kind::Route => &mut self.routes,
        }
    }
}
