//! Answers that nobody asked for, that are too large, or that are cut off.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use http::header::CONNECTION;

use super::*;

/// A connection over TCP, whose peer is written without the runtime: what it says is in the socket when it has said it.
async fn over_tcp() -> (Arc<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (peer, _) = listener.accept().unwrap();
    let heard = Arc::new(Heard::default());
    let settings = Http1Settings::default();
    let connection = Connection::establish(Box::new(client), &settings, 1, heard).await.unwrap();
    (connection, peer)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const UNASKED: [(&str, &[u8]); 5] = [
    ("a whole response", OK),
    ("a timeout", b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n"),
    ("an interim response", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le"),
    ("another protocol", b"220 mail.example ESMTP\r\n"),
];

#[tokio::test]
async fn what_a_server_says_before_any_request_is_no_answer() {
    for (what, said) in UNASKED {
        let (connection, mut peer) = over_tcp().await;
        peer.write_all(said).unwrap();
        let error = connection.reserve().unwrap().send(post(Body::full("kept"))).await;
        let mut error = error.map(|response| response.status()).expect_err(what);
        assert_eq!(error.progress(), Progress::NotSent, "{what}");
        let request = error.take_request().expect(what);
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "kept", "{what}");
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed, "{what}");
        peer.set_nonblocking(true).unwrap();
        assert_ne!(peer.read(&mut [0; 1]).unwrap_or(0), 1, "{what}: nothing was sent");
    }
}

#[tokio::test]
async fn what_a_server_says_between_two_requests_is_no_answer() {
    for (what, said) in UNASKED {
        for at_once in [true, false] {
            let (connection, mut peer) = over_tcp().await;
            let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
            while !call.is_finished() {
                tokio::task::yield_now().await;
                peer.set_nonblocking(true).unwrap();
                if peer.read(&mut [0; 512]).is_ok() {
                    let rest = if at_once { said } else { b"" };
                    peer.write_all(&[OK, rest].concat()).unwrap();
                }
            }
            call.await.unwrap().unwrap().into_body().collect().await.unwrap();
            if !at_once {
                peer.write_all(said).unwrap();
            }
            let Ok(slot) = connection.reserve() else { continue };
            let error = slot.send(post(Body::empty())).await.map(|response| response.status());
            assert_eq!(error.expect_err(what).progress(), Progress::NotSent, "{what}, {at_once}");
        }
    }
}

#[tokio::test]
async fn a_server_that_has_closed_gets_no_request() {
    let (connection, peer) = over_tcp().await;
    drop(peer);
    let error = connection.reserve().unwrap().send(post(Body::empty())).await.unwrap_err();
    assert_eq!(error.progress(), Progress::NotSent);
}

/// The answer to one request, which `answer` is.
async fn answered(
    request: Request<Body>,
    answer: &[u8],
) -> (Result<Response<Body>, SendError>, Arc<Connection>) {
    let (connection, _, mut server) = connect().await;
    let call = spawn(connection.reserve().unwrap().send(request));
    server.request().await.unwrap();
    let answer = answer.to_vec();
    let written = spawn(async move { server.io.write_all(&answer).await.is_ok().then_some(server) });
    let result = call.await.unwrap();
    let _ = written.await;
    (result, connection)
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_fails_the_call() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    ] {
        let (result, connection) = answered(post(Body::empty()), answer.as_bytes()).await;
        assert_eq!(result.unwrap_err().kind(), FailureKind::Protocol, "{answer}");
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed, "{answer}");
    }
}

#[tokio::test]
async fn interim_responses_are_skipped() {
    let answer =
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", OK].concat();
    let (result, connection) = answered(post(Body::empty()), &answer).await;
    let response = result.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
    assert!(connection.reserve().is_ok());
}

#[tokio::test]
async fn a_protocol_that_was_asked_for_belongs_to_the_application() {
    let (connection, heard, mut server) = connect().await;
    let mut request = Request::get("http://peer.example/").body(Body::empty()).unwrap();
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let call = spawn(connection.reserve().unwrap().send(request));
    server.request().await.unwrap();
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst";
    server.io.write_all(answer.as_bytes()).await.unwrap();
    let response = call.await.unwrap().unwrap();
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
    let mut upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut heard_first = [0; 5];
    upgraded.read_exact(&mut heard_first).await.unwrap();
    assert_eq!(&heard_first, b"first");
    upgraded.write_all(b"second").await.unwrap();
    server.io.read_exact(&mut [0; 6]).await.unwrap();
    assert!(heard.closed.lock().unwrap().is_some(), "the pool has one connection less");
}

#[tokio::test]
async fn a_response_with_trailers_keeps_its_connection_also_for_who_stops_at_them() {
    for asked_for_the_end in [true, false] {
        let (connection, _, mut server) = connect().await;
        let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
        server.request().await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
        server.io.write_all(answer.as_bytes()).await.unwrap();
        let mut body = call.await.unwrap().unwrap().into_body();
        while body.frame().await.unwrap().unwrap().is_data() {}
        if asked_for_the_end {
            assert!(body.frame().await.is_none());
        }
        drop(body);
        exchange(&connection, &mut server).await;
    }
}

#[tokio::test]
async fn a_head_above_the_limit_fails_the_one_call() {
    let head = |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
    for (what, answer) in [
        ("1 MiB in one field", head(format!("x-large: {}\r\n", "x".repeat(1 << 20)))),
        ("64 KiB in one field", head(format!("x-large: {}\r\n", "x".repeat(64 * 1024)))),
        ("64 KiB in fields of 1 KiB", head(format!("x-large: {}\r\n", "x".repeat(1024)).repeat(64))),
        (
            "a reason of 64 KiB",
            format!("HTTP/1.1 200 {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(64 * 1024)),
        ),
        ("many fields", head("x: y\r\n".repeat(2000))),
    ] {
        let (result, connection) = answered(post(Body::empty()), answer.as_bytes()).await;
        assert_eq!(result.map(|r| r.status()).expect_err(what).kind(), FailureKind::Protocol, "{what}");
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed, "{what}");
    }
    let large = head(format!("x-large: {}\r\n", "x".repeat(50 * 1024)));
    assert!(answered(post(Body::empty()), large.as_bytes()).await.0.is_ok());
}

#[tokio::test]
async fn trailers_above_the_limit_of_heads_fail_the_body() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    for (trailers, is_ok) in [
        (format!("x-large: {}\r\n", "x".repeat(100 * 1024)), false),
        (format!("x-large: {}\r\n", "x".repeat(1024)).repeat(64), false),
        ("x: y\r\n".repeat(2000), false),
        (format!("x-large: {}\r\n", "x".repeat(50 * 1024)), true),
    ] {
        let answer = format!("{chunked}{trailers}\r\n");
        let (result, connection) = answered(post(Body::empty()), answer.as_bytes()).await;
        let body = result.unwrap().into_body().collect().await;
        assert_eq!(body.is_ok(), is_ok, "{} bytes", trailers.len());
        if !is_ok {
            assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
        }
    }
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_never_taken_for_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n",
    ] {
        let (connection, _, mut server) = connect().await;
        let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
        server.request().await.unwrap();
        server.io.write_all(answer.as_bytes()).await.unwrap();
        drop(server);
        let body = call.await.unwrap().unwrap().into_body().collect().await;
        assert!(body.is_err(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_up_to_the_end_of_the_connection_is_whole_only_if_that_end_is_no_error() {
    for reset in [false, true] {
        let (connection, mut peer) = over_tcp().await;
        let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
        tokio::task::yield_now().await;
        peer.set_nonblocking(true).unwrap();
        while peer.read(&mut [0; 8]).is_err() {
            tokio::task::yield_now().await;
        }
        peer.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin").unwrap();
        let mut body = call.await.unwrap().unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begin");
        // What is left unread makes the kernel reset the connection.
        if !reset {
            while peer.read(&mut [0; 512]).is_ok_and(|n| n > 0) {}
        }
        drop(peer);
        assert_eq!(body.collect().await.is_err(), reset);
    }
}

/// hyperium/hyper#4110, benoitc/hackney#888: a connection that one side wanted closed went back into the pool.
#[tokio::test]
async fn a_connection_that_either_side_wants_closed_is_not_used_again() {
    let close = |value: &'static str| {
        let mut request = post(Body::empty());
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static(value));
        request
    };
    let answer = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
    for (request, answer) in [
        (close("close"), answer("")),
        (close("Close"), answer("connection: keep-alive\r\n")),
        (close("te, close"), answer("")),
        (post(Body::empty()), answer("connection: close\r\n")),
        (post(Body::empty()), answer("connection: keep-alive, Close\r\n")),
        (post(Body::empty()), answer("connection: x-hop\r\nconnection: close\r\n")),
        (post(Body::empty()), answer("").replace("1.1", "1.0")),
    ] {
        let what = format!("{:?}, {answer}", request.headers());
        let (result, connection) = answered(request, answer.as_bytes()).await;
        assert_eq!(result.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok", "{what}");
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed, "{what}");
    }
}
