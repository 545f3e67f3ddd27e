mod answers;
mod lengths;
mod uploads;

use http::header::{HOST, HeaderValue};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::sleep;

use super::*;
use crate::transport::testing::{Heard, pipe, post, spawn};

/// An HTTP/1.1 server that is written by hand.
struct Server {
    io: DuplexStream,
}

impl Server {
    /// The head of the next request and its body of known length.
    async fn request(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(self.io.read_u8().await.ok()?);
        }
        let head = String::from_utf8(text).unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.io.read_exact(&mut body).await.ok()?;
        Some(head)
    }

    async fn respond(&mut self, body: &str) {
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.io.write_all(text.as_bytes()).await.unwrap();
    }
}

async fn connect_with(settings: &Http1Settings) -> (Arc<Connection>, Arc<Heard>, Server) {
    let (client, server) = pipe();
    let heard = Arc::new(Heard::default());
    let connection = Connection::establish(client, settings, 1, heard.clone()).await.unwrap();
    (connection, heard, Server { io: server })
}

async fn connect() -> (Arc<Connection>, Arc<Heard>, Server) {
    connect_with(&Http1Settings::default()).await
}

/// One whole exchange, after which the connection is idle.
async fn exchange(connection: &Arc<Connection>, server: &mut Server) {
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    server.respond("ok").await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
}

#[tokio::test]
async fn requests_go_out_in_origin_form_with_the_authority_as_host() {
    let (connection, _, mut server) = connect().await;
    let mut request = Request::get("http://user@peer.example:81/a?b=c").body(Body::empty()).unwrap();
    request.headers_mut().insert(HOST, HeaderValue::from_static("somebody-else"));
    let call = spawn(connection.reserve().unwrap().send(request));
    let head = server.request().await.unwrap();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: peer.example:81\r\n") && !head.contains("somebody"), "{head}");
    server.respond("").await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_connection_is_reused_once_the_response_was_read() {
    let (connection, _, mut server) = connect().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::full("x"))));
    server.request().await.unwrap();
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full);
    server.respond("hello").await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full, "the body is unread");
    response.into_body().collect().await.unwrap();
    exchange(&connection, &mut server).await;
}

#[tokio::test]
async fn a_reused_connection_that_ends_silently_is_told_apart_from_a_new_one() {
    let (connection, _, mut server) = connect().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    drop(server);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::Io, Progress::Sent), "a new connection");

    let (connection, _, mut server) = connect().await;
    exchange(&connection, &mut server).await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    drop(server);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.progress(), Progress::ReusedEnded { written: true });

    let never = Http1Settings { repeat_safe_requests: false, ..Http1Settings::default() };
    let (connection, _, mut server) = connect_with(&never).await;
    exchange(&connection, &mut server).await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    drop(server);
    assert_eq!(call.await.unwrap().unwrap_err().progress(), Progress::Sent, "switched off");
}

#[tokio::test]
async fn a_response_that_has_begun_is_no_silent_end() {
    let (connection, _, mut server) = connect().await;
    exchange(&connection, &mut server).await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    server.io.write_all(b"HTTP/1.1 2").await.unwrap();
    drop(server);
    assert_eq!(call.await.unwrap().unwrap_err().progress(), Progress::Sent);
}

#[tokio::test]
async fn a_connection_that_ended_while_idle_hands_the_request_back_whole() {
    let (connection, heard, mut server) = connect().await;
    exchange(&connection, &mut server).await;
    let slot = connection.reserve().unwrap();
    drop(server);
    while heard.closed.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let mut request = post(Body::full("kept"));
    request.headers_mut().insert("x-app", HeaderValue::from_static("1"));
    let mut error = slot.send(request).await.unwrap_err();
    assert_eq!((error.kind(), error.progress()), (FailureKind::Closed, Progress::NotSent));
    let request = error.take_request().unwrap();
    assert_eq!(request.uri(), "http://peer.example/path");
    assert!(request.headers().get(HOST).is_none());
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "kept");
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
}

#[tokio::test]
async fn dropping_a_response_closes_the_connection() {
    let (connection, heard, mut server) = connect().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    server.io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\nbegin").await.unwrap();
    drop(call.await.unwrap().unwrap());
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
    assert!(server.request().await.is_none());
    assert!(heard.freed.load(Ordering::SeqCst) > 0);
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_is_closed_after_its_timeout() {
    let settings = Http1Settings { idle_timeout: Duration::from_secs(10), ..Http1Settings::default() };
    let (connection, heard, mut server) = connect_with(&settings).await;
    sleep(Duration::from_secs(8)).await;
    exchange(&connection, &mut server).await;
    sleep(Duration::from_secs(8)).await;
    assert!(heard.closed.lock().unwrap().is_none(), "it was used eight seconds ago");
    sleep(Duration::from_secs(8)).await;
    assert!(heard.closed.lock().unwrap().is_some());
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
}

#[tokio::test]
async fn a_drained_connection_finishes_its_call() {
    let (connection, _, mut server) = connect().await;
    let call = spawn(connection.reserve().unwrap().send(post(Body::empty())));
    server.request().await.unwrap();
    connection.drain();
    server.respond("last").await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "last");
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
    assert!(server.request().await.is_none());
}
