//! Configuration of a server that changes while it serves.

use mesh_tests::backend::App;
use mesh_tests::echo::EchoClient;
use mesh_tests::fleet::{Fleet, shop};
use mesh_tests::wait::soon;
use mesh_xds::server::{Listener, Policy, Rbac, Resource};

use crate::{say, to, until_ok};

#[tokio::test]
async fn a_listener_that_changes_under_load_costs_no_request() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let served = fleet.serve(&serving, App::new("a"), |listener| listener);
    fleet.control.set(to(&served, |cluster| cluster));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    for round in 0..20 {
        let allow = Rbac::allow().policy(format!("round-{round}"), Policy::new());
        fleet.control.set(Listener::server(served.address()).rbac(allow));
        for _ in 0..5 {
            say(&mut client, "load").await.expect("no call is lost");
        }
        fleet.settled(2).await;
    }
}

#[tokio::test]
async fn a_bad_listener_is_refused_and_the_last_good_one_serves() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let served = fleet.serve(&serving, App::new("a"), |listener| listener);
    fleet.control.set(to(&served, |cluster| cluster));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    let bad = Listener::server(served.address()).http_filter(
        "m",
        "type.googleapis.com/example.Mystery",
        Vec::new(),
    );
    fleet.control.set(bad);
    let refusal = fleet.nack().await;
    assert!(refusal.contains("http_filters"), "{refusal}");
    say(&mut client, "x").await.unwrap();
}

#[tokio::test]
async fn a_server_accepts_nothing_before_its_listener_is_valid() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let served = fleet.serve(&serving, App::new("a"), |listener| listener);
    fleet.control.set(to(&served, |cluster| cluster));
    let name = format!("grpc/server?xds.resource.listening_address={}", served.address());
    fleet.control.set(Resource::opaque(mesh_xds::server::Kind::Listener, name, vec![0xff]));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    let mut request = tonic::Request::new(mesh_tests::echo::EchoRequest::say("x"));
    request.set_timeout(std::time::Duration::from_millis(300));
    soon(client.unary(request)).await.unwrap_err();
    assert_eq!(served.app.stats().requests, 0);
    fleet.control.set(Listener::server(served.address()));
    until_ok(&mut client).await;
}
