use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::*;
use crate::transport::testing::{Heard, RawServer, Recorder, Sending, echo, pipe, post, serve_h2, spawn};

impl Slot {
    /// Sends the request when the future is first polled.
    fn send(self, request: Request<Body>) -> Sending {
        let mut unsent = Some((self, request));
        Box::pin(async move {
            let start = |cx: &mut Context<'_>| {
                let (slot, request) = unsent.take().expect("polled once");
                Poll::Ready(slot.start(cx, request))
            };
            std::future::poll_fn(start).await?.await
        })
    }
}

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

async fn connect_with(io: BoxIo, settings: &Http2Settings) -> (Arc<Connection>, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let connection = Connection::establish(io, settings, Arc::default(), 1, heard.clone()).await.unwrap();
    (connection, heard)
}

/// A connection to a server that echoes.
async fn echo_connection() -> (Arc<Connection>, Arc<Heard>) {
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), echo));
    connect_with(client, &Http2Settings::default()).await
}

async fn raw_connection() -> (Arc<Connection>, Arc<Heard>, RawServer) {
    let (client, server) = pipe();
    let raw = spawn(RawServer::accept(server));
    let (connection, heard) = connect_with(client, &Http2Settings::default()).await;
    (connection, heard, raw.await.unwrap())
}

fn streaming(frames: Frames) -> Body {
    Body::new(StreamBody::new(stream::iter(frames)))
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(bytes.into()))
}

/// Type, flags and length of each frame in what was written.
fn frames_of(mut bytes: &[u8]) -> Vec<(u8, u8, usize)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames.push((*kind, *flags, length));
        bytes = &rest[length..];
    }
    frames
}

#[tokio::test(start_paused = true)]
async fn a_unary_call_is_headers_and_one_final_data_frame_in_one_write() {
    let bodies: [fn() -> Body; 2] = [|| Body::full("hello"), || streaming(vec![data("hello")])];
    for body in bodies {
        let (client, server) = pipe();
        spawn(serve_h2(server, ::h2::server::Builder::new(), echo));
        let writes = Arc::new(Mutex::new(Vec::new()));
        let recorder = Recorder { io: client, writes: writes.clone() };
        let (connection, _) = connect_with(Box::new(recorder), &Http2Settings::default()).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        writes.lock().unwrap().clear();

        let response = connection.reserve().unwrap().send(post(body())).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        let first = frames_of(&writes.lock().unwrap()[0]);
        let [(1, 0x4, _), (0, 0x1, 5)] = first.as_slice() else {
            panic!("expected HEADERS and DATA with END_STREAM, got {first:?}")
        };
    }
}

#[tokio::test]
async fn a_request_without_a_body_ends_with_its_headers() {
    let (connection, _, mut server) = raw_connection().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    let (kind, flags, stream, _) = server.frame().await.unwrap();
    assert_eq!((kind, flags & 0x1, stream), (1, 1, 1));
    server.ok(1).await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn request_and_response_trailers_arrive() {
    let (connection, _) = echo_connection().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("7"));
    let body = streaming(vec![data("a"), data("b"), Ok(Frame::trailers(trailers))]);
    let response = connection.reserve().unwrap().send(post(body)).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-checksum"], "7");
    assert_eq!(collected.to_bytes(), "ab");
}

#[tokio::test]
async fn a_long_upload_never_runs_ahead_of_the_window() {
    const TOTAL: usize = 50 * 1024 * 1024;
    const CHUNK: usize = 64 * 1024;
    let (produced, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (client, server) = pipe();
    let seen = received.clone();
    spawn(serve_h2(server, ::h2::server::Builder::new(), move |request, mut respond| {
        let seen = seen.clone();
        async move {
            let mut body = request.into_body();
            while let Some(Ok(chunk)) = body.data().await {
                body.flow_control().release_capacity(chunk.len()).unwrap();
                seen.fetch_add(chunk.len(), Ordering::SeqCst);
            }
            respond.send_response(Response::new(()), true).unwrap();
        }
    }));
    let (connection, _) = connect_with(client, &Http2Settings::default()).await;
    let (made, arrived, worst) = (produced.clone(), received.clone(), Arc::new(AtomicUsize::new(0)));
    let peak = worst.clone();
    let body = StreamBody::new(stream::iter(0..TOTAL / CHUNK).map(move |_| {
        let ahead = made.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK - arrived.load(Ordering::SeqCst);
        peak.fetch_max(ahead, Ordering::SeqCst);
        data(vec![0; CHUNK])
    }));
    let call = connection.reserve().unwrap().send(post(Body::new(body)));
    assert!(call.await.unwrap().status().is_success());
    assert_eq!((produced.load(Ordering::SeqCst), received.load(Ordering::SeqCst)), (TOTAL, TOTAL));
    // Two frames of look-ahead, h2's send buffer of 400 KiB, the pipe of this test of 256 KiB.
    assert!(worst.load(Ordering::SeqCst) < 1024 * 1024, "{} bytes ahead", worst.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_long_download_fits_a_small_window() {
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), |_, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(vec![7; 8 * 1024 * 1024].into(), true).unwrap();
    }));
    let settings = Http2Settings { stream_window: 64 * 1024, ..Http2Settings::default() };
    let (connection, _) = connect_with(client, &settings).await;
    let response = connection.reserve().unwrap().send(post(Body::empty())).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes.len(), 8 * 1024 * 1024);
}

#[tokio::test]
async fn refused_streams_are_known_to_be_unprocessed() {
    let (connection, _, mut server) = raw_connection().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::full("x"))));
    server.frame().await.unwrap();
    server.write(3, 0, 1, &7u32.to_be_bytes()).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::Refused, Progress::Unprocessed));
}

#[tokio::test]
async fn any_other_reset_may_have_been_processed() {
    let (connection, _, mut server) = raw_connection().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::full("x"))));
    server.frame().await.unwrap();
    server.write(3, 0, 1, &2u32.to_be_bytes()).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::Reset(2), Progress::Sent));
}

#[tokio::test]
async fn goaway_lets_older_streams_finish_and_hands_newer_ones_back() {
    let (connection, heard, mut server) = raw_connection().await;
    let older = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    assert_eq!(server.frame().await.unwrap().2, 1);
    let newer = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    assert_eq!(server.frame().await.unwrap().2, 3);
    let late = connection.reserve().unwrap();

    server.goaway(1).await;
    let error = newer.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::GoAway, Progress::Unprocessed));
    assert!(heard.draining.load(Ordering::SeqCst));
    assert!(matches!(connection.reserve(), Err(Unavailable::Closed)));

    let mut error = late.send(post(Body::full("untouched"))).await.unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::Closed, Progress::NotSent));
    let request = error.take_request().unwrap();
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "untouched");

    assert!(heard.closed.lock().unwrap().is_none());
    server.ok(1).await;
    assert!(older.await.unwrap().is_ok());
    // Nothing is left: the client says goodbye and closes.
    assert_eq!(server.frame().await.unwrap().0, 7);
    assert!(server.frame().await.is_none());
}

#[tokio::test]
async fn a_broken_connection_proves_nothing() {
    let (connection, heard, mut server) = raw_connection().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::full("x"))));
    server.frame().await.unwrap();
    drop(server);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::Io, Progress::Sent));
    tokio::task::yield_now().await;
    assert!(heard.closed.lock().unwrap().is_some());
}

#[tokio::test]
async fn the_peers_limit_is_never_passed() {
    let (client, server) = pipe();
    let mut builder = ::h2::server::Builder::new();
    builder.max_concurrent_streams(1);
    spawn(serve_h2(server, builder, echo));
    let (connection, heard) = connect_with(client, &Http2Settings::default()).await;
    let only = connection.reserve().unwrap();
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full);
    let response = only.send(post(Body::full("a"))).await.unwrap();
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full);
    response.into_body().collect().await.unwrap();
    assert_eq!(heard.freed.load(Ordering::SeqCst), 2, "the limit became known, and the slot came free");
    assert!(connection.reserve().is_ok());
}

#[tokio::test]
async fn a_limit_lowered_after_the_lease_hands_the_request_back() {
    let (connection, _, mut server) = raw_connection().await;
    let first = connection.reserve().unwrap();
    let second = connection.reserve().unwrap();
    let call = spawn(first.send(post(Body::empty())));
    server.frame().await.unwrap();
    server.write(4, 0, 0, &[0, 3, 0, 0, 0, 1]).await;
    server.write(6, 0, 0, &[0; 8]).await;
    assert_eq!(server.frame().await.unwrap().0, 6, "the PING's answer comes after the SETTINGS were read");
    let mut error = second.send(post(Body::full("kept"))).await.unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::StreamLimit, Progress::NotSent));
    assert!(error.take_request().is_some());
    server.ok(1).await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_call_cancels_its_stream_even_at_the_limit() {
    for poll_body in [false, true] {
        let (client, server) = pipe();
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let mut builder = ::h2::server::Builder::new();
        builder.max_concurrent_streams(1);
        spawn(serve_h2(server, builder, move |_, mut respond| {
            let tell = tell.clone();
            async move {
                let reason = if poll_body {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    std::future::poll_fn(|cx| stream.poll_reset(cx)).await
                } else {
                    std::future::poll_fn(|cx| respond.poll_reset(cx)).await
                };
                tell.send(reason.unwrap()).await.unwrap();
            }
        }));
        let (connection, _) = connect_with(client, &Http2Settings::default()).await;
        let mut call = connection.reserve().unwrap().send(post(Body::full("x")));
        if poll_body {
            drop(call.await.unwrap());
        } else {
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut call).await.is_err());
            drop(call);
        }
        assert_eq!(told.recv().await.unwrap(), Reason::CANCEL);
        assert_eq!(connection.in_flight(), 0);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_before_it_was_written_blocks_nobody() {
    let (client, server) = pipe();
    let mut builder = ::h2::server::Builder::new();
    builder.max_concurrent_streams(1);
    spawn(serve_h2(server, builder, echo));
    let (connection, _) = connect_with(client, &Http2Settings::default()).await;
    let mut dropped = tokio_test::task::spawn(connection.reserve().unwrap().send(post(Body::full("a"))));
    assert!(dropped.poll().is_pending());
    drop(dropped);
    // The driver has not run since: this is the codec's view of a full connection.
    let response = connection.reserve().unwrap().send(post(Body::full("b"))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "b");
}

#[tokio::test]
async fn a_streaming_call_ends_with_its_response_body() {
    let (client, server) = pipe();
    spawn(serve_h2(server, ::h2::server::Builder::new(), |mut request, mut respond| async move {
        let first = request.body_mut().data().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(first, false).unwrap();
        let _ = request.body_mut().data().await;
    }));
    let (connection, _) = connect_with(client, &Http2Settings::default()).await;
    let alive = Arc::new(());
    let held = alive.clone();
    let endless = stream::iter([data("ping")]).chain(stream::pending()).map(move |frame| {
        let _ = &held;
        frame
    });
    let response =
        connection.reserve().unwrap().send(post(Body::new(StreamBody::new(endless)))).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ping");
    assert_eq!((connection.in_flight(), Arc::strong_count(&alive)), (1, 2));
    drop(body);
    tokio::task::yield_now().await;
    assert_eq!((connection.in_flight(), Arc::strong_count(&alive)), (0, 1), "the upload task is gone");
}

#[tokio::test]
async fn a_failing_request_body_cancels_the_stream_and_says_why() {
    let (connection, _, mut server) = raw_connection().await;
    let (feed, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let body = stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) });
    let call = spawn(connection.reserve().unwrap().send(post(Body::new(StreamBody::new(Box::pin(body))))));
    assert_eq!(server.frame().await.unwrap().0, 1);
    feed.send(Err(std::io::Error::other("disk on fire"))).await.unwrap();
    let (kind, _, stream, code) = server.frame().await.unwrap();
    assert_eq!((kind, stream, code), (3, 1, 8u32.to_be_bytes().to_vec()), "RST_STREAM with CANCEL");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::RequestBody, Progress::Sent));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_dead() {
    let (client, server) = pipe();
    let raw = spawn(RawServer::accept(server));
    let keepalive =
        KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(3), while_idle: false };
    let settings = Http2Settings { keepalive: Some(keepalive), ..Http2Settings::default() };
    let (connection, heard) = connect_with(client, &settings).await;
    let _server = raw.await.unwrap();
    let begin = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(heard.closed.lock().unwrap().is_none(), "an idle connection is not probed");

    let error = connection.reserve().unwrap().send(post(Body::empty())).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Io);
    assert!(error.to_string().contains("PING"), "{error}");
    let took = begin.elapsed() - Duration::from_secs(60);
    assert!(took >= Duration::from_secs(3) && took <= Duration::from_secs(23), "{took:?}");
    assert!(heard.closed.lock().unwrap().as_deref().unwrap().contains("PING"));
}

#[tokio::test]
async fn a_drained_connection_finishes_its_calls_and_closes() {
    let (connection, heard, mut server) = raw_connection().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.frame().await.unwrap();
    connection.drain();
    assert!(matches!(connection.reserve(), Err(Unavailable::Closed)));
    server.ok(1).await;
    assert!(call.await.unwrap().is_ok());
    assert_eq!(server.frame().await.unwrap().0, 7, "GOAWAY");
    assert!(server.frame().await.is_none());
    assert!(heard.closed.lock().unwrap().is_some());
    assert!(!heard.draining.load(Ordering::SeqCst), "draining is the peer's doing only");
}

#[tokio::test]
async fn a_peer_without_http2_is_a_connect_error() {
    let (client, server) = pipe();
    drop(server);
    let error = Connection::establish(
        client,
        &Http2Settings::default(),
        Arc::default(),
        1,
        Arc::new(Heard::default()),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ConnectFailure::Protocol);
}

#[tokio::test]
async fn fields_that_http2_forbids_do_not_leave() {
    let (client, server) = pipe();
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    spawn(serve_h2(server, ::h2::server::Builder::new(), move |request, mut respond| {
        let tell = tell.clone();
        async move {
            tell.send((request.uri().to_string(), request.headers().clone())).await.unwrap();
            respond.send_response(Response::new(()), true).unwrap();
        }
    }));
    let (connection, _) = connect_with(client, &Http2Settings::default()).await;
    let mut request = post(Body::empty());
    for (name, value) in
        [("connection", "keep-alive"), ("keep-alive", "5"), ("te", "gzip"), ("host", "other"), ("x-app", "1")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    connection.reserve().unwrap().send(request).await.unwrap();
    let (uri, headers) = told.recv().await.unwrap();
    assert_eq!(uri, "http://peer.example/path");
    assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-app"]);
}

#[test]
fn futures_stay_small() {
    let (send, lease) = (size_of::<SendFuture>(), size_of::<Slot>());
    assert!(send <= 96, "SendFuture is {send} bytes");
    assert_eq!(lease, size_of::<usize>());
    assert_eq!(size_of::<SendError>(), size_of::<usize>());
}
