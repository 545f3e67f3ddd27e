//! Which endpoint a request goes to.

use mesh_tests::fault::{BadPeer, Manner};
use mesh_tests::fleet::{Fleet, at};
use mesh_xds::server::{Endpoints, Lb, Locality};

use crate::{client, main_cluster, one_cluster, say, spread, until_served_by};

#[tokio::test]
async fn round_robin_is_even() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    fleet.control.set(one_cluster(main_cluster(at([a.address(), b.address()]))));
    let (_mesh, mut client) = client(&fleet);
    // Both connections are up before counting.
    until_served_by(&mut client, "a").await;
    until_served_by(&mut client, "b").await;
    let servers = spread(&mut client, 400).await;
    assert!((195..=205).contains(&servers["a"]), "{servers:?}");
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_costs_no_request() {
    let fleet = Fleet::start();
    let (good, bad) = (fleet.backend("good"), BadPeer::start(Manner::Refuse));
    fleet.control.set(one_cluster(main_cluster(at([good.address(), bad.address()]))));
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(spread(&mut client, 1600).await.get("good"), Some(&1600));
}

#[tokio::test]
async fn an_endpoint_that_resets_connections_costs_no_request_over_three_back_off_periods() {
    let fleet = Fleet::start();
    let (good, bad) = (fleet.backend("good"), BadPeer::start(Manner::Reset));
    fleet.control.set(one_cluster(main_cluster(at([good.address(), bad.address()]))));
    let (_mesh, mut client) = client(&fleet);
    // One connect at once, and three after a pause: load flows all the time.
    let mut retried = Box::pin(bad.until_accepted(4));
    loop {
        tokio::select! {
            biased;
            _ = &mut retried => break,
            reply = say(&mut client, "x") => assert_eq!(reply.expect("no error").server, "good"),
        }
    }
}

#[tokio::test]
async fn locality_weights_count() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    let endpoints = Endpoints::new("")
        .locality(Locality::new("near").weight(99).endpoints([a.address()]))
        .locality(Locality::new("far").weight(1).endpoints([b.address()]));
    fleet.control.set(one_cluster(main_cluster(endpoints).locality_weighted()));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "b").await;
    let servers = spread(&mut client, 1000).await;
    let far = servers.get("b").copied().unwrap_or(0);
    assert!(far <= 40, "{servers:?}");
}

#[tokio::test]
async fn unhealthy_and_draining_endpoints_get_nothing() {
    let fleet = Fleet::start();
    let (a, b, c) = (fleet.backend("a"), fleet.backend("b"), fleet.backend("c"));
    let locality = Locality::new("z").endpoints([a.address()]).unhealthy(b.address()).draining(c.address());
    fleet.control.set(one_cluster(main_cluster(Endpoints::new("").locality(locality))));
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(spread(&mut client, 100).await.get("a"), Some(&100));
}

#[tokio::test]
async fn least_request_avoids_the_endpoint_that_is_busy() {
    use mesh_tests::echo::EchoRequest;
    let fleet = Fleet::start();
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    fleet.control.set(one_cluster(main_cluster(at([a.address(), b.address()])).lb(Lb::LeastRequest(2))));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "a").await;
    until_served_by(&mut client, "b").await;
    let mut held = tokio::task::JoinSet::new();
    for i in 0..20 {
        let mut client = client.clone();
        held.spawn(async move { client.unary(EchoRequest::say(format!("held {i}")).held()).await });
    }
    let (x, y) = tokio::join!(a.app.until(|s| s.in_flight >= 8), b.app.until(|s| s.in_flight >= 8));
    assert!(x.in_flight + y.in_flight <= 20);
    a.app.open_gate();
    b.app.open_gate();
    while let Some(reply) = held.join_next().await {
        reply.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_list_that_changes_keeps_the_connections_of_those_that_stay() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    fleet.control.set(one_cluster(main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "a").await;
    for _ in 0..10 {
        fleet.control.set(at([a.address(), b.address()]).named("main"));
        until_served_by(&mut client, "b").await;
        fleet.control.set(at([a.address()]).named("main"));
        fleet.settled(1).await;
    }
    assert_eq!(a.app.stats().connections, 1);
}
