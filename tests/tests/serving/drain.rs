//! Leaving: what is in flight finishes, nothing new begins, nobody notices.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use mesh_tests::backend::App;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, Served, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::MeshChannel;
use mesh_tower::drain::Drained;
use mesh_xds::server::{Cluster, DownstreamTls, Listener, RouteConfig, UpstreamTls};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::{say, to, until_ok};

const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_call_in_flight_finishes_while_the_server_drains() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let mut served = fleet.serve(&serving, App::new("a"), |listener| listener);
    fleet.control.set(to(&served, |cluster| cluster));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    let mut in_flight = client.clone();
    let held = beside(async move { in_flight.unary(EchoRequest::say("held").held()).await });
    served.app.until(|stats| stats.in_flight == 1).await;

    let draining = serving.draining();
    let stopping = serving.clone();
    let stopped = beside(async move { stopping.shutdown(LIMIT).await });
    soon(draining).await;
    assert!(!held.is_finished());
    served.app.open_gate();
    soon(held).await.unwrap().unwrap();
    soon(stopped).await.unwrap();
    let address = served.address();
    served.ended().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_replica_that_leaves_under_load_costs_no_request() {
    let fleet = Fleet::start();
    let (mesh_a, mesh_b) = (fleet.mesh("a"), fleet.mesh("b"));
    let mut a = fleet.serve(&mesh_a, App::new("a"), |listener| listener);
    let b = fleet.serve(&mesh_b, App::new("b"), |listener| listener);
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main").endpoints(at([a.address(), b.address()])),
    ));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    soon(async { while until_ok(&mut client).await.server != "a" {} }).await;
    soon(async { while until_ok(&mut client).await.server != "b" {} }).await;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (mut client, stopped) = (client.clone(), stopped.clone());
        callers.spawn(async move {
            let mut calls = 0_u64;
            while !*stopped.borrow() {
                say(&mut client, "load").await.expect("no call is lost");
                calls += 1;
            }
            calls
        });
    }
    let before = b.app.stats().requests;
    soon(mesh_a.shutdown(LIMIT)).await;
    a.ended().await;
    b.app.until(|stats| stats.requests > before + 100).await;
    stop.send_replace(true);
    while let Some(calls) = callers.join_next().await {
        assert!(calls.unwrap() > 0);
    }
}

/// GET and POST in turn, without a retry policy: a POST that was written is never repeated.
async fn keep_calling(channel: MeshChannel, stopped: tokio::sync::watch::Receiver<bool>) -> u64 {
    let mut calls = 0_u64;
    while !*stopped.borrow() {
        let request = match calls % 2 {
            0 => Request::get("/a").body(Full::default()),
            _ => Request::post("/b").body(Full::new(Bytes::from_static(b"payload"))),
        };
        let response = soon(channel.clone().oneshot(request.expect("it goes as written")))
            .await
            .expect("never an error");
        let status = response.status();
        let body = response.into_body().collect().await.expect("no response is cut off").to_bytes();
        assert_eq!(status, StatusCode::OK, "call {calls}: {body:?}");
        calls += 1;
        tokio::task::yield_now().await;
    }
    calls
}

async fn http1_replica_leaves(secured: bool) {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let (mesh_a, mesh_b) = (fleet.mesh_with("a", &server), fleet.mesh_with("b", &server));
    let listener =
        |listener: Listener| if secured { listener.tls(DownstreamTls::mutual("default")) } else { listener };
    let mut a = fleet.serve(&mesh_a, App::new("a"), listener);
    let b = fleet.serve(&mesh_b, App::new("b"), listener);
    let cluster = Cluster::eds("main").http1().endpoints(at([a.address(), b.address()]));
    let cluster =
        if secured { cluster.tls(UpstreamTls::mutual("default").san(server.spiffe())) } else { cluster };
    fleet.control.set((Listener::client("shop").rds("shop"), RouteConfig::to("shop", "main"), cluster));
    let mesh = fleet.mesh_with("client", &caller);
    let channel = shop(&mesh);
    let up = async {
        while a.app.stats().requests == 0 || b.app.stats().requests == 0 {
            let request = Request::get("/up").body(Full::<Bytes>::default()).expect("it goes as written");
            drop(channel.clone().oneshot(request).await);
            tokio::task::yield_now().await;
        }
    };
    soon(up).await;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        callers.spawn(keep_calling(channel.clone(), stopped.clone()));
    }
    let before = a.app.stats().requests;
    a.app.until(|stats| stats.requests > before + 200).await;
    soon(mesh_a.shutdown(LIMIT)).await;
    a.ended().await;
    let before = b.app.stats().requests;
    b.app.until(|stats| stats.requests > before + 200).await;
    stop.send_replace(true);
    while let Some(calls) = callers.join_next().await {
        assert!(calls.expect("it goes as written") > 0);
    }
}

#[tokio::test]
async fn an_http1_replica_that_leaves_under_load_costs_no_request() {
    http1_replica_leaves(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_http1_replica_that_leaves_under_load_of_many_threads_costs_no_request() {
    http1_replica_leaves(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_http1_replica_with_mutual_tls_that_leaves_under_load_costs_no_request() {
    http1_replica_leaves(true).await;
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let mut served = fleet.serve(&serving, App::new("a"), |listener| listener);
    fleet.control.set(to(&served, |cluster| cluster));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    let held = beside(async move { client.unary(EchoRequest::say("held").held()).await });
    served.app.until(|stats| stats.in_flight == 1).await;
    soon(serving.shutdown(Duration::from_millis(100))).await;
    served.ended().await;
    soon(held).await.unwrap().unwrap_err();
    served.app.until(|stats| stats.in_flight == 0).await;
}

/// A replica that leaves, and the mesh of its callers.
struct Replica {
    served: Served,
    client: crate::Client,
    _mesh: mesh_tower::Mesh,
    fleet: Fleet,
}

impl Replica {
    async fn start(lame_duck: Duration) -> Self {
        let fleet = Fleet::start();
        let serving = fleet.mesh_builder("server").lame_duck(lame_duck).build().expect("a mesh");
        let served = fleet.serve(&serving, App::new("a"), |listener| listener);
        fleet.control.set(to(&served, |cluster| cluster));
        let mesh = fleet.mesh("client");
        let mut client = EchoClient::new(shop(&mesh));
        until_ok(&mut client).await;
        Self { served, client, _mesh: mesh, fleet }
    }
}

#[tokio::test]
async fn a_lame_duck_serves_old_and_new_callers_and_drains_when_its_time_is_over() {
    const LAME_DUCK: Duration = Duration::from_millis(300);
    let Replica { mut served, mut client, fleet, .. } = Replica::start(LAME_DUCK).await;
    let begun = tokio::time::Instant::now();
    let (serving, mut draining) = (served.mesh.clone(), served.mesh.draining());
    let stopped = beside(async move { serving.shutdown(LIMIT).await });
    let mut calls = 0_u64;
    loop {
        // New connections too: each of these meshes has its own.
        let newcomer = fleet.mesh(&format!("newcomer {calls}"));
        let mut other = EchoClient::new(shop(&newcomer));
        let both = async { (say(&mut client, "old").await, say(&mut other, "new").await) };
        tokio::select! {
            biased;
            () = &mut draining => break,
            (old, new) = both => {
                old.expect("an old caller is served");
                new.expect("a new caller is served");
                calls += 1;
            }
        }
    }
    assert!(begun.elapsed() >= LAME_DUCK && calls > 0, "{:?}, {calls} calls", begun.elapsed());
    assert_eq!(soon(stopped).await.unwrap(), Drained::Complete);
    served.ended().await;
    assert!(TcpStream::connect(served.address()).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_second_shutdown_ends_the_lame_duck() {
    let Replica { mut served, mut client, .. } = Replica::start(Duration::from_secs(3_600)).await;
    let serving = served.mesh.clone();
    let first = beside(async move { serving.shutdown(LIMIT).await });
    tokio::task::yield_now().await;
    say(&mut client, "still there").await.unwrap();
    assert!(!first.is_finished());
    soon(served.mesh.shutdown(LIMIT)).await;
    assert_eq!(soon(first).await.unwrap(), Drained::Complete);
    served.ended().await;
}

/// An application that answers at once, and goes on calling somebody else.
async fn goes_on_calling(limit: Duration, finishes: bool) {
    let fleet = Fleet::start();
    let b = fleet.backend("b");
    let serving = fleet.mesh("server");
    let port = Port::reserve();
    fleet.control.set((
        Listener::server(port.address()),
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main").endpoints(at([b.address()])),
    ));
    let onward = EchoClient::new(shop(&serving));
    let app = tower::service_fn(move |_: Request<mesh_tower::Body>| {
        let mut onward = onward.clone();
        drop(beside(async move { onward.unary(EchoRequest::say("held").held()).await }));
        async { Ok::<_, std::convert::Infallible>(http::Response::new(mesh_tower::Body::empty())) }
    });
    let (server, tcp) = (serving.clone(), port.listen());
    let mut running = beside(async move { server.serve(tcp, app).await });
    let caller = fleet.mesh("caller");
    fleet.control.set((
        Listener::client("front").rds("front"),
        RouteConfig::to("front", "front"),
        Cluster::eds("front").http1().endpoints(at([port.address()])),
    ));
    let front = caller.channel("xds:///front").expect("a target");
    soon(async {
        while b.app.stats().in_flight == 0 {
            let request = Request::get("/").body(Full::<Bytes>::default()).expect("it goes as written");
            drop(front.clone().oneshot(request).await);
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((front, caller));
    let stopping = serving.clone();
    let stopped = beside(async move { stopping.shutdown(limit).await });
    if finishes {
        let early = tokio::time::timeout(Duration::from_millis(300), &mut running).await;
        assert!(early.is_err(), "serving has ended, and a call is in flight: {early:?}");
        b.app.open_gate();
    }
    soon(running).await.expect("no panic").expect("it served to the end");
    let drained = if finishes { Drained::Complete } else { Drained::Forced };
    assert_eq!(soon(stopped).await.expect("no panic"), drained);
}

#[tokio::test]
async fn serving_ends_after_the_calls_that_the_application_makes() {
    goes_on_calling(LIMIT, true).await;
}

#[tokio::test]
async fn serving_ends_at_the_limit_whatever_the_application_still_calls() {
    goes_on_calling(Duration::from_millis(100), false).await;
}
