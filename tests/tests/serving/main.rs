//! Servers of the mesh: who gets in, what changes while they serve, how they leave.

mod adoption;
mod drain;
mod granted;
mod mtls;
mod not_serving;
mod pages;
mod rbac;
mod refusals;
mod refused;
mod reload;
mod silent;
#[cfg(unix)]
mod unix;

use mesh_tests::ca::Identity;
use mesh_tests::echo::{EchoClient, EchoReply, EchoRequest};
use mesh_tests::fleet::{Fleet, Served, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_tower::{Mesh, MeshBuilder, MeshChannel, ServerLimits};
use mesh_xds::server::{
    Cluster, DownstreamTls, Listener, Resource, Resources as _, RouteConfig, UpstreamTls,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;

type Client = EchoClient<MeshChannel>;

/// `shop`, served at the address of `served`; the cluster is completed by `tls`.
fn to(served: &Served, complete: impl FnOnce(Cluster) -> Cluster) -> Vec<Resource> {
    (
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        complete(Cluster::eds("main").endpoints(at([served.address()]))),
    )
        .into_resources()
}

/// A page of an admin endpoint, its head and its body.
async fn admin_page(admin: &Port, path: &str) -> String {
    let mut socket = TcpStream::connect(admin.address()).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.expect("text");
    answer
}

/// A server and a client mesh with mTLS between them.
struct Pair {
    fleet: Fleet,
    served: Served,
    server: Identity,
    caller: Identity,
    mesh: Mesh,
    client: Client,
}

impl Pair {
    /// `listener` completes what the server's listener says beyond TLS.
    fn start(listener: impl FnOnce(&Fleet, Listener) -> Listener) -> Self {
        Self::start_limited(ServerLimits::default(), listener)
    }

    /// The same, with limits of the server.
    fn start_limited(limits: ServerLimits, listener: impl FnOnce(&Fleet, Listener) -> Listener) -> Self {
        let fleet = Fleet::start();
        let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
        let bootstrap = fleet.bootstrap_with("server", &server);
        let serving = MeshBuilder::from_bootstrap(bootstrap).expect("within a runtime").server_limits(limits);
        let serving = serving.build().expect("a mesh");
        let app = mesh_tests::backend::App::new("reviews");
        let served =
            fleet.serve(&serving, app, |l| listener(&fleet, l.tls(DownstreamTls::mutual("default"))));
        fleet.control.set(to(&served, |c| c.tls(UpstreamTls::mutual("default").san(server.spiffe()))));
        let mesh = fleet.mesh_with("client", &caller);
        let client = EchoClient::new(shop(&mesh));
        Self { fleet, served, server, caller, mesh, client }
    }
}

async fn say(client: &mut Client, text: &str) -> Result<EchoReply, Status> {
    // A call that fails at once never waits: a loop of such calls would keep everybody else from running.
    tokio::task::yield_now().await;
    soon(client.unary(EchoRequest::say(text))).await.map(tonic::Response::into_inner)
}

/// Calls until it succeeds: the first calls may come before the server's configuration.
async fn until_ok(client: &mut Client) -> EchoReply {
    soon(async {
        loop {
            if let Ok(reply) = say(client, "until").await {
                return reply;
            }
        }
    })
    .await
}
