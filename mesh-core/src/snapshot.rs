//! What one target sees: a complete, immutable, versioned snapshot, and the cell that publishes it.
//!
//! A *target* is the listener name that a client channel asks for, or the address that a server listens on. Everything
//! that it needs is inside (gRFC A74): a request loads one snapshot and never looks anywhere else. Unchanged parts are
//! shared by `Arc` from one snapshot to the next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;

use crate::chunked::Chunked;
use crate::config::cluster::ClusterConfig;
use crate::config::endpoints::{Address, EndpointsConfig};
use crate::config::listener::{FilterChain, HttpConfig, ListenerConfig};
use crate::route::{ClusterIx, RouteTable};
use crate::status::{RefusedResource, ResourceStatus, UnappliedFields};

/// What a client target sees.
#[derive(Debug, Clone)]
pub struct ClientSnapshot {
    /// Grows with every snapshot of the same source.
    pub version: u64,
    /// The listener; always [`ListenerConfig::Client`].
    pub listener: Arc<ListenerConfig>,
    /// Its routes, compiled.
    pub routes: Arc<RouteTable>,
    /// One entry for each of [`RouteTable::clusters`], in that order.
    pub clusters: Chunked<ClusterEntry>,
}

/// A cluster that a route names: usable, or why not.
#[derive(Debug, Clone)]
pub struct ClusterEntry {
    /// The name that the route gives.
    pub name: Arc<str>,
    /// The cluster, or a named error. An error concerns this cluster alone.
    pub cluster: Result<ResolvedCluster, Box<ConfigError>>,
}

/// A cluster with its endpoints.
#[derive(Debug, Clone)]
pub struct ResolvedCluster {
    /// The cluster.
    pub config: Arc<ClusterConfig>,
    /// Its endpoints; none of them where EDS has none.
    pub endpoints: Arc<EndpointsConfig>,
    /// Why there are no endpoints, for the message of a request that fails by it.
    pub note: Option<Box<ConfigError>>,
}

/// What a server sees.
#[derive(Debug, Clone)]
pub struct ServerSnapshot {
    /// Grows with every snapshot of the same source.
    pub version: u64,
    /// The listener; always [`ListenerConfig::Server`].
    pub listener: Arc<ListenerConfig>,
    /// The routes of each chain: those of `chains` in order, then that of the default chain if there is one.
    /// An error serves UNAVAILABLE on that chain (gRFC A36).
    pub routes: Vec<ChainRoutes>,
}

/// The routes of one filter chain, or why there are none.
pub type ChainRoutes = Result<Arc<RouteTable>, ConfigError>;

/// A resource that is not usable: which, why, and what the control plane last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Kind of the resource: `listener`, `route`, `cluster`, `endpoints`.
    pub kind: &'static str,
    /// Its name.
    pub name: Arc<str>,
    /// Why it is not usable.
    pub problem: ConfigProblem,
    /// Our node id, which is what the control plane's logs are searched for.
    pub node: Arc<str>,
}

/// Why a resource is not usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigProblem {
    /// It has not been asked for, or not been answered yet.
    Pending,
    /// The control plane does not have it.
    DoesNotExist,
    /// It was refused; the text names the field.
    Invalid(Arc<str>),
    /// The control plane has an error instead of it; the text is its own (`RECEIVED_ERROR` of gRFC A88).
    ReceivedError(Arc<str>),
    /// The control plane cannot be reached; the text is the last error.
    Unreachable(Arc<str>),
    /// The name of the control plane, or of the address itself, cannot be resolved; the text says whose, and why.
    Unresolved(Arc<str>),
    /// The resource is there and empty (no localities, no endpoints).
    Empty,
}

/// What a target has right now.
#[derive(Debug)]
pub enum Resolution<S> {
    /// Nothing yet; the error says what is waited for.
    Pending(ConfigError),
    /// A complete snapshot.
    Ready(Arc<S>),
    /// Nothing that could be served: the listener or its routes do not exist, or never were valid.
    Failed(ConfigError),
}

/// Publishes the latest resolution of one target: one writer, any number of readers, no queue.
///
/// Readers take the latest value; a slow reader skips values and never holds up the writer.
pub struct SnapshotCell<S> {
    latest: ArcSwap<Resolution<S>>,
    generation: AtomicU64,
    waiters: Mutex<Waiters>,
}

/// A reader's place in the history of a [`SnapshotCell`].
#[derive(Debug)]
pub struct Changes<S> {
    cell: Arc<SnapshotCell<S>>,
    seen: u64,
    slot: u64,
}

/// A target held open: while it lives, the source keeps the cell up to date.
#[must_use = "dropping a subscription tells the source that the target is no longer wanted"]
pub struct Subscription<S> {
    cell: Arc<SnapshotCell<S>>,
    guard: Option<Box<dyn std::any::Any + Send + Sync>>,
}

/// Where snapshots come from: xDS, a static file, code.
pub trait ConfigSource: Send + Sync + 'static {
    /// Opens a client target by its name. Never waits, never fails: what is wrong is in the cell.
    fn client(&self, target: &str) -> Subscription<ClientSnapshot>;

    /// Opens a server target by its listening address.
    fn server(&self, address: &Address) -> Subscription<ServerSnapshot>;

    /// What it knows of each resource that is wanted. A source of code knows nothing.
    fn status(&self) -> Vec<ResourceStatus> {
        Vec::new()
    }

    /// What is in use and does not do all that it says.
    fn unapplied(&self) -> Vec<UnappliedFields> {
        self.status().iter().filter_map(ResourceStatus::unapplied).collect()
    }

    /// What is refused as it is now.
    fn refused(&self) -> Vec<RefusedResource> {
        self.status().iter().filter_map(ResourceStatus::refused).collect()
    }

    /// How many resources in use are those of an earlier run, because nobody has answered for them yet.
    fn restored(&self) -> usize {
        self.status().iter().filter(|resource| resource.is_restored()).count()
    }
}

/// Wakers of readers that wait, by slot: bounded by the number of readers, not of changes.
#[derive(Debug, Default)]
struct Waiters {
    next_slot: u64,
    parked: Vec<(u64, Waker)>,
}

// === impl ClientSnapshot ===

impl ClientSnapshot {
    /// Whether both say the same, whatever their versions. Parts that are shared are not looked into.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { version: _, listener, routes, clusters } = self;
        Arc::ptr_eq(listener, &other.listener)
            && Arc::ptr_eq(routes, &other.routes)
            && clusters.is_same(&other.clusters, ClusterEntry::is_same)
    }

    /// The entry of a cluster that this snapshot's route table decided for.
    #[must_use]
    pub fn cluster(&self, index: ClusterIx) -> Option<&ClusterEntry> {
        self.clusters.get(index.get())
    }

    /// The connection manager of the listener.
    #[must_use]
    pub fn http(&self) -> Option<&HttpConfig> {
        match &*self.listener {
            ListenerConfig::Client(http) => Some(http),
            ListenerConfig::Server(_) => None,
        }
    }
}

// === impl ClusterEntry ===

impl ClusterEntry {
    /// Whether both say the same. A source shares what did not change, so pointers decide, but for lists of no endpoints,
    /// which are made where they are needed: an equal copy counts as a change.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        // Pointers before what they point to: most of many entries are the same, and nobody else has looked at them.
        (Arc::ptr_eq(&self.name, &other.name) || self.name == other.name)
            && match (&self.cluster, &other.cluster) {
                (Ok(a), Ok(b)) => {
                    let ResolvedCluster { config, endpoints, note } = a;
                    let none = || endpoints.priorities.is_empty() && **endpoints == *b.endpoints;
                    Arc::ptr_eq(config, &b.config)
                        && (Arc::ptr_eq(endpoints, &b.endpoints) || none())
                        && *note == b.note
                }
                (Err(a), Err(b)) => a == b,
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            }
    }
}

// === impl ServerSnapshot ===

impl ServerSnapshot {
    /// Every chain with its routes, the default chain last.
    pub fn chains(&self) -> impl Iterator<Item = (&FilterChain, &ChainRoutes)> {
        let server = match &*self.listener {
            ListenerConfig::Server(server) => Some(server),
            ListenerConfig::Client(_) => None,
        };
        server.into_iter().flat_map(|s| s.chains.iter().chain(&s.default_chain)).zip(&self.routes)
    }
}

// === impl ConfigError ===

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, problem, node } = self;
        write!(f, "{kind} {name:?} {problem} (node {node:?})")
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("has not arrived from the control plane"),
            Self::DoesNotExist => f.write_str("does not exist"),
            Self::Invalid(why) => write!(f, "is invalid: {why}"),
            Self::ReceivedError(why) => write!(f, "is not available: control plane says: {why}"),
            Self::Unreachable(why) => write!(f, "is not available: control plane unreachable: {why}"),
            Self::Unresolved(why) => write!(f, "is not available: {why}"),
            Self::Empty => f.write_str("contains no endpoints"),
        }
    }
}

// === impl SnapshotCell ===

impl<S> SnapshotCell<S> {
    /// A cell that holds a first resolution.
    #[must_use]
    pub fn new(first: Resolution<S>) -> Arc<Self> {
        Arc::new(Self {
            latest: ArcSwap::from_pointee(first),
            generation: AtomicU64::new(1),
            waiters: Mutex::new(Waiters::default()),
        })
    }

    /// The latest resolution.
    #[must_use]
    pub fn load(&self) -> Arc<Resolution<S>> {
        self.latest.load_full()
    }

    /// Replaces the resolution and wakes every reader that waits.
    pub fn publish(&self, resolution: Resolution<S>) {
        self.latest.store(Arc::new(resolution));
        // Release: a reader that sees the new generation also sees the value stored before it.
        self.generation.fetch_add(1, Ordering::Release);
        let parked = std::mem::take(&mut self.lock().parked);
        for (_, waker) in parked {
            waker.wake();
        }
    }

    /// Follows the cell; the first change reported is the value that is there now.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Changes<S> {
        let mut waiters = self.lock();
        let slot = waiters.next_slot;
        waiters.next_slot += 1;
        Changes { cell: self.clone(), seen: 0, slot }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        // The list is valid after any panic: wakers are pushed or taken whole.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> fmt::Debug for SnapshotCell<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let generation = self.generation.load(Ordering::Relaxed);
        f.debug_struct("SnapshotCell").field("generation", &generation).finish_non_exhaustive()
    }
}

// === impl Changes ===

impl<S> Changes<S> {
    /// Ready with the latest resolution once there is one that this reader has not seen.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Arc<Resolution<S>>> {
        if let Some(latest) = self.take_newer() {
            return Poll::Ready(latest);
        }
        {
            let mut waiters = self.cell.lock();
            match waiters.parked.iter_mut().find(|(slot, _)| *slot == self.slot) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => waiters.parked.push((self.slot, cx.waker().clone())),
            }
        }
        // A publication between the first look and the parking would otherwise be missed.
        self.take_newer().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits for the next resolution that this reader has not seen. Cancel safe: nothing is lost by dropping it.
    pub async fn changed(&mut self) -> Arc<Resolution<S>> {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn take_newer(&mut self) -> Option<Arc<Resolution<S>>> {
        let generation = self.cell.generation.load(Ordering::Acquire);
        (generation != self.seen).then(|| {
            self.seen = generation;
            self.cell.load()
        })
    }
}

impl<S> Drop for Changes<S> {
    fn drop(&mut self) {
        let slot = self.slot;
        self.cell.lock().parked.retain(|(parked, _)| *parked != slot);
    }
}

// === impl Subscription ===

impl<S> Subscription<S> {
    /// A subscription whose end is told by dropping `guard`.
    pub fn new(cell: Arc<SnapshotCell<S>>, guard: impl std::any::Any + Send + Sync) -> Self {
        Self { cell, guard: Some(Box::new(guard)) }
    }

    /// A subscription to a cell that nobody updates.
    pub fn fixed(cell: Arc<SnapshotCell<S>>) -> Self {
        Self { cell, guard: None }
    }

    /// The cell.
    #[must_use]
    pub fn cell(&self) -> &Arc<SnapshotCell<S>> {
        &self.cell
    }
}

impl<S> fmt::Debug for Subscription<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, guard } = self;
        f.debug_struct("Subscription").field("cell", cell).field("guarded", &guard.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn ready(n: u32) -> Resolution<u32> {
        Resolution::Ready(Arc::new(n))
    }

    fn value(resolution: &Resolution<u32>) -> u32 {
        match resolution {
            Resolution::Ready(n) => **n,
            Resolution::Pending(_) | Resolution::Failed(_) => u32::MAX,
        }
    }

    #[test]
    fn a_reader_sees_the_first_value_then_waits_then_sees_only_the_latest() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let cell = SnapshotCell::new(ready(1));
        let mut changes = cell.subscribe();
        assert!(matches!(changes.poll_changed(&mut cx), Poll::Ready(r) if value(&r) == 1));
        assert!(changes.poll_changed(&mut cx).is_pending());
        assert!(changes.poll_changed(&mut cx).is_pending(), "polling twice parks once");
        cell.publish(ready(2));
        cell.publish(ready(3));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(matches!(changes.poll_changed(&mut cx), Poll::Ready(r) if value(&r) == 3));
    }

    #[test]
    fn a_dropped_reader_leaves_nothing_behind() {
        let mut cx = Context::from_waker(Waker::noop());
        let cell = SnapshotCell::new(ready(1));
        for _ in 0..100 {
            let mut changes = cell.subscribe();
            assert!(changes.poll_changed(&mut cx).is_ready());
            assert!(changes.poll_changed(&mut cx).is_pending());
        }
        assert!(cell.lock().parked.is_empty());
    }

    #[test]
    fn an_error_names_resource_reason_and_node() {
        let error = ConfigError {
            kind: "listener",
            name: "shop".into(),
            problem: ConfigProblem::DoesNotExist,
            node: "n1".into(),
        };
        assert_eq!(error.to_string(), r#"listener "shop" does not exist (node "n1")"#);
    }
}
