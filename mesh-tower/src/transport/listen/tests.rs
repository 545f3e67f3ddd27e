//! Our listener and layer under tonic's and axum's own servers.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get as route_get;
use http::StatusCode;
use mesh_core::matcher::string::StringMatcher;
use mesh_core::rbac::{Permission, Policy, Principal, RbacAction, RbacConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use super::MeshListener;
use crate::drain::Drained;
use crate::server::Peer;
use crate::server::testing::*;

fn no_admin() -> RbacConfig {
    RbacConfig {
        action: RbacAction::Deny,
        policies: vec![Policy {
            name: Arc::from("no-admin"),
            permissions: vec![Permission::UrlPath(StringMatcher::prefix("/admin"))],
            principals: vec![Principal::Any],
        }],
    }
}

fn app() -> Router {
    let who = |peer: Peer| async move { peer.remote.unwrap().ip().to_string() };
    Router::new().route("/who", route_get(who)).route("/admin", route_get(|| async { "secret" }))
}

async fn with_axum(world: &World, app: Router) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![no_admin()])]);
    let listener = MeshListener::new(world.server.clone(), tcp.into());
    let draining = world.server.drain.draining();
    let serve = async move {
        let app = app.into_make_service_with_connect_info::<Peer>();
        axum::serve(listener, app).with_graceful_shutdown(draining).await
    };
    (address, tokio::task::spawn(serve))
}

#[tokio::test]
async fn axums_server_with_our_layer_knows_the_peer_and_obeys_policy() {
    let world = World::new();
    let (address, serving) = with_axum(&world, app().layer(world.server.layer())).await;
    let mut client = http1(address).await;
    assert_eq!(text(client.send_request(get("/who")).await.unwrap()).await, "127.0.0.1");
    assert_eq!(client.send_request(get("/admin")).await.unwrap().status(), StatusCode::FORBIDDEN);
    drop(client);
    let drained = soon("the shutdown", world.server.drain.shutdown(std::time::Duration::from_secs(60))).await;
    assert_eq!(drained, Drained::Complete);
    soon("the end of axum's server", serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn tonics_server_with_our_layer_obeys_policy_and_drains() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![no_admin()])]);
    let routes = Routes::from(app());
    let serving = tonic::transport::Server::builder()
        .layer(world.server.layer())
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            MeshListener::new(world.server.clone(), tcp.into()),
            world.server.drain.draining(),
        );
    let serving = tokio::task::spawn(serving);
    let mut client = http2(address).await;
    assert_eq!(text(client.send_request(get("/who")).await.unwrap()).await, "127.0.0.1");
    let refused = client.send_request(grpc("/admin")).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "7");
    drop(client);
    world.server.drain.shutdown(std::time::Duration::from_secs(60)).await;
    soon("the end of tonic's server", serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_our_layer_a_listener_with_policy_serves_nobody() {
    let world = World::new();
    let (address, serving) = with_axum(&world, app()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap_or(0), 0);
    serving.abort();
}

#[tokio::test]
async fn with_our_layer_a_connection_of_somebody_elses_listener_is_refused() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let app = app().layer(world.server.layer());
    let serving = tokio::task::spawn(async move { axum::serve(tcp, app).await });
    let mut client = http1(address).await;
    assert_eq!(client.send_request(get("/who")).await.unwrap().status(), StatusCode::FORBIDDEN);
    serving.abort();
}
