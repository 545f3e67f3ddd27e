//! Requests whose head announces another length than their body has.

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;
use crate::server::testing::soon;

/// A stream of these parts, each of which comes after a turn of the runtime.
fn stream(parts: &'static [&'static str]) -> Body {
    let frames = futures_util::stream::iter(parts).then(|part| async move {
        tokio::task::yield_now().await;
        Ok::<_, std::io::Error>(Frame::data(Bytes::from(*part)))
    });
    Body::new(StreamBody::new(frames))
}

/// A stream of these parts, all there.
fn parts(parts: &'static [&'static str]) -> Body {
    let frames = parts.iter().map(|part| Ok::<_, std::io::Error>(Frame::data(Bytes::from(*part))));
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

fn announcing(lengths: &[&'static str], body: Body) -> Request<Body> {
    let mut request = post(body);
    for length in lengths {
        request.headers_mut().append(CONTENT_LENGTH, HeaderValue::from_static(length));
    }
    request
}

/// Everything that a peer gets of a call that fails.
async fn failed(request: Request<Body>) -> (FailureKind, String, Arc<Connection>) {
    let (connection, _, mut server) = connect().await;
    let sent = connection.reserve().unwrap().send(request);
    let error = soon("the failure", sent).await.unwrap_err();
    let kept = connection.clone();
    connection.drain();
    drop(connection);
    let mut sent = String::new();
    soon("the end", server.io.read_to_string(&mut sent)).await.unwrap();
    (error.kind(), sent, kept)
}

#[tokio::test]
async fn a_length_that_is_known_to_be_wrong_is_never_sent() {
    let coded = |coding: &'static str, lengths: &[&'static str], body: Body| {
        let mut request = announcing(lengths, body);
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static(coding));
        request
    };
    for (what, request) in [
        ("five bytes of nine", announcing(&["9"], Body::full("hello"))),
        ("twelve bytes of nine", announcing(&["9"], Body::full("hello, world"))),
        ("no byte of nine", announcing(&["9"], Body::empty())),
        ("five bytes of none", announcing(&["0"], Body::full("hello"))),
        ("a stream of none", announcing(&["0"], stream(&["hello"]))),
        ("two lengths", announcing(&["5", "9"], Body::full("hello"))),
        ("no number", announcing(&["+5"], Body::full("hello"))),
        ("a list", announcing(&["5, 5"], Body::full("hello"))),
        ("chunked beside a length", coded("chunked", &["9"], Body::empty())),
        ("another coding", coded("gzip", &[], Body::full("hello"))),
        ("chunked and another", coded("chunked, gzip", &[], Body::full("hello"))),
        ("chunked twice", coded("chunked, chunked", &[], Body::full("hello"))),
        ("no coding of HTTP", coded("identity", &[], Body::full("hello"))),
    ] {
        let (kind, sent, _) = failed(request).await;
        assert_eq!((kind, sent.as_str()), (FailureKind::InvalidRequest, ""), "{what}");
    }
}

#[tokio::test]
async fn a_stream_that_does_not_keep_to_its_length_fails_its_call_and_the_connection() {
    for (what, body) in [
        ("five bytes", stream(&["hello"])),
        ("five bytes in two parts", stream(&["hel", "lo"])),
        ("no byte", stream(&[])),
        ("twelve bytes", stream(&["hello, world"])),
        ("twelve bytes in three parts, all there", parts(&["hello", ", wo", "rld"])),
    ] {
        let (kind, sent, connection) = failed(announcing(&["9"], body)).await;
        assert_eq!(kind, FailureKind::RequestBody, "{what}");
        let body = sent.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(body.len() < 9, "{what}: the peer sees that it was cut off: {sent:?}");
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed, "{what}");
    }
}

#[tokio::test]
async fn a_stream_that_is_answered_early_and_then_falls_short_leaves_no_connection_behind() {
    let (connection, _, mut server) = connect().await;
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let frames =
        futures_util::stream::once(async { Ok::<_, std::io::Error>(Frame::data(Bytes::from("hello"))) })
            .chain(futures_util::stream::once(async {
                let _ = opened.await;
                Ok(Frame::data(Bytes::new()))
            }));
    let request = announcing(&["9"], Body::new(StreamBody::new(frames)));
    let call = spawn(connection.reserve().unwrap().send(request));
    let mut head = Vec::new();
    while !head.ends_with(b"hello") {
        head.push(server.io.read_u8().await.unwrap());
    }
    server.respond("ok").await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    drop(gate);
    // Had the connection been reused, the next request would begin with the four bytes that are missing.
    let mut rest = Vec::new();
    soon("the end", server.io.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
}

#[tokio::test]
async fn a_length_that_is_right_is_sent_as_it_is() {
    let coded = |coding: &'static str| {
        let mut request = post(Body::full("hello"));
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static(coding));
        request
    };
    let asking = || {
        let mut request = post(stream(&["hello"]));
        *request.method_mut() = http::Method::GET;
        request
    };
    for (what, request, expected) in [
        ("a stream of a request that seldom has one", asking(), "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("a whole body", announcing(&["5"], Body::full("hello")), "\r\n\r\nhello"),
        ("said twice", announcing(&["5", "5"], Body::full("hello")), "\r\n\r\nhello"),
        ("a stream", announcing(&["5"], stream(&["hel", "lo"])), "\r\n\r\nhello"),
        ("nothing", announcing(&["0"], Body::empty()), "\r\n\r\n"),
        ("a stream of nothing", announcing(&["0"], stream(&[])), "\r\n\r\n"),
        ("chunked by the application", coded("chunked"), "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("packed by the application", coded("gzip, chunked"), "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let (connection, _, mut server) = connect().await;
        let call = spawn(connection.reserve().unwrap().send(request));
        let mut sent = Vec::new();
        while !sent.ends_with(expected.as_bytes()) {
            sent.push(soon("the request", server.io.read_u8()).await.unwrap());
        }
        server.respond("ok").await;
        call.await.unwrap().unwrap().into_body().collect().await.unwrap();
        exchange(&connection, &mut server).await;
        assert!(String::from_utf8(sent).is_ok(), "{what}");
    }
}
