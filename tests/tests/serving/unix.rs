//! Servers on a unix-domain socket, configured by a control plane, and callers that reach them through their mesh.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use mesh_tests::backend::App;
use mesh_tests::ca::Identity;
use mesh_tests::echo::{EchoClient, EchoRequest, UNARY};
use mesh_tests::fleet::{Fleet, shop};
use mesh_tests::wait::{beside, soon};
use mesh_tower::drain::Drained;
use mesh_tower::{Mesh, MeshChannel, Peer};
use mesh_xds::server::{
    Cluster, DownstreamTls, Endpoints, Listener, Locality, Permission, Policy, Principal, Rbac, RouteConfig,
    UpstreamTls,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tonic::Code;
use tower::ServiceExt as _;

use crate::{say, until_ok};

/// A fleet, and a path on which one of its servers listens.
struct Place {
    fleet: Fleet,
    path: PathBuf,
    _dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { fleet: Fleet::start(), path: dir.path().join("shop.sock"), _dir: dir }
    }

    fn bind(&self) -> UnixListener {
        UnixListener::bind(&self.path).expect("a path that is free")
    }

    /// `shop`, served on the path; the listener and the cluster are completed.
    fn set(&self, listener: impl FnOnce(Listener) -> Listener, cluster: impl FnOnce(Cluster) -> Cluster) {
        let endpoints = Endpoints::default().locality(Locality::new("here").endpoint(&*self.path));
        self.fleet.control.set((
            listener(Listener::server(&*self.path)),
            Listener::client("shop").rds("shop"),
            RouteConfig::to("shop", "main"),
            cluster(Cluster::eds("main").endpoints(endpoints)),
        ));
    }

    /// The same with mutual TLS, where only `caller` is let in, and nobody on `/admin`.
    fn set_secured(&self, server: &Identity, caller: &Identity, http1: bool) {
        let named = Policy::new().principal(Principal::spiffe(caller.spiffe()));
        let admin = Policy::new().permission(Permission::path("/admin")).principal(Principal::any());
        self.set(
            |listener| {
                let listener = listener.tls(DownstreamTls::mutual("default"));
                listener.rbac(Rbac::allow().policy("caller", named)).rbac(Rbac::deny().policy("admin", admin))
            },
            |cluster| {
                let cluster = cluster.tls(UpstreamTls::mutual("default").san(server.spiffe()));
                if http1 { cluster.http1() } else { cluster }
            },
        );
    }
}

async fn ask(channel: &MeshChannel, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Full::<Bytes>::default()).expect("it goes as written");
    let response = soon(channel.clone().oneshot(request)).await.expect("never an error");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn until_served(channel: &MeshChannel) {
    soon(async { while ask(channel, "/who").await.0 != StatusCode::OK {} }).await;
}

/// Says who asks, beside the application of all tests.
fn app(app: &App) -> Router {
    let who = |peer: Peer| async move {
        let principal = peer.spiffe().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        format!("{principal} {} {}", peer.remote.is_some(), peer.unix.is_some())
    };
    Router::new().route("/who", axum::routing::get(who)).merge(app.router())
}

#[tokio::test]
async fn axum_is_served_over_both_versions_to_whom_policy_lets_in() {
    for http1 in [false, true] {
        let place = Place::new();
        let (server, caller) = (place.fleet.ca.identity("reviews"), place.fleet.ca.identity("productpage"));
        place.set_secured(&server, &caller, http1);
        let (serving, socket) = (place.fleet.mesh_with("server", &server), place.bind());
        let router = app(&App::new("reviews"));
        let _running = beside(async move { serving.serve(socket, router).await });
        let mesh = place.fleet.mesh_with("client", &caller);
        let channel = shop(&mesh);
        until_served(&channel).await;
        let who = format!("{} false true", caller.spiffe());
        assert_eq!(ask(&channel, "/who").await, (StatusCode::OK, who));
        assert_eq!(ask(&channel, "/admin").await.0, StatusCode::FORBIDDEN);
        let stranger = place.fleet.mesh_with("other", &place.fleet.ca.identity("ratings"));
        assert_eq!(ask(&shop(&stranger), "/who").await.0, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn tonic_is_served_with_and_without_tls() {
    for secured in [true, false] {
        let place = Place::new();
        let (server, caller) = (place.fleet.ca.identity("reviews"), place.fleet.ca.identity("productpage"));
        if secured {
            place.set_secured(&server, &caller, false);
        } else {
            place.set(|listener| listener, |cluster| cluster);
        }
        let (serving, socket) = (place.fleet.mesh_with("server", &server), place.bind());
        let routes = tonic::service::Routes::from(App::new("reviews").router());
        let _running = beside(async move { serving.serve(socket, routes).await });
        let mesh = place.fleet.mesh_with("client", &caller);
        let mut client = EchoClient::new(shop(&mesh));
        assert_eq!(until_ok(&mut client).await.server, "reviews");
        let stranger = place.fleet.mesh_with("other", &place.fleet.ca.identity("ratings"));
        let answer = say(&mut EchoClient::new(shop(&stranger)), "x").await;
        match secured {
            true => assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied),
            false => assert_eq!(answer.unwrap().server, "reviews"),
        }
    }
}

#[tokio::test]
async fn a_rule_about_the_address_of_the_caller_keeps_everybody_out() {
    let place = Place::new();
    let loopback = || Principal::network(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
    let unary = |who| Policy::new().permission(Permission::path(UNARY)).principal(who);
    let (inside, outside) = (unary(loopback()), unary(loopback().negated()));
    place.set(|listener| listener, |cluster| cluster);
    let (serving, socket) = (place.fleet.mesh("server"), place.bind());
    let app = App::new("a");
    let router = app.router();
    let _running = beside(async move { serving.serve(socket, router).await });
    let mesh = place.fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    for rules in [
        Rbac::allow().policy("p", inside.clone()),
        Rbac::allow().policy("p", outside.clone()),
        Rbac::deny().policy("p", inside),
        Rbac::deny().policy("p", outside),
    ] {
        place.fleet.control.set(Listener::server(&*place.path).rbac(Rbac::deny()));
        until_ok(&mut client).await;
        place.fleet.control.set(Listener::server(&*place.path).rbac(rules));
        soon(async { while say(&mut client, "x").await.is_ok() {} }).await;
        assert_eq!(say(&mut client, "x").await.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_shutdown_serves_as_a_lame_duck_then_drains_and_leaves_the_file() {
    let place = Place::new();
    place.set(|listener| listener, |cluster| cluster);
    let serving = place.fleet.mesh_builder("server").lame_duck(Duration::from_secs(3_600));
    let (serving, socket) = (serving.build().expect("a mesh"), place.bind());
    let app = App::new("a");
    let (server, router) = (serving.clone(), app.router());
    let running = beside(async move { server.serve(socket, router).await });
    let mesh = place.fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    let leaving = |mesh: &Mesh| {
        let mesh = mesh.clone();
        beside(async move { mesh.shutdown(Duration::from_secs(60)).await })
    };
    let first = leaving(&serving);
    let newcomer = place.fleet.mesh("newcomer");
    until_ok(&mut EchoClient::new(shop(&newcomer))).await;
    say(&mut client, "still there").await.expect("a lame duck serves");
    let held = {
        let mut client = EchoClient::new(shop(&mesh));
        beside(async move { client.unary(EchoRequest::say("held").held()).await })
    };
    app.until(|stats| stats.in_flight == 1).await;
    // The second shutdown ends the lame duck.
    let second = leaving(&serving);
    soon(async { while UnixStream::connect(&place.path).await.is_ok() {} }).await;
    app.open_gate();
    assert_eq!(soon(held).await.unwrap().unwrap().into_inner().server, "a");
    for shutdown in [first, second] {
        assert_eq!(soon(shutdown).await.unwrap(), Drained::Complete);
    }
    soon(running).await.unwrap().unwrap();
    assert!(place.path.exists(), "its file is that of who bound it");
}

#[tokio::test]
async fn a_file_that_an_earlier_process_left_is_for_the_application_to_remove() {
    let place = Place::new();
    place.set(|listener| listener, |cluster| cluster);
    drop(place.bind());
    let taken = UnixListener::bind(&place.path).expect_err("the file is there");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    std::fs::remove_file(&place.path).expect("it is the application's");
    let (serving, socket) = (place.fleet.mesh("server"), place.bind());
    let router = App::new("a").router();
    let _running = beside(async move { serving.serve(socket, router).await });
    let mesh = place.fleet.mesh("client");
    until_ok(&mut EchoClient::new(shop(&mesh))).await;
}

/// One exchange over a connection of its own, whose caller has said all that it will.
async fn exchange(place: &Place, request: &str) -> String {
    let mut socket = UnixStream::connect(&place.path).await.expect("it listens");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    socket.shutdown().await.expect("it is open");
    let mut answer = Vec::new();
    soon(socket.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Callers put anything where the name of a host is asked for, for there is none: nothing, `localhost`, the path in hex
/// (softprops/hyperlocal#30, docker, curl). Some leave before anything is said, and at some systems their sockets have no
/// name any more when they are closed (softprops/hyperlocal#61); whoever comes next is served.
#[tokio::test]
async fn callers_without_a_name_of_a_host_are_served_and_those_that_leave_cost_nobody_anything() {
    let place = Place::new();
    place.set(|listener| listener, |cluster| cluster);
    let (serving, socket) = (place.fleet.mesh("server"), place.bind());
    let router = app(&App::new("a"));
    let _running = beside(async move { serving.serve(socket, router).await });
    let mesh = place.fleet.mesh("client");
    until_served(&shop(&mesh)).await;
    for host in ["", "localhost", "2f746d702f73686f702e736f636b:0", "127.0.0.1:80", "[::1]"] {
        for _ in 0..3 {
            drop(UnixStream::connect(&place.path).await.expect("it listens"));
        }
        let mut cut = UnixStream::connect(&place.path).await.expect("it listens");
        cut.write_all(b"GET /who HT").await.expect("it reads");
        drop(cut);
        let answer = exchange(&place, &format!("GET /who HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{host}: {answer}");
        assert!(answer.ends_with("nobody false true"), "{host}: {answer}");
    }
}
