//! What every scenario needs: a fleet, bootstraps that configure grpcio and us alike, and proof that nothing was refused.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use mesh_tests::backend::App;
use mesh_tests::ca::Identity;
use mesh_tests::echo::{EchoClient, EchoReply, EchoRequest};
use mesh_tests::fleet::{Fleet, Served, at};
use mesh_tests::wait::soon;
use mesh_tower::{Mesh, MeshChannel};
use mesh_xds::server::{
    ClientStatus, Cluster, Endpoints, HeaderMatch, Listener, Resource, Resources as _, Route, RouteConfig,
    VirtualHost,
};
use mesh_xds::{Kind, Protocol};
use tonic::Request;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::transport::Channel;

/// Where the others are.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    /// Python with grpcio.
    pub(crate) python: PathBuf,
    /// Where its scripts are.
    pub(crate) scripts: PathBuf,
    /// The Envoy proxy.
    pub(crate) envoy: PathBuf,
    /// go-control-plane, as `gocp` makes a program of it.
    pub(crate) gocp: PathBuf,
}

/// What an [`EchoClient`] calls through: a channel of the mesh, or a connection that knows none.
pub(crate) trait Transport:
    GrpcService<
        Body,
        Error: Into<StdError>,
        Future: Send,
        ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl Transport for MeshChannel {}
impl Transport for Channel {}

/// The text of a bootstrap. grpcio and the mesh are given the same.
pub(crate) fn bootstrap(fleet: &Fleet, node: &str, identity: Option<&Identity>) -> String {
    bootstrap_in(Protocol::StateOfTheWorld, fleet, node, identity)
}

/// The same, in a protocol. Only the mesh understands how the incremental one is chosen.
fn bootstrap_in(protocol: Protocol, fleet: &Fleet, node: &str, identity: Option<&Identity>) -> String {
    let features: &[&str] = match protocol {
        Protocol::StateOfTheWorld => &["xds_v3"],
        Protocol::Incremental => &["xds_v3", "xds.delta"],
    };
    let providers = identity.map_or_else(
        || serde_json::json!({}),
        |identity| {
            serde_json::json!({ "default": { "plugin_name": "file_watcher", "config": {
                "certificate_file": identity.certificate_file(),
                "private_key_file": identity.key_file(),
                "ca_certificate_file": identity.ca_file(),
                "refresh_interval": "1s",
            }}})
        },
    );
    serde_json::json!({
        "xds_servers": [{
            "server_uri": fleet.control_address().to_string(),
            "channel_creds": [{ "type": "insecure" }],
            "server_features": features,
        }],
        "node": { "id": node, "cluster": VIEW, "locality": { "zone": "here" } },
        "certificate_providers": providers,
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    })
    .to_string()
}

/// A mesh from such a text.
pub(crate) async fn mesh(fleet: &Fleet, node: &str, identity: Option<&Identity>) -> Mesh {
    Mesh::from_bootstrap_json(&bootstrap(fleet, node, identity)).await.expect("a valid bootstrap")
}

/// The same, in a protocol.
pub(crate) async fn mesh_in(
    protocol: Protocol,
    fleet: &Fleet,
    node: &str,
    identity: Option<&Identity>,
) -> Mesh {
    let bootstrap = bootstrap_in(protocol, fleet, node, identity);
    Mesh::from_bootstrap_json(&bootstrap).await.expect("a valid bootstrap")
}

/// Our Echo, served by a mesh of its own, in plaintext unless `listener` says otherwise.
pub(crate) async fn serve(
    fleet: &Fleet,
    name: &str,
    identity: Option<&Identity>,
    listener: impl FnOnce(Listener) -> Listener,
) -> Served {
    let mesh = mesh(fleet, name, identity).await;
    fleet.serve(&mesh, App::new(name), listener)
}

/// The target `shop` with one cluster at these addresses, which `complete` completes.
pub(crate) fn shop<const N: usize>(
    addresses: [SocketAddr; N],
    complete: impl FnOnce(Cluster) -> Cluster,
) -> Vec<Resource> {
    let cluster = Cluster::eds("main").endpoints(at(addresses));
    (Listener::client("shop"), RouteConfig::to("shop", "main"), complete(cluster)).into_resources()
}

/// The target `shop` with so many clusters, each at the next of these addresses. See [`to_cluster`].
pub(crate) fn many(count: usize, addresses: &[SocketAddr]) -> Vec<Resource> {
    let name = |number| format!("cluster-{number}");
    let clusters = addresses.iter().cycle().take(count).enumerate();
    let clusters = clusters.map(|(number, at)| Cluster::eds(name(number)).endpoints(Endpoints::of([*at])));
    let clusters: Vec<_> = clusters.collect();
    let host = (0..count).fold(VirtualHost::any(), |host, number| {
        let header = HeaderMatch::exact(CLUSTER_HEADER, name(number));
        host.route(Route::prefix("/").header(header).cluster(name(number)))
    });
    (Listener::client("shop"), RouteConfig::new("shop").host(host), clusters).into_resources()
}

/// The header that chooses a cluster of [`many`].
pub(crate) fn to_cluster(number: usize) -> (&'static str, String) {
    (CLUSTER_HEADER, format!("cluster-{number}"))
}

/// Calls a cluster of [`many`], which has to answer. Returns the name of its server.
pub(crate) async fn call_cluster(client: &mut EchoClient<MeshChannel>, number: usize) -> String {
    let (header, cluster) = to_cluster(number);
    let mut request = Request::new(EchoRequest::say(cluster.clone()));
    request.metadata_mut().insert(header, cluster.parse().expect("ASCII"));
    let reply = soon(client.unary(request)).await.expect("a reply");
    reply.into_inner().server
}

/// A client of the target `shop`.
pub(crate) fn client(mesh: &Mesh) -> EchoClient<MeshChannel> {
    EchoClient::new(mesh.channel(SHOP).expect("a target"))
}

/// Calls until a server answers: the first calls may come before a server knows that it may serve. Returns its name.
pub(crate) async fn until_ok<T: Transport>(client: &mut EchoClient<T>) -> String {
    until(client, |_| true).await
}

/// Calls until a server answers whose name satisfies a condition.
pub(crate) async fn until<T: Transport>(
    client: &mut EchoClient<T>,
    condition: impl Fn(&str) -> bool,
) -> String {
    soon(async {
        loop {
            if let Ok(reply) = client.unary(EchoRequest::say("until")).await
                && condition(&reply.get_ref().server)
            {
                return reply.into_inner().server;
            }
            // A refusal at once must not starve those who would change it.
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Calls until a server of this name answers. Returns its reply.
///
/// # Panics
/// If a call fails.
pub(crate) async fn answers<T: Transport>(client: &mut EchoClient<T>, name: &str) -> EchoReply {
    soon(async {
        loop {
            let reply = client.unary(EchoRequest::say(name)).await.expect("no call fails").into_inner();
            if reply.server == name {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Waits until a node has acknowledged these kinds and has nothing left to answer.
///
/// # Panics
/// If anybody refuses anything.
pub(crate) async fn accepted(fleet: &Fleet, node: &str, kinds: &[Kind]) {
    let mut refused = None;
    soon(fleet.control.wait_for(|clients| {
        refused = clients
            .iter()
            .flat_map(|client| client.nacks().map(move |nack| (client, nack)))
            .map(|(client, (kind, nack))| format!("{} refused {kind:?}: {}", client.node_id, nack.message))
            .next();
        let asked = |kind: &Kind, client: &ClientStatus| {
            client.kind(*kind).is_some_and(|status| status.acked.is_some())
        };
        let done = clients
            .iter()
            .filter(|client| client.node_id == node)
            .any(|client| client.is_settled() && kinds.iter().all(|kind| asked(kind, client)));
        refused.is_some() || done
    }))
    .await;
    assert_eq!(refused, None);
}

/// Bytes in a line of text: hexadecimal, which every language reads and writes at the speed of its core.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // writing to a String cannot fail
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// `node.cluster` of grpcio and of the mesh: the view in which they are kept apart from other kinds of clients.
pub(crate) const VIEW: &str = "interop";
const CLUSTER_HEADER: &str = "x-cluster";
/// What the tests call.
pub(crate) const SHOP: &str = "xds:///shop";
/// Every kind that a client of `shop` asks for.
pub(crate) const CLIENT_KINDS: &[Kind] = &[Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];
