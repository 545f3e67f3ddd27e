//! A snapshot made ready for requests: every cluster of its routes resolved to its runtime, so that no request looks
//! anything up by name.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use mesh_core::config::cluster::ClusterConfig;
use mesh_core::error::{Reason, Rejection};
use mesh_core::route::{ClusterIx, RouteTable};
use mesh_core::snapshot::{ClientSnapshot, ClusterEntry, ConfigError};

use crate::runtime::cluster::{ClusterRuntime, Keys};
use crate::runtime::registry::Runtime;

/// What a request sees of the configuration.
#[derive(Debug)]
pub(crate) struct PinnedSnapshot {
    pub(crate) version: u64,
    pub(crate) routes: Arc<RouteTable>,
    /// `max_stream_duration` of the listener.
    pub(crate) max_stream_duration: Option<Duration>,
    clusters: Box<[Entry]>,
}

/// A cluster that can be used, or why not.
type Entry = Result<Arc<PinnedCluster>, Rejection>;

/// A cluster as configured in one snapshot, with its runtime: limits and TLS are always read from here.
#[derive(Debug)]
pub(crate) struct PinnedCluster {
    pub(crate) config: Arc<ClusterConfig>,
    pub(crate) runtime: Arc<ClusterRuntime>,
    pub(crate) keys: Keys,
    /// Why there are no endpoints, where there are none.
    pub(crate) note: Option<ConfigError>,
}

// === impl PinnedSnapshot ===

impl PinnedSnapshot {
    /// Reconciles the runtime with a snapshot. Every picker that the snapshot needs is published when this returns.
    pub(crate) fn new(snapshot: &ClientSnapshot, runtime: &Arc<Runtime>) -> Self {
        Self {
            version: snapshot.version,
            routes: snapshot.routes.clone(),
            max_stream_duration: snapshot.http().and_then(|http| http.max_stream_duration),
            clusters: snapshot.clusters.iter().map(|entry| pin(entry, runtime)).collect(),
        }
    }

    /// The cluster that the route table decided for.
    pub(crate) fn cluster(&self, index: Option<ClusterIx>) -> Result<Arc<PinnedCluster>, Rejection> {
        match index.and_then(|index| self.clusters.get(index.get())) {
            Some(cluster) => cluster.clone(),
            None => Err(Rejection::new(Reason::NoCluster)),
        }
    }
}

fn pin(entry: &ClusterEntry, runtime: &Arc<Runtime>) -> Entry {
    let resolved = match &entry.cluster {
        Ok(resolved) => resolved,
        Err(error) => return Err(Rejection::new(Reason::NoCluster).with_detail(error.to_string())),
    };
    let keys = runtime.keys(&resolved.config);
    let cluster = runtime.apply(resolved, &keys);
    Ok(Arc::new(PinnedCluster {
        config: resolved.config.clone(),
        runtime: cluster,
        keys,
        note: resolved.note.clone(),
    }))
}

// === impl PinnedCluster ===

impl PinnedCluster {
    /// `:scheme` of requests that go there.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.keys.is_tls() { Scheme::HTTPS } else { Scheme::HTTP }
    }
}
