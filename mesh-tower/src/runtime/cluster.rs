//! One cluster: its permits, its endpoints, and the picker that the data path reads.
//!
//! ```text
//! connectivity change ─┐
//! timer of a priority ─┼─► refresh: states ► priorities ► connect what is wanted ► publish the picker ► wake who waits
//! new configuration ───┘
//! ```
//! Connections are opened when the cluster is first used, to every endpoint of the priorities that are wanted, at most
//! [`MAX_CONNECTING`] at a time (as gRPC's round robin does). Only READY endpoints are picked; failed ones back off in
//! the background.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use mesh_core::breaker::{Permit, Permits};
use mesh_core::chunked::Chunked;
use mesh_core::config::cluster::{ClusterConfig, UpstreamProtocol};
use mesh_core::config::endpoints::{Address, EndpointsConfig};
use mesh_core::lb::{Connectivity, EndpointIx, EndpointState, Picker, Priorities, View};
use mesh_core::request::RequestKind;
use mesh_core::snapshot::ResolvedCluster;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::endpoint::{EndpointRuntime, Link};
use super::registry::{Generation, Runtime};
use super::rng::ThreadRng;
use super::roster::{self, Change, Roster};
use crate::tls::client::ClientTls;
use crate::transport::connect::ConnectionKey;
use crate::transport::error::ConnectError;
use crate::transport::pool::{ConnectionPermit, ConnectionPermits, EndpointPool, PoolSettings};
use crate::transport::task::Task;

/// Connection attempts of one cluster that may be under way at once, those of endpoints that failed not counted.
const MAX_CONNECTING: usize = 64;

/// The mutable side of a cluster.
pub(crate) struct ClusterRuntime {
    name: Arc<str>,
    permits: Arc<Permits>,
    table: ArcSwap<Table>,
    /// Wakes requests that wait for the next picker.
    published: Notify,
    /// Wakes the task that follows connectivity.
    wake: Arc<Notify>,
    /// Which kinds of requests have used the cluster: bit 0 gRPC, bit 1 other HTTP.
    used_by: AtomicU8,
    /// Configuration as last applied, and what belongs to it; also the lock that orders publications.
    state: Mutex<State>,
    driver: OnceLock<Task>,
    runtime: Arc<Runtime>,
}

/// What the data path reads: a picker, and the endpoints that its indexes mean.
pub(crate) struct Table {
    pub(crate) picker: Picker,
    pub(crate) endpoints: Chunked<EndpointSlot>,
}

/// An endpoint at its position.
pub(crate) type EndpointSlot = roster::EndpointSlot<EndpointRuntime>;

/// The connections that requests may travel over, by kind of request.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    grpc: ConnectionKey,
    http: ConnectionKey,
}

struct State {
    generation: Generation,
    config: Arc<ClusterConfig>,
    endpoints: Arc<EndpointsConfig>,
    keys: Keys,
    roster: Roster<EndpointRuntime>,
    /// By position, as last read; what changed since is announced by `wake`.
    states: Vec<EndpointState>,
    priorities: Priorities,
}

/// `max_connections` of the configuration that is current when a connection is opened.
struct ConnectionBudget {
    cluster: Weak<ClusterRuntime>,
}

// === impl ClusterRuntime ===

impl ClusterRuntime {
    pub(crate) fn new(config: &Arc<ClusterConfig>, keys: &Keys, runtime: &Arc<Runtime>) -> Arc<Self> {
        let none = Arc::new(EndpointsConfig::empty(config.name.clone()));
        let picker = View::new(config, &none, &[]).picker(None, &mut ThreadRng);
        let this = Arc::new(Self {
            name: config.name.clone(),
            permits: Permits::new(),
            table: ArcSwap::from_pointee(Table { picker, endpoints: Chunked::default() }),
            published: Notify::new(),
            wake: Arc::new(Notify::new()),
            used_by: AtomicU8::new(0),
            state: Mutex::new(State {
                generation: Generation::default(),
                config: config.clone(),
                endpoints: none,
                keys: keys.clone(),
                roster: Roster::default(),
                states: Vec::new(),
                priorities: Priorities::new(),
            }),
            driver: OnceLock::new(),
            runtime: runtime.clone(),
        });
        runtime.telemetry().cluster_in_use(&this.name);
        let span = tracing::debug_span!(parent: None, "mesh.cluster", cluster = %this.name);
        let follow = follow(Arc::downgrade(&this), this.wake.clone());
        // The only place that sets it.
        _ = this.driver.set(Task::spawn(runtime.handle(), span, follow));
        this
    }

    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// The picker as it is now.
    pub(crate) fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Told when a picker is published; register before looking at the table.
    pub(crate) fn published(&self) -> &Notify {
        &self.published
    }

    /// Takes a configuration; an equal or an older one changes nothing. The picker that it needs is published when this returns.
    pub(crate) fn apply(self: &Arc<Self>, resolved: &ResolvedCluster, keys: &Keys, generation: Generation) {
        let ResolvedCluster { config, endpoints, note: _ } = resolved;
        let mut state = self.lock();
        // A request that is pinned to an older snapshot may be the first one there.
        if generation < state.generation {
            return;
        }
        state.generation = generation;
        let same_keys = state.keys.is_same(keys);
        let same_config = Arc::ptr_eq(&state.config, config) || state.config == *config;
        if same_config && same_keys && Arc::ptr_eq(&state.endpoints, endpoints) {
            return;
        }
        let fresh_pools = pool_limits(&state.config) != pool_limits(config);
        if !same_keys {
            for endpoint in state.roster.runtimes() {
                if let Link::Pool(pool) = endpoint.link() {
                    pool.set_tls(keys.http.tls.clone());
                }
            }
        }
        let old = std::mem::replace(&mut state.endpoints, endpoints.clone());
        state.config = config.clone();
        state.keys = keys.clone();
        let make = |address: &Address| self.endpoint(config, keys, address);
        let (change, before) = if fresh_pools {
            let before = std::mem::take(&mut state.roster);
            let none = EndpointsConfig::empty(config.name.clone());
            (state.roster.update(&none, endpoints, make), Some(before))
        } else {
            (state.roster.update(&old, endpoints, make), None)
        };
        let Change { replaced, by, removed } = change;
        if fresh_pools || !same_keys {
            state.read();
        } else {
            let State { roster, states, .. } = &mut *state;
            let come = roster.slots().iter().skip(replaced.start).take(by).map(endpoint_state);
            states.splice(replaced, come);
        }
        let next_wake = state.priorities.next_wake();
        let let_go = self.refresh(&mut state, Instant::now());
        let timer_changed = state.priorities.next_wake() != next_wake;
        drop(state);
        drop((old, before, removed, let_go));
        if timer_changed {
            self.wake.notify_one();
        }
    }

    /// A request of this kind found nothing READY: connections are wanted from now on.
    pub(crate) fn activate(self: &Arc<Self>, kind: RequestKind) {
        let bit = kind_bit(kind);
        if self.used_by.load(Ordering::Relaxed) & bit == 0 {
            self.used_by.fetch_or(bit, Ordering::Relaxed);
            let mut state = self.lock();
            state.read();
            let removed = self.refresh(&mut state, Instant::now());
            drop(state);
            drop(removed);
        }
    }

    /// Why connections fail, one endpoint standing for all.
    pub(crate) fn last_error(&self) -> Option<ConnectError> {
        self.table().endpoints.iter().find_map(|slot| slot.runtime.last_error())
    }

    /// Decides between priorities, opens what is wanted, publishes the picker. Returns what is no longer kept, to be
    /// dropped outside the lock.
    fn refresh(self: &Arc<Self>, state: &mut State, now: Instant) -> Vec<Arc<EndpointRuntime>> {
        let config = state.config.clone();
        let endpoints = state.endpoints.clone();
        let states = std::mem::take(&mut state.states);
        let view = View::new(&config, &endpoints, &states);
        let chosen = state.priorities.update(now.into_std(), &view.connectivity());
        let removed = self.let_go(state, &view);
        self.connect_wanted(state, &view, &states);
        let picker = view.picker(chosen, &mut ThreadRng);
        self.table.store(Arc::new(Table { picker, endpoints: state.roster.slots().clone() }));
        self.published.notify_waiters();
        state.states = states;
        if !removed.is_empty() {
            state.read();
        }
        removed
    }

    /// Opens connections of the priorities that are wanted, if the cluster is in use.
    fn connect_wanted(&self, state: &State, view: &View<'_>, states: &[EndpointState]) {
        let used_by = self.used_by.load(Ordering::Relaxed);
        if used_by == 0 {
            return;
        }
        let is = |ix: EndpointIx, wanted: Connectivity| {
            states.get(ix.get()).is_some_and(|s| s.connectivity == wanted)
        };
        let connecting = states.iter().filter(|s| s.connectivity == Connectivity::Connecting).count();
        let mut room = MAX_CONNECTING.saturating_sub(connecting);
        for priority in (0..state.endpoints.priorities.len()).filter(|p| state.priorities.wants(*p)) {
            for ix in view.candidates(priority).filter(|ix| is(*ix, Connectivity::Idle)) {
                let Some(slot) = state.roster.slots().get(ix.get()).filter(|_| room > 0) else { return };
                room -= 1;
                for kind in [RequestKind::Grpc, RequestKind::Http] {
                    if used_by & kind_bit(kind) != 0 {
                        slot.runtime.connect_soon(state.keys.of(kind));
                    }
                }
            }
        }
    }

    /// Replaces the endpoints whose priority keeps no connections by fresh, unconnected ones.
    fn let_go(self: &Arc<Self>, state: &mut State, view: &View<'_>) -> Vec<Arc<EndpointRuntime>> {
        let levels = state.endpoints.priorities.len();
        if (0..levels).all(|p| state.priorities.keeps(p)) {
            return Vec::new();
        }
        let slots = state.roster.slots().clone();
        let kept: HashSet<&Address> = (0..levels)
            .filter(|p| state.priorities.keeps(*p))
            .flat_map(|p| view.candidates(p))
            .filter_map(|ix| slots.get(ix.get()).map(|slot| slot.runtime.address()))
            .collect();
        let is_gone = |endpoint: &Arc<EndpointRuntime>| {
            endpoint.connectivity() != Connectivity::Idle && !kept.contains(endpoint.address())
        };
        let make = |address: &Address| self.endpoint(&state.config, &state.keys, address);
        state.roster.renew(is_gone, make)
    }

    fn endpoint(
        self: &Arc<Self>,
        config: &ClusterConfig,
        keys: &Keys,
        address: &Address,
    ) -> Arc<EndpointRuntime> {
        let link = match self.runtime.upstream() {
            Some(upstream) => Link::InProcess(upstream.clone()),
            None => {
                let settings = self.pool_settings(config);
                let pool = EndpointPool::new(address.clone(), settings, self.runtime.handle().clone());
                pool.set_tls(keys.http.tls.clone());
                Link::Pool(pool)
            }
        };
        EndpointRuntime::new(address.clone(), link)
    }

    fn pool_settings(self: &Arc<Self>, config: &ClusterConfig) -> PoolSettings {
        let mut settings = PoolSettings::new(self.runtime.connector().clone()).with_cluster(config);
        // The cluster's own limit is applied to each request that would wait, from its pinned configuration.
        settings.max_waiting = usize::MAX;
        settings.budget = self.runtime.budget().clone();
        #[cfg(feature = "http1")]
        {
            settings.http1.repeat_safe_requests = self.runtime.repeat_safe_requests();
        }
        settings.permits = Some(Arc::new(ConnectionBudget { cluster: Arc::downgrade(self) }));
        let wake = self.wake.clone();
        settings.on_change = Some(Arc::new(move || wake.notify_one()));
        settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two assignments could only leave endpoints of an older list, which the next apply replaces.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ClusterRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        f.debug_struct("ClusterRuntime")
            .field("name", &self.name)
            .field("endpoints", &table.endpoints.len())
            .field("ready", &table.picker.ready())
            .finish_non_exhaustive()
    }
}

/// Refreshes on each change of connectivity and at each timer of the priorities, as long as the cluster lives.
async fn follow(cluster: Weak<ClusterRuntime>, wake: Arc<Notify>) {
    loop {
        let next = {
            let Some(cluster) = cluster.upgrade() else { return };
            let mut state = cluster.lock();
            state.read();
            let removed = cluster.refresh(&mut state, Instant::now());
            let next = state.priorities.next_wake();
            drop(state);
            drop(removed);
            next
        };
        match next {
            Some(at) => {
                tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(Instant::from_std(at)) => {}
                }
            }
            None => wake.notified().await,
        }
    }
}

fn endpoint_state(slot: &EndpointSlot) -> EndpointState {
    EndpointState { connectivity: slot.runtime.connectivity(), ejected: false }
}

fn kind_bit(kind: RequestKind) -> u8 {
    match kind {
        RequestKind::Grpc => 1,
        RequestKind::Http => 2,
    }
}

/// The parts of a configuration that a pool is built with.
fn pool_limits(config: &ClusterConfig) -> impl PartialEq + use<> {
    (config.connect_timeout, config.keepalive, config.limits.max_connections_per_endpoint)
}

// === impl State ===

impl State {
    /// Reads the connectivity of every endpoint.
    fn read(&mut self) {
        self.states.clear();
        self.states.extend(self.roster.slots().iter().map(endpoint_state));
    }
}

// === impl Keys ===

impl Keys {
    /// gRPC is always HTTP/2, whatever the cluster says.
    pub(crate) fn new(config: &ClusterConfig, tls: Option<Arc<ClientTls>>) -> Self {
        Self {
            grpc: ConnectionKey { tls: tls.clone(), protocol: UpstreamProtocol::Http2 },
            http: ConnectionKey { tls, protocol: config.protocol },
        }
    }

    pub(crate) fn of(&self, kind: RequestKind) -> &ConnectionKey {
        match kind {
            RequestKind::Grpc => &self.grpc,
            RequestKind::Http => &self.http,
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.http.tls.is_some()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.grpc.is_same(&other.grpc) && self.http.is_same(&other.http)
    }
}

// === impl ClusterRuntime ===

impl Drop for ClusterRuntime {
    fn drop(&mut self) {
        self.runtime.telemetry().cluster_gone(&self.name);
    }
}

// === impl Table ===

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("picker", &self.picker).finish_non_exhaustive()
    }
}

// === impl ConnectionBudget ===

impl ConnectionPermits for ConnectionBudget {
    fn acquire(&self) -> Option<ConnectionPermit> {
        let cluster = self.cluster.upgrade()?;
        let limits = cluster.lock().config.limits;
        let permit: Permit = cluster.permits.connection(&limits).ok()?;
        Some(Box::new(permit))
    }
}
