//! What the tests of the client side share: a mesh whose configuration is in the test's hand, an upstream in memory, a
//! recorder of events.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mesh_core::config::cluster::{ClusterConfig, UpstreamProtocol};
use mesh_core::config::endpoints::{Address, EndpointsConfig};
use mesh_core::config::listener::{HttpConfig, ListenerConfig, RouteSource};
use mesh_core::config::route::{ForwardAction, Route, RouteAction, RouteConfig};
use mesh_core::outcome::GrpcCode;
use mesh_core::route::RouteTable;
use mesh_core::snapshot::{
    ClientSnapshot, ClusterEntry, ConfigError, ConfigProblem, ConfigSource, Resolution, ResolvedCluster,
    ServerSnapshot, SnapshotCell, Subscription,
};
use mesh_core::telemetry::event::{EventSink, RequestEvent};
use mesh_core::testing;

use crate::body::Body;
use crate::runtime::endpoint::{Upstream, UpstreamFuture};
use crate::transport::pool::ConnectivityState;
use crate::{Mesh, MeshBuilder, MeshChannel};

/// A mesh with one target, `shop`.
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) cell: Arc<SnapshotCell<ClientSnapshot>>,
    pub(crate) events: Arc<Events>,
    version: Mutex<u64>,
}

/// A source of one target; counts its subscriptions.
#[derive(Debug, Clone)]
struct OneTarget {
    cell: Arc<SnapshotCell<ClientSnapshot>>,
    open: Arc<()>,
}

/// What was told of calls.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<Seen>>);

/// What a test looks at of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) grpc: Option<GrpcCode>,
    pub(crate) flags: String,
    pub(crate) attempts: u32,
    pub(crate) upstream: Option<String>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

/// An upstream made of a function.
pub(crate) struct Answer<F>(pub(crate) F);

impl<F> fmt::Debug for Answer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl<F> Upstream for Answer<F>
where
    F: Fn(&Address, Request<Body>) -> UpstreamFuture + Send + Sync,
{
    fn send(&self, endpoint: &Address, request: Request<Body>) -> UpstreamFuture {
        (self.0)(endpoint, request)
    }
}

/// An upstream that never becomes reachable.
#[derive(Debug)]
pub(crate) struct Unreachable(pub(crate) ConnectivityState);

impl Upstream for Unreachable {
    fn send(&self, _: &Address, _: Request<Body>) -> UpstreamFuture {
        Box::pin(std::future::pending())
    }

    fn state(&self, _: &Address) -> ConnectivityState {
        self.0
    }
}

// === impl World ===

impl World {
    /// Over an upstream in memory.
    pub(crate) fn over(upstream: impl Upstream + 'static) -> Self {
        Self::with(|builder| builder.upstream(Arc::new(upstream)))
    }

    /// With the parts that a test cares about.
    pub(crate) fn with(parts: impl FnOnce(MeshBuilder) -> MeshBuilder) -> Self {
        let cell = SnapshotCell::new(Resolution::Pending(problem(ConfigProblem::Pending)));
        let events = Arc::new(Events::default());
        let source = OneTarget { cell: cell.clone(), open: Arc::new(()) };
        let mesh = parts(Mesh::builder(source).event_sink(events.clone())).build().unwrap();
        Self { mesh, cell, events, version: Mutex::new(0) }
    }

    pub(crate) fn channel(&self) -> MeshChannel {
        self.mesh.channel("xds:///shop").unwrap()
    }

    /// Every path to one cluster of these endpoints.
    pub(crate) fn publish_endpoints(&self, endpoints: EndpointsConfig) {
        self.publish(vec![testing::route("/", "a")], vec![cluster("a", endpoints)]);
    }

    /// Every path to one cluster, with an action of the test's.
    pub(crate) fn publish_action(&self, action: ForwardAction, config: ClusterConfig) {
        let route = Route { action: RouteAction::Forward(action), ..testing::route("/", "a") };
        self.publish(vec![route], vec![config]);
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers build the list in place")]
    pub(crate) fn publish(&self, routes: Vec<Route>, clusters: Vec<ClusterConfig>) {
        let host = testing::virtual_host(&["*"], routes);
        self.publish_routes(testing::route_config("routes", vec![host]), &clusters);
    }

    pub(crate) fn publish_routes(&self, routes: RouteConfig, clusters: &[ClusterConfig]) {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        let snapshot = snapshot(*version, routes, clusters);
        self.cell.publish(Resolution::Ready(Arc::new(snapshot)));
    }

    pub(crate) fn publish_failure(&self, why: ConfigProblem) {
        self.cell.publish(Resolution::Failed(problem(why)));
    }
}

/// Lets the tasks of the mesh take what was published.
pub(crate) async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// An HTTP/2 cluster.
pub(crate) fn cluster(name: &str, endpoints: EndpointsConfig) -> ClusterConfig {
    ClusterConfig { protocol: UpstreamProtocol::Http2, ..testing::cluster(name, endpoints) }
}

/// A snapshot of these routes and those of the clusters that they name.
pub(crate) fn snapshot(version: u64, routes: RouteConfig, clusters: &[ClusterConfig]) -> ClientSnapshot {
    use mesh_core::config::cluster::Discovery;
    let routes = Arc::new(RouteTable::compile(Arc::new(routes)));
    let find = |name: &Arc<str>| {
        let config = Arc::new(clusters.iter().find(|c| c.name == *name)?.clone());
        let Discovery::Static(endpoints) = &config.discovery else { return None };
        Some(ResolvedCluster { endpoints: endpoints.clone(), config, note: None })
    };
    let absent = || Box::new(ConfigError { kind: "cluster", ..problem(ConfigProblem::DoesNotExist) });
    let entry = |name: &Arc<str>| ClusterEntry { name: name.clone(), cluster: find(name).ok_or_else(absent) };
    ClientSnapshot {
        version,
        listener: Arc::new(ListenerConfig::Client(HttpConfig::new(RouteSource::Inline(
            routes.config().clone(),
        )))),
        clusters: routes.clusters().iter().map(entry).collect(),
        routes,
    }
}

fn problem(problem: ConfigProblem) -> ConfigError {
    ConfigError { kind: "listener", name: "shop".into(), problem, node: "node-1".into() }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn grpc(path: &str) -> Request<Body> {
    let message = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
    Request::post(path).header("content-type", "application/grpc").body(Body::full(message)).unwrap()
}

/// A gRPC response of one message and trailers with this status.
pub(crate) fn grpc_response(status: &'static str) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
    let frames = [Frame::data(Bytes::from_static(b"\0\0\0\0\x02\x08\x02")), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

pub(crate) fn trailers_only(status: &'static str) -> Response<Body> {
    let response =
        Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
    response.body(Body::empty()).unwrap()
}

/// The data and the trailers of a body.
pub(crate) async fn read(response: Response<Body>) -> (Bytes, Option<HeaderMap>) {
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

// === impl Events ===

impl Events {
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl EventSink for Events {
    fn record(&self, event: &RequestEvent<'_>) {
        self.0.lock().unwrap().push(Seen {
            status: event.response_code,
            grpc: event.grpc_status,
            flags: event.flags.to_string(),
            attempts: event.attempts,
            upstream: event.upstream.map(ToString::to_string),
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
        });
    }
}

// === impl OneTarget ===

impl OneTarget {
    fn problem() -> ConfigError {
        problem(ConfigProblem::DoesNotExist)
    }
}

impl ConfigSource for OneTarget {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        if target == "shop" {
            return Subscription::new(self.cell.clone(), self.open.clone());
        }
        Subscription::fixed(SnapshotCell::new(Resolution::Failed(Self::problem())))
    }

    fn server(&self, _: &Address) -> Subscription<ServerSnapshot> {
        Subscription::fixed(SnapshotCell::new(Resolution::Failed(Self::problem())))
    }
}
