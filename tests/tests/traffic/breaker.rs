//! Limits of a cluster: what is above them fails at once, and every way a call ends gives its place back.

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use mesh_tests::backend::Backend;
use mesh_tests::echo::{EchoReply, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::{beside, soon};
use mesh_tower::Body;
use mesh_xds::server::UpstreamTls;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Response, Status};
use tower::ServiceExt as _;

use crate::{Client, client, main_cluster, one_cluster, say};

/// A call that is at the backend, and stays there until its gate opens.
async fn hold(client: &Client, backend: &Backend) -> JoinHandle<Result<Response<EchoReply>, Status>> {
    let mut client = client.clone();
    let held = beside(async move { client.unary(EchoRequest::say("held").held()).await });
    backend.app.until(|stats| stats.in_flight == 1).await;
    held
}

#[tokio::test]
async fn above_max_requests_calls_fail_at_once_and_the_place_comes_back() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(at([a.address()])).max_requests(1)));
    let (_mesh, mut client) = client(&fleet);
    let held = hold(&client, &a).await;
    for _ in 0..19 {
        let status = soon(say(&mut client, "over")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    assert_eq!(a.app.stats().requests, 1);
    a.app.open_gate();
    soon(held).await.unwrap().unwrap();
    say(&mut client, "after").await.unwrap();
}

#[tokio::test]
async fn a_cancelled_call_gives_its_place_back() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(at([a.address()])).max_requests(1)));
    let (_mesh, mut client) = client(&fleet);
    let held = hold(&client, &a).await;
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    say(&mut client, "after").await.unwrap();
    a.app.until(|stats| stats.in_flight == 0).await;
}

#[tokio::test]
async fn a_limit_that_changes_applies_to_new_requests() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(at([a.address()])).max_requests(1)));
    let (_mesh, mut client) = client(&fleet);
    let held = hold(&client, &a).await;
    say(&mut client, "over").await.unwrap_err();
    fleet.control.set(main_cluster(at([a.address()])).max_requests(2));
    soon(async { while say(&mut client, "second").await.is_err() {} }).await;
    a.app.open_gate();
    soon(held).await.unwrap().unwrap();
    assert_eq!(a.app.stats().connections, 1, "a new limit is no new connection");
}

/// Over HTTP/1.1 each call has a connection of its own.
#[tokio::test]
async fn an_endpoint_gets_no_more_connections_than_its_cluster_says() {
    const CALLS: usize = 12;
    for (limit, tls) in [(1, false), (3, false), (3, true)] {
        let fleet = Fleet::start();
        let (server, me) = (fleet.ca.identity("server"), fleet.ca.identity("client"));
        let a = if tls { fleet.tls_backend("a", &server, true) } else { fleet.backend("a") };
        let cluster = main_cluster(at([a.address()])).http1().max_connections_per_endpoint(limit);
        let cluster = match tls {
            true => cluster.tls(UpstreamTls::mutual("default").san(server.spiffe())),
            false => cluster,
        };
        fleet.control.set(one_cluster(cluster));
        let mesh = fleet.mesh_with("client", &me);
        let channel = shop(&mesh);
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let request = Request::get("/x?hold").body(Body::empty()).expect("valid");
            calls.spawn(read(channel.clone().oneshot(request)));
        }
        let limit = u64::from(limit);
        a.app.until(|stats| stats.in_flight == limit).await;
        a.app.open_gate();
        assert_eq!(soon(calls.join_all()).await, [StatusCode::OK; CALLS]);
        let stats = a.app.stats();
        assert_eq!((stats.connections, stats.most_in_flight), (limit, limit), "{stats:?}");
    }
}

/// The status of a call whose answer was read to its end.
async fn read(call: impl Future<Output = Result<http::Response<Body>, mesh_tower::Error>>) -> StatusCode {
    let response = call.await.expect("never an error");
    let status = response.status();
    response.into_body().collect().await.expect("a whole body");
    status
}
