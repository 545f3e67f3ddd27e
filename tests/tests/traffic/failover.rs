//! Priorities, and endpoints that go and come back.

use mesh_tests::fleet::{Fleet, at};
use mesh_xds::server::{Endpoints, Locality};
use tonic::Code;

use crate::{client, detailed_client, main_cluster, one_cluster, say, spread, until_served_by};

fn tiers(first: Locality, second: Locality) -> Endpoints {
    Endpoints::new("").locality(first.priority(0)).locality(second.priority(1))
}

#[tokio::test]
async fn the_second_priority_is_used_only_while_the_first_is_unhealthy() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    let both =
        || tiers(Locality::new("1").endpoints([a.address()]), Locality::new("2").endpoints([b.address()]));
    let first_down =
        || tiers(Locality::new("1").unhealthy(a.address()), Locality::new("2").endpoints([b.address()]));
    fleet.control.set(one_cluster(main_cluster(both())));
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(spread(&mut client, 200).await.get("a"), Some(&200));
    fleet.control.set(first_down().named("main"));
    until_served_by(&mut client, "b").await;
    fleet.control.set(both().named("main"));
    until_served_by(&mut client, "a").await;
    assert_eq!(spread(&mut client, 100).await.get("a"), Some(&100));
}

#[tokio::test]
async fn a_first_priority_that_is_gone_fails_over_and_back() {
    let fleet = Fleet::start();
    let (mut a, b) = (fleet.backend("a"), fleet.backend("b"));
    let endpoints =
        tiers(Locality::new("1").endpoints([a.address()]), Locality::new("2").endpoints([b.address()]));
    fleet.control.set(one_cluster(main_cluster(endpoints)));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "a").await;
    a.stop().await;
    let mut failed = 0;
    mesh_tests::wait::soon(async {
        loop {
            match say(&mut client, "x").await {
                Ok(reply) if reply.server == "b" => break,
                Ok(_) => {}
                // What was on the connection when it was cut.
                Err(_) => failed += 1,
            }
        }
    })
    .await;
    assert!(failed <= 1, "{failed} sequential calls failed");
    a.restart();
    until_served_by(&mut client, "a").await;
}

#[tokio::test]
async fn an_endpoint_that_stops_and_returns_is_used_again() {
    let fleet = Fleet::start();
    let (mut a, b) = (fleet.backend("a"), fleet.backend("b"));
    fleet.control.set(one_cluster(main_cluster(at([a.address(), b.address()]))));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "a").await;
    until_served_by(&mut client, "b").await;
    a.stop().await;
    let mut failed = 0;
    for _ in 0..200 {
        failed += usize::from(say(&mut client, "x").await.is_err());
    }
    assert!(failed <= 1, "{failed} sequential calls failed");
    a.restart();
    until_served_by(&mut client, "a").await;
}

#[tokio::test]
async fn no_endpoints_is_unavailable_at_once_and_ends_when_some_come() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(Endpoints::new(""))));
    let (_mesh, mut client) = detailed_client(&fleet);
    let status = mesh_tests::wait::soon(say(&mut client, "x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("main"), "{status:?}");
    fleet.control.set(at([a.address()]).named("main"));
    mesh_tests::wait::soon(async { while say(&mut client, "x").await.is_err() {} }).await;
}

#[tokio::test]
async fn a_control_plane_that_is_gone_costs_no_request() {
    let mut fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "a").await;
    fleet.kill_control_plane().await;
    assert_eq!(spread(&mut client, 100).await.get("a"), Some(&100));
}
