//! Configuration without a control plane: every address is a plaintext server of everything, and every target names a
//! protocol and an address. For tests that need thousands of targets, or a server that is there at once.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::config::cluster::{ClusterConfig, UpstreamProtocol};
use mesh_core::config::endpoints::Address;
use mesh_core::config::listener::{
    ChainMatch, FilterChain, HttpConfig, ListenerConfig, RouteSource, ServerListener,
};
use mesh_core::config::route::{RouteAction, RouteConfig};
use mesh_core::route::RouteTable;
use mesh_core::snapshot::{
    ClientSnapshot, ClusterEntry, ConfigError, ConfigProblem, ConfigSource, Resolution, ResolvedCluster,
    ServerSnapshot, SnapshotCell, Subscription,
};
use mesh_core::testing;
use mesh_tower::{Mesh, MeshChannel};

/// The source. Targets are `h1.PORT` and `h2.PORT`, at 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

// === impl Plain ===

impl Plain {
    /// A channel of a mesh of this source.
    ///
    /// # Panics
    /// Outside a runtime.
    #[must_use]
    pub fn channel(mesh: &Mesh, is_http2: bool, address: SocketAddr) -> MeshChannel {
        let protocol = if is_http2 { "h2" } else { "h1" };
        mesh.channel(&format!("xds:///{protocol}.{}", address.port())).expect("a target")
    }

    fn snapshot(target: &str) -> Option<ClientSnapshot> {
        let (protocol, port) = target.split_once('.')?;
        let protocol = if protocol == "h2" { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
        let endpoints = testing::endpoints([port.parse().ok()?]);
        let cluster = ClusterConfig { protocol, ..testing::cluster(target, endpoints.clone()) };
        let routes = routes(vec![testing::route("/", target)]);
        let listener =
            ListenerConfig::Client(HttpConfig::new(RouteSource::Inline(Arc::clone(routes.config()))));
        let cluster =
            ResolvedCluster { config: Arc::new(cluster), endpoints: Arc::new(endpoints), note: None };
        let entry = ClusterEntry { name: target.into(), cluster: Ok(cluster) };
        Some(ClientSnapshot {
            version: 1,
            listener: Arc::new(listener),
            clusters: std::iter::once(entry).collect(),
            routes,
        })
    }
}

impl ConfigSource for Plain {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        let resolution = match Self::snapshot(target) {
            Some(snapshot) => Resolution::Ready(Arc::new(snapshot)),
            None => Resolution::Failed(ConfigError {
                kind: "listener",
                name: target.into(),
                problem: ConfigProblem::DoesNotExist,
                node: "plain".into(),
            }),
        };
        Subscription::fixed(SnapshotCell::new(resolution))
    }

    fn server(&self, address: &Address) -> Subscription<ServerSnapshot> {
        let mut everything = testing::route("/", "unused");
        everything.action = RouteAction::NonForwarding;
        let routes = routes(vec![everything]);
        let chain = FilterChain {
            name: "plain".into(),
            matches: ChainMatch::default(),
            tls: None,
            network_rbac: Vec::new(),
            http: HttpConfig::new(RouteSource::Inline(Arc::clone(routes.config()))),
        };
        let listener = ServerListener { address: address.clone(), chains: vec![chain], default_chain: None };
        let snapshot = ServerSnapshot {
            version: 1,
            listener: Arc::new(ListenerConfig::Server(listener)),
            routes: vec![Ok(routes)],
        };
        Subscription::fixed(SnapshotCell::new(Resolution::Ready(Arc::new(snapshot))))
    }
}

fn routes(routes: Vec<mesh_core::config::route::Route>) -> Arc<RouteTable> {
    let config: RouteConfig = testing::route_config("plain", vec![testing::virtual_host(&["*"], routes)]);
    Arc::new(RouteTable::compile(Arc::new(config)))
}
