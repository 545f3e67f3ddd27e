//! One cluster of 100,000 endpoints in memory, of which one after the other is replaced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use mesh_core::config::cluster::{ClusterConfig, Discovery};
use mesh_core::config::endpoints::{
    Address, EndpointConfig, EndpointsConfig, LocalityConfig, LocalityId, PriorityConfig,
};
use mesh_core::config::listener::{HttpConfig, ListenerConfig, RouteSource};
use mesh_core::config::units::NonZeroWeight;
use mesh_core::route::RouteTable;
use mesh_core::snapshot::{
    ClientSnapshot, ClusterEntry, ConfigError, ConfigProblem, ConfigSource, Resolution, ResolvedCluster,
    ServerSnapshot, SnapshotCell, Subscription,
};
use mesh_core::testing::{route, route_config, virtual_host};
use mesh_tower::{Body, Mesh, Upstream, UpstreamFuture};
use tower::ServiceExt as _;

use super::nanos;
use crate::Result;
use crate::role::runtime;

const ENDPOINTS: u32 = 100_000;
const ROUNDS: u32 = 50;

/// Publishes what it is given.
struct Source(Arc<SnapshotCell<ClientSnapshot>>);

/// Every endpoint is READY and answers with nothing.
#[derive(Debug)]
struct Memory;

/// Milliseconds from the publication of a snapshot to the end of all that it causes.
pub(super) fn spans() -> Result<Vec<f64>> {
    runtime()?.block_on(async {
        let mut addresses: Vec<u32> = (0..ENDPOINTS).collect();
        let first = snapshot(&addresses, None);
        let cell = SnapshotCell::new(Resolution::Ready(Arc::clone(&first)));
        let mesh = Mesh::builder(Source(Arc::clone(&cell))).upstream(Arc::new(Memory)).build()?;
        let channel = mesh.channel("xds:///memory")?;
        let get = || Request::get("/").body(Body::empty());
        // A cluster that nobody has used has no picker.
        channel.clone().oneshot(get()?).await?;
        let (mut spans, mut last) = (Vec::new(), first);
        for round in 0..ROUNDS {
            let place = (round * 1_999) % ENDPOINTS;
            if let Some(address) = addresses.get_mut(place as usize) {
                *address = ENDPOINTS + round;
            }
            let next = snapshot(&addresses, Some(&last));
            let began = Instant::now();
            cell.publish(Resolution::Ready(Arc::clone(&next)));
            // The one task that follows the cell has run before this one runs again.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            spans.push(nanos(began.elapsed()) as f64 / 1e6);
            channel.clone().oneshot(get()?).await?;
            last = next;
        }
        Ok(spans)
    })
}

fn snapshot(addresses: &[u32], before: Option<&ClientSnapshot>) -> Arc<ClientSnapshot> {
    let endpoints = addresses.iter().map(|n| EndpointConfig::new(address(*n))).collect();
    let locality =
        LocalityConfig { id: Arc::new(LocalityId::default()), weight: NonZeroWeight::MIN, endpoints };
    let endpoints = Arc::new(EndpointsConfig {
        name: "memory".into(),
        priorities: vec![PriorityConfig { localities: vec![locality] }],
        drops: Vec::new(),
    });
    let known = before.and_then(|before| before.clusters.get(0)?.cluster.as_ref().ok());
    let config = known.map_or_else(
        || Arc::new(ClusterConfig::new("memory", Discovery::Eds { service: "memory".into() })),
        |known| Arc::clone(&known.config),
    );
    let routes = before.map_or_else(
        || {
            let host = virtual_host(&["*"], vec![route("/", "memory")]);
            Arc::new(RouteTable::compile(Arc::new(route_config("memory", vec![host]))))
        },
        |before| Arc::clone(&before.routes),
    );
    let source = RouteSource::Inline(Arc::clone(routes.config()));
    let cluster = Ok(ResolvedCluster { config, endpoints, note: None });
    Arc::new(ClientSnapshot {
        version: before.map_or(1, |before| before.version + 1),
        listener: Arc::new(ListenerConfig::Client(HttpConfig::new(source))),
        routes,
        clusters: std::iter::once(ClusterEntry { name: "memory".into(), cluster }).collect(),
    })
}

fn address(n: u32) -> Address {
    let [_, a, b, c] = n.to_be_bytes();
    Address::Socket(SocketAddr::from(([127, a, b, c], 1)))
}

impl ConfigSource for Source {
    fn client(&self, _target: &str) -> Subscription<ClientSnapshot> {
        Subscription::fixed(Arc::clone(&self.0))
    }

    fn server(&self, _address: &Address) -> Subscription<ServerSnapshot> {
        let error = ConfigError {
            kind: "listener",
            name: "memory".into(),
            problem: ConfigProblem::DoesNotExist,
            node: "bench".into(),
        };
        Subscription::fixed(SnapshotCell::new(Resolution::Failed(error)))
    }
}

impl Upstream for Memory {
    fn send(&self, _endpoint: &Address, _request: Request<Body>) -> UpstreamFuture {
        let body = http_body_util::Full::new(Bytes::new());
        Box::pin(std::future::ready(Ok(Response::new(Body::new(body)))))
    }
}
