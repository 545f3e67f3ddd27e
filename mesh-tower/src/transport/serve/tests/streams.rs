//! Streams of one HTTP/2 connection do not harm each other. Clients: `transport/h2/guard/tests`.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::h2::client::SendRequest;
use axum::extract::Request as AxumRequest;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::server::ServerLimits;

/// `/stall` reads its body when the gate opens, `/refuse` never, every other path at once. Each answers with the number
/// of bytes that it read.
pub(super) fn reader(gate: &Arc<Notify>) -> Router {
    let gate = gate.clone();
    let count = |request: AxumRequest| async move {
        match request.into_body().collect().await {
            Ok(body) => (StatusCode::OK, body.to_bytes().len().to_string()),
            Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
        }
    };
    let stalled = move |request: AxumRequest| async move {
        gate.notified().await;
        count(request).await
    };
    let refused = || async { StatusCode::FORBIDDEN };
    Router::new()
        .route("/stall", axum::routing::any(stalled))
        .route("/refuse", axum::routing::any(refused))
        .fallback(count)
}

pub(super) async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut builder = ::h2::client::Builder::new();
    builder.max_send_buffer_size(64 * 1024 * 1024);
    let (client, connection) = builder.handshake(tcp).await.unwrap();
    tokio::task::spawn(connection);
    soon("readiness", client.ready()).await.unwrap()
}

pub(super) fn request(path: &str) -> Request<()> {
    Request::post(format!("http://shop.test{path}")).body(()).unwrap()
}

/// Posts `body` and returns status and text of the answer.
pub(super) async fn post(client: &SendRequest<Bytes>, path: &str, body: Bytes) -> (StatusCode, String) {
    let mut client = soon("readiness", client.clone().ready()).await.unwrap();
    let (response, mut stream) = client.send_request(request(path), false).unwrap();
    stream.send_data(body, true).unwrap();
    answer(response).await
}

pub(super) async fn answer(response: ::h2::client::ResponseFuture) -> (StatusCode, String) {
    let response = soon("an answer", response).await.unwrap();
    let status = response.status();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(Ok(data)) = soon("the body", body.data()).await {
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    (status, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn uploads_that_nobody_reads_do_not_stop_another_one() {
    for stalled in [1, 16, 200] {
        let gate = Arc::new(Notify::new());
        let (_world, address, _running) = open_to_all(reader(&gate)).await;
        let client = client(address).await;
        let uploads: Vec<_> = (0..stalled)
            .map(|_| {
                let client = client.clone();
                tokio::task::spawn(async move { post(&client, "/stall", vec![0; 1024 * 1024].into()).await })
            })
            .collect();
        let small = post(&client, "/", "small".into()).await;
        assert_eq!(small, (StatusCode::OK, "5".to_owned()), "beside {stalled} stalled uploads");
        for upload in uploads {
            while !upload.is_finished() {
                gate.notify_waiters();
                tokio::task::yield_now().await;
            }
            assert_eq!(upload.await.unwrap(), (StatusCode::OK, (1024 * 1024).to_string()));
        }
    }
}

#[tokio::test]
async fn small_messages_to_a_handler_that_reads_later_are_ordinary_traffic() {
    for (streams, frames, size) in [(1, 3_000, 25), (20, 3_000, 9), (3, 20_000, 1), (1, 60_000, 1)] {
        let gate = Arc::new(Notify::new());
        let (_world, address, _running) = open_to_all(reader(&gate)).await;
        let client = client(address).await;
        let mut answers = Vec::new();
        let mut uploads = Vec::new();
        for _ in 0..streams {
            let mut ready = soon("readiness", client.clone().ready()).await.unwrap();
            let (response, stream) = ready.send_request(request("/stall"), false).unwrap();
            answers.push(response);
            uploads.push(stream);
        }
        // One frame of each stream after the other.
        for n in 0..frames {
            for stream in &mut uploads {
                stream.send_data(vec![0; size].into(), n + 1 == frames).unwrap();
            }
        }
        assert_eq!(post(&client, "/", "small".into()).await.1, "5");
        for response in answers {
            let answered = tokio::task::spawn(answer(response));
            while !answered.is_finished() {
                gate.notify_waiters();
                tokio::task::yield_now().await;
            }
            assert_eq!(answered.await.unwrap(), (StatusCode::OK, (frames * size).to_string()));
        }
    }
}

/// Frames by hand.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `POST /stall` or `/`, by the static table of HPACK.
pub(super) fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x41, 9];
    block.extend_from_slice(b"shop.test");
    block.extend_from_slice(&[0x04, u8::try_from(path.len()).unwrap()]);
    block.extend_from_slice(path.as_bytes());
    block
}

/// A connection on which a test writes its frames itself.
pub(super) struct Raw {
    pub(super) tcp: TcpStream,
}

impl Raw {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(4, 0, 0, &[]));
        hello.extend(frame(4, 1, 0, &[]));
        tcp.write_all(&hello).await.unwrap();
        Self { tcp }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).await.unwrap();
    }

    /// Kind, flags, stream and payload of the next frame; none at the end.
    pub(super) async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        soon("a frame", self.tcp.read_exact(&mut head)).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        soon("a payload", self.tcp.read_exact(&mut payload)).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads until the response of `stream` ends. Panics at GOAWAY.
    pub(super) async fn response(&mut self, stream: u32) {
        loop {
            let (kind, flags, of, payload) = self.frame().await.expect("the connection ended");
            assert_ne!(kind, 7, "GOAWAY {:?}", String::from_utf8_lossy(&payload));
            if of == stream && kind <= 1 && flags & 1 != 0 {
                return;
            }
        }
    }
}

#[tokio::test]
async fn calls_that_are_cancelled_in_the_same_write_do_not_fail_the_call_beside_them() {
    for cancelled in [21, 200, 4_000u32] {
        let gate = Arc::new(Notify::new());
        let (_world, address, _running) = open_to_all(reader(&gate)).await;
        let mut raw = Raw::open(address).await;
        let mut bytes = frame(1, 0x5, 1, &head("/stall"));
        for n in 1..=cancelled {
            bytes.extend(frame(1, 0x4, 2 * n + 1, &head("/")));
            bytes.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
        }
        raw.write(&bytes).await;
        let last = 2 * cancelled + 3;
        raw.write(&frame(1, 0x5, last, &head("/"))).await;
        raw.response(last).await;
        // Waits at its gate by now: it came first.
        gate.notify_one();
        raw.response(1).await;
    }
}

#[tokio::test]
async fn uploads_that_are_refused_unread_never_add_up_to_the_end_of_the_connection() {
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) = open_to_all(reader(&gate)).await;
    let mut raw = Raw::open(address).await;
    raw.write(&frame(1, 0x5, 1, &head("/stall"))).await;
    for n in 1..=3_000u32 {
        let stream = 2 * n + 1;
        raw.write(&frame(1, 0x4, stream, &head("/refuse"))).await;
        raw.response(stream).await;
        // Crosses the answer.
        raw.write(&[frame(0, 0, stream, b"more"), frame(0, 0, stream, b"and more")].concat()).await;
    }
    gate.notify_one();
    raw.response(1).await;
}

async fn stalled_head(chain_timeout: Duration) -> (World, SocketAddr, Running) {
    let world = World::with(ServerLimits::default(), None);
    let (tcp, address) = socket().await;
    let mut chain = chain("all", vec![]);
    chain.http.headers_timeout = Some(chain_timeout);
    world.publish(1, address, vec![chain]);
    let running = Running::new(&world, tcp, hello());
    (world, address, running)
}

#[tokio::test]
async fn a_header_block_or_a_frame_that_is_never_completed_ends_the_connection() {
    let (_world, address, _running) = stalled_head(Duration::from_millis(100)).await;
    let block = head("/hello");
    let cut = frame(1, 0x5, 1, &block);
    let cases = [
        frame(1, 0x1, 1, &block),
        [frame(1, 0x1, 1, &block), frame(9, 0, 1, &[0x00, 1, b'a', 1, b'b'])].concat(),
        cut[..5].to_vec(),
        cut[..cut.len() - 1].to_vec(),
        [frame(1, 0x4, 1, &block), frame(0, 0, 1, b"hello")[..12].to_vec()].concat(),
        frame(4, 0, 0, &[0; 6])[..11].to_vec(),
    ];
    for (n, bytes) in cases.into_iter().enumerate() {
        let mut raw = Raw::open(address).await;
        raw.write(&bytes).await;
        soon(&format!("the end of case {n}"), async { while raw.frame().await.is_some() {} }).await;
    }
}

#[tokio::test]
async fn a_request_head_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let gate = Arc::new(Notify::new());
    let (world, address, _running) = open_to_all(reader(&gate)).await;
    let mut client = client(address).await;
    for (size, content_type, status, grpc) in [
        (64 * 1024, "text/plain", 431, None),
        (1024 * 1024, "text/plain", 431, None),
        (1024 * 1024, "application/grpc", 200, Some("8")),
        (2 * 1024 * 1024, "application/grpc", 200, Some("8")),
    ] {
        let mut large = request("/");
        large.headers_mut().insert("content-type", content_type.parse().unwrap());
        for n in 0..size / (8 * 1024) {
            let value = vec![b'a' + (n % 26) as u8; 8 * 1024];
            large.headers_mut().append("x-large", http::HeaderValue::from_bytes(&value).unwrap());
        }
        let response = client.send_request(large, true).unwrap().0;
        let response = soon("a refusal", response).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{size} bytes");
        assert_eq!(response.headers().get("grpc-status").map(|code| code.to_str().unwrap()), grpc);
        assert_eq!(post(&client, "/", "small".into()).await.1, "5");
        client = soon("readiness", client.ready()).await.unwrap();
    }
    let flags = world.events.wait_for(8).await;
    assert_eq!(flags.iter().filter(|seen| seen.flags == "DPE").count(), 4, "{flags:?}");
}

#[tokio::test]
async fn request_trailers_have_the_limit_of_heads() {
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) = open_to_all(reader(&gate)).await;
    let client = client(address).await;
    for (size, status) in [(1_000, 200), (100 * 1024, 400), (1024 * 1024, 400)] {
        let mut ready = soon("readiness", client.clone().ready()).await.unwrap();
        let (response, mut stream) = ready.send_request(request("/"), false).unwrap();
        stream.send_data("x".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        for n in 0..size / 1_000 {
            let value = vec![b'a' + (n % 26) as u8; 1_000];
            trailers.append("x-large", http::HeaderValue::from_bytes(&value).unwrap());
        }
        stream.send_trailers(trailers).unwrap();
        assert_eq!(answer(response).await.0.as_u16(), status, "{size} bytes");
    }
}

#[tokio::test]
async fn frames_that_say_nothing_slow_their_own_connection_and_fail_no_call() {
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) = open_to_all(reader(&gate)).await;
    let kinds: [(&str, Vec<u8>); 5] = [
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", frame(4, 0, 0, &[])),
        ("empty DATA", frame(0, 0, 1, &[])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown", frame(0x42, 0, 0, b"?")),
    ];
    for (name, noise) in kinds {
        let raw = Raw::open(address).await;
        let (mut read, mut write) = raw.tcp.into_split();
        write.write_all(&frame(1, 0x4, 1, &head("/"))).await.unwrap();
        // What the server answers is read meanwhile, or it would wait for that.
        let answered = tokio::task::spawn(async move {
            let mut all = Vec::new();
            let mut buf = vec![0; 64 * 1024];
            loop {
                let n = read.read(&mut buf).await.unwrap();
                assert!(n > 0, "the connection ended");
                all.extend_from_slice(&buf[..n]);
                if all.windows(5).any(|five| five == [0, 0, 1, 0, 0] || five == [0, 0, 1, 0, 1]) {
                    return;
                }
            }
        });
        for _ in 0..5_000 {
            write.write_all(&noise).await.unwrap();
        }
        write.write_all(&frame(0, 0x1, 1, b"x")).await.unwrap();
        soon(&format!("the answer behind 5,000 frames of {name}"), answered).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_sends_more_than_its_window_is_cut_off() {
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) = open_to_all(reader(&gate)).await;
    let mut raw = Raw::open(address).await;
    raw.write(&frame(1, 0x4, 1, &head("/stall"))).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut read, mut write) = raw.tcp.into_split();
    let count = sent.clone();
    let writing = tokio::task::spawn(async move {
        while write.write_all(&frame(0, 0, 1, &[0; 16 * 1024])).await.is_ok() {
            count.fetch_add(16 * 1024, Ordering::Relaxed);
        }
    });
    let mut buf = vec![0; 1024];
    soon("the end", async { while read.read(&mut buf).await.is_ok_and(|n| n > 0) {} }).await;
    soon("the writer's end", writing).await.unwrap();
}
