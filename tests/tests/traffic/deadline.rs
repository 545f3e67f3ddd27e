//! Every call ends in time, whatever is broken.

use std::time::Duration;

use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fault::{BadPeer, FramePeer, Manner, Verdict};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::soon;
use mesh_tower::MeshBuilder;
use mesh_xds::bootstrap::{Bootstrap, ServerConfig};
use mesh_xds::server::{Endpoints, Listener, Resource, Resources as _, Retry, Route, RouteConfig};
use tokio::time::Instant;
use tonic::Code;
use tower::ServiceExt as _;

use crate::{Client, client, detailed_client, main_cluster, one_cluster, routed};

const TIMEOUT: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_millis(600);

/// The status of a call with a timeout of 500 ms, which has to come within 600 ms. A loaded machine may be late once;
/// a mesh that does not watch the clock is late each time.
async fn timed(client: &mut Client, request: EchoRequest) -> tonic::Status {
    for _ in 0..4 {
        let mut attempt = tonic::Request::new(request.clone());
        attempt.set_timeout(TIMEOUT);
        let begin = Instant::now();
        let status = client.unary(attempt).await.expect_err("nothing works here");
        if begin.elapsed() <= LATEST {
            return status;
        }
    }
    panic!("four calls in a row took more than {LATEST:?}");
}

async fn exceeds(resources: Vec<Resource>) {
    let fleet = Fleet::start();
    fleet.control.set(resources);
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(timed(&mut client, EchoRequest::say("x")).await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn no_control_plane() {
    let fleet = Fleet::start_without_control_plane();
    let (_mesh, mut client) = detailed_client(&fleet);
    let status = timed(&mut client, EchoRequest::say("x")).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("control plane unreachable"), "{status:?}");
}

#[tokio::test]
async fn no_control_plane_and_no_deadline() {
    let fleet = Fleet::start_without_control_plane();
    let (_mesh, mut client) = detailed_client(&fleet);
    let status = client.unary(EchoRequest::say("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("control plane unreachable"), "{status:?}");
}

/// A name of a label that is too long to be one: no server is asked for it.
fn no_name() -> String {
    format!("{}.invalid:1", "x".repeat(64))
}

#[tokio::test]
async fn a_control_plane_whose_name_cannot_be_resolved_is_told_as_that() {
    let server = ServerConfig::insecure(&format!("dns:///{}", no_name())).expect("a valid address");
    let bootstrap = Bootstrap::builder("client").server(server).build().expect("a valid bootstrap");
    let builder = MeshBuilder::from_bootstrap(bootstrap).expect("a builder").detailed_local_replies(true);
    let mesh = builder.build().expect("a mesh");
    let mut client = EchoClient::new(shop(&mesh));
    let at_once = soon(client.unary(EchoRequest::say("x"))).await.expect_err("nobody to ask");
    assert_eq!(at_once.code(), Code::Unavailable, "{at_once:?}");
    let in_time = timed(&mut client, EchoRequest::say("x")).await;
    assert_eq!(in_time.code(), Code::DeadlineExceeded, "{in_time:?}");
    for text in [at_once.message(), in_time.message()] {
        assert!(text.contains("cannot be resolved") && !text.contains("unreachable"), "{text}");
    }
    let ready = mesh.ready(Duration::ZERO).await.expect_err("not ready").to_string();
    assert!(ready.contains("cannot be resolved"), "{ready}");
}

#[tokio::test]
async fn an_address_that_cannot_be_resolved_is_told_as_that() {
    let fleet = Fleet::start_without_control_plane();
    let mesh = fleet.mesh_builder("client").detailed_local_replies(true).build().expect("a mesh");
    let channel = mesh.channel(&format!("dns:///{}", no_name())).expect("a target");
    let status = soon(EchoClient::new(channel.clone()).unary(EchoRequest::say("x"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let request = http::Request::get("/").body(mesh_tower::Body::empty()).expect("valid");
    let response = soon(channel.oneshot(request)).await.expect("never an error");
    assert_eq!(response.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    let error = response.extensions().get::<mesh_tower::Error>().expect("a reply of the mesh").to_string();
    for text in [status.message(), &error] {
        assert!(text.contains("it cannot be resolved") && !text.contains("control plane"), "{text}");
    }
}

#[tokio::test]
async fn no_listener() {
    exceeds(Vec::new()).await;
}

#[tokio::test]
async fn no_routes() {
    exceeds(Listener::client("shop").rds("shop").into_resources()).await;
}

#[tokio::test]
async fn no_cluster() {
    exceeds((Listener::client("shop").rds("shop"), RouteConfig::to("shop", "absent")).into_resources()).await;
}

#[tokio::test]
async fn no_endpoints_yet() {
    exceeds(one_cluster(mesh_xds::server::Cluster::eds("main"))).await;
}

#[tokio::test]
async fn an_empty_endpoint_list_fails_even_sooner() {
    let fleet = Fleet::start();
    fleet.control.set(one_cluster(main_cluster(Endpoints::new(""))));
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(timed(&mut client, EchoRequest::say("x")).await.code(), Code::Unavailable);
}

#[tokio::test]
async fn an_endpoint_that_is_silent() {
    let peer = BadPeer::start(Manner::Silence);
    exceeds(one_cluster(main_cluster(at([peer.address()])))).await;
}

#[tokio::test]
async fn a_stream_that_is_never_answered() {
    let peer = FramePeer::start(|_| Verdict::Ignore);
    exceeds(one_cluster(main_cluster(at([peer.address()])))).await;
}

#[tokio::test]
async fn a_stream_that_is_never_answered_with_retries_armed() {
    let peer = FramePeer::start(|_| Verdict::Ignore);
    let retry =
        Retry::on("deadline-exceeded,unavailable,reset").times(5).per_try_timeout(Duration::from_millis(120));
    let route = Route::prefix("/").cluster("main").retry(retry);
    exceeds(routed(route, main_cluster(at([peer.address()])))).await;
}

#[tokio::test]
async fn a_server_that_always_fails_with_long_pauses_between_retries() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let retry = Retry::on("unavailable").times(5).back_off(Duration::from_secs(3), Duration::from_secs(9));
    let route = Route::prefix("/").cluster("main").retry(retry);
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    let code = timed(&mut client, EchoRequest::say("x").failing(Code::Unavailable, 0)).await.code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Unavailable), "{code:?}");
}

#[tokio::test]
async fn the_servers_deadline_is_what_is_left_of_the_callers() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    let mut request = tonic::Request::new(EchoRequest::say("x"));
    request.set_timeout(Duration::from_secs(30));
    let reply = client.unary(request).await.unwrap().into_inner();
    let header = reply.headers.get("grpc-timeout").expect("the deadline travels");
    assert_ne!(header, "");
}

#[tokio::test]
async fn timeout_and_max_stream_duration_of_a_route_are_kept() {
    let fleet = Fleet::start();
    let peer = FramePeer::start(|_| Verdict::Ignore);
    let limit = Duration::from_millis(100);
    for route in [
        Route::prefix("/").cluster("main").timeout(limit),
        Route::prefix("/").cluster("main").max_stream_duration(limit),
    ] {
        fleet.control.set(routed(route, main_cluster(at([peer.address()]))));
        let (_mesh, mut client) = client(&fleet);
        let status = soon(client.unary(EchoRequest::say("x"))).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
}
