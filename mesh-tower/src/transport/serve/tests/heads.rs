//! The time that heads and trailers may take. Real sockets, so the clock is real: every limit is short, and only its
//! passing is asserted.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::server::ServerLimits;

const SHORT: Duration = Duration::from_millis(200);
const GET: &str = "GET /hello HTTP/1.1\r\nhost: shop.test\r\n\r\n";
const LENGTH: &str = "POST /hello HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 4\r\n\r\nbody";
const CHUNKED: &str =
    "POST /hello HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
const PART: &str = "GET /hello HTTP/1.1\r\nhost: sh";

async fn timed(app: Router) -> (World, SocketAddr, Running) {
    let world = World::with(ServerLimits { headers_timeout: SHORT, ..ServerLimits::default() }, None);
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let running = Running::new(&world, tcp, app);
    (world, address, running)
}

fn app() -> Router {
    Router::new().route("/hello", route_get(|| async { "hello" }).post(|body: String| async move { body }))
}

#[tokio::test]
async fn a_head_that_began_with_an_earlier_request_is_timed() {
    let (_world, address, _running) = timed(app()).await;
    for (what, text, answers) in [
        ("after one request", format!("{GET}{PART}"), 1),
        ("after two requests", format!("{GET}{GET}{PART}"), 2),
        ("after a body of known length", format!("{LENGTH}{PART}"), 1),
        ("after a chunked body", format!("{CHUNKED}{PART}"), 1),
        ("after all of these", format!("{LENGTH}{CHUNKED}{GET}{PART}"), 3),
        ("one byte", format!("{GET}G"), 1),
        ("all but one byte", format!("{GET}{}", &GET[..GET.len() - 1]), 1),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(text.as_bytes()).await.unwrap();
        for _ in 0..answers {
            assert!(response(&mut client).await.expect(what).0.starts_with("HTTP/1.1 200"), "{what}");
        }
        assert_eq!(soon(what, client.read(&mut [0; 1])).await.unwrap_or(0), 0, "{what}");
    }
}

#[tokio::test]
async fn a_head_that_began_while_a_request_was_served_is_timed_from_its_end() {
    let gate = Arc::new(Notify::new());
    let (_world, address, _running) = timed(gated(&gate)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(GET.replace("/hello", "/wait").as_bytes()).await.unwrap();
    turns().await;
    client.write_all(PART.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(SHORT * 3, client.read(&mut [0; 1])).await;
    assert!(early.is_err(), "the request that is being served is not cut off");
    gate.notify_one();
    assert_eq!(response(&mut client).await.unwrap().1, "waited");
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

/// Writes a text byte by byte, for ever again, until the connection is closed.
async fn dribble(client: &mut TcpStream, text: &str) {
    let (mut reader, mut writer) = client.split();
    let mut said = Vec::new();
    let write = async {
        for byte in text.bytes().cycle() {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT / 20).await;
        }
    };
    let read = reader.read_to_end(&mut said);
    let closed = async {
        tokio::select! {
            () = write => {}
            _ = read => {}
        }
    };
    soon("the close", closed).await;
}

#[tokio::test]
async fn heads_and_trailers_that_dribble_are_cut_off() {
    let (_world, address, _running) = timed(app()).await;
    let open = format!("{}x: y", CHUNKED.strip_suffix("\r\n").unwrap());
    for (before, dribbled) in [("G", "x"), ("GET /hello HTTP/1.1\r\n", "x: y\r\n"), (GET, "x"), (&*open, "y")]
    {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(before.as_bytes()).await.unwrap();
        dribble(&mut client, dribbled).await;
    }
}

#[tokio::test]
async fn what_is_no_head_takes_its_time() {
    let (_world, address, _running) = timed(app()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    for text in [LENGTH, CHUNKED, GET, LENGTH, CHUNKED] {
        // Bodies pause, in the middle of data and between chunks, and connections are silent.
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        client.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        for part in body.as_bytes().chunks(5) {
            tokio::time::sleep(SHORT * 3 / 2).await;
            client.write_all(part).await.unwrap();
        }
        assert!(response(&mut client).await.unwrap().0.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(SHORT * 3 / 2).await;
    }
}

#[tokio::test]
async fn each_head_has_the_whole_time_for_itself() {
    let (_world, address, _running) = timed(app()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    // Together they take longer than one may.
    for _ in 0..12 {
        let (first, second) = GET.split_at(20);
        client.write_all(first.as_bytes()).await.unwrap();
        tokio::time::sleep(SHORT / 8).await;
        client.write_all(second.as_bytes()).await.unwrap();
        assert_eq!(response(&mut client).await.unwrap().1, "hello");
    }
}
