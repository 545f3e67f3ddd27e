//! Requests that are answered before their body has ended.

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;

use super::*;

const GRACE: Duration = Duration::from_secs(3);

/// A body of unknown length, which goes on as long as the sender lives.
fn upload() -> (mpsc::Sender<&'static str>, Body) {
    let (parts, rest) = mpsc::channel(8);
    let frames = stream::unfold(rest, |mut rest| async move {
        let part: &str = rest.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from(part))), rest))
    });
    (parts, Body::new(StreamBody::new(frames)))
}

/// Answers that end at once, and the method that each is for.
const ANSWERS: [(&str, Method, &str); 5] = [
    ("of known length", Method::POST, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ("chunked", Method::POST, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    (
        "with trailers",
        Method::POST,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    ),
    ("without a body", Method::PUT, "HTTP/1.1 204 No Content\r\n\r\n"),
    ("empty", Method::POST, "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
];

/// A request whose body has begun and goes on, answered to the end.
async fn answered_early(
    connection: &Arc<Connection>,
    server: &mut Server,
    method: &Method,
    answer: &str,
) -> mpsc::Sender<&'static str> {
    let (parts, body) = upload();
    let mut request = post(body);
    *request.method_mut() = method.clone();
    let call = spawn(connection.reserve().unwrap().send(request));
    parts.send("begun").await.unwrap();
    let head = server.request().await.unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    server.io.write_all(answer.as_bytes()).await.unwrap();
    call.await.unwrap().unwrap().into_body().collect().await.unwrap();
    parts
}

fn settings() -> Http1Settings {
    Http1Settings { upload_grace: GRACE, ..Http1Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_request_goes_on_takes_no_other_and_is_closed_when_nothing_moves() {
    for (what, method, answer) in ANSWERS {
        let (connection, heard, mut server) = connect_with(&settings()).await;
        let _parts = answered_early(&connection, &mut server, &method, answer).await;
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full, "{what}");
        assert_eq!(connection.in_flight(), 1, "{what}");
        sleep(GRACE / 2).await;
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full, "{what}");
        sleep(GRACE * 2).await;
        assert!(heard.closed.lock().unwrap().is_some(), "{what}");
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_free_again_once_the_request_has_ended_too() {
    for (what, method, answer) in ANSWERS {
        let (connection, heard, mut server) = connect_with(&settings()).await;
        let parts = answered_early(&connection, &mut server, &method, answer).await;
        // It lasts longer than the grace, and moves.
        for _ in 0..4 {
            sleep(GRACE * 2 / 3).await;
            parts.send("more").await.unwrap();
        }
        assert_eq!(connection.reserve().unwrap_err(), Unavailable::Full, "{what}");
        let freed = heard.freed.load(Ordering::SeqCst);
        drop(parts);
        let mut rest = Vec::new();
        while !rest.ends_with(b"0\r\n\r\n") {
            rest.push(server.io.read_u8().await.unwrap());
        }
        assert_eq!(rest.windows(4).filter(|part| part == b"more").count(), 4, "{what}: nothing is cut off");
        while heard.freed.load(Ordering::SeqCst) == freed {
            tokio::task::yield_now().await;
        }
        exchange(&connection, &mut server).await;
    }
}

#[tokio::test]
async fn an_unread_answer_to_a_request_that_goes_on_closes_the_connection() {
    let (connection, _, mut server) = connect().await;
    let (_parts, body) = upload();
    let call = spawn(connection.reserve().unwrap().send(post(body)));
    server.request().await.unwrap();
    server.io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    drop(call.await.unwrap().unwrap());
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
    assert!(server.request().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drained_connection_lets_the_request_end_and_takes_no_other() {
    let (connection, heard, mut server) = connect_with(&settings()).await;
    let parts = answered_early(&connection, &mut server, &Method::POST, ANSWERS[0].2).await;
    connection.drain();
    assert_eq!(connection.reserve().unwrap_err(), Unavailable::Closed);
    assert!(heard.closed.lock().unwrap().is_none());
    drop(parts);
    let mut rest = Vec::new();
    server.io.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}
