//! One peer never holds all requests of a server: shares, and the heaviest that gives way. Limits are scaled down.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::net::IpAddr;

use http::StatusCode;
use mesh_core::config::listener::FilterChain;
use tokio::net::{TcpSocket, TcpStream};
use tonic::service::Routes;

use super::*;
use crate::server::{Peer, ServerLimits};
use crate::transport::listen::MeshListener;

/// Which server stands around the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stack {
    /// `mesh.serve`.
    Ours,
    /// axum's own server, which speaks HTTP/1.1 here.
    Axum,
    /// tonic's own server, which speaks HTTP/2.
    Tonic,
}

/// Serves `app` by this stack.
pub(super) async fn under(
    stack: Stack,
    limits: ServerLimits,
    chain: FilterChain,
    app: Router,
) -> (World, SocketAddr, Running) {
    let world = World::with(limits, None);
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain]);
    let (server, layer) = (world.server.clone(), world.server.layer());
    let running = match stack {
        Stack::Ours => Running::new(&world, tcp, app),
        Stack::Axum => {
            let service = app.layer(layer).into_make_service_with_connect_info::<Peer>();
            let listener = MeshListener::new(server, tcp.into());
            Running { task: tokio::task::spawn(async move { axum::serve(listener, service).await.unwrap() }) }
        }
        Stack::Tonic => {
            let router = tonic::transport::Server::builder().layer(layer).add_routes(Routes::from(app));
            let listener = MeshListener::new(server, tcp.into());
            let served = async move { router.serve_with_incoming(listener).await.unwrap() };
            Running { task: tokio::task::spawn(served) }
        }
    };
    (world, address, running)
}

fn limits(per_address: Option<usize>) -> ServerLimits {
    ServerLimits { requests: 64, requests_per_address: per_address, ..ServerLimits::default() }
}

/// Never answers, or says one word and no more.
fn hanging() -> Router {
    let stream = || async {
        let word = futures_util::stream::iter([Ok::<_, BoxError>("first")]);
        axum::body::Body::from_stream(futures_util::StreamExt::chain(word, futures_util::stream::pending()))
    };
    hello()
        .route("/hang", route_get(std::future::pending::<()>).post(std::future::pending::<()>))
        .route("/stream", route_get(stream).post(stream))
}

async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0)).unwrap();
    soon("a connection", socket.connect(to)).await.unwrap()
}

/// One HTTP/2 connection with so many calls that hang, each in a task of its own.
async fn attack(source: &str, to: SocketAddr, path: &'static str, calls: usize) -> H2 {
    let client = http2_over(from(source, to).await).await;
    for n in 0..calls {
        let mut client = client.clone();
        tokio::task::spawn(async move {
            let request = if n % 2 == 0 { get(path) } else { grpc(path) };
            if let Ok(answer) = client.send_request(request).await {
                // Reads to an end that never comes.
                let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
            }
        });
    }
    client
}

async fn used(world: &World, requests: usize) {
    soon("the load", async {
        while world.server.requests.used() < requests {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_full_of_calls_that_hang_give_way_to_one_that_asks() {
    for (stack, path) in
        [(Stack::Ours, "/hang"), (Stack::Ours, "/stream"), (Stack::Tonic, "/hang"), (Stack::Tonic, "/stream")]
    {
        let (world, address, _running) = under(stack, limits(None), chain("all", vec![]), hanging()).await;
        let mut attackers = Vec::new();
        for _ in 0..8 {
            attackers.push(attack("127.0.0.1", address, path, 16).await);
        }
        used(&world, 64).await;
        let mut good = http2(address).await;
        for n in 0..20 {
            let answer = soon("an answer", good.send_request(get("/hello"))).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{stack:?} {path} {n}");
            assert_eq!(text(answer).await, "hello");
        }
        if stack == Stack::Ours {
            let answer = soon("an answer", http1(address).await.send_request(get("/hello"))).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{path} over HTTP/1.1");
        }
        // Each attacker was a newcomer once, so some of them gave way to others; their calls are told of with the reason.
        let seen = soon("the calls that ended", async {
            loop {
                let mut seen = world.events.wait_for(1).await;
                seen.retain(|e| e.flags == "OM" && e.path == path && e.status != 503 && e.grpc.is_none());
                if seen.len() >= 4 {
                    return seen.len();
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let closed = attackers.iter().filter(|client| client.is_closed()).count();
        assert!((1..8).contains(&closed), "{stack:?} {path}: {closed} closed, {seen} calls");
        assert!(!good.is_closed(), "{stack:?} {path}");
    }
}

#[tokio::test]
async fn one_connection_has_its_share_and_nobody_is_closed_for_it() {
    for (stack, set, share) in [
        (Stack::Ours, None, 32),
        (Stack::Ours, Some(5), 5),
        (Stack::Tonic, None, 32),
        (Stack::Tonic, Some(5), 5),
    ] {
        let limits = ServerLimits { requests_per_connection: set, ..limits(None) };
        let (world, address, _running) = under(stack, limits, chain("all", vec![]), hanging()).await;
        let attacker = attack("127.0.0.1", address, "/hang", 64).await;
        // Those above the share are told of at once.
        let refused = world.events.wait_for(64 - share).await;
        assert!(refused.iter().all(|e| e.flags == "OM"), "{stack:?} {set:?}");
        assert_eq!(world.server.requests.used(), share, "{stack:?} {set:?}");
        let answer = soon("an answer", http2(address).await.send_request(get("/hello"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!attacker.is_closed(), "{stack:?} {set:?}");
    }
}

#[tokio::test]
async fn the_address_that_holds_most_gives_way_to_another_however_many_connections_it_has() {
    for stack in [Stack::Ours, Stack::Axum] {
        let (world, address, _running) =
            under(stack, limits(Some(64)), chain("all", vec![]), hanging()).await;
        let mut attackers = Vec::new();
        for _ in 0..64 {
            let mut client = http1_over(from("127.0.0.2", address).await).await;
            attackers.push(tokio::task::spawn(async move { client.send_request(get("/hang")).await }));
        }
        used(&world, 64).await;
        for _ in 0..3 {
            let mut good = http1_over(from("127.0.0.3", address).await).await;
            let answer = soon("an answer", good.send_request(get("/hello"))).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{stack:?}");
        }
        soon("the end of some", async {
            while attackers.iter().filter(|call| call.is_finished()).count() < 4 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_address_has_its_share_where_one_is_set() {
    for stack in [Stack::Ours, Stack::Tonic] {
        let (world, address, _running) = under(stack, limits(Some(8)), chain("all", vec![]), hanging()).await;
        let one = attack("127.0.0.2", address, "/stream", 6).await;
        used(&world, 6).await;
        let other = attack("127.0.0.2", address, "/stream", 6).await;
        used(&world, 8).await;
        let refused = world.events.wait_for(4).await;
        assert!(refused.iter().all(|e| e.flags == "OM"), "{stack:?}");
        for source in ["127.0.0.3", "127.0.0.4"] {
            let mut good = http2_over(from(source, address).await).await;
            let answer = soon("an answer", good.send_request(get("/hello"))).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{stack:?} {source}");
        }
        let mut more = http2_over(from("127.0.0.2", address).await).await;
        assert_eq!(more.send_request(get("/hello")).await.unwrap().status(), 503, "{stack:?}");
        assert!(!one.is_closed() && !other.is_closed(), "{stack:?}");
    }
}
