//! The Rust code of the README, as it stands there: it compiles, and does what the README says of it.
//!
//! `build.rs` takes the blocks out. Each runs in a process of its own, because it reads its bootstrap from the environment,
//! against a control plane of this process. Only the ports are others: [`TcpListener`] stands in for tokio's.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt as _;
use mesh_tests::ca::Identity;
use mesh_tests::fleet::{Fleet, at};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::{Body, Mesh};
use mesh_xds::server::{
    Cluster, DownstreamTls, Listener, Policy, Principal, Rbac, Resource, Resources as _, RouteConfig,
    UpstreamTls,
};
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::service::Routes;
use tonic::{Code, Response, Status};
use tower::ServiceExt as _;

use crate::api::{HelloReply, HelloRequest};
use crate::rpc::greeter_client::GreeterClient;
use crate::rpc::greeter_server::{Greeter, GreeterServer};

/// In the environment of a process that runs a block: which.
const BLOCK: &str = "MESH_README_BLOCK";

/// What a process says before the address that it listens on.
const LISTENING: &str = "listening on ";

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[allow(unused_variables, reason = "the README shows where a reply goes, and does nothing with it")]
async fn tonic_block() -> Outcome {
    include!(concat!(env!("OUT_DIR"), "/readme_0.rs"))
}

async fn axum_block() -> Outcome {
    include!(concat!(env!("OUT_DIR"), "/readme_1.rs"))
}

#[test]
fn every_block_is_run() {
    assert_eq!(env!("README_BLOCKS"), "2", "a block of the README is in no test");
}

/// The other side of the tests below: does nothing in their own process.
#[tokio::test]
async fn the_block_that_the_environment_names() {
    #[expect(clippy::disallowed_methods, reason = "a test reads what its parent wrote")]
    let block = std::env::var(BLOCK);
    match block.as_deref() {
        Err(_) => {}
        Ok("tonic") => tonic_block().await.unwrap(),
        Ok("axum") => axum_block().await.unwrap(),
        Ok(other) => panic!("no block {other:?}"),
    }
}

#[tokio::test]
async fn the_tonic_block_calls_and_then_serves_with_identity_and_policy() {
    let fleet = Fleet::start();
    let (child, caller) = (fleet.ca.identity("greeter"), fleet.ca.identity("caller"));
    let port = Port::reserve();
    let calls = Arc::new(AtomicUsize::new(0));
    let first = Counting(calls.clone());
    let serving = fleet.mesh("first");
    let tcp = port.listen();
    let _first = beside(async move { serving.serve(tcp, Routes::new(GreeterServer::new(first))).await });
    fleet.control.set(Listener::server(port.address()));
    fleet.control.set(target("greeter.default:50051", "first", |c| c.endpoints(at([port.address()]))));

    let (_process, address) = run("tonic", &fleet, &child).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it called before it served");

    let policy = Policy::new().principal(Principal::spiffe(caller.spiffe()));
    let tls = UpstreamTls::mutual("default").san(child.spiffe());
    fleet.control.set(
        Listener::server(address)
            .tls(DownstreamTls::mutual("default"))
            .rbac(Rbac::allow().policy("caller", policy)),
    );
    fleet.control.set(target("served", "served", |c| c.tls(tls).endpoints(at([address]))));
    let greeter =
        |mesh: &Mesh| GreeterClient::new(mesh.channel("xds:///served").expect("a target of the test"));
    let (mesh, other) = (fleet.mesh_with("c", &caller), fleet.mesh_with("s", &fleet.ca.identity("stranger")));
    assert_eq!(until_told(greeter(&mesh)).await.unwrap().message, "Hello a!");
    assert_eq!(until_told(greeter(&other)).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_axum_block_serves_what_it_asks_another_service_for() {
    let fleet = Fleet::start();
    let port = Port::reserve();
    let serving = fleet.mesh("reviews");
    let tcp = port.listen();
    let app = Router::new().route("/reviews/0", get(|| async { "a slapstick" }));
    let _reviews = beside(async move { serving.serve(tcp, app).await });
    fleet.control.set(Listener::server(port.address()));

    let (_process, address) = run("axum", &fleet, &fleet.ca.identity("front")).await;
    fleet.control.set(Listener::server(address));
    fleet.control.set(target("front", "front", |c| c.endpoints(at([address]))));
    let mesh = fleet.mesh("caller");
    let ask = || async {
        let front = mesh.channel("xds:///front").expect("a target");
        let request = Request::get("/").body(Body::empty()).expect("a request");
        let response = front.oneshot(request).await.expect("an answer");
        let (status, body) = (response.status(), response.into_body().collect().await.expect("a body"));
        (status.as_u16(), String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    // Reviews are nowhere yet: an answer all the same.
    let nowhere = Port::reserve();
    let name = "reviews.default.svc.cluster.local:9080";
    fleet.control.set(target(name, "reviews", |c| c.endpoints(at([nowhere.address()]))));
    soon(async { while ask().await != (503, "UF: no connection to the upstream".to_owned()) {} }).await;
    fleet.control.set(target(name, "reviews", |c| c.endpoints(at([port.address()]))));
    soon(async { while ask().await != (200, "a slapstick".to_owned()) {} }).await;
}

/// A target of this name with one cluster.
fn target(name: &str, cluster: &str, complete: impl FnOnce(Cluster) -> Cluster) -> Vec<Resource> {
    let routes = RouteConfig::to(name, cluster);
    (Listener::client(name).rds(name), routes, complete(Cluster::eds(cluster))).into_resources()
}

/// Calls until an answer is the server's own.
async fn until_told(mut greeter: GreeterClient<mesh_tower::MeshChannel>) -> Result<HelloReply, Status> {
    soon(async {
        loop {
            let told = greeter.say_hello(HelloRequest { name: "a".into() }).await;
            match told.map(Response::into_inner) {
                Err(status) if status.code() == Code::Unavailable => {}
                told => return told,
            }
        }
    })
    .await
}

/// A process of its own for a block, with an identity; and where it listens.
async fn run(block: &str, fleet: &Fleet, identity: &Identity) -> (Child, SocketAddr) {
    let bootstrap = serde_json::json!({
        "node": {"id": block},
        "xds_servers": [{
            "server_uri": fleet.control_address().to_string(),
            "channel_creds": [{"type": "insecure"}],
        }],
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
        "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": {
            "certificate_file": identity.certificate_file(),
            "private_key_file": identity.key_file(),
            "ca_certificate_file": identity.ca_file(),
        }}},
    });
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(bootstrap.to_string().as_bytes()).expect("a file that takes a few bytes");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_block_that_the_environment_names", "--nocapture"])
        .env(BLOCK, block)
        .env("GRPC_XDS_BOOTSTRAP", file.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let address = soon(async {
        loop {
            let line = lines.next_line().await.expect("a pipe").expect("the block goes on to serve");
            if let Some((_, address)) = line.split_once(LISTENING) {
                return address.parse().expect("an address");
            }
        }
    });
    (child, address.await)
}

/// A free port in the place of the one that the README names.
struct TcpListener;

impl TcpListener {
    async fn bind(named: &str) -> io::Result<tokio::net::TcpListener> {
        named.parse::<SocketAddr>().map_err(io::Error::other)?;
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        // Past what captures the output of tests.
        writeln!(io::stdout(), "{LISTENING}{}", tcp.local_addr()?)?;
        Ok(tcp)
    }
}

/// What the README leaves to its reader.
struct MyGreeter;

/// The same, where somebody wants to know how often it was asked.
struct Counting(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn say_hello(&self, request: tonic::Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("Hello {}!", request.into_inner().name) }))
    }
}

#[tonic::async_trait]
impl Greeter for Counting {
    async fn say_hello(&self, request: tonic::Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        MyGreeter.say_hello(request).await
    }
}

/// What the generated code calls its messages.
mod api {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HelloRequest {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HelloReply {
        #[prost(string, tag = "1")]
        pub(crate) message: String,
    }
}

#[allow(unused_qualifications, unreachable_pub, private_interfaces, missing_docs, reason = "generated")]
#[allow(
    clippy::allow_attributes_without_reason,
    clippy::needless_pass_by_value,
    clippy::use_self,
    reason = "generated"
)]
mod rpc {
    include!(concat!(env!("OUT_DIR"), "/demo.Greeter.rs"));
}
