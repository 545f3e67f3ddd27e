//! Shapes of use that have to compile, each of which somebody's channel did not.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::Empty;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::until_tasks_at_most;
use mesh_tower::{Mesh, MeshChannel};
use mesh_xds::server::{Cluster, Listener, RouteConfig};
use tower::{Service, ServiceExt as _};

fn is_channel<T: Clone + Send + Sync + 'static>() {}
fn is_shared<T: Send + Sync + 'static>() {}

fn fleet_of_one(backend: std::net::SocketAddr) -> Fleet {
    let fleet = Fleet::start();
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main").endpoints(at([backend])),
    ));
    fleet
}

#[test]
fn the_types_are_cheap_to_share() {
    is_channel::<MeshChannel>();
    is_channel::<Mesh>();
    is_channel::<EchoClient<MeshChannel>>();
    is_shared::<mesh_tower::Error>();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "that tokio::spawn takes a call is what this test is about")]
async fn a_call_can_be_spawned() {
    let backend = mesh_tests::backend::Backend::start("a");
    let fleet = fleet_of_one(backend.address());
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    let reply = tokio::spawn(async move { client.unary(EchoRequest::say("x")).await }).await.unwrap();
    assert_eq!(reply.unwrap().into_inner().server, "a");
}

#[tokio::test]
async fn a_client_can_be_shared_and_boxed() {
    let backend = mesh_tests::backend::Backend::start("a");
    let fleet = fleet_of_one(backend.address());
    let mesh = fleet.mesh("client");
    let shared = Arc::new(EchoClient::new(shop(&mesh)));
    let mut mine = (*shared).clone();
    mine.unary(EchoRequest::say("x")).await.unwrap();

    let mut boxed = tower::util::BoxService::new(shop(&mesh));
    let request = http::Request::get("/x").body(Empty::<Bytes>::new()).unwrap();
    assert!(boxed.ready().await.unwrap().call(request).await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_channel_lives_in_the_state_of_an_axum_application() {
    async fn handler(State(shop): State<MeshChannel>) -> String {
        let mut client = EchoClient::new(shop);
        match client.unary(EchoRequest::say("from a handler")).await {
            Ok(reply) => reply.into_inner().text,
            Err(status) => status.to_string(),
        }
    }
    let backend = mesh_tests::backend::Backend::start("a");
    let fleet = fleet_of_one(backend.address());
    let mesh = fleet.mesh("client");
    let app: Router = Router::new().route("/", get(handler)).with_state(shop(&mesh));
    let response =
        app.oneshot(http::Request::get("/").body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
    assert_eq!(body, "from a handler");
}

#[tokio::test]
async fn fifty_meshes_with_channels_leave_no_stream_connection_or_task_behind() {
    let backend = mesh_tests::backend::Backend::start("a");
    let fleet = fleet_of_one(backend.address());
    let baseline = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..50 {
        let mesh = fleet.mesh("client");
        let mut client = EchoClient::new(shop(&mesh));
        client.unary(EchoRequest::say("x")).await.unwrap();
    }
    mesh_tests::wait::soon(fleet.control.wait_for(<[_]>::is_empty)).await;
    backend.app.until(|stats| stats.open == 0).await;
    until_tasks_at_most(baseline).await;
}

#[test]
fn a_channel_outside_a_runtime_is_an_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mesh = runtime.block_on(async { Fleet::start_without_control_plane().mesh("client") });
    assert!(mesh.channel("xds:///shop").is_err());
}

#[tokio::test]
async fn a_target_that_makes_no_sense_is_an_error() {
    let mesh = Fleet::start_without_control_plane().mesh("client");
    for target in ["", "xds:///", "ftp://x"] {
        assert!(mesh.channel(target).is_err(), "{target:?}");
    }
}
