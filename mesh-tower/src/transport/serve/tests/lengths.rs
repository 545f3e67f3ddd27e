//! Messages that are too large, or whose length is not what they announce.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::service_fn;

use super::*;

/// All that a server says to these bytes, up to the end of the connection.
async fn said(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = client.split();
    let mut said = Vec::new();
    let both = async {
        let write = async {
            let _ = writer.write_all(bytes).await;
        };
        let read = async {
            // A reset would lose the answer.
            reader.read_to_end(&mut said).await.expect("an orderly end");
        };
        tokio::join!(write, read);
    };
    soon("the end of the connection", both).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_head_above_the_limit_is_answered_and_its_connection_closed() {
    let (_world, address, _running) = open_to_all(hello()).await;
    let first = "GET /hello HTTP/1.1\r\nhost: shop.test\r\n";
    for (what, head) in [
        ("1 MiB in one field", format!("{first}x-large: {}\r\n\r\n", "x".repeat(1 << 20))),
        ("1 MiB without an end", format!("{first}x-large: {}", "x".repeat(1 << 20))),
        (
            "1 MiB in fields of 1 KiB",
            format!("{first}{}\r\n", format!("x: {}\r\n", "x".repeat(1020)).repeat(1024)),
        ),
        ("2,000 fields", format!("{first}{}\r\n", "x: y\r\n".repeat(2000))),
        ("101 fields", format!("{first}{}\r\n", "x: y\r\n".repeat(100))),
    ] {
        let answer = said(address, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{what}: {answer}");
        // The same on a connection that has served.
        let answer = said(address, format!("{first}\r\n{head}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 431 "), "{what}: {answer}");
    }
}

#[tokio::test]
async fn trailers_above_the_limit_of_heads_fail_the_body() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let app = service_fn(|request: http::Request<Body>| async move {
        let text = if request.into_body().collect().await.is_ok() { "whole" } else { "broken" };
        Ok::<_, Infallible>(http::Response::new(Body::full(text)))
    });
    let _running = Running::new(&world, tcp, app);
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nbody\r\n0\r\n";
    for (trailers, expected) in [
        (format!("x-large: {}\r\n", "x".repeat(100 * 1024)), "broken"),
        (format!("x: {}\r\n", "x".repeat(1020)).repeat(64), "broken"),
        ("x: y\r\n".repeat(2000), "broken"),
        (format!("x-large: {}\r\n", "x".repeat(50 * 1024)), "whole"),
        (String::new(), "whole"),
    ] {
        let answer = said(address, format!("{head}{trailers}\r\n").as_bytes()).await;
        assert!(answer.ends_with(expected), "{} bytes of trailers: {answer}", trailers.len());
    }
}

#[tokio::test]
async fn an_early_answer_arrives_whatever_the_client_still_sends() {
    let refuse = || async { http::StatusCode::FORBIDDEN };
    let app = Router::new().route("/", axum::routing::post(refuse));
    let (_world, address, _running) = open_to_all(app).await;
    let body = "x".repeat(1 << 20);
    for request in [
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n{body}\r\n0\r\n\r\n"
        ),
    ] {
        let answer = said(address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
}

/// A response of an application that says one thing and does another.
fn mistaken(path: &str) -> http::Response<Body> {
    let stream = |parts: &'static [&'static str]| {
        let frames = parts.iter().map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(*part))));
        Body::new(StreamBody::new(stream::iter(frames)))
    };
    let body = match path {
        "/full/five" => Body::full("hello"),
        "/stream/five" => stream(&["hel", "lo"]),
        "/stream/one" => stream(&["hello"]),
        "/stream/none" => stream(&[]),
        _ => Body::empty(),
    };
    http::Response::builder().header("content-length", "9").body(body).unwrap()
}

#[tokio::test]
async fn a_response_shorter_than_it_announces_is_cut_off_and_never_filled_by_the_next_one() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let app = service_fn(|request: http::Request<Body>| async move {
        Ok::<_, Infallible>(mistaken(request.uri().path()))
    });
    let _running = Running::new(&world, tcp, app);
    for path in ["/full/five", "/stream/five", "/stream/one", "/stream/none", "/empty"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        let answer = said(address, request.repeat(2).as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), usize::from(!answer.is_empty()), "{path}: {answer}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(body.len() < 9, "{path}: {answer}");
        assert!(!answer.contains("content-length: 0"), "{path}: it is not taken for whole: {answer}");
    }
    // The answer to HEAD announces what GET would have.
    let head = "HEAD /empty HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let last = "HEAD /full/five HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";
    let answer = said(address, format!("{head}{head}{last}").as_bytes()).await;
    assert_eq!(answer.matches("content-length: 9\r\n").count(), 3, "{answer}");
}

/// The codec closes a connection when it would have to wait for the rest of a request that is answered; a client that has
/// not heard of it would lose its next request.
#[tokio::test]
async fn a_response_says_when_it_is_the_last_one_because_of_its_request() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let app = service_fn(|request: http::Request<Body>| async move {
        if request.uri().path() == "/read" {
            drop(request.into_body().collect().await);
        }
        Ok::<_, Infallible>(http::Response::new(Body::full("done")))
    });
    let _running = Running::new(&world, tcp, app);
    let head = |path: &str, body: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\n{body}");
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (what, request, stays) in [
        ("no body", "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), true),
        ("an empty body", head("/", "content-length: 0\r\n\r\n"), true),
        ("a body that was read", head("/read", "content-length: 3\r\n\r\nabc"), true),
        ("chunks that were read", format!("{}0\r\n\r\n", head("/read", chunked)), true),
        ("a body that is here", head("/", "content-length: 3\r\n\r\nabc"), true),
        ("a body that is not here", head("/", "content-length: 3\r\n\r\n"), false),
        ("a body of which a part is here", head("/", "content-length: 300000\r\n\r\nabc"), false),
        ("chunks without an end", head("/", chunked), false),
        (
            "a body that waits to be asked for",
            head("/", "content-length: 3\r\nexpect: 100-continue\r\n\r\n"),
            false,
        ),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            client.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = response(&mut client).await.expect(what);
            assert_eq!((!head.contains("connection: close\r\n"), &*body), (stays, "done"), "{what}: {head}");
            if !stays {
                break;
            }
        }
    }
}
