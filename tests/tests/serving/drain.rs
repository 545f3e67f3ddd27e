//! Leaving: what is in flight finishes, nothing new begins, nobody notices.

use std::time::Duration;

use mesh_tests::backend::App;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::{beside, soon};
use mesh_xds::server::{Cluster, Listener, RouteConfig};
use tokio::net::TcpStream;

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
