//! Timeouts and limits. Real sockets, so the clock is real: every limit is short, and only its passing is asserted.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::time::Duration;

use http::StatusCode;
use mesh_core::config::listener::FilterChain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::server::ServerLimits;

const SHORT: Duration = Duration::from_millis(100);

async fn limited(limits: ServerLimits, chain: FilterChain, app: Router) -> (World, SocketAddr, Running) {
    let world = World::with(limits, None);
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain]);
    let running = Running::new(&world, tcp, app);
    (world, address, running)
}

fn headers_within(timeout: Duration) -> FilterChain {
    let mut chain = chain("all", vec![]);
    chain.http.headers_timeout = Some(timeout);
    chain
}

#[tokio::test]
async fn a_client_that_says_nothing_or_half_a_head_is_closed() {
    let (_world, address, _running) = limited(ServerLimits::default(), headers_within(SHORT), hello()).await;
    for said in ["", "PRI * HT", "GET /hello HTTP/1.1\r\nhost: shop"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        let read = soon("the close", client.read(&mut [0; 64])).await;
        assert_eq!(read.unwrap_or(0), 0, "{said:?}");
    }
}

#[tokio::test]
async fn a_second_head_on_a_kept_connection_is_timed_too_but_silence_between_them_is_not() {
    let (_world, address, _running) = limited(ServerLimits::default(), headers_within(SHORT), hello()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET /hello HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let mut answer = vec![0; 4096];
    for _ in 0..2 {
        client.write_all(request).await.unwrap();
        let n = soon("an answer", client.read(&mut answer)).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"));
        // Silence for longer than a head may take.
        let silence = tokio::time::timeout(SHORT * 3, client.read(&mut answer)).await;
        assert!(silence.is_err(), "an idle connection stays open");
    }
    client.write_all(&request[..20]).await.unwrap();
    assert_eq!(soon("the close", client.read(&mut answer)).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn an_idle_connection_is_sent_away_and_a_busy_one_is_not() {
    let gate = Arc::new(Notify::new());
    let mut idle = chain("all", vec![]);
    idle.http.idle_timeout = Some(SHORT);
    let (_world, address, _running) = limited(ServerLimits::default(), idle, gated(&gate)).await;
    let (mut idle, mut busy) = (http2(address).await, http2(address).await);
    let call = tokio::task::spawn(async move { (busy.send_request(get("/wait")).await, busy) });
    soon("GOAWAY", async {
        while idle.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    gate.notify_one();
    let (answer, _busy) = soon("the answer", call).await.unwrap();
    assert_eq!(text(answer.unwrap()).await, "waited");
}

#[tokio::test]
async fn a_connection_above_the_limit_is_closed_and_one_below_it_is_served() {
    let limits = ServerLimits { connections: 1, ..ServerLimits::default() };
    let (world, address, _running) = limited(limits, chain("all", vec![]), hello()).await;
    let mut first = http2(address).await;
    assert!(first.send_request(get("/hello")).await.is_ok());
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon("the close", second.read(&mut [0; 1])).await.unwrap_or(0), 0);
    drop(first);
    soon("room", async {
        while world.server.connections.used() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(http1(address).await.send_request(get("/hello")).await.is_ok());
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused_with_a_reason() {
    let gate = Arc::new(Notify::new());
    let limits = ServerLimits { requests: 1, ..ServerLimits::default() };
    let (world, address, _running) = limited(limits, chain("all", vec![]), gated(&gate)).await;
    let mut client = http2(address).await;
    let (mut other, waiting) =
        (client.clone(), tokio::task::spawn(async move { client.send_request(get("/wait")).await }));
    soon("the first request's arrival", async {
        while world.server.requests.used() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(other.send_request(get("/wait")).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(other.send_request(grpc("/wait")).await.unwrap().headers()["grpc-status"], "14");
    gate.notify_one();
    assert!(soon("the answer", waiting).await.unwrap().is_ok());
    assert_eq!(world.events.wait_for(3).await[0].flags, "OM");
}

#[tokio::test]
async fn too_large_headers_are_refused() {
    let mut small = chain("all", vec![]);
    small.http.max_header_bytes = Some(8 * 1024);
    let (_world, address, _running) = limited(ServerLimits::default(), small, hello()).await;
    let large = || {
        let mut request = get("/hello");
        request.headers_mut().insert("x-large", "x".repeat(32 * 1024).parse().unwrap());
        request
    };
    for response in
        [http1(address).await.send_request(large()).await, http2(address).await.send_request(large()).await]
    {
        let refused = response.map_or(true, |r| r.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert!(refused);
    }
    assert!(http2(address).await.send_request(get("/hello")).await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_grpc_timeout_is_enforced_before_and_within_the_response() {
    let gate = Arc::new(Notify::new());
    let (world, address, _running) = open_to_all(gated(&gate)).await;
    let mut client = http2(address).await;
    let timed = |path: &str| {
        let mut request = get(path);
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
        request
    };
    let refused = soon("a refusal", client.send_request(timed("/wait"))).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "4");
    let cut = soon("a response", client.send_request(timed("/stream"))).await.unwrap();
    let collected = soon("its end", http_body_util::BodyExt::collect(cut.into_body())).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "4");
    assert_eq!(collected.to_bytes(), "first,");
    let seen = world.events.wait_for(2).await;
    assert!(seen.iter().all(|e| e.flags == "UT" && e.grpc.unwrap().get() == 4), "{seen:?}");
    assert_eq!(world.server.requests.used(), 0);
}
