//! The handle through which a control plane is changed and watched.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use super::cache::Cache;
use super::clients::Clients;
use super::node::Node;
use super::resource::{Resource, Resources};
use super::status::{ClientStatus, ResourceStatus};
use crate::ads::Kind;

/// An embedded control plane. Clones share everything; dropping the last one changes nothing for clients that are
/// still being served.
#[derive(Debug, Clone, Default)]
pub struct ControlPlane {
    pub(super) shared: Arc<Shared>,
}

/// What all streams of one control plane share.
pub(super) struct Shared {
    /// Never locked while a client's own lock is held.
    resources: RwLock<Cache>,
    version: watch::Sender<u64>,
    assign: RwLock<Arc<Assign>>,
    pub(super) clients: Clients,
}

/// Names the view of a node.
type Assign = dyn Fn(&Node) -> Option<String> + Send + Sync;

/// A change in progress: everything done through it becomes visible to clients at once.
#[derive(Debug)]
pub struct Edit<'a> {
    cache: &'a mut Cache,
    next: u64,
    effective: &'a mut bool,
    view: Option<Arc<str>>,
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

    /// Makes the given resources the only ones that everybody sees, in one step.
    pub fn replace(&self, resources: impl Resources) -> u64 {
        self.edit(|edit| edit.replace(resources))
    }

    /// Makes several changes in one step: no client ever sees a part of them.
    pub fn edit(&self, change: impl FnOnce(&mut Edit<'_>)) -> u64 {
        let version = {
            let mut cache = self.shared.resources.write().unwrap_or_else(PoisonError::into_inner);
            let next = cache.version + 1;
            let mut effective = false;
            change(&mut Edit { cache: &mut cache, next, effective: &mut effective, view: None });
            if effective {
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

    /// Chooses the view of each client by its node, instead of by its `node.cluster`; concerns streams that open later.
    ///
    /// A client sees the resources of its view ([`Edit::view`]) and, where that has none of the kind and name, those of
    /// everybody. A name that no resource was ever put under is a view like any other: it hides nothing.
    pub fn assign_views(&self, view: impl Fn(&Node) -> Option<String> + Send + Sync + 'static) {
        *self.shared.assign.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// The number of the last effective change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.resources().version
    }

    /// The resources of one kind that everybody sees, by name.
    #[must_use]
    pub fn resources(&self, kind: Kind) -> Vec<Resource> {
        self.shared.resources().view(None).all(kind).map(|entry| entry.resource.clone()).collect()
    }

    /// The resources of one kind that the clients of a view see, in no order.
    #[must_use]
    pub fn resources_of_view(&self, view: &str, kind: Kind) -> Vec<Resource> {
        self.shared.resources().view(Some(view)).all(kind).map(|entry| entry.resource.clone()).collect()
    }

    /// Every connected client: what it asked for, got, acknowledged and refused.
    #[must_use]
    pub fn status(&self) -> Vec<ClientStatus> {
        self.shared.clients.status(&self.shared.resources())
    }

    /// Which version of which resource a client has of a kind; empty for a client that is gone.
    #[must_use]
    pub fn resource_status(&self, stream: u64, kind: Kind) -> Vec<ResourceStatus> {
        self.shared.clients.resource_status(stream, kind)
    }

    /// Waits until the connected clients satisfy a condition. Bound the wait from outside.
    ///
    /// Cancel safe: the wait has no effect.
    pub async fn wait_for(&self, mut condition: impl FnMut(&[ClientStatus]) -> bool) {
        self.until(|| condition(&self.status())).await;
    }

    /// Waits until every connected client (of at least `clients`) has answered everything that there is for it.
    ///
    /// Cancel safe: the wait has no effect.
    pub async fn settled(&self, clients: usize) {
        self.until(|| self.shared.clients.are_settled(clients, &self.shared.resources())).await;
    }

    async fn until(&self, mut condition: impl FnMut() -> bool) {
        let mut version = self.shared.version.subscribe();
        let mut events = self.shared.clients.events();
        loop {
            version.borrow_and_update();
            events.borrow_and_update();
            if condition() {
                return;
            }
            // Both senders live in `self.shared`, so neither can end while we borrow it.
            tokio::select! {
                _ = version.changed() => {}
                _ = events.changed() => {}
            }
        }
    }
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        let by_cluster = |node: &Node| (!node.cluster.is_empty()).then(|| node.cluster.clone());
        Self {
            resources: RwLock::default(),
            version: watch::Sender::new(0),
            assign: RwLock::new(Arc::new(by_cluster)),
            clients: Clients::default(),
        }
    }
}

impl Shared {
    pub(super) fn resources(&self) -> RwLockReadGuard<'_, Cache> {
        // The critical sections only move values between maps, so a poisoned lock still guards a consistent cache.
        self.resources.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn view_of(&self, node: &Node) -> Option<Arc<str>> {
        let assign = Arc::clone(&self.assign.read().unwrap_or_else(PoisonError::into_inner));
        assign(node).map(Arc::from)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resources: _, version, assign: _, clients } = self;
        f.debug_struct("Shared").field("version", version).field("clients", clients).finish_non_exhaustive()
    }
}

// === impl Edit ===

impl Edit<'_> {
    /// The same change, continued in the resources that only clients of a view see.
    pub fn view(&mut self, name: &str) -> Edit<'_> {
        Edit { cache: self.cache, next: self.next, effective: self.effective, view: Some(name.into()) }
    }

    /// Adds or replaces resources.
    pub fn set(&mut self, resources: impl Resources) {
        for resource in resources.into_resources() {
            let kind = self.cache.layer_mut(self.view.as_ref()).get_mut(resource.kind());
            *self.effective |= kind.set(self.next, resource);
        }
    }

    /// Removes a resource.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        let kind = self.cache.layer_mut(self.view.as_ref()).get_mut(kind);
        *self.effective |= kind.remove(self.next, name);
    }

    /// Makes the given resources the only ones.
    pub fn replace(&mut self, resources: impl Resources) {
        let resources = resources.into_resources();
        let kept: BTreeSet<_> = resources.iter().map(|r| (r.kind(), Arc::clone(r.name()))).collect();
        for kind in Kind::ALL {
            let cache = self.cache.layer_mut(self.view.as_ref()).get_mut(kind);
            let gone: Vec<_> =
                cache.names().filter(|name| !kept.contains(&(kind, Arc::clone(name)))).cloned().collect();
            for name in gone {
                self.remove(kind, &name);
            }
        }
        self.set(resources);
    }
}
