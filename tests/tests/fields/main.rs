//! What a field of a resource does: a small resource with the field, and requests whose outcome the field decides.
//!
//! The rows of `mesh-xds/src/resource/tests/applied` name these tests. Each drives requests over real sockets through a
//! mesh that is configured by the resource as YAML, and fails when the field is ignored.

mod access;
mod clusters;
mod endpoints;
mod listeners;
mod matching;
mod retries;
mod routes;
mod tls;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use mesh_tests::backend::{App, Backend};
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_tower::{Mesh, MeshBuilder, MeshChannel};
use mesh_xds::static_config::InvalidFile;
use mesh_xds::{Format, Rules, StaticSource};
use serde_json::Value;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

const HCM: &str = "@envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: router, typed_config: {@envoy.extensions.filters.http.router.v3.Router}}";

/// An answer: its status, and the body as JSON (null where it is none).
type Answer = (u16, Value);

/// A mesh that has these resources, each the YAML of its fields after its type; `@` stands for an `@type`.
fn builder(resources: &[String]) -> MeshBuilder {
    Mesh::builder(source(resources).unwrap_or_else(|e| panic!("{e}\n{resources:#?}")))
}

fn source(resources: &[String]) -> Result<StaticSource, InvalidFile> {
    let list: Vec<String> = resources.iter().map(|fields| format!("- {{{fields}}}\n")).collect();
    let text = typed(&format!("resources:\n{}", list.concat()));
    StaticSource::from_text(&text, Format::Yaml, Rules::default())
}

fn mesh(resources: &[String]) -> Mesh {
    builder(resources).build().expect("a mesh")
}

/// The text with the types of messages as YAML writes them.
fn typed(text: &str) -> String {
    text.replace('@', "\"@type\": type.googleapis.com/")
}

/// The client listener `shop` with these fields in its connection manager.
fn shop(manager: &str) -> String {
    format!(
        "@envoy.config.listener.v3.Listener, name: shop, api_listener: {{api_listener: {{{HCM}, {manager}, http_filters: [{ROUTER}]}}}}"
    )
}

/// The client listener `shop` with these routes for every host.
fn routed(routes: &str) -> String {
    shop(&format!("route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [{routes}]}}]}}"))
}

/// The client listener `shop` with everything to one cluster.
fn to(cluster: &str) -> String {
    routed(&format!("{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}"))
}

/// A cluster with what is in it inline; `fields` begin with a comma or are empty.
fn cluster(name: &str, endpoints: &str, fields: &str) -> String {
    format!(
        "@envoy.config.cluster.v3.Cluster, name: {name}, load_assignment: {{endpoints: [{endpoints}]}}{fields}"
    )
}

/// A locality with these endpoints.
fn locality(addresses: &[SocketAddr]) -> String {
    let list: Vec<String> = addresses.iter().map(|a| format!("{{{}}}", endpoint(*a))).collect();
    format!("{{lb_endpoints: [{}]}}", list.join(", "))
}

fn endpoint(at: SocketAddr) -> String {
    format!("endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}", at.ip(), at.port())
}

/// A cluster of one backend.
fn one(name: &str, backend: &Backend) -> String {
    cluster(name, &locality(&[backend.address()]), "")
}

fn channel(mesh: &Mesh) -> MeshChannel {
    mesh.channel("xds:///shop").expect("a target")
}

/// A request as text: method, target, then `name:value` of each header.
fn request(text: &str) -> Request<Empty<Bytes>> {
    let mut words = text.split(' ');
    let method = words.next().unwrap_or_default();
    let mut request = Request::builder().method(method).uri(words.next().unwrap_or("/"));
    for header in words {
        let (name, value) = header.split_once(':').expect("a header");
        request = request.header(name, value);
    }
    request.body(Empty::new()).expect("a request")
}

async fn ask(channel: &MeshChannel, text: &str) -> Answer {
    // A call that fails at once never waits: others get their turn.
    tokio::task::yield_now().await;
    let response = soon(channel.clone().oneshot(request(text))).await.expect("never an error");
    let status = grpc_as_http(&response).unwrap_or_else(|| response.status()).as_u16();
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The HTTP status that a gRPC status of ours stands for.
fn grpc_as_http<B>(response: &http::Response<B>) -> Option<StatusCode> {
    let code = response.headers().get("grpc-status")?.to_str().ok()?;
    Some(match code {
        "7" => StatusCode::FORBIDDEN,
        "12" => StatusCode::NOT_FOUND,
        "14" => StatusCode::SERVICE_UNAVAILABLE,
        "4" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::OK,
    })
}

/// Which server answered each of so many requests, one after the other.
async fn servers(channel: &MeshChannel, calls: usize) -> Vec<String> {
    let mut servers = Vec::new();
    for _ in 0..calls {
        let (status, body) = ask(channel, "GET /").await;
        servers.push(body["server"].as_str().map_or_else(|| status.to_string(), ToOwned::to_owned));
    }
    servers
}

fn count(servers: &[String], name: &str) -> usize {
    servers.iter().filter(|server| *server == name).count()
}

/// An application behind a mesh, whose listener is the YAML that is made from its address.
struct Server {
    address: SocketAddr,
    app: App,
    _mesh: Mesh,
    _port: Port,
    _running: JoinSet<Result<(), mesh_tower::Error>>,
}

impl Server {
    fn start(listener: impl FnOnce(SocketAddr) -> Vec<String>) -> Self {
        let port = Port::reserve();
        let mesh = mesh(&listener(port.address()));
        Self::serve(mesh, port)
    }

    fn serve(mesh: Mesh, port: Port) -> Self {
        let app = App::new("served");
        let mut running = JoinSet::new();
        let (serving, router, tcp) = (mesh.clone(), app.router(), port.listen());
        running.spawn(async move { serving.serve(tcp, router).await });
        Self { address: port.address(), app, _mesh: mesh, _port: port, _running: running }
    }
}

/// A server's listener with these filter chains.
fn listening(at: SocketAddr, chains: &str) -> String {
    format!(
        "@envoy.config.listener.v3.Listener, name: server, address: {{socket_address: {{address: {}, port_value: {}}}}}, {chains}",
        at.ip(),
        at.port()
    )
}

/// A connection manager as a network filter: its fields, and the HTTP filters before the router, each with a comma.
fn manager(fields: &str, filters: &str) -> String {
    format!("{{name: hcm, typed_config: {{{HCM}, {fields}, http_filters: [{filters}{ROUTER}]}}}}")
}

/// Every request to the application.
const OPEN: &str = "route_config: {virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, non_forwarding_action: {}}]}]}";
