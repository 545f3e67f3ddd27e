//! The clusters of one `Mesh` by name, and what they all need.
//!
//! The registry holds them weakly: a cluster lives as long as a snapshot or a request refers to it. One that left the
//! configuration and comes back is a new one, so it can never serve endpoints of its former life.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mesh_core::config::cluster::ClusterConfig;
use mesh_core::snapshot::ResolvedCluster;
use tokio::runtime::Handle;

use super::cluster::{ClusterRuntime, Keys};
use super::endpoint::Upstream;
use crate::telemetry::Telemetry;
use crate::tls::TlsRuntime;
use crate::transport::connect::Connector;
use crate::transport::h2::guard::ReceiveBudget;

/// What all clusters of one `Mesh` share.
pub(crate) struct Runtime {
    shared: Shared,
    /// Dead entries are swept before the table grows, so it is bounded by what has been in use at the same time.
    clusters: Mutex<Clusters>,
    generations: AtomicU64,
}

/// What a [`Runtime`] is made of.
pub(crate) struct Shared {
    pub(crate) handle: Handle,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) upstream: Option<Arc<dyn Upstream>>,
    pub(crate) tls: Arc<TlsRuntime>,
    /// What unread responses, and on servers unread requests, may cost.
    pub(crate) budget: Arc<ReceiveBudget>,
    #[cfg(feature = "http1")]
    pub(crate) repeat_safe_requests: bool,
    /// Told which clusters are in use.
    pub(crate) telemetry: Telemetry,
}

/// When a snapshot was pinned: of two configurations of a cluster, the one of the later snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Generation(u64);

/// Clusters by name.
type Clusters = HashMap<Arc<str>, Weak<ClusterRuntime>>;

// === impl Runtime ===

impl Runtime {
    pub(crate) fn new(shared: Shared) -> Arc<Self> {
        Arc::new(Self { shared, clusters: Mutex::default(), generations: AtomicU64::new(1) })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.shared.handle
    }

    pub(crate) fn connector(&self) -> &Arc<dyn Connector> {
        &self.shared.connector
    }

    pub(crate) fn budget(&self) -> &Arc<ReceiveBudget> {
        &self.shared.budget
    }

    /// Whether HTTP/1.1 may repeat what a reused connection took along.
    #[cfg(feature = "http1")]
    pub(crate) fn repeat_safe_requests(&self) -> bool {
        self.shared.repeat_safe_requests
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    pub(crate) fn upstream(&self) -> Option<&Arc<dyn Upstream>> {
        self.shared.upstream.as_ref()
    }

    /// The connection keys of a cluster.
    pub(crate) fn keys(&self, config: &ClusterConfig) -> Keys {
        Keys::new(config, config.tls.as_ref().map(|value| self.shared.tls.client(value)))
    }

    /// A generation later than all before.
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generations.fetch_add(1, Ordering::Relaxed))
    }

    /// Brings a cluster up to date, making it if need be. Its picker is published when this returns.
    pub(crate) fn apply(
        self: &Arc<Self>,
        cluster: &ResolvedCluster,
        keys: &Keys,
        generation: Generation,
    ) -> Arc<ClusterRuntime> {
        let runtime = self.find_or_make(&cluster.config, keys);
        runtime.apply(cluster, keys, generation);
        runtime
    }

    /// The clusters that are alive.
    pub(crate) fn clusters(&self) -> Vec<Arc<ClusterRuntime>> {
        self.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Whether any cluster has been used.
    pub(crate) fn has_clusters(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Whether a cluster of this name is alive.
    pub(crate) fn is_in_use(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|cluster| cluster.strong_count() > 0)
    }

    fn find_or_make(self: &Arc<Self>, config: &Arc<ClusterConfig>, keys: &Keys) -> Arc<ClusterRuntime> {
        let mut clusters = self.lock();
        if let Some(known) = clusters.get(&config.name).and_then(Weak::upgrade) {
            return known;
        }
        // Before the table would grow, so that the sweeps of many insertions cost no more than the insertions.
        if clusters.len() == clusters.capacity() {
            clusters.retain(|_, cluster| cluster.strong_count() > 0);
        }
        let cluster = ClusterRuntime::new(config, keys, self);
        clusters.insert(config.name.clone(), Arc::downgrade(&cluster));
        cluster
    }

    fn lock(&self) -> MutexGuard<'_, Clusters> {
        // Entries are inserted and removed whole.
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("clusters", &self.clusters()).finish_non_exhaustive()
    }
}
