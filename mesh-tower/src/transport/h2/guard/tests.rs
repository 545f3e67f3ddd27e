//! The guard under a client: what others do on a connection does not reach a call. Servers: `transport/serve/tests/streams`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::{ReceiveBudget, UnreadLimits};
use crate::body::Body;
use crate::transport::HttpConnection as _;
use crate::transport::error::FailureKind;
use crate::transport::h2::{Connection, Http2Settings};
use crate::transport::testing::{Heard, Incoming, RawServer, Respond, pipe, post, serve_h2, spawn};

pub(super) const MIB: usize = 1024 * 1024;

/// Waits, so that a failing test fails instead of hanging.
pub(super) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub(super) async fn connect(io: crate::transport::io::BoxIo, budget: Arc<ReceiveBudget>) -> Arc<Connection> {
    let settings = Http2Settings::default();
    let connecting = Connection::establish(io, &settings, budget, 1, Arc::new(Heard::default()));
    soon("the handshake", connecting).await.unwrap()
}

pub(super) async fn call(connection: &Arc<Connection>, path: &str) -> Response<Body> {
    soon(path, send(connection, get(path))).await.unwrap()
}

pub(super) async fn send(
    connection: &Arc<Connection>,
    request: Request<Body>,
) -> Result<Response<Body>, crate::transport::error::SendError> {
    let slot = connection.reserve().unwrap();
    let mut unsent = Some((slot, request));
    let started = std::future::poll_fn(|cx| {
        let (slot, request) = unsent.take().unwrap();
        std::task::Poll::Ready(slot.start(cx, request))
    });
    started.await?.await
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://peer.example{path}")).body(Body::empty()).unwrap()
}

pub(super) async fn read(response: Response<Body>) -> Bytes {
    soon("the body", response.into_body().collect()).await.unwrap().to_bytes()
}

/// `/N` answers with N bytes, `/tiny/N/S` with N frames of S bytes.
async fn sized(request: Incoming, mut respond: Respond) {
    let path = request.uri().path().to_owned();
    let numbers: Vec<usize> = path.split('/').filter_map(|part| part.parse().ok()).collect();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let (frames, size) = match *numbers {
        [frames, size] => (frames, size),
        _ => (1, numbers[0]),
    };
    for n in 0..frames {
        let _ = stream.send_data(vec![b'x'; size].into(), n + 1 == frames);
    }
}

async fn sized_connection(budget: Arc<ReceiveBudget>) -> Arc<Connection> {
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), sized));
    connect(client, budget).await
}

#[tokio::test]
async fn responses_that_nobody_reads_do_not_stop_another_one() {
    for unread in [4, 64, 200] {
        let connection = sized_connection(Arc::default()).await;
        let mut held = Vec::new();
        for _ in 0..unread {
            held.push(call(&connection, &format!("/{}", 3 * MIB / 2)).await);
        }
        assert_eq!(read(call(&connection, "/5").await).await.len(), 5, "beside {unread} unread responses");
        for response in held.drain(..2) {
            assert_eq!(read(response).await.len(), 3 * MIB / 2);
        }
    }
}

#[tokio::test]
async fn small_frames_that_nobody_reads_are_joined_and_lose_nothing() {
    for (streams, frames, size) in [(1, 3_000, 25), (20, 3_000, 5), (4, 30_000, 1), (2, 500, 255)] {
        let connection = sized_connection(Arc::default()).await;
        let mut held = Vec::new();
        for _ in 0..streams {
            held.push(call(&connection, &format!("/tiny/{frames}/{size}")).await);
        }
        assert_eq!(read(call(&connection, "/5").await).await.len(), 5);
        for response in held {
            let body = read(response).await;
            assert_eq!(body.len(), frames * size, "{frames} frames of {size} bytes");
        }
    }
}

#[tokio::test]
async fn what_a_stream_took_of_the_budget_comes_back_however_it_ends() {
    let budget = ReceiveBudget::new(UnreadLimits::default());
    let connection = sized_connection(budget.clone()).await;
    for path in ["/2000000", "/200000", "/20000", "/200", "/tiny/3000/25"] {
        // Read to the end, dropped unread, dropped half way, never polled.
        read(call(&connection, path).await).await;
        drop(call(&connection, path).await);
        let mut half = call(&connection, path).await.into_body();
        drop(half.frame().await);
        drop(half);
        drop(send(&connection, get(path)));
    }
    // The guard settles when the connection is read next.
    soon("the budget's return", async {
        while budget.used() > 0 {
            read(call(&connection, "/1").await).await;
        }
    })
    .await;
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test]
async fn unread_bodies_stay_within_the_bounds_of_connection_and_mesh() {
    let limits = UnreadLimits { per_connection: 2 * MIB, total: 4 * MIB };
    let budget = ReceiveBudget::new(limits);
    let mut connections = Vec::new();
    let mut held = Vec::new();
    for _ in 0..6 {
        let connection = sized_connection(budget.clone()).await;
        for _ in 0..50 {
            let mut response = call(&connection, &format!("/{}", MIB)).await;
            // Reads a little, so that its window grows where there is room.
            let mut begun = 0;
            for _ in 0..4 {
                let frame = soon("a frame", response.body_mut().frame()).await.unwrap().unwrap();
                begun += frame.into_data().unwrap().len();
            }
            held.push((response, begun));
        }
        assert!(budget.used() <= limits.total, "{} bytes", budget.used());
        assert_eq!(read(call(&connection, "/5").await).await.len(), 5);
        connections.push(connection);
    }
    let (response, begun) = held.pop().unwrap();
    assert_eq!(begun + read(response).await.len(), MIB);
    drop(held);
    drop(connections);
}

/// A response head by hand: `:status: 200`, and `content-length` if there is one.
pub(super) fn head(length: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x88];
    if let Some(length) = length {
        // Literal without indexing, name 28 of the static table.
        block.extend_from_slice(&[0x0f, 0x0d, u8::try_from(length.len()).unwrap()]);
        block.extend_from_slice(length.as_bytes());
    }
    block
}

pub(super) async fn raw() -> (Arc<Connection>, RawServer) {
    let (client, server) = pipe();
    let raw = spawn(RawServer::accept(server));
    let connection = connect(client, Arc::default()).await;
    (connection, raw.await.unwrap())
}

#[tokio::test]
async fn a_response_that_was_cut_off_is_never_taken_for_whole() {
    const NO_ERROR: u32 = 0;
    for (length, code) in
        [(Some("1000"), NO_ERROR), (None, NO_ERROR), (None, 8), (Some("500"), NO_ERROR), (None, 0x6d65_7368)]
    {
        let (connection, mut server) = raw().await;
        let answer = spawn({
            let connection = connection.clone();
            async move { send(&connection, get("/")).await }
        });
        server.frame().await.unwrap();
        server.write(1, 0x4, 1, &head(length)).await;
        server.write(0, 0, 1, &[b'x'; 500]).await;
        server.write(3, 0, 1, &code.to_be_bytes()).await;
        let response = soon("the head", answer).await.unwrap().unwrap();
        let body = soon("the body", response.into_body().collect()).await;
        assert!(body.is_err(), "content-length {length:?}, reset with {code}");
    }
}

#[tokio::test]
async fn a_response_that_may_have_no_content_has_none() {
    // `:status` 200, 204 and 304 of the static table.
    for (method, status) in
        [(Method::HEAD, 0x88), (Method::GET, 0x89), (Method::GET, 0x8b), (Method::HEAD, 0x8b)]
    {
        for (length, pieces) in [(Some("4"), 1), (None, 1), (None, 3), (Some("1000"), 0), (Some("4"), 2)] {
            let (connection, mut server) = raw().await;
            let request =
                Request::builder().method(method.clone()).uri("http://peer.example/").body(Body::empty());
            let request = request.unwrap();
            let answer = spawn({
                let connection = connection.clone();
                async move { send(&connection, request).await }
            });
            server.frame().await.unwrap();
            let mut block = head(length);
            block[0] = status;
            server.write(1, 0x4, 1, &block).await;
            for _ in 0..pieces {
                server.write(0, 0, 1, b"data").await;
            }
            server.write(0, 1, 1, b"").await;
            let response = soon("the head", answer).await.unwrap().unwrap();
            let body = soon("the body", response.into_body().collect()).await.expect("no error");
            assert!(body.to_bytes().is_empty(), "{method} {status:x} {length:?} {pieces}");
        }
    }
}

#[tokio::test]
async fn a_response_that_is_complete_is_not_spoilt_by_the_reset_that_stops_its_upload() {
    for (trailers, code) in [(false, 0u32), (true, 0), (false, 8), (true, 2)] {
        let (connection, mut server) = raw().await;
        let (upload, request) = endless();
        let answer = spawn({
            let connection = connection.clone();
            async move { send(&connection, request).await }
        });
        server.frame().await.unwrap();
        server.write(1, 0x4, 1, &head(None)).await;
        server.write(0, u8::from(!trailers), 1, &[b'x'; 500]).await;
        if trailers {
            server.write(1, 0x5, 1, &[0x00, 1, b'a', 1, b'b']).await;
        }
        server.write(3, 0, 1, &code.to_be_bytes()).await;
        // A second call, so that everything has been read before the body is.
        let ping = spawn({
            let connection = connection.clone();
            async move { send(&connection, get("/")).await }
        });
        while server.frame().await.unwrap().2 != 3 {}
        server.ok(3).await;
        soon("another answer", ping).await.unwrap().unwrap();
        let response = soon("the head", answer).await.unwrap().unwrap();
        let body = soon("the body", response.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers().map(HeaderMap::len), trailers.then_some(1));
        assert_eq!(body.to_bytes().len(), 500);
        drop(upload);
    }
}

/// A request whose body goes on until the sender is dropped.
pub(super) fn endless() -> (tokio::sync::mpsc::Sender<()>, Request<Body>) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<()>(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(b"x"))), receiver))
    });
    (sender, post(Body::new(http_body_util::StreamBody::new(frames))))
}

#[tokio::test]
async fn data_that_crosses_a_cancellation_never_ends_the_connection() {
    let (connection, mut server) = raw().await;
    for n in 0..3_000u32 {
        let stream = 2 * n + 1;
        let answer = spawn({
            let connection = connection.clone();
            async move { send(&connection, get("/")).await.map(drop) }
        });
        while server.frame().await.unwrap().2 != stream {}
        server.write(1, 0x4, stream, &head(None)).await;
        soon("the head", answer).await.unwrap().unwrap();
        // The response was dropped: these cross its reset, or come after it.
        server.write(0, 0, stream, b"late").await;
        server.write(0, 0, stream, b"later").await;
    }
    let answer = spawn({
        let connection = connection.clone();
        async move { send(&connection, get("/")).await }
    });
    while server.frame().await.unwrap().2 != 6_001 {}
    server.ok(6_001).await;
    assert!(soon("an answer", answer).await.unwrap().is_ok());
}

#[tokio::test]
async fn empty_frames_are_not_counted_over_the_life_of_a_connection() {
    for padded in [false, true] {
        let (connection, mut server) = raw().await;
        let answer = spawn({
            let connection = connection.clone();
            async move { send(&connection, get("/")).await }
        });
        server.frame().await.unwrap();
        server.write(1, 0x4, 1, &head(None)).await;
        for n in 0..2_000u32 {
            match padded {
                true => server.write(0, 0x8, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await,
                false => server.write(0, 0, 1, &[]).await,
            }
            if n % 100 == 0 {
                server.write(0, 0, 1, b"x").await;
            }
        }
        server.write(0, 0x1, 1, b"end").await;
        let response = soon("the head", answer).await.unwrap().unwrap();
        assert_eq!(read(response).await.len(), 23, "padded: {padded}");
    }
}

/// A server whose answers have much too large heads or trailers where they are asked for.
async fn large(request: Incoming, mut respond: Respond) {
    let size: usize = request.uri().query().and_then(|query| query.parse().ok()).unwrap_or_default();
    let mut fields = HeaderMap::new();
    for n in 0..size.div_ceil(8 * 1024) {
        fields.append(
            "x-large",
            http::HeaderValue::from_bytes(&vec![b'a' + (n % 26) as u8; 8 * 1024]).unwrap(),
        );
    }
    let mut response = Response::new(());
    match request.uri().path() {
        "/head" => {
            *response.headers_mut() = fields;
            let _ = respond.send_response(response, true);
        }
        "/trailers" => {
            let mut stream = respond.send_response(response, false).unwrap();
            let _ = stream.send_data("x".into(), false);
            let _ = stream.send_trailers(fields);
        }
        _ => _ = respond.send_response(response, true),
    }
}

#[tokio::test]
async fn a_head_or_trailers_that_are_too_large_fail_their_own_call_alone() {
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), large));
    let connection = connect(client, Arc::default()).await;
    for size in [64 * 1024, 128 * 1024, MIB, 2 * MIB] {
        let error = soon("a refusal", send(&connection, get(&format!("/head?{size}")))).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::HeadTooLarge, "{error:?}");
        let response = call(&connection, &format!("/trailers?{size}")).await;
        assert!(soon("the body", response.into_body().collect()).await.is_err(), "{size} bytes of trailers");
        assert_eq!(call(&connection, "/").await.status(), StatusCode::OK);
    }
    let response = call(&connection, "/trailers?16384").await;
    assert!(soon("the body", response.into_body().collect()).await.unwrap().trailers().is_some());
}

#[tokio::test]
async fn a_request_that_is_not_as_long_as_it_says_fails_before_it_is_taken_for_whole() {
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), crate::transport::testing::echo));
    let connection = connect(client, Arc::default()).await;
    let whole = || Body::full("hello");
    let parts = || {
        let frames =
            ["hel", "lo"].map(|part| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(part))));
        Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
    };
    for (length, body) in
        [("9", whole()), ("2", whole()), ("9", parts()), ("2", parts()), ("9", Body::empty())]
    {
        let mut request = post(body);
        request.headers_mut().insert("content-length", length.parse().unwrap());
        let sent = soon("a refusal", send(&connection, request)).await;
        assert_eq!(sent.err().map(|error| error.kind()), Some(FailureKind::RequestBody), "{length}");
    }
    for body in [whole(), parts()] {
        let mut request = post(body);
        request.headers_mut().insert("content-length", "5".parse().unwrap());
        assert_eq!(read(send(&connection, request).await.unwrap()).await, "hello");
    }
}
