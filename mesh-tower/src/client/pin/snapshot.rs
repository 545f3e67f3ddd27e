//! A snapshot made ready for requests: every cluster of its routes resolved to its runtime, so that no request looks
//! anything up by name.
//!
//! A cluster that no request has used has no runtime: it costs what its configuration costs, and the first request
//! that goes there makes it. One that is in use is brought up to date before the snapshot is seen. Clusters that did
//! not change since the snapshot before are not looked at.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::uri::Scheme;
use mesh_core::chunked::Chunked;
use mesh_core::config::cluster::ClusterConfig;
use mesh_core::error::{Reason, Rejection};
use mesh_core::route::{ClusterIx, RouteTable};
use mesh_core::snapshot::{ClientSnapshot, ClusterEntry, ConfigError, ResolvedCluster};

use crate::runtime::cluster::{ClusterRuntime, Keys};
use crate::runtime::registry::{Generation, Runtime};

/// What a request sees of the configuration.
#[derive(Debug)]
pub(crate) struct PinnedSnapshot {
    pub(crate) version: u64,
    pub(crate) routes: Arc<RouteTable>,
    /// `max_stream_duration` of the listener.
    pub(crate) max_stream_duration: Option<Duration>,
    entries: Chunked<ClusterEntry>,
    /// By position in `entries`.
    slots: Chunked<Arc<Slot>>,
    runtime: Arc<Runtime>,
}

/// A cluster as configured in one snapshot, with its runtime: limits and TLS are always read from here.
#[derive(Debug)]
pub(crate) struct PinnedCluster {
    pub(crate) config: Arc<ClusterConfig>,
    pub(crate) runtime: Arc<ClusterRuntime>,
    pub(crate) keys: Keys,
    /// Why there are no endpoints, where there are none.
    pub(crate) note: Option<Box<ConfigError>>,
}

/// The place of a cluster that is made when it is first used. Shared by all snapshots in which the cluster is the same.
#[derive(Debug)]
struct Slot {
    generation: Generation,
    cluster: OnceLock<Arc<PinnedCluster>>,
}

// === impl PinnedSnapshot ===

impl PinnedSnapshot {
    /// Reconciles the runtime with a snapshot that comes after `before`. Every picker that the snapshot needs of those
    /// that exist is published when this returns.
    pub(crate) fn new(snapshot: &ClientSnapshot, before: Option<&Self>, runtime: &Arc<Runtime>) -> Self {
        let (slots, fresh) = slots(&snapshot.clusters, before, runtime.generation());
        let this = Self {
            version: snapshot.version,
            routes: snapshot.routes.clone(),
            max_stream_duration: snapshot.http().and_then(|http| http.max_stream_duration),
            entries: snapshot.clusters.clone(),
            slots,
            runtime: runtime.clone(),
        };
        if runtime.has_clusters() {
            for position in fresh {
                let entry = this.entries.get(position);
                if entry.is_some_and(|entry| entry.cluster.is_ok() && runtime.is_in_use(&entry.name)) {
                    // A cluster that cannot be used says so to the request that wants it.
                    _ = this.at(position);
                }
            }
        }
        this
    }

    /// The cluster that the route table decided for.
    pub(crate) fn cluster(&self, index: Option<ClusterIx>) -> Result<Arc<PinnedCluster>, Rejection> {
        match index {
            Some(index) => self.at(index.get()),
            None => Err(Rejection::new(Reason::NoCluster)),
        }
    }

    fn at(&self, position: usize) -> Result<Arc<PinnedCluster>, Rejection> {
        let Some(slot) = self.slots.get(position) else { return Err(Rejection::new(Reason::NoCluster)) };
        if let Some(cluster) = slot.cluster.get() {
            return Ok(cluster.clone());
        }
        match self.entries.get(position).map(|entry| &entry.cluster) {
            Some(Ok(resolved)) => {
                let make = || pin(resolved, slot.generation, &self.runtime);
                Ok(slot.cluster.get_or_init(make).clone())
            }
            Some(Err(error)) => Err(Rejection::new(Reason::NoCluster)
                .with_detail(error.to_string())
                .with_source(Arc::new(error.clone()))),
            None => Err(Rejection::new(Reason::NoCluster)),
        }
    }
}

/// A slot for each entry, that of the snapshot before where the entry is the same; and the positions of the others.
fn slots(
    entries: &Chunked<ClusterEntry>,
    before: Option<&PinnedSnapshot>,
    generation: Generation,
) -> (Chunked<Arc<Slot>>, Vec<usize>) {
    let mut fresh = Vec::new();
    let mut slot = |position: usize, entry: &ClusterEntry| {
        let known = before.and_then(|before| before.entries.get(position).zip(before.slots.get(position)));
        match known {
            Some((before, slot)) if before.is_same(entry) => slot.clone(),
            Some(_) | None => {
                fresh.push(position);
                Arc::new(Slot { generation, cluster: OnceLock::new() })
            }
        }
    };
    let slots = match before {
        Some(before) if before.entries.len() == entries.len() => {
            let mut slots = before.slots.clone();
            let unshared = entries.unshared(&before.entries);
            for (position, entry) in unshared.into_iter().filter_map(|p| Some((p, entries.get(p)?))) {
                let next = slot(position, entry);
                if slots.get(position).is_none_or(|slot| !Arc::ptr_eq(slot, &next)) {
                    slots.set(position, next);
                }
            }
            slots
        }
        Some(_) | None => entries.iter().enumerate().map(|(position, entry)| slot(position, entry)).collect(),
    };
    (slots, fresh)
}

fn pin(resolved: &ResolvedCluster, generation: Generation, runtime: &Arc<Runtime>) -> Arc<PinnedCluster> {
    let keys = runtime.keys(&resolved.config);
    let cluster = runtime.apply(resolved, &keys, generation);
    Arc::new(PinnedCluster {
        config: resolved.config.clone(),
        runtime: cluster,
        keys,
        note: resolved.note.clone(),
    })
}

// === impl PinnedCluster ===

impl PinnedCluster {
    /// `:scheme` of requests that go there.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.keys.is_tls() { Scheme::HTTPS } else { Scheme::HTTP }
    }
}
