//! Configuration of a server that changes while it serves.

use mesh_tests::backend::App;
use mesh_tests::echo::EchoClient;
use mesh_tests::fleet::{Fleet, shop};
use mesh_xds::server::{Listener, Policy, Rbac};

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
