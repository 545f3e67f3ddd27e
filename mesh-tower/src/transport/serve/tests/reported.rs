//! Inputs of public bug reports against other HTTP servers, tried on ours. Clients: `transport/h2/guard/reported`.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::time::Duration;

use axum::extract::Request as AxumRequest;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

use super::streams::{Raw, client, frame, head, post, request};
use super::*;
use crate::drain::Drained;
use crate::server::ServerLimits;

const MIB: usize = 1024 * 1024;

/// `/ignore` drops its request and answers when the gate opens, every other path says its body back.
fn ignoring(dropped: &Arc<Notify>, gate: &Arc<Notify>) -> Router {
    let (dropped, gate) = (dropped.clone(), gate.clone());
    let ignore = move |request: AxumRequest| async move {
        drop(request);
        dropped.notify_one();
        gate.notified().await;
    };
    let echo = |request: AxumRequest| async { request.into_body() };
    Router::new().route("/ignore", axum::routing::any(ignore)).fallback(echo)
}

/// What bodies took of the budget has come back, and a large call passes in both directions.
async fn nothing_is_left(world: &World, client: &::h2::client::SendRequest<Bytes>) {
    let (status, text) = post(client, "/", vec![b'x'; 2 * MIB].into()).await;
    assert_eq!((status, text.len()), (StatusCode::OK, 2 * MIB));
    soon("the return of what bodies took", async {
        while world.server.budget.used() > 0 {
            post(client, "/", "x".into()).await;
        }
    })
    .await;
}

/// golang/go#42983 and #28204: a handler that closes the body and answers lost the window of what came after.
/// line/armeria#6642 is the same.
#[tokio::test]
async fn a_body_that_a_handler_lets_go_of_before_it_arrives_leaves_nothing_behind() {
    for (frames, size, trailers) in
        [(1, 24_000, false), (3, 8_000, false), (3, 8_000, true), (24, 1_000, false), (1_200, 20, true)]
    {
        let (dropped, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (world, address, _running) = open_to_all(ignoring(&dropped, &gate)).await;
        let client = client(address).await;
        for _ in 0..25 {
            let mut ready = soon("readiness", client.clone().ready()).await.unwrap();
            let (response, mut stream) = ready.send_request(request("/ignore"), false).unwrap();
            soon("the end of the request", dropped.notified()).await;
            for n in 0..frames {
                stream.send_data(vec![b'x'; size].into(), !trailers && n + 1 == frames).unwrap();
            }
            if trailers {
                stream.send_trailers(HeaderMap::new()).unwrap();
            }
            turns().await;
            turns().await;
            gate.notify_one();
            assert_eq!(soon("an answer", response).await.unwrap().status(), StatusCode::OK);
        }
        nothing_is_left(&world, &client).await;
    }
}

/// hyperium/h2#183, golang/go#16481, apache/pekko-http#1259: data that was buffered when its stream ended was never
/// given back to the window of the connection.
#[tokio::test]
async fn bytes_that_waited_for_a_reader_go_back_to_the_connection_when_their_stream_is_gone() {
    for (path, reset) in [("/stall", true), ("/ignore", false), ("/refuse", false)] {
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let drops = move |request: AxumRequest| async move {
            opened.notified().await;
            drop(request);
            std::future::pending::<()>().await;
        };
        let opened = gate.clone();
        let refuses = move |request: AxumRequest| async move {
            opened.notified().await;
            drop(request);
        };
        let stalls = |request: AxumRequest| async move {
            std::future::pending::<()>().await;
            drop(request);
        };
        let app = Router::new()
            .route("/ignore", axum::routing::any(drops))
            .route("/stall", axum::routing::any(stalls))
            .route("/refuse", axum::routing::any(refuses));
        let (world, address, _running) = open_to_all(app).await;
        let mut raw = Raw::open(address).await;
        raw.write(&frame(1, 0x4, 1, &head(path))).await;
        raw.write(&frame(0, 0, 1, b"0123456789").repeat(2_000)).await;
        raw.write(&frame(6, 0, 0, &[7; 8])).await;
        // All of it is there once the PING is answered.
        while raw.frame().await.unwrap().0 != 6 {}
        match reset {
            true => raw.write(&frame(3, 0, 1, &8u32.to_be_bytes())).await,
            false => gate.notify_one(),
        }
        // The codec has 64 of the frames; it gives their bytes back itself, when that is worth a frame.
        let mut sum = 0;
        while sum < (2_000 - 64) * 10 {
            let (kind, _, stream, payload) = raw.frame().await.expect("the connection ended");
            if (kind, stream) == (8, 0) {
                let update = u32::from_be_bytes(payload[..4].try_into().unwrap());
                // The largest one widens the window in the beginning.
                sum += if update < 1 << 30 { update } else { 0 };
            }
        }
        assert_eq!(sum, (2_000 - 64) * 10, "{path}");
        soon("the return of what the body took", async {
            while world.server.budget.used() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// hyperium/hyper#3681: a request body that was cut off by a reset was taken for whole.
#[tokio::test]
async fn a_request_that_was_cut_off_is_never_taken_for_whole() {
    let (tell, mut told) = mpsc::channel(1);
    let begun = Arc::new(Notify::new());
    let begin = begun.clone();
    let app = move |request: AxumRequest| {
        let tell = tell.clone();
        // A call that is cancelled before this never gets here.
        begin.notify_one();
        // Goes on although its stream is gone.
        tokio::task::spawn(async move {
            let whole = request.into_body().collect().await.map(|body| body.to_bytes().len());
            tell.send(whole.is_ok()).await.unwrap();
        });
        std::future::pending::<()>()
    };
    let (_world, address, _running) = open_to_all(Router::new().fallback(app)).await;
    for code in [0u32, 8, 2, 0x6d65_7368] {
        for parts in [0, 1, 3, 200] {
            let mut raw = Raw::open(address).await;
            raw.write(&frame(1, 0x4, 1, &head("/"))).await;
            raw.write(&frame(0, 0, 1, b"part").repeat(parts)).await;
            soon("the call of the application", begun.notified()).await;
            raw.write(&frame(3, 0, 1, &code.to_be_bytes())).await;
            let whole = soon("the end of the body", told.recv()).await.unwrap();
            assert!(!whole, "{parts} parts, reset with {code:#x}");
        }
    }
}

/// google/quiche#149, envoyproxy/envoy#40821: trailers were lost behind a body that is exactly as large as the window.
#[tokio::test]
async fn trailers_need_no_window() {
    for (length, parts) in [(65_535, 1), (65_535, 5), (16_384, 1), (0, 1)] {
        let app = move || async move {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let data = vec![b'x'; length / parts];
            let frames = (0..parts).map(move |_| http_body::Frame::data(Bytes::from(data.clone())));
            let frames = frames.chain([http_body::Frame::trailers(trailers)]).map(Ok::<_, BoxError>);
            let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            axum::response::Response::new(axum::body::Body::new(body))
        };
        let (_world, address, _running) = open_to_all(Router::new().fallback(app)).await;
        let client = client(address).await;
        let mut client = soon("readiness", client.ready()).await.unwrap();
        let (response, _) = client.send_request(request("/"), true).unwrap();
        // Nothing is given back of what is read.
        let mut body = soon("an answer", response).await.unwrap().into_body();
        let mut read = 0;
        while let Some(data) = soon("data", body.data()).await {
            read += data.unwrap().len();
        }
        assert_eq!(read, length);
        let trailers = soon("trailers", body.trailers()).await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    }
}

/// golang/go#54185: bytes beyond the announced length took of the connection's window for ever.
#[tokio::test]
async fn requests_of_another_length_than_they_announce_leave_nothing_behind() {
    let gate = Arc::new(Notify::new());
    let (world, address, _running) = open_to_all(ignoring(&gate, &gate)).await;
    let mut raw = Raw::open(address).await;
    // `content-length: 5`, by its name in the static table.
    let head = [&head("/")[..], &[0x0f, 0x0d, 1, b'5']].concat();
    for n in 0..600u32 {
        let stream = 2 * n + 1;
        raw.write(&frame(1, 0x4, stream, &head)).await;
        match n % 3 {
            0 => raw.write(&frame(0, 0, stream, &[b'x'; 16_384]).repeat(2)).await,
            1 => raw.write(&frame(0, 1, stream, b"abc")).await,
            _ => raw.write(&frame(0, 0x9, stream, &[&[200][..], &[b'x'; 210]].concat())).await,
        }
        loop {
            let (kind, _, of, _) = raw.frame().await.expect("the connection ended");
            assert_ne!(kind, 7, "GOAWAY");
            if (kind, of) == (3, stream) {
                break;
            }
        }
    }
    raw.write(&frame(1, 0x4, 2_001, &head)).await;
    raw.write(&frame(0, 1, 2_001, b"hello")).await;
    raw.response(2_001).await;
    assert_eq!(world.server.budget.used(), 0);
}

/// Counts DATA up to the answer to a PING.
async fn data_until_pong(raw: &mut Raw) -> usize {
    let mut bytes = 0;
    // Twice, because an answer overtakes what became ready together with it.
    for _ in 0..2 {
        raw.write(&frame(6, 0, 0, &[7; 8])).await;
        loop {
            match raw.frame().await.expect("the connection ended") {
                (0, _, _, data) => bytes += data.len(),
                (6, ..) => break,
                _ => {}
            }
        }
    }
    bytes
}

/// curl/curl#11450, oven-sh/bun#41329 and #33602: a change of SETTINGS_INITIAL_WINDOW_SIZE did not reach open streams.
/// lysine-dev/okhttp#5422, oven-sh/bun#40358: its bytes left before SETTINGS were acknowledged.
#[tokio::test]
async fn a_response_follows_the_windows_that_settings_give_and_take() {
    let app = || async { vec![b'x'; 100_000] };
    let (_world, address, _running) = open_to_all(Router::new().fallback(app)).await;
    let window = |bytes: u32| frame(4, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat());
    let mut raw = Raw::open(address).await;
    raw.write(&[window(0), frame(1, 0x5, 1, &head("/"))].concat()).await;
    loop {
        let (kind, flags, ..) = raw.frame().await.unwrap();
        if kind == 1 {
            assert_eq!(flags & 1, 0);
            break;
        }
    }
    assert_eq!(data_until_pong(&mut raw).await, 0);
    raw.write(&window(1_000)).await;
    let (kind, flags, ..) = raw.frame().await.unwrap();
    assert_eq!((kind, flags), (4, 1), "SETTINGS are acknowledged before they are used");
    assert_eq!(data_until_pong(&mut raw).await, 1_000);
    // Below zero, and back to it.
    raw.write(&window(10)).await;
    raw.write(&frame(8, 0, 1, &990u32.to_be_bytes())).await;
    assert_eq!(data_until_pong(&mut raw).await, 0);
    raw.write(&frame(8, 0, 1, &1u32.to_be_bytes())).await;
    assert_eq!(data_until_pong(&mut raw).await, 1);
    // More than the window of the connection, which SETTINGS do not change.
    raw.write(&window(1_000_000)).await;
    assert_eq!(data_until_pong(&mut raw).await, 65_535 - 1_001);
    raw.write(&frame(8, 0, 0, &100_000u32.to_be_bytes())).await;
    raw.response(1).await;
}

/// hyperium/hyper#3944: the answer to a GET with a body, over TLS, ended in a reset of the connection.
#[tokio::test]
async fn a_large_answer_to_a_body_that_nobody_reads_arrives_whole() {
    const LENGTH: usize = 300_551;
    let pki = Pki::new();
    for wire in [Wire::Plaintext, Wire::Tls] {
        let world = World::with(ServerLimits::default(), Some(pki.server.clone()));
        let (tcp, address) = socket().await;
        world.publish(1, address, vec![pki.chain(wire)]);
        let app = Router::new().fallback(|| async { "x".repeat(LENGTH) });
        let _running = Running::new(&world, tcp, app);
        for (method, close) in [("GET", ""), ("GET", "connection: close\r\n"), ("POST", "")] {
            let head = format!("{method} / HTTP/1.1\r\nhost: a\r\n{close}content-length: ");
            for body in [1, 100_000] {
                let mut io = pki.connect(wire, address).await;
                io.write_all(format!("{head}{body}\r\n\r\n{}", "x".repeat(body)).as_bytes()).await.unwrap();
                let (_, text) = response(&mut io).await.expect("an answer");
                assert_eq!(text.len(), LENGTH, "{method} with {body} bytes over {wire:?}");
            }
        }
    }
}

/// apache/trafficserver#7267: a graceful shutdown closed a connection whose last bytes a slow client had not taken yet.
#[tokio::test]
async fn a_shutdown_lets_a_slow_client_have_the_end_of_its_response() {
    const LENGTH: usize = 8 * MIB;
    let pki = Pki::new();
    for wire in [Wire::Plaintext, Wire::Tls] {
        for http2 in [false, true] {
            let world = World::with(ServerLimits::default(), Some(pki.server.clone()));
            let (tcp, address) = socket().await;
            world.publish(1, address, vec![pki.chain(wire)]);
            let app = Router::new().fallback(|| async { vec![b'x'; LENGTH] });
            let running = Running::new(&world, tcp, app);
            let mut io = pki.connect(wire, address).await;
            if http2 {
                let large = 0x7fff_0000u32.to_be_bytes();
                io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
                io.write_all(&frame(4, 0, 0, &[&[0, 4][..], &large].concat())).await.unwrap();
                io.write_all(&frame(8, 0, 0, &large)).await.unwrap();
                io.write_all(&frame(1, 0x5, 1, &head("/"))).await.unwrap();
            } else {
                io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            }
            let mut read = vec![0; 1];
            soon("the first byte", io.read_exact(&mut read)).await.unwrap();
            let drain = world.server.drain.clone();
            let shutdown = tokio::task::spawn(async move { drain.shutdown(Duration::from_secs(600)).await });
            soon("draining", world.server.drain.draining()).await;
            turns().await;
            let mut rest = Vec::new();
            soon("the end of the connection", io.read_to_end(&mut rest)).await.unwrap();
            let content = rest.iter().filter(|byte| **byte == b'x').count();
            assert!(content >= LENGTH, "{content} bytes over {wire:?}, HTTP/2: {http2}");
            assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
            running.ended().await;
        }
    }
}

/// varnishcache/varnish-cache#2923, helidon-io/helidon#12160: a stream that was opened right behind a reset was refused,
/// because the one that was reset still counted.
#[tokio::test]
async fn a_stream_may_take_the_place_of_one_that_was_reset_in_the_same_write() {
    let world = World::with(ServerLimits { max_concurrent_streams: 4, ..Default::default() }, None);
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let gate = Arc::new(Notify::new());
    let _running = Running::new(&world, tcp, streams::reader(&gate));
    let mut raw = Raw::open(address).await;
    for n in 0..4u32 {
        raw.write(&frame(1, 0x5, 2 * n + 1, &head("/stall"))).await;
    }
    for n in 0..2_000u32 {
        let (old, new) = (2 * n + 1, 2 * n + 9);
        raw.write(&[frame(3, 0, old, &8u32.to_be_bytes()), frame(1, 0x5, new, &head("/stall"))].concat())
            .await;
    }
    raw.write(&[frame(3, 0, 4_001, &8u32.to_be_bytes()), frame(1, 0x5, 4_009, &head("/"))].concat()).await;
    raw.response(4_009).await;
}

/// hyperium/hyper#2729, hyperium/h2#633, grpc/grpc-go#834: after an early answer the client was told CANCEL, or the reset
/// came before the answer.
#[tokio::test]
async fn an_early_answer_comes_before_the_reset_that_says_no_error() {
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) = open_to_all(streams::reader(&gate)).await;
    for more in [0, 1, 4] {
        let mut raw = Raw::open(address).await;
        raw.write(&frame(1, 0x4, 1, &head("/refuse"))).await;
        raw.write(&frame(0, 0, 1, &[b'x'; 4_000]).repeat(more)).await;
        let mut answered = false;
        loop {
            let (kind, flags, stream, payload) = raw.frame().await.expect("the connection ended");
            match (kind, stream) {
                (0 | 1, 1) => answered |= flags & 1 != 0,
                (3, 1) => {
                    assert!(answered, "the reset came first");
                    assert_eq!(payload, 0u32.to_be_bytes());
                    break;
                }
                _ => {}
            }
        }
    }
}

/// grpc/grpc#24237, jetty/jetty.project#13569, netty/netty#4106: a graceful shutdown waited for a peer that never answers.
#[tokio::test]
async fn a_shutdown_does_not_wait_for_the_answer_of_a_peer_without_calls() {
    for calls in 0..3 {
        let world = World::with(
            ServerLimits { drain_idle_grace: Duration::from_millis(50), ..Default::default() },
            None,
        );
        let (tcp, address) = socket().await;
        world.publish(1, address, vec![chain("all", vec![])]);
        let gate = Arc::new(Notify::new());
        let running = Running::new(&world, tcp, streams::reader(&gate));
        let mut raw = Raw::open(address).await;
        for n in 0..calls {
            raw.write(&frame(1, 0x5, 2 * n + 1, &head("/"))).await;
            raw.response(2 * n + 1).await;
        }
        // One is under way, whose body the application has not read.
        raw.write(&frame(1, 0x4, 21, &head("/stall"))).await;
        raw.write(&frame(6, 0, 0, &[7; 8])).await;
        while raw.frame().await.unwrap().0 != 6 {}
        let drain = world.server.drain.clone();
        let mut shutdown = tokio::task::spawn(async move { drain.shutdown(Duration::from_secs(600)).await });
        // Neither GOAWAY nor PING is ever answered; the call goes on beyond the grace.
        while raw.frame().await.unwrap().0 != 7 {}
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut shutdown).await.is_err());
        raw.write(&frame(0, 1, 21, b"x")).await;
        gate.notify_one();
        let mut answered = false;
        while let Some((kind, flags, stream, _)) = raw.frame().await {
            answered |= kind <= 1 && stream == 21 && flags & 1 != 0;
        }
        assert!(answered);
        assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
        running.ended().await;
    }
}

/// hyperium/hyper#2743 and #2119, h2o/h2o#3306, jetty/jetty.project#902: over HTTP/2 nobody told a client that waits with its
/// body to go on; and it must not be told where the body is refused.
#[tokio::test]
async fn a_client_that_waits_with_its_body_is_told_to_go_on_if_somebody_waits_for_it() {
    let gate = Arc::new(Notify::new());
    let elsewhere = |request: AxumRequest| async {
        let body = tokio::task::spawn(request.into_body().collect()).await.unwrap();
        body.unwrap().to_bytes()
    };
    let app = streams::reader(&gate).route("/elsewhere", axum::routing::any(elsewhere));
    let (_world, address, _running) = open_to_all(app).await;
    // `expect: 100-continue`, by its name in the static table.
    let expecting = |path| [&head(path)[..], &[0x0f, 0x14, 12], b"100-continue"].concat();
    for (path, told, body) in
        [("/", true, true), ("/elsewhere", true, true), ("/refuse", false, true), ("/", false, false)]
    {
        let mut raw = Raw::open(address).await;
        raw.write(&frame(1, if body { 0x4 } else { 0x5 }, 1, &expecting(path))).await;
        let mut heads = Vec::new();
        loop {
            let (kind, flags, stream, payload) = raw.frame().await.expect("the connection ended");
            if kind == 1 && stream == 1 {
                heads.push(payload);
            }
            // The first head is the interim one if there is one at all.
            if (kind, stream, told, heads.len()) == (1, 1, true, 1) {
                assert_eq!(flags & 1, 0);
                raw.write(&frame(0, 1, 1, b"body")).await;
            }
            if kind <= 1 && stream == 1 && flags & 1 != 0 {
                break;
            }
        }
        assert_eq!(heads.len(), 1 + usize::from(told), "{path}, with a body: {body}");
        // `:status: 100` is in no table.
        assert_eq!(heads[0].ends_with(b"100") || heads[0].len() < 10, told, "{path}: {:x?}", heads[0]);
    }
}

/// Everything that a server says over HTTP/1.1 to these bytes, until it closes.
async fn everything_said(address: SocketAddr, bytes: &str) -> String {
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes.as_bytes()).await.unwrap();
    let mut said = String::new();
    soon("the end of the connection", tcp.read_to_string(&mut said)).await.unwrap();
    said
}

/// denoland/deno#34446: what was left of an unread body was served as the next request. oven-sh/bun#33005: a request behind
/// `connection: close` was served.
#[tokio::test]
async fn what_is_no_request_of_the_connection_is_not_served() {
    let (tell, mut told) = mpsc::channel(100);
    let app = move |request: AxumRequest| {
        let tell = tell.clone();
        async move { tell.send(request.uri().path().to_owned()).await.unwrap() }
    };
    let (_world, address, _running) = open_to_all(Router::new().fallback(app)).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let last = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let unread = |framing: &str, body: &str| {
        format!("POST /first HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n{body}{last}")
    };
    let length = smuggled.len();
    for (bytes, expected) in [
        (unread(&format!("content-length: {length}"), smuggled), 2),
        (unread("transfer-encoding: chunked", &format!("{length:x}\r\n{smuggled}\r\n0\r\n\r\n")), 2),
        (unread(&format!("content-length: {length}\r\nexpect: 100-continue"), smuggled), 2),
        (unread(&format!("content-length: {}", 100_000 + length), &("x".repeat(100_000) + smuggled)), 2),
        (format!("{last}{smuggled}"), 1),
        (format!("{}{smuggled}", last.replace("close", "Close, TE")), 1),
    ] {
        let answers = everything_said(address, &bytes).await.matches("HTTP/1.1 200").count();
        assert!((1..=expected).contains(&answers), "{answers} answers to {:.80}", bytes);
        for _ in 0..answers {
            let path = told.recv().await.unwrap();
            assert_ne!(path, "/smuggled");
        }
        assert!(told.try_recv().is_err(), "more was served than was answered");
    }
}

/// nghttp2/nghttp2#396, python-hyper/hpack#95: the peer's table of header fields has another size than ours.
/// linkerd/linkerd2#2859: a head of many kilobytes stopped the connection.
#[tokio::test]
async fn heads_arrive_whatever_their_size_and_the_size_of_the_table() {
    let app = |request: AxumRequest| async move {
        let value = request.headers()["x-said"].clone();
        ([("x-said", value)], request.uri().path().len().to_string())
    };
    for table in [0, 64, 4_096, 65_536] {
        let (_world, address, _running) = open_to_all(Router::new().fallback(app)).await;
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut builder = ::h2::client::Builder::new();
        builder.header_table_size(table);
        let (client, connection) = builder.handshake::<_, Bytes>(tcp).await.unwrap();
        tokio::task::spawn(connection);
        for n in 0..60usize {
            let (path, said) = ("p".repeat(n * 400), format!("{n}-").repeat(n * 80));
            let request = http::Request::get(format!("http://shop.test/{path}")).header("x-said", &said);
            let mut client = soon("readiness", client.clone().ready()).await.unwrap();
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let response = soon("an answer", response).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{n}");
            assert_eq!(response.headers()["x-said"].len(), said.len());
        }
    }
}

/// A call over a connection of our own client.
async fn mesh_call(
    connection: &Arc<crate::transport::h2::Connection>,
    path: &str,
    body: Body,
) -> Result<http::Response<Body>, crate::transport::error::SendError> {
    let slot = crate::transport::HttpConnection::reserve(connection).unwrap();
    let request = http::Request::post(format!("http://shop.test{path}")).body(body).unwrap();
    let mut unsent = Some((slot, request));
    let started = std::future::poll_fn(|cx| {
        let (slot, request) = unsent.take().unwrap();
        std::task::Poll::Ready(slot.start(cx, request))
    });
    started.await?.await
}

/// golang/go#42983, JuliaWeb/HTTP.jl#1371, linkerd/linkerd#727: after enough calls that were not read to their end, the
/// connection stood still. All their shapes on one connection between two of ours.
#[tokio::test]
async fn calls_of_every_shape_leave_a_connection_between_meshes_as_it_was() {
    let pki = Pki::new();
    for wire in [Wire::Plaintext, Wire::Tls] {
        let world = World::with(ServerLimits::default(), Some(pki.server.clone()));
        let (tcp, address) = socket().await;
        world.publish(1, address, vec![pki.chain(wire)]);
        let (dropped, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let download = || async { vec![b'x'; 40_000] };
        let app = ignoring(&dropped, &gate)
            .route("/refuse", axum::routing::any(|| async { StatusCode::FORBIDDEN }))
            .route("/download", axum::routing::any(download));
        let _running = Running::new(&world, tcp, app);
        let budget: Arc<crate::transport::h2::guard::ReceiveBudget> = Arc::default();
        let heard = Arc::new(crate::transport::testing::Heard::default());
        let (io, settings) = (pki.connect(wire, address).await, Default::default());
        let connecting =
            crate::transport::h2::Connection::establish(io, &settings, budget.clone(), 1, heard.clone());
        let connection = soon("the handshake", connecting).await.unwrap();
        let late = |frames: usize| {
            let frames = futures_util::stream::unfold(0, move |n| async move {
                tokio::task::yield_now().await;
                (n < frames).then(|| {
                    (Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![b'x'; 1_000]))), n + 1)
                })
            });
            Body::new(http_body_util::StreamBody::new(frames))
        };
        for n in 0..240 {
            match n % 6 {
                0 => drop(mesh_call(&connection, "/download", Body::empty()).await.unwrap()),
                1 => {
                    let mut half = mesh_call(&connection, "/download", Body::empty()).await.unwrap();
                    drop(half.body_mut().frame().await);
                }
                2 => {
                    let refused = mesh_call(&connection, "/refuse", late(24)).await.unwrap();
                    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
                }
                3 => {
                    let call = mesh_call(&connection, "/ignore", late(24));
                    tokio::select! {
                        _ = call => panic!("nobody has opened the gate"),
                        () = dropped.notified() => {}
                    }
                }
                4 => {
                    let call = async {
                        let answer = mesh_call(&connection, "/ignore", late(24)).await.unwrap();
                        assert_eq!(answer.status(), StatusCode::OK);
                    };
                    let open = async {
                        dropped.notified().await;
                        turns().await;
                        gate.notify_one();
                    };
                    soon("an answer", async { tokio::join!(call, open) }).await;
                }
                _ => {
                    let echo = mesh_call(&connection, "/", late(24)).await.unwrap();
                    assert_eq!(echo.into_body().collect().await.unwrap().to_bytes().len(), 24_000);
                }
            }
        }
        let echo = mesh_call(&connection, "/", Body::full(vec![b'x'; 2 * MIB]));
        let echo = soon("a large answer", echo).await.unwrap();
        let echo = soon("a large body", echo.into_body().collect()).await.unwrap();
        assert_eq!(echo.to_bytes().len(), 2 * MIB);
        soon("the return of what bodies took", async {
            while budget.used() + world.server.budget.used() + world.server.requests.used() > 0 {
                drop(mesh_call(&connection, "/refuse", Body::empty()).await.unwrap());
            }
        })
        .await;
        assert!(heard.closed.lock().unwrap().is_none(), "it was one connection");
    }
}
