//! The last good value and the last error of every resource that is wanted.
//!
//! Reference: gRFC A40 (states), A46 (a refused resource leaves the last good one in use), A88 (data errors keep what is
//! cached, unless the bootstrap says `fail_on_data_errors`; transient errors always keep it).
//!
//! An equal value never replaces the one that is there, so that what did not change stays the same `Arc`.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::config::cluster::ClusterConfig;
use mesh_core::config::endpoints::EndpointsConfig;
use mesh_core::config::listener::{ListenerConfig, RouteSource};
use mesh_core::route::RouteTable;
use mesh_core::snapshot::ConfigProblem;

use crate::ads::{Kind, Name};
use crate::graph::Key;
use crate::resource::Checked;

/// Every resource that is wanted, by kind and name.
#[derive(Debug)]
pub(crate) struct Store {
    listeners: Slots<StoredListener>,
    routes: Slots<RouteTable>,
    clusters: Slots<ClusterConfig>,
    endpoints: Slots<EndpointsConfig>,
    on_data_error: OnDataError,
    /// Why the control plane cannot be reached, while it cannot.
    down: Option<Arc<str>>,
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

type Slots<T> = BTreeMap<Name, Slot<T>>;

/// What is known about one resource.
#[derive(Debug)]
struct Slot<T> {
    good: Option<Arc<T>>,
    trouble: Option<ConfigProblem>,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(on_data_error: OnDataError) -> Self {
        Self {
            listeners: Slots::new(),
            routes: Slots::new(),
            clusters: Slots::new(),
            endpoints: Slots::new(),
            on_data_error,
            down: None,
        }
    }

    /// Makes room for a resource; it is pending until something comes.
    pub(crate) fn want(&mut self, kind: Kind, name: &Name) {
        let trouble = self.down.clone().map(ConfigProblem::Unreachable);
        match kind {
            Kind::Listener => want(&mut self.listeners, name, trouble),
            Kind::Route => want(&mut self.routes, name, trouble),
            Kind::Cluster => want(&mut self.clusters, name, trouble),
            Kind::Endpoints => want(&mut self.endpoints, name, trouble),
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

    /// What a resource names, once each and in its order: a listener's routes, a route's clusters, a cluster's
    /// endpoints. One that is not there names nothing.
    pub(crate) fn references(&self, (kind, name): &Key) -> Vec<Key> {
        let clusters = |table: &RouteTable| {
            table.clusters().iter().map(|name| (Kind::Cluster, name.clone())).collect::<Vec<_>>()
        };
        match kind {
            Kind::Listener => {
                let routes = self.listener(name).into_iter().flat_map(|listener| &listener.routes);
                let named = routes.flat_map(|routes| match routes {
                    ListenerRoutes::Named(name) => vec![(Kind::Route, name.clone())],
                    ListenerRoutes::Inline(table) => clusters(table),
                });
                named.collect()
            }
            Kind::Route => self.route(name).map_or_else(|_| Vec::new(), |table| clusters(table)),
            Kind::Cluster => {
                let service = self.cluster(name).ok().and_then(|cluster| cluster.eds_service());
                service.map(|name| (Kind::Endpoints, name.clone())).into_iter().collect()
            }
            Kind::Endpoints => Vec::new(),
        }
    }

    /// A resource was refused, deleted, or never came. True where that makes a difference to anybody.
    pub(crate) fn fail(&mut self, kind: Kind, name: &Name, problem: ConfigProblem) -> bool {
        let on_data_error = self.on_data_error;
        match kind {
            Kind::Listener => fail(self.listeners.get_mut(name), problem, on_data_error),
            Kind::Route => fail(self.routes.get_mut(name), problem, on_data_error),
            Kind::Cluster => fail(self.clusters.get_mut(name), problem, on_data_error),
            Kind::Endpoints => fail(self.endpoints.get_mut(name), problem, on_data_error),
        }
    }

    /// The control plane cannot be reached: an error for everything that is not cached and not known otherwise.
    pub(crate) fn handle_down(&mut self, why: &Arc<str>) -> bool {
        self.down = Some(why.clone());
        let changed = [
            unreachable(&mut self.listeners, why),
            unreachable(&mut self.routes, why),
            unreachable(&mut self.clusters, why),
            unreachable(&mut self.endpoints, why),
        ];
        changed.contains(&true)
    }

    /// The control plane answers.
    pub(crate) fn handle_up(&mut self) {
        self.down = None;
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

fn want<T>(slots: &mut Slots<T>, name: &Name, trouble: Option<ConfigProblem>) {
    slots.entry(name.clone()).or_insert(Slot { good: None, trouble });
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
    let before = slot.trouble.replace(problem);
    // An error beside a value that stays in use concerns nobody's requests.
    dropped || (slot.good.is_none() && before != slot.trouble)
}

fn unreachable<T>(slots: &mut Slots<T>, why: &Arc<str>) -> bool {
    let mut changed = false;
    for slot in slots.values_mut().filter(|slot| slot.good.is_none()) {
        match &slot.trouble {
            Some(ConfigProblem::Unreachable(before)) if before == why => {}
            None | Some(ConfigProblem::Pending | ConfigProblem::Unreachable(_)) => {
                slot.trouble = Some(ConfigProblem::Unreachable(why.clone()));
                changed = true;
            }
            Some(ConfigProblem::DoesNotExist | ConfigProblem::Invalid(_) | ConfigProblem::Empty) => {}
        }
    }
    changed
}
