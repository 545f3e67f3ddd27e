//! What the tests of the server side share: a configuration source of one cell, a recorder of events, a client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::config::endpoints::Address;
use mesh_core::config::filter::{FilterConfig, HttpFilter};
use mesh_core::config::listener::{
    ChainMatch, FilterChain, HttpConfig, ListenerConfig, RouteSource, ServerListener,
};
use mesh_core::config::route::{RouteAction, RouteConfig};
use mesh_core::identity;
use mesh_core::outcome::GrpcCode;
use mesh_core::rbac::RbacConfig;
use mesh_core::route::RouteTable;
use mesh_core::snapshot::{
    ClientSnapshot, ConfigError, ConfigProblem, ConfigSource, Resolution, ServerSnapshot, SnapshotCell,
    Subscription,
};
use mesh_core::telemetry::event::{EventSink, RequestEvent};
use mesh_core::testing;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::chain::Chains;
use super::{AcceptedPeer, Connection, ServerLimits, ServerParts, ServerRuntime};
use crate::drain::Drain;
use crate::telemetry::{Telemetry, Tracing};
use crate::tls::TlsRuntime;

/// A server runtime with its configuration in the test's hand.
pub(crate) struct World {
    pub(crate) server: Arc<ServerRuntime>,
    pub(crate) config: Arc<SnapshotCell<ServerSnapshot>>,
    pub(crate) events: Arc<Events>,
}

/// What was told of requests.
#[derive(Debug, Default)]
pub(crate) struct Events {
    seen: Mutex<Vec<Seen>>,
    more: Notify,
}

/// What a test looks at of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) grpc: Option<GrpcCode>,
    pub(crate) flags: String,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) principal: Option<String>,
    pub(crate) remote: Option<String>,
}

#[derive(Debug)]
struct OneCell(Arc<SnapshotCell<ServerSnapshot>>);

pub(crate) type H1 = http1::SendRequest<Empty<Bytes>>;
pub(crate) type H2 = http2::SendRequest<Empty<Bytes>>;

// === impl World ===

impl World {
    pub(crate) fn new() -> Self {
        Self::with(ServerLimits::default(), None)
    }

    pub(crate) fn with(limits: ServerLimits, tls: Option<Arc<TlsRuntime>>) -> Self {
        let config = SnapshotCell::new(Resolution::Pending(error(ConfigProblem::Pending)));
        let events = Arc::new(Events::default());
        let server = ServerRuntime::new(ServerParts {
            replies: Arc::default(),
            budget: Default::default(),
            source: Arc::new(OneCell(config.clone())),
            tls,
            telemetry: Telemetry::new(vec![events.clone()], Tracing::default()),
            drain: Arc::new(Drain::new()),
            limits,
            runtime: Handle::current(),
        });
        Self { server, config, events }
    }

    /// Publishes chains that all serve every path, each with the routes of `routes`.
    pub(crate) fn publish(&self, version: u64, address: impl Into<Address>, chains: Vec<FilterChain>) {
        self.publish_routes(version, address, chains, &everything());
    }

    pub(crate) fn publish_routes(
        &self,
        version: u64,
        address: impl Into<Address>,
        chains: Vec<FilterChain>,
        routes: &Arc<RouteConfig>,
    ) {
        let table = Arc::new(RouteTable::compile(routes.clone()));
        let routes = chains.iter().map(|_| Ok(table.clone())).collect();
        let listener = ServerListener { address: address.into(), chains, default_chain: None };
        let listener = Arc::new(ListenerConfig::Server(listener));
        self.config.publish(Resolution::Ready(Arc::new(ServerSnapshot { version, listener, routes })));
    }

    /// The same configuration for a whole mesh.
    pub(crate) fn source(&self) -> impl ConfigSource + use<> {
        OneCell(self.config.clone())
    }

    /// A peer at `remote`, under this chain, without a socket.
    pub(crate) fn peer(&self, chain: &FilterChain, remote: &str) -> AcceptedPeer {
        let local = "10.0.0.2:80".parse().unwrap();
        self.publish(1, local, vec![chain.clone()]);
        let resolution = self.config.load();
        let Resolution::Ready(snapshot) = &*resolution else { panic!("published above") };
        let chains = Chains::of(snapshot, None, None).unwrap();
        let remote = Some(remote.parse().unwrap());
        let peer = identity::Peer { remote, local: Some(local), ..Default::default() };
        let chain = chains.find(&peer.ends()).unwrap().clone();
        AcceptedPeer::new(Connection::new(peer, chain, self.server.clone()))
    }

    pub(crate) fn publish_failure(&self, problem: ConfigProblem) {
        self.config.publish(Resolution::Failed(error(problem)));
    }
}

fn error(problem: ConfigProblem) -> ConfigError {
    ConfigError { kind: "listener", name: Arc::from("test"), problem, node: Arc::from("node") }
}

/// A loopback socket and its address.
pub(crate) async fn socket() -> (TcpListener, SocketAddr) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    (tcp, address)
}

/// A plaintext chain for everybody, with these HTTP filters before the router.
pub(crate) fn chain(name: &str, rbac: Vec<RbacConfig>) -> FilterChain {
    let mut http = HttpConfig::new(RouteSource::Rds(Arc::from("routes")));
    for (n, rules) in rbac.into_iter().enumerate() {
        let config = FilterConfig::Rbac(Arc::new(rules));
        http.filters.insert(n, HttpFilter { name: format!("rbac{n}").into(), config, disabled: false });
    }
    FilterChain {
        name: Arc::from(name),
        matches: ChainMatch::default(),
        tls: None,
        network_rbac: Vec::new(),
        http,
    }
}

/// Every path of every host is the application's.
pub(crate) fn everything() -> Arc<RouteConfig> {
    let mut all = testing::route("/", "unused");
    all.action = RouteAction::NonForwarding;
    Arc::new(testing::route_config("routes", vec![testing::virtual_host(&["*"], vec![all])]))
}

/// An HTTP/1.1 connection.
pub(crate) async fn http1(address: SocketAddr) -> H1 {
    http1_over(TcpStream::connect(address).await.unwrap()).await
}

pub(crate) async fn http1_over<T>(io: T) -> H1
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    Handle::current().spawn(connection);
    client
}

/// An HTTP/2 connection.
pub(crate) async fn http2(address: SocketAddr) -> H2 {
    http2_over(TcpStream::connect(address).await.unwrap()).await
}

pub(crate) async fn http2_over<T>(io: T) -> H2
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    Handle::current().spawn(connection);
    client
}

pub(crate) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://shop.test{path}")).header("host", "shop.test").body(Empty::new()).unwrap()
}

pub(crate) fn grpc(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::post(format!("http://shop.test{path}")).header("content-type", "application/grpc");
    request.body(Empty::new()).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Waits, so that a failing test fails instead of hanging.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

// === impl Events ===

impl Events {
    /// The first `n` events, once there are as many.
    pub(crate) async fn wait_for(&self, n: usize) -> Vec<Seen> {
        soon("an event", async {
            loop {
                let more = self.more.notified();
                let seen = self.seen.lock().unwrap().clone();
                if seen.len() >= n {
                    return seen;
                }
                more.await;
            }
        })
        .await
    }
}

impl EventSink for Events {
    fn record(&self, event: &RequestEvent<'_>) {
        self.seen.lock().unwrap().push(Seen {
            path: event.path.to_owned(),
            status: event.response_code,
            grpc: event.grpc_status,
            flags: event.flags.to_string(),
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            principal: event.peer_principal.map(str::to_owned),
            remote: event
                .downstream
                .and_then(identity::Peer::remote_address)
                .map(|address| address.to_string()),
        });
        self.more.notify_one();
    }
}

// === impl OneCell ===

impl ConfigSource for OneCell {
    fn client(&self, _: &str) -> Subscription<ClientSnapshot> {
        let error = error(ConfigProblem::DoesNotExist);
        Subscription::fixed(SnapshotCell::new(Resolution::Failed(error)))
    }

    fn server(&self, _: &Address) -> Subscription<ServerSnapshot> {
        Subscription::fixed(self.0.clone())
    }
}
