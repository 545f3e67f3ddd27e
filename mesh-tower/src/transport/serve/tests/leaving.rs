//! HTTP/1.1 connections of a server that leaves: what crosses with it is served.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::io::Write as _;
use std::time::Duration;

use mesh_core::snapshot::ConfigProblem;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::drain::Drained;
use crate::server::ServerLimits;

const LONG: Duration = Duration::from_secs(600);
const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nhost: shop.test\r\n\r\n";
const POST: &[u8] = b"POST /hello HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 4\r\n\r\nbody";

/// A server whose idle connections stay until a test is over.
async fn patient(grace: Duration, app: Router) -> (World, SocketAddr, Running) {
    let world = World::with(ServerLimits { drain_idle_grace: grace, ..ServerLimits::default() }, None);
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let running = Running::new(&world, tcp, app);
    (world, address, running)
}

/// Begins a shutdown, and returns once every connection knows of it.
async fn leave(world: &World, limit: Duration) -> JoinHandle<Drained> {
    let drain = world.server.drain.clone();
    let shutdown = tokio::task::spawn(async move { drain.shutdown(limit).await });
    soon("draining", world.server.drain.draining()).await;
    turns().await;
    shutdown
}

async fn exchange<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, request: &[u8]) -> Option<(String, String)> {
    io.write_all(request).await.unwrap();
    response(io).await
}

fn app() -> Router {
    Router::new().route("/hello", route_get(|| async { "hello" }).post(|body: String| async move { body }))
}

#[tokio::test]
async fn a_request_that_crosses_the_notice_is_served_as_the_last_one() {
    for wire in [Wire::Plaintext, Wire::Tls] {
        crosses(wire).await;
    }
}

async fn crosses(wire: Wire) {
    for (what, before, request, expected) in [
        ("an idle connection", Some(HELLO), HELLO, "hello"),
        ("a connection without any request", None, HELLO, "hello"),
        ("a request that is not safe to repeat", Some(POST), POST, "body"),
        ("a first one that is not safe to repeat", None, POST, "body"),
    ] {
        let pki = Pki::new();
        let limits = ServerLimits { drain_idle_grace: LONG, ..ServerLimits::default() };
        let world = World::with(limits, Some(pki.server.clone()));
        let (tcp, address) = socket().await;
        world.publish(1, address, vec![pki.chain(wire)]);
        let running = Running::new(&world, tcp, app());
        let mut client = pki.connect(wire, address).await;
        if let Some(before) = before {
            let (head, _) = exchange(&mut client, before).await.unwrap();
            assert!(!head.contains("connection:"), "{head}");
        }
        soon("the connection", async {
            while world.server.connections.used() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let shutdown = leave(&world, LONG).await;
        let (head, body) = exchange(&mut client, request).await.expect(what);
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close\r\n"), "{what}: {head}");
        assert_eq!(body, expected, "{what}");
        assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap(), 0, "{what}");
        drop(client);
        assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete, "{what}");
        running.ended().await;
    }
}

#[tokio::test]
async fn a_connection_whose_last_response_had_begun_before_serves_one_more_request() {
    let gate = Arc::new(Notify::new());
    let (world, address, running) = patient(LONG, gated(&gate).merge(app())).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /stream HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"first,\r\n") {
        said.push(soon("the beginning", client.read_u8()).await.unwrap());
    }
    let shutdown = leave(&world, LONG).await;
    gate.notify_one();
    while !said.ends_with(b"0\r\n\r\n") {
        said.push(soon("the rest", client.read_u8()).await.unwrap());
    }
    turns().await;
    let (head, body) = exchange(&mut client, HELLO).await.expect("the connection was kept alive");
    assert!(head.contains("connection: close\r\n") && body == "hello", "{head}");
    drop(client);
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_grace() {
    let (world, address, running) = patient(Duration::from_millis(50), app()).await;
    let (mut used, mut fresh) =
        (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    exchange(&mut used, HELLO).await.unwrap();
    let shutdown = leave(&world, LONG).await;
    for client in [&mut used, &mut fresh] {
        assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap(), 0);
    }
    drop((used, fresh));
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
    assert_eq!(world.server.connections.used(), 0);
}

/// The runtime hears of what a socket has only when it asks the system. A request that comes after it has asked, and
/// before the connection looks at the clock, is there all the same.
#[tokio::test]
async fn a_request_that_crosses_the_end_of_the_grace_is_served() {
    const GRACE: Duration = Duration::from_secs(1);
    for (what, is_used, request, expected) in [
        ("an idle connection", true, HELLO, "hello"),
        ("a request that is not safe to repeat", true, POST, "body"),
        ("a connection without any request", false, HELLO, "hello"),
        ("a first one that is not safe to repeat", false, POST, "body"),
    ] {
        let (world, address, running) = patient(GRACE, app()).await;
        let mut writer = std::net::TcpStream::connect(address).unwrap();
        writer.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(writer.try_clone().unwrap()).unwrap();
        if is_used {
            exchange(&mut client, HELLO).await.unwrap();
        }
        while world.server.connections.used() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        let shutdown = leave(&world, LONG).await;
        // It rings together with the connection's own, and this task runs before that of the connection.
        tokio::time::sleep(GRACE).await;
        writer.write_all(request).unwrap();
        tokio::time::resume();
        let (head, body) = response(&mut client).await.expect(what);
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close\r\n"), "{what}: {head}");
        assert_eq!(body, expected, "{what}");
        drop((client, writer));
        assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete, "{what}");
        running.ended().await;
    }
}

#[tokio::test]
async fn a_limit_that_finds_idle_connections_alone_cuts_nothing_off() {
    let (world, address, running) = patient(LONG, app()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    exchange(&mut client, HELLO).await.unwrap();
    let drained = soon("the shutdown", world.server.drain.shutdown(Duration::from_millis(50))).await;
    assert_eq!(drained, Drained::Complete);
    running.ended().await;
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn connections_that_the_kernel_has_queued_are_served() {
    let (world, address, running) = patient(LONG, app()).await;
    exchange(&mut TcpStream::connect(address).await.unwrap(), HELLO).await.unwrap();
    // Without a turn of the runtime, nobody can have accepted them.
    let queued: Vec<_> = [HELLO, POST, HELLO, POST]
        .map(|request| {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(request).unwrap();
            client
        })
        .into();
    let shutdown = leave(&world, LONG).await;
    for client in queued {
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        let (head, _) = response(&mut client).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close\r\n"), "{head}");
    }
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_listener_that_is_gone_sends_its_http1_connections_away_in_the_same_way() {
    let (world, address, _running) = patient(LONG, app()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    exchange(&mut client, HELLO).await.unwrap();
    world.publish_failure(ConfigProblem::DoesNotExist);
    turns().await;
    let (head, body) = exchange(&mut client, HELLO).await.expect("a request that crosses is served");
    assert!(head.contains("connection: close\r\n") && body == "hello", "{head}");
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap(), 0);
}
