//! Inputs of public bug reports against other HTTP/2 implementations, tried on our client. Servers:
//! `transport/serve/tests/reported`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;

use super::tests::{MIB, call, connect, get, head, raw, read, send, soon};
use super::{ReceiveBudget, UnreadLimits};
use crate::body::Body;
use crate::transport::HttpConnection as _;
use crate::transport::error::SendError;
use crate::transport::h2::Connection;
use crate::transport::testing::{Incoming, RawServer, Respond, pipe, post, serve_h2, spawn};

type Answer = tokio::task::JoinHandle<Result<Response<Body>, SendError>>;

/// Sends a request, and waits until the server has its head.
async fn sent(connection: &Arc<Connection>, server: &mut RawServer, request: Request<Body>) -> (u32, Answer) {
    let connection = connection.clone();
    let answer = spawn(async move { send(&connection, request).await });
    loop {
        let (kind, _, stream, _) = soon("a frame", server.frame()).await.unwrap();
        if kind == 1 {
            return (stream, answer);
        }
    }
}

async fn exchange(connection: &Arc<Connection>, server: &mut RawServer) {
    let (stream, answer) = sent(connection, server, get("/")).await;
    server.ok(stream).await;
    soon("an answer", answer).await.unwrap().unwrap();
}

/// hyperium/hyper#3681 and #2872: a reset was taken for the end of the message. Here beside so many other calls that what
/// is known of their streams takes the place of what is known of this one.
#[tokio::test]
async fn a_response_that_outlives_thousands_of_calls_is_not_whole_because_they_are() {
    for code in [0u32, 2, 8] {
        let (connection, mut server) = raw().await;
        let (long, answer) = sent(&connection, &mut server, get("/watch")).await;
        server.write(1, 0x4, long, &head(None)).await;
        server.write(0, 0, long, &[b'x'; 500]).await;
        let response = soon("the head", answer).await.unwrap().unwrap();
        for _ in 0..4_200 {
            exchange(&connection, &mut server).await;
        }
        server.write(3, 0, long, &code.to_be_bytes()).await;
        let body = soon("the body", response.into_body().collect()).await;
        assert!(body.is_err(), "reset with {code}");
    }
}

/// golang/go#59969: the window of one stream stays at 0, and its body is never sent. Here because other streams were
/// cancelled since it began.
#[tokio::test]
async fn a_response_that_begins_after_thousands_of_cancelled_calls_has_a_window() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), move |request: Incoming, mut respond: Respond| {
        let gate = opened.clone();
        async move {
            let is_long = request.uri().path() == "/watch";
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            if is_long {
                gate.notified().await;
                let _ = stream.send_data(vec![b'x'; MIB].into(), true);
            } else {
                // Cancelled by its caller.
                let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            }
        }
    }));
    let budget = ReceiveBudget::new(UnreadLimits::default());
    let connection = connect(client, budget.clone()).await;
    let long = call(&connection, "/watch").await;
    for _ in 0..4_200 {
        drop(call(&connection, "/").await);
    }
    gate.notify_one();
    assert_eq!(read(long).await.len(), MIB);
    soon("the return of the budget", async {
        while budget.used() > 0 {
            drop(call(&connection, "/").await);
        }
    })
    .await;
}

/// JuliaWeb/HTTP.jl#1360, ballerina-lang#19047: an interim response was taken for the response.
#[tokio::test]
async fn interim_responses_are_skipped_however_many_there_are() {
    // `:status` by its name in the static table, and its value.
    let interim = |code: &str| [&[0x08, 3][..], code.as_bytes()].concat();
    for codes in [vec!["100"], vec!["103"], vec!["100", "102", "103"], vec!["103"; 5_000]] {
        let (connection, mut server) = raw().await;
        let (stream, answer) = sent(&connection, &mut server, post(Body::full("x"))).await;
        for code in &codes {
            server.write(1, 0x4, stream, &interim(code)).await;
        }
        server.write(1, 0x4, stream, &head(None)).await;
        server.write(0, 1, stream, b"hello").await;
        let response = soon("the head", answer).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{} interim responses", codes.len());
        assert_eq!(read(response).await, "hello");
        exchange(&connection, &mut server).await;
    }
    // One that ends the stream is no response at all.
    let (connection, mut server) = raw().await;
    let (stream, answer) = sent(&connection, &mut server, get("/")).await;
    server.write(1, 0x5, stream, &interim("103")).await;
    assert!(soon("a failure", answer).await.unwrap().is_err());
}

/// apache/trafficserver#12747, apple/servicetalk#1360: a response without content whose head announces a length failed.
#[tokio::test]
async fn a_response_without_content_may_announce_a_length() {
    for (method, status) in
        [(Method::HEAD, 0x88), (Method::HEAD, 0x8b), (Method::GET, 0x8b), (Method::HEAD, 0x8d)]
    {
        for separate_end in [false, true] {
            let (connection, mut server) = raw().await;
            let request = Request::builder().method(method.clone()).uri("http://peer.example/");
            let (stream, answer) = sent(&connection, &mut server, request.body(Body::empty()).unwrap()).await;
            let mut block = head(Some("1000"));
            block[0] = status;
            server.write(1, if separate_end { 0x4 } else { 0x5 }, stream, &block).await;
            if separate_end {
                server.write(0, 1, stream, &[]).await;
            }
            let what = format!("{method} answered with {status:#x}, END_STREAM apart: {separate_end}");
            let response =
                soon(&what, answer).await.unwrap().unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(response.headers()["content-length"], "1000");
            let body = soon(&what, response.into_body().collect()).await;
            assert_eq!(body.unwrap_or_else(|error| panic!("{what}: {error}")).to_bytes().len(), 0);
            exchange(&connection, &mut server).await;
        }
    }
}

/// nghttp2#1408, elixir-mint#505: a response that is longer or shorter than it announces was accepted.
#[tokio::test]
async fn a_response_of_another_length_than_it_announces_fails_alone() {
    for (announced, sent_bytes, trailers) in
        [("5", 9, false), ("5", 3, false), ("5", 3, true), ("0", 1, false), ("5", 0, true)]
    {
        let (connection, mut server) = raw().await;
        let (stream, answer) = sent(&connection, &mut server, get("/")).await;
        server.write(1, 0x4, stream, &head(Some(announced))).await;
        server.write(0, u8::from(!trailers), stream, &vec![b'x'; sent_bytes]).await;
        if trailers {
            server.write(1, 0x5, stream, &[0x00, 1, b'a', 1, b'b']).await;
        }
        let failed = match soon("an answer", answer).await.unwrap() {
            Ok(response) => soon("the body", response.into_body().collect()).await.is_err(),
            Err(_) => true,
        };
        assert!(failed, "{sent_bytes} bytes of {announced}, trailers: {trailers}");
        exchange(&connection, &mut server).await;
    }
}

/// CVE-2019-9514 to 9517 (envoyproxy/envoy, golang/go#33606, nghttp2): a peer that makes us write and does not read fills
/// our memory.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_not_read_for_ever() {
    let (connection, mut server) = raw().await;
    let (stream, answer) = sent(&connection, &mut server, get("/")).await;
    server.write(1, 0x4, stream, &head(None)).await;
    let (mut reader, mut writer) = tokio::io::split(server.into_io());
    let frames = Arc::new(AtomicUsize::new(0));
    let written = frames.clone();
    // Empty and padded: both windows get the padding back.
    let flood = spawn(async move {
        for _ in 0..100_000 {
            writer.write_all(&[0, 0, 1, 0, 0x8, 0, 0, 0, 1, 0]).await.unwrap();
            written.fetch_add(1, Ordering::Relaxed);
        }
        writer.write_all(&[0, 0, 1, 0, 0x1, 0, 0, 0, 1, b'x']).await.unwrap();
        writer
    });
    assert_eq!(stream, 1);
    // The time of a test passes when nothing else can be done.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let before = frames.load(Ordering::Relaxed);
    assert!(before < 80_000, "{before} frames were taken");
    // Once it reads, it is read.
    let drained = spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let response = tokio::time::timeout(Duration::from_secs(3_600), answer).await.unwrap().unwrap().unwrap();
    let body =
        tokio::time::timeout(Duration::from_secs(3_600), response.into_body().collect()).await.unwrap();
    assert_eq!(body.unwrap().to_bytes(), "x");
    assert_eq!(frames.load(Ordering::Relaxed), 100_000);
    drop((connection, flood, drained));
}

/// hyperium/h2#894, line/armeria#6642: padding of data on a stream that was reset was never given back.
#[tokio::test]
async fn padded_data_of_cancelled_responses_costs_nothing() {
    let budget = ReceiveBudget::new(UnreadLimits::default());
    let (client, server) = pipe();
    let server = spawn(RawServer::accept(server));
    let connection = connect(client, budget.clone()).await;
    let mut server = server.await.unwrap();
    for _ in 0..300 {
        let (stream, answer) = sent(&connection, &mut server, get("/")).await;
        server.write(1, 0x4, stream, &head(None)).await;
        let response = soon("the head", answer).await.unwrap().unwrap();
        let mut padded = vec![255];
        padded.resize(256 + 16_000, 0);
        server.write(0, 0x8, stream, &padded).await;
        drop(response);
        for _ in 0..20 {
            server.write(0, 0x8, stream, &padded[..256]).await;
            server.write(0, 0x8, stream, &padded[..257]).await;
        }
        server.write(0, 0, stream, &[b'x'; 9_000]).await;
        server.write(0, 1, stream, &[b'x'; 9_000]).await;
    }
    exchange(&connection, &mut server).await;
    soon("the return of the budget", async {
        while budget.used() > 0 {
            exchange(&connection, &mut server).await;
        }
    })
    .await;
    assert_eq!(connection.in_flight(), 0);
    // A body of 2 MiB, in what the windows allow at once and what they are given.
    let (stream, answer) = sent(&connection, &mut server, get("/")).await;
    server.write(1, 0x4, stream, &head(None)).await;
    let mut body = soon("the head", answer).await.unwrap().unwrap().into_body();
    for n in 0..128u8 {
        server.write(0, u8::from(n == 127), stream, &[n; 16 * 1024]).await;
        let frame = soon("a frame", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), Bytes::from(vec![n; 16 * 1024]));
    }
    assert!(soon("the end", body.frame()).await.is_none());
}
