//! Connections that speak another protocol: they are calls in flight, and whatever ends a server ends them.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::convert::Infallible;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_core::snapshot::ConfigProblem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tower::service_fn;

use super::*;
use crate::drain::Drained;
use crate::server::ServerLimits;
use crate::transport::io::BoxIo;

const LONG: Duration = Duration::from_secs(600);

/// What an application does with the connection that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Says back what it hears.
    Echo,
    /// Keeps it, and never looks at it.
    Hold,
    /// Waits for a gate, then lets go of it.
    LetGo,
}

/// How a client asks.
const REQUESTS: [(Wire, &str); 3] = [
    (
        Wire::Plaintext,
        "GET /chat HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    ),
    (
        Wire::Plaintext,
        "POST /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\ncontent-length: 2\r\n\r\nhi",
    ),
    (Wire::Tls, "GET /chat HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"),
];

async fn use_it(request: http::Request<Body>, manner: Manner, gate: Arc<Notify>) {
    let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
    match manner {
        Manner::Hold => std::future::pending().await,
        Manner::LetGo => gate.notified().await,
        Manner::Echo => {
            let mut heard = [0; 64];
            while let Ok(n @ 1..) = io.read(&mut heard).await {
                if io.write_all(&heard[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

struct Upgraded {
    world: World,
    running: Running,
    client: BoxIo,
    gate: Arc<Notify>,
}

/// A connection that was upgraded, and that its application uses in this manner.
async fn upgraded(manner: Manner, (wire, request): (Wire, &str), limits: ServerLimits) -> Upgraded {
    let pki = Pki::new();
    let world = World::with(limits, Some(pki.server.clone()));
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![pki.chain(wire)]);
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let app = service_fn(move |request: http::Request<Body>| {
        let upgrade = request.headers().get("upgrade").cloned();
        tokio::task::spawn(use_it(request, manner, opened.clone()));
        async move {
            let mut response = http::Response::new(Body::empty());
            if let Some(protocol) = upgrade {
                *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert("connection", "upgrade".parse().unwrap());
                response.headers_mut().insert("upgrade", protocol);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let running = Running::new(&world, tcp, app);
    let mut client = pki.connect(wire, address).await;
    client.write_all(request.as_bytes()).await.unwrap();
    let (head, _) = response(&mut client).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    if manner == Manner::Echo {
        client.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        soon("an echo", client.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"ping");
    }
    turns().await;
    Upgraded { world, running, client, gate }
}

async fn is_closed(client: &mut BoxIo) {
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

async fn is_released(world: &World) {
    soon("the release of everything", async {
        while world.server.requests.used() + world.server.connections.used() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_waits_for_an_upgraded_connection_and_closes_it_at_the_limit() {
    for request in REQUESTS {
        for manner in [Manner::Echo, Manner::Hold] {
            let Upgraded { world, running, mut client, .. } =
                upgraded(manner, request, ServerLimits::default()).await;
            assert_eq!((world.server.requests.used(), world.server.connections.used()), (1, 1));
            let drained = soon("the shutdown", world.server.drain.shutdown(Duration::from_millis(100))).await;
            assert_eq!(drained, Drained::Forced, "{manner:?}");
            running.ended().await;
            is_closed(&mut client).await;
            is_released(&world).await;
        }
    }
}

#[tokio::test]
async fn an_upgraded_connection_goes_on_while_the_server_drains() {
    let Upgraded { world, running, mut client, .. } =
        upgraded(Manner::Echo, REQUESTS[0], ServerLimits::default()).await;
    let drain = world.server.drain.clone();
    let shutdown = tokio::task::spawn(async move { drain.shutdown(LONG).await });
    turns().await;
    client.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    soon("an echo", client.read_exact(&mut heard)).await.unwrap();
    assert!(!shutdown.is_finished());
    drop(client);
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
    is_released(&world).await;
}

#[tokio::test]
async fn an_application_that_lets_go_ends_the_connection_and_its_permits() {
    for request in REQUESTS {
        let Upgraded { world, running, mut client, gate } =
            upgraded(Manner::LetGo, request, ServerLimits::default()).await;
        gate.notify_one();
        is_closed(&mut client).await;
        is_released(&world).await;
        assert_eq!(soon("the shutdown", world.server.drain.shutdown(LONG)).await, Drained::Complete);
        running.ended().await;
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_takes_its_upgraded_connections_along() {
    for request in REQUESTS {
        for manner in [Manner::Echo, Manner::Hold] {
            let Upgraded { world, running, mut client, .. } =
                upgraded(manner, request, ServerLimits::default()).await;
            drop(running);
            is_closed(&mut client).await;
            is_released(&world).await;
        }
    }
}

#[tokio::test]
async fn a_listener_that_is_gone_ends_upgraded_connections_after_the_grace() {
    for manner in [Manner::Echo, Manner::Hold] {
        let limits = ServerLimits { drain_grace: Duration::from_millis(100), ..ServerLimits::default() };
        let Upgraded { world, running: _running, mut client, .. } =
            upgraded(manner, REQUESTS[0], limits).await;
        world.publish_failure(ConfigProblem::DoesNotExist);
        is_closed(&mut client).await;
        is_released(&world).await;
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_never_idle_and_has_no_head_to_wait_for() {
    let short = Duration::from_millis(50);
    let limits = ServerLimits {
        idle_timeout: short,
        headers_timeout: short,
        drain_idle_grace: short,
        ..ServerLimits::default()
    };
    let Upgraded { mut client, world: _world, running: _running, .. } =
        upgraded(Manner::Echo, REQUESTS[0], limits).await;
    let silence = tokio::time::timeout(short * 8, client.read(&mut [0; 1])).await;
    assert!(silence.is_err(), "it stays open");
    client.write_all(b"ping").await.unwrap();
    soon("an echo", client.read_exact(&mut [0; 4])).await.unwrap();
}
