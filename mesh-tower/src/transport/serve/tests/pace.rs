//! What the listener grants a request and a connection, on the wire: `request_timeout`, `stream_idle_timeout`,
//! `max_headers_count`, `max_connection_duration`. Real sockets, so only the passing of short limits is asserted.

use std::time::Duration;

use http::StatusCode;
use mesh_core::config::listener::{FilterChain, ServingConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::shares::{Stack, under};
use super::*;
use crate::server::ServerLimits;

const SHORT: Duration = Duration::from_millis(100);

fn granting(serving: ServingConfig) -> FilterChain {
    let mut all = chain("all", vec![]);
    all.http.serving = serving;
    all
}

/// Reads all of the body; or answers with a response that says one word and no more.
fn app() -> Router {
    let stream = || async {
        let word = futures_util::stream::iter([Ok::<_, BoxError>("first")]);
        axum::body::Body::from_stream(futures_util::StreamExt::chain(word, futures_util::stream::pending()))
    };
    hello()
        .route("/read", axum::routing::post(|body: bytes::Bytes| async move { body }))
        .route("/stream", route_get(stream).post(stream))
}

async fn answer_to(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let n = soon("an answer", client.read(&mut answer)).await.unwrap();
    answer.truncate(n);
    (client, String::from_utf8(answer).unwrap())
}

fn timeouts() -> [ServingConfig; 2] {
    let request_timeout = Some(SHORT);
    let idle = ServingConfig { stream_idle_timeout: request_timeout, ..ServingConfig::default() };
    [ServingConfig { request_timeout, ..ServingConfig::default() }, idle]
}

#[tokio::test]
async fn an_http1_upload_that_stalls_is_answered_408_and_its_connection_closed() {
    let bodies = ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"];
    for (stack, serving) in [(Stack::Ours, 0), (Stack::Ours, 1), (Stack::Axum, 0), (Stack::Axum, 1)] {
        let (_world, address, _running) =
            under(stack, ServerLimits::default(), granting(timeouts()[serving]), app()).await;
        for body in bodies {
            let request = format!("POST /read HTTP/1.1\r\nhost: shop.test\r\n{body}");
            let (mut client, answer) = answer_to(address, &request).await;
            assert!(answer.starts_with("HTTP/1.1 408"), "{stack:?} {serving}: {answer}");
            assert!(answer.contains("connection: close"), "{stack:?} {serving}: {answer}");
            let mut rest = Vec::new();
            let _ = soon("the close", client.read_to_end(&mut rest)).await;
        }
        // Who sends all of it is served.
        let whole = "POST /read HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 3\r\n\r\nabc";
        assert!(answer_to(address, whole).await.1.ends_with("\r\n\r\nabc"), "{stack:?} {serving}");
    }
}

#[tokio::test]
async fn an_http2_upload_that_stalls_ends_alone() {
    for (stack, serving) in [(Stack::Ours, 0), (Stack::Ours, 1), (Stack::Tonic, 0), (Stack::Tonic, 1)] {
        let (_world, address, _running) =
            under(stack, ServerLimits::default(), granting(timeouts()[serving]), app()).await;
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::runtime::Handle::current().spawn(connection);
        for kind in ["text/plain", "application/grpc"] {
            let request = http::Request::post("http://shop.test/read").header("content-type", kind);
            let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data("abc".into(), false).unwrap();
            let answer = soon("an answer", answer).await.unwrap();
            let grpc = answer.headers().get("grpc-status").map(|status| status.to_str().unwrap());
            let expected = if kind == "text/plain" { (408, None) } else { (200, Some("4")) };
            assert_eq!((answer.status().as_u16(), grpc), expected, "{stack:?} {serving}");
        }
        let hello = http::Request::get("http://shop.test/hello").body(()).unwrap();
        let answer = client.send_request(hello, true).unwrap().0;
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 200, "{stack:?} {serving}");
    }
}

#[tokio::test]
async fn a_response_that_stalls_after_its_head_is_cut_off_and_neighbours_go_on() {
    let [_, idle] = timeouts();
    for stack in [Stack::Ours, Stack::Tonic] {
        let (world, address, _running) = under(stack, ServerLimits::default(), granting(idle), app()).await;
        let mut client = http2(address).await;
        let cut = soon("a head", client.send_request(get("/stream"))).await.unwrap();
        let read = soon("the end", http_body_util::BodyExt::collect(cut.into_body())).await;
        assert!(read.is_err(), "{stack:?}");
        let cut = soon("a head", client.send_request(grpc("/stream"))).await.unwrap();
        let read = soon("the end", http_body_util::BodyExt::collect(cut.into_body())).await.unwrap();
        assert_eq!(read.trailers().unwrap()["grpc-status"], "4", "{stack:?}");
        assert_eq!(client.send_request(get("/hello")).await.unwrap().status(), 200);
        assert_eq!(world.events.wait_for(2).await[0].flags, "SI", "{stack:?}");
    }
    let (_world, address, _running) =
        under(Stack::Ours, ServerLimits::default(), granting(idle), app()).await;
    let (mut client, mut answer) =
        answer_to(address, "GET /stream HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
    let _ = soon("the close", client.read_to_string(&mut answer)).await;
    assert!(answer.contains("first") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_that_stalls_has_no_more_time_than_its_request() {
    let [whole, _] = timeouts();
    let (_world, address, _running) =
        under(Stack::Ours, ServerLimits::default(), granting(whole), app()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /hello HTTP/1.1\r\nhost: shop.test\r\nx-").await.unwrap();
    assert_eq!(soon("the close", client.read(&mut [0; 64])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_request_of_too_many_headers_is_refused_with_431_and_others_are_served() {
    for most in [5, 150] {
        let serving = ServingConfig { max_headers_count: Some(most), ..ServingConfig::default() };
        for stack in [Stack::Ours, Stack::Axum, Stack::Tonic] {
            let (world, address, _running) =
                under(stack, ServerLimits::default(), granting(serving), app()).await;
            let with = |mut request: http::Request<http_body_util::Empty<bytes::Bytes>>, headers: u32| {
                request.headers_mut().remove("host");
                let has = u32::try_from(request.headers().len()).unwrap();
                for _ in has..headers {
                    request.headers_mut().append("x-many", "1".parse().unwrap());
                }
                request
            };
            if !matches!(stack, Stack::Axum) {
                let mut client = http2(address).await;
                let refused = client.send_request(with(get("/hello"), most + 1)).await.unwrap();
                assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{stack:?} {most}");
                let refused = client.send_request(with(grpc("/hello"), most + 1)).await.unwrap();
                assert_eq!(refused.headers()["grpc-status"], "8", "{stack:?} {most}");
                let served = client.send_request(with(get("/hello"), most)).await.unwrap();
                assert_eq!(served.status(), 200, "{stack:?} {most}");
                world.events.wait_for(3).await;
            }
            // hyper's own bound of 100 stands behind axum's server.
            if matches!(stack, Stack::Ours) || (matches!(stack, Stack::Axum) && most < 100) {
                let head = |headers: u32| {
                    let many = "x-many: 1\r\n".repeat(headers as usize - 1);
                    format!("GET /hello HTTP/1.1\r\nhost: shop.test\r\n{many}\r\n")
                };
                let (_client, refused) = answer_to(address, &head(most + 1)).await;
                assert!(
                    refused.starts_with("HTTP/1.1 431") && refused.contains("too many headers"),
                    "{refused}"
                );
                let (_client, served) = answer_to(address, &head(most)).await;
                assert!(served.starts_with("HTTP/1.1 200"), "{stack:?} {most}: {served}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_has_lasted_long_enough_is_sent_away_and_its_calls_finish() {
    let serving = ServingConfig { max_connection_duration: Some(SHORT), ..ServingConfig::default() };
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) =
        under(Stack::Ours, ServerLimits::default(), granting(serving), gated(&gate)).await;
    let (mut client, connection) =
        h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::runtime::Handle::current().spawn(connection);
    let wait = http::Request::get("http://shop.test/wait").body(()).unwrap();
    let (call, _) = client.send_request(wait, true).unwrap();
    soon("GOAWAY", async {
        while let Ok(ready) = client.clone().ready().await {
            drop(ready);
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.notify_one();
    let mut answer = soon("the answer", call).await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "waited");

    // HTTP/1.1: the call in flight finishes, its connection does not outlive it.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /stream HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    gate.notify_one();
    let mut answer = String::new();
    soon("the close", client.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.contains("first,") && answer.contains("second") && answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
}
