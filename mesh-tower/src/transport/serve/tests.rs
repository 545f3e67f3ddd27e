use std::convert::Infallible;
use std::future::ready;

use axum::Router;
use axum::routing::get as route_get;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use tonic::service::Routes;
use tower::service_fn;

use super::serve;
use crate::body::Body;
use crate::server::Peer;
use crate::server::testing::*;

/// The gRPC method `/shop.Reviews/List`, without generated code.
#[derive(Clone)]
struct Reviews;

impl tonic::server::NamedService for Reviews {
    const NAME: &'static str = "shop.Reviews";
}

impl tower_service::Service<Request<tonic::body::Body>> for Reviews {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        assert!(request.extensions().get::<Peer>().is_some(), "a gRPC handler sees its peer");
        let mut response = tonic::Status::ok("").into_http();
        response.headers_mut().insert("served-by", "reviews".parse().unwrap());
        ready(Ok(response))
    }
}

fn hello() -> Router {
    Router::new().route("/hello", route_get(|| async { "hello" }))
}

#[tokio::test]
async fn an_axum_router_is_served_over_http1_and_http2() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let serving = tokio::task::spawn(serve(world.server.clone(), tcp, hello()));
    let response = http1(address).await.send_request(get("/hello")).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_11));
    assert_eq!(text(response).await, "hello");
    let response = http2(address).await.send_request(get("/hello")).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(text(response).await, "hello");
    let seen = world.events.wait_for(2).await;
    assert!(seen.iter().all(|e| e.status == 200 && e.flags == "-" && e.path == "/hello"), "{seen:?}");
    serving.abort();
}

#[tokio::test]
async fn tonic_routes_are_served() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let serving = tokio::task::spawn(serve(world.server.clone(), tcp, Routes::new(Reviews)));
    let response = http2(address).await.send_request(grpc("/shop.Reviews/List")).await.unwrap();
    assert_eq!(response.headers()["served-by"], "reviews");
    serving.abort();
}

#[tokio::test]
async fn any_tower_service_is_served() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let app = service_fn(|request: Request<Body>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, crate::body::BodyError>(Response::new(Body::full(body)))
    });
    let serving = tokio::task::spawn(serve(world.server.clone(), tcp, app));
    let response = http2(address).await.send_request(get("/")).await.unwrap();
    assert_eq!(text(response).await, "");
    serving.abort();
}
