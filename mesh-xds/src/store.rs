//! The last good value and the last error of every resource that is wanted.
//!
//! Reference: gRFC A40 (states), A46 (a refused resource leaves the last good one in use), A88 (data errors keep what is
//! cached, unless the bootstrap says `fail_on_data_errors`; transient errors always keep it).
//!
//! An equal value never replaces the one that is there, so that what did not change stays the same `Arc`.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::config::cluster::ClusterConfig;
use mesh_core::config::endpoints::EndpointsConfig;
use mesh_core::config::listener::{ListenerConfig, RouteSource};
use mesh_core::route::RouteTable;
use mesh_core::snapshot::ConfigProblem;

use crate::ads::{Kind, Name};
use crate::graph::{Key, Role};
use crate::outage::Outage;
use crate::resource::Checked;

/// Every resource that is wanted, by kind and name.
#[derive(Debug, Default)]
pub(crate) struct Store {
    listeners: Slots<StoredListener>,
    routes: Slots<RouteTable>,
    clusters: Slots<ClusterConfig>,
    endpoints: Slots<EndpointsConfig>,
}

/// What a refused or deleted resource does to the value that is cached (gRFC A88).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDataError {
    /// It stays in use.
    Keep,
    /// It is dropped: `fail_on_data_errors`.
    Drop,
}

/// A listener, with the routes that are written within it compiled.
#[derive(Debug)]
pub(crate) struct StoredListener {
    pub(crate) config: Arc<ListenerConfig>,
    /// One for each of [`ListenerConfig::http`].
    pub(crate) routes: Vec<ListenerRoutes>,
}

/// Where the routes of one connection manager are.
#[derive(Debug, Clone)]
pub(crate) enum ListenerRoutes {
    Inline(Arc<RouteTable>),
    Named(Name),
}

/// Hashed: a look-up in a large mesh touches one name instead of the names on the way to it.
type Slots<T> = HashMap<Name, Slot<T>>;

/// What is known about one resource.
#[derive(Debug)]
struct Slot<T> {
    good: Option<Arc<T>>,
    trouble: Option<ConfigProblem>,
}

// === impl Store ===

impl Store {
    /// Makes room for a resource; it is pending until something comes.
    pub(crate) fn want(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Listener => want(&mut self.listeners, name),
            Kind::Route => want(&mut self.routes, name),
            Kind::Cluster => want(&mut self.clusters, name),
            Kind::Endpoints => want(&mut self.endpoints, name),
        }
    }

    /// Forgets a resource that nobody wants any more.
    pub(crate) fn forget(&mut self, kind: Kind, name: &Name) {
        match kind {
            Kind::Listener => _ = self.listeners.remove(name),
            Kind::Route => _ = self.routes.remove(name),
            Kind::Cluster => _ = self.clusters.remove(name),
            Kind::Endpoints => _ = self.endpoints.remove(name),
        }
    }

    /// A valid value came. True where that makes a difference to anybody.
    pub(crate) fn put(&mut self, name: &Name, value: Checked) -> bool {
        match value {
            Checked::Listener(config) => put(
                self.listeners.get_mut(name),
                |stored| Arc::ptr_eq(&stored.config, &config) || stored.config == config,
                || StoredListener::new(config.clone()),
            ),
            Checked::Route(config) => put(
                self.routes.get_mut(name),
                |stored| Arc::ptr_eq(stored.config(), &config) || *stored.config() == config,
                || RouteTable::compile(config.clone()),
            ),
            Checked::Cluster(config) => put_shared(self.clusters.get_mut(name), &config),
            Checked::Endpoints(config) => put_shared(self.endpoints.get_mut(name), &config),
        }
    }

    /// What a resource names, once each and in its order: a listener's routes, a client route's clusters, a cluster's
    /// endpoints. One that is not there names nothing.
    pub(crate) fn references(&self, (role, name): &Key) -> Vec<Key> {
        let clusters = |table: &RouteTable| {
            table.clusters().iter().map(|name| (Role::Cluster, name.clone())).collect::<Vec<_>>()
        };
        match role {
            Role::Listener => {
                let Ok(listener) = self.listener(name) else { return Vec::new() };
                let is_server = matches!(*listener.config, ListenerConfig::Server(_));
                let role = if is_server { Role::ServerRoute } else { Role::Route };
                let named = listener.routes.iter().flat_map(|routes| match routes {
                    ListenerRoutes::Named(name) => vec![(role, name.clone())],
                    ListenerRoutes::Inline(_) if is_server => Vec::new(),
                    ListenerRoutes::Inline(table) => clusters(table),
                });
                named.collect()
            }
            Role::Route => self.route(name).map_or_else(|_| Vec::new(), |table| clusters(table)),
            Role::Cluster => {
                let service = self.cluster(name).ok().and_then(|cluster| cluster.eds_service());
                service.map(|name| (Role::Endpoints, name.clone())).into_iter().collect()
            }
            Role::ServerRoute | Role::Endpoints => Vec::new(),
        }
    }

    /// A resource was refused, deleted, or never came. True where that makes a difference to anybody.
    pub(crate) fn fail(
        &mut self,
        kind: Kind,
        name: &Name,
        problem: ConfigProblem,
        on_data_error: OnDataError,
    ) -> bool {
        match kind {
            Kind::Listener => fail(self.listeners.get_mut(name), problem, on_data_error),
            Kind::Route => fail(self.routes.get_mut(name), problem, on_data_error),
            Kind::Cluster => fail(self.clusters.get_mut(name), problem, on_data_error),
            Kind::Endpoints => fail(self.endpoints.get_mut(name), problem, on_data_error),
        }
    }

    /// Control planes cannot be reached: an error for all of theirs that is not cached and not known otherwise.
    pub(crate) fn handle_down(&mut self, why: &Outage, is_of: impl Fn(Kind, &str) -> bool) -> bool {
        let why = &why.problem();
        let changed = [
            unreachable(&mut self.listeners, why, |name| is_of(Kind::Listener, name)),
            unreachable(&mut self.routes, why, |name| is_of(Kind::Route, name)),
            unreachable(&mut self.clusters, why, |name| is_of(Kind::Cluster, name)),
            unreachable(&mut self.endpoints, why, |name| is_of(Kind::Endpoints, name)),
        ];
        changed.contains(&true)
    }

    /// Whether the control plane deleted a resource whose value stays in use (gRFC A53).
    pub(crate) fn is_deleted(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Listener => is_deleted(&self.listeners, name),
            Kind::Route => is_deleted(&self.routes, name),
            Kind::Cluster => is_deleted(&self.clusters, name),
            Kind::Endpoints => is_deleted(&self.endpoints, name),
        }
    }

    /// Whether there is a good value.
    pub(crate) fn is_cached(&self, kind: Kind, name: &str) -> bool {
        self.problem(kind, name).is_none()
    }

    /// Whether there is a good value for each resource of a kind that is wanted.
    pub(crate) fn is_whole(&self, kind: Kind) -> bool {
        match kind {
            Kind::Listener => self.listeners.values().all(|slot| slot.good.is_some()),
            Kind::Route => self.routes.values().all(|slot| slot.good.is_some()),
            Kind::Cluster => self.clusters.values().all(|slot| slot.good.is_some()),
            Kind::Endpoints => self.endpoints.values().all(|slot| slot.good.is_some()),
        }
    }

    /// Whether there is a good value, or an answer that there is none (gRFC A71: that counts as cached).
    pub(crate) fn is_known(&self, kind: Kind, name: &str) -> bool {
        !matches!(
            self.problem(kind, name),
            Some(ConfigProblem::Pending | ConfigProblem::Unreachable(_) | ConfigProblem::Unresolved(_))
        )
    }

    /// Why there is no good value, if there is none.
    fn problem(&self, kind: Kind, name: &str) -> Option<ConfigProblem> {
        match kind {
            Kind::Listener => self.listener(name).err(),
            Kind::Route => self.route(name).err(),
            Kind::Cluster => self.cluster(name).err(),
            Kind::Endpoints => self.endpoints(name).err(),
        }
    }

    pub(crate) fn listener(&self, name: &str) -> Result<&Arc<StoredListener>, ConfigProblem> {
        find(&self.listeners, name)
    }

    pub(crate) fn route(&self, name: &str) -> Result<&Arc<RouteTable>, ConfigProblem> {
        find(&self.routes, name)
    }

    pub(crate) fn cluster(&self, name: &str) -> Result<&Arc<ClusterConfig>, ConfigProblem> {
        find(&self.clusters, name)
    }

    pub(crate) fn endpoints(&self, name: &str) -> Result<&Arc<EndpointsConfig>, ConfigProblem> {
        find(&self.endpoints, name)
    }
}

// === impl StoredListener ===

impl StoredListener {
    fn new(config: Arc<ListenerConfig>) -> Self {
        let routes = config.http().map(|http| match &http.routes {
            RouteSource::Rds(name) => ListenerRoutes::Named(name.clone()),
            RouteSource::Inline(routes) => {
                ListenerRoutes::Inline(Arc::new(RouteTable::compile(routes.clone())))
            }
        });
        Self { routes: routes.collect(), config }
    }
}

fn want<T>(slots: &mut Slots<T>, name: &Name) {
    slots.entry(name.clone()).or_insert(Slot { good: None, trouble: None });
}

fn is_deleted<T>(slots: &Slots<T>, name: &str) -> bool {
    slots.get(name).is_some_and(|slot| {
        slot.good.is_some() && slot.trouble.as_ref() == Some(&ConfigProblem::DoesNotExist)
    })
}

fn find<'a, T>(slots: &'a Slots<T>, name: &str) -> Result<&'a Arc<T>, ConfigProblem> {
    match slots.get(name) {
        None => Err(ConfigProblem::Pending),
        Some(Slot { good: Some(value), .. }) => Ok(value),
        Some(Slot { good: None, trouble }) => Err(trouble.clone().unwrap_or(ConfigProblem::Pending)),
    }
}

fn put<T>(slot: Option<&mut Slot<T>>, is_equal: impl FnOnce(&T) -> bool, make: impl FnOnce() -> T) -> bool {
    let Some(slot) = slot else { return false };
    slot.trouble = None;
    if slot.good.as_deref().is_some_and(is_equal) {
        return false;
    }
    slot.good = Some(Arc::new(make()));
    true
}

fn put_shared<T: PartialEq>(slot: Option<&mut Slot<T>>, value: &Arc<T>) -> bool {
    let Some(slot) = slot else { return false };
    slot.trouble = None;
    // What was not judged again is the same value.
    if slot.good.as_ref().is_some_and(|good| Arc::ptr_eq(good, value) || good == value) {
        return false;
    }
    slot.good = Some(value.clone());
    true
}

fn fail<T>(slot: Option<&mut Slot<T>>, problem: ConfigProblem, on_data_error: OnDataError) -> bool {
    let Some(slot) = slot else { return false };
    let dropped = match on_data_error {
        OnDataError::Keep => false,
        OnDataError::Drop => slot.good.take().is_some(),
    };
    let is_deleted = slot.good.is_some() && slot.trouble == Some(ConfigProblem::DoesNotExist);
    if is_deleted && matches!(problem, ConfigProblem::ReceivedError(_)) {
        return dropped; // An error instead of a value does not bring back what was deleted.
    }
    let before = slot.trouble.replace(problem);
    // An error beside a value that stays in use concerns nobody's requests.
    dropped || (slot.good.is_none() && before != slot.trouble)
}

fn unreachable<T>(slots: &mut Slots<T>, why: &ConfigProblem, is_of: impl Fn(&str) -> bool) -> bool {
    let mut changed = false;
    for (_, slot) in slots.iter_mut().filter(|(name, slot)| slot.good.is_none() && is_of(name)) {
        match &slot.trouble {
            Some(before) if before == why => {}
            None
            | Some(ConfigProblem::Pending | ConfigProblem::Unreachable(_) | ConfigProblem::Unresolved(_)) => {
                slot.trouble = Some(why.clone());
                changed = true;
            }
            Some(
                ConfigProblem::DoesNotExist
                | ConfigProblem::Invalid(_)
                | ConfigProblem::ReceivedError(_)
                | ConfigProblem::Empty,
            ) => {}
        }
    }
    changed
}
