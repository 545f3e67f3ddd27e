//! What can be served, and what an application and a sink of events get to see.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use tonic::service::Routes;
use tower::service_fn;

use super::*;
use crate::server::Peer;

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
        let mut response = tonic::Status::ok("").into_http();
        if let Some(Some(remote)) = request.extensions().get::<Peer>().map(|peer| peer.remote) {
            response.headers_mut().insert("seen-peer", remote.to_string().parse().unwrap());
        }
        ready(Ok(response))
    }
}

#[tokio::test]
async fn an_axum_router_is_served_over_http1_and_http2() {
    let (world, address, _running) = open_to_all(hello()).await;
    let response = http1(address).await.send_request(get("/hello")).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_11));
    assert_eq!(text(response).await, "hello");
    let response = http2(address).await.send_request(get("/hello")).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(text(response).await, "hello");
    let seen = world.events.wait_for(2).await;
    assert!(seen.iter().all(|e| e.status == 200 && e.flags == "-" && e.path == "/hello"), "{seen:?}");
    assert_eq!(world.server.requests.used(), 0);
}

/// Whether or not they leave in one piece with the head of the response.
#[tokio::test]
async fn bodies_of_any_size_arrive_whole_over_tls() {
    let pki = Pki::new();
    let world = World::with(crate::server::ServerLimits::default(), Some(pki.server.clone()));
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![pki.chain(Wire::Tls)]);
    let pattern = |size: usize| (0..size).map(|n| char::from(b'a' + (n % 26) as u8)).collect::<String>();
    let sized = move |axum::extract::Path(size): axum::extract::Path<usize>| async move { pattern(size) };
    let _running = Running::new(&world, tcp, Router::new().route("/{size}", route_get(sized)));
    let connect = || async { Box::new(tokio::net::TcpStream::connect(address).await.unwrap()) };
    let mut http1 =
        http1_over(pki.secure(Wire::Tls, connect().await, &address.into(), UpstreamProtocol::Http1).await)
            .await;
    let mut http2 =
        http2_over(pki.secure(Wire::Tls, connect().await, &address.into(), UpstreamProtocol::Http2).await)
            .await;
    for size in (1_900..2_100).chain([0, 1, 255, 256, 257, 16_384, 100_000]) {
        let request = || get(&format!("/{size}"));
        assert_eq!(text(http1.send_request(request()).await.unwrap()).await, pattern(size));
        assert_eq!(text(http2.send_request(request()).await.unwrap()).await, pattern(size));
    }
}

#[tokio::test]
async fn tonic_routes_are_served_and_a_handler_sees_its_peer() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let _running = Running::new(&world, tcp, Routes::new(Reviews));
    let response = http2(address).await.send_request(grpc("/shop.Reviews/List")).await.unwrap();
    assert!(response.headers()["seen-peer"].to_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn any_tower_service_is_served_and_its_bytes_are_counted() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let echo = service_fn(|request: Request<Body>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, crate::body::BodyError>(Response::new(Body::full(body)))
    });
    let _running = Running::new(&world, tcp, echo);
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(tcp)).await.unwrap();
    let _connection = tokio::task::spawn(connection);
    let data = Bytes::from(vec![b'x'; 100_000]);
    let request = Request::post("/").header("host", "shop.test").body(Full::new(data)).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(text(response).await.len(), 100_000);
    let seen = world.events.wait_for(1).await;
    let counted = |bytes: u64| (100_000..100_200).contains(&bytes);
    assert!(counted(seen[0].request_bytes) && counted(seen[0].response_bytes), "{seen:?}");
    assert_eq!(seen[0].flags, "-");
}

#[tokio::test]
async fn an_extractor_gives_an_axum_handler_its_peer() {
    let who = |peer: Peer| async move { peer.remote.unwrap().ip().to_string() };
    let (_world, address, _running) = open_to_all(Router::new().route("/who", route_get(who))).await;
    let response = http1(address).await.send_request(get("/who")).await.unwrap();
    assert_eq!(text(response).await, "127.0.0.1");
}

#[tokio::test]
async fn a_caller_that_goes_away_is_told_of_as_cancelled_and_leaves_no_permit() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let (world, address, _running) = open_to_all(gated(&gate)).await;
    let mut client = http2(address).await;
    let mut waiting = Box::pin(client.send_request(get("/wait")));
    soon("the request's arrival", async {
        while world.server.requests.used() == 0 {
            assert!(futures_util::poll!(&mut waiting).is_pending());
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(waiting);
    let seen = world.events.wait_for(1).await;
    assert_eq!((seen[0].status, seen[0].flags.as_str()), (0, "DC"));
    assert_eq!(world.server.requests.used(), 0);
}

#[tokio::test]
async fn head_and_empty_responses_are_complete() {
    let (world, address, _running) = open_to_all(hello()).await;
    let mut client = http1(address).await;
    let mut head = get("/hello");
    *head.method_mut() = http::Method::HEAD;
    assert_eq!(text(client.send_request(head).await.unwrap()).await, "");
    let seen = world.events.wait_for(1).await;
    assert_eq!(seen[0].flags, "-");
}
