//! What a change of configuration does to connections, old and new.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;
use mesh_core::config::listener::{ChainMatch, FilterChain};
use mesh_core::config::route::RouteConfig;
use mesh_core::snapshot::ConfigProblem;
use mesh_core::testing;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// A connection from this loopback address.
async fn from(source: &str, to: SocketAddr) -> H2 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    http2_over(socket.connect(to).await.unwrap()).await
}

fn of(name: &str, source: &str) -> FilterChain {
    let net: IpNet = source.parse().unwrap();
    FilterChain { matches: ChainMatch { source: vec![net], ..ChainMatch::default() }, ..chain(name, vec![]) }
}

/// Whether the connection still takes requests.
async fn works(client: &mut H2) -> bool {
    match client.send_request(get("/hello")).await {
        Ok(response) => text(response).await == "hello",
        Err(_) => false,
    }
}

async fn goes_away(client: &mut H2) {
    soon("GOAWAY", async {
        while client.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn before_the_listener_is_valid_each_connection_is_closed() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let _running = Running::new(&world, tcp, hello());
    let mut early = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon("the close", early.read(&mut [0; 1])).await.unwrap_or(0), 0);
    assert_eq!(world.server.connections.used(), 0);
    world.publish(1, address, vec![chain("all", vec![])]);
    let later = http2_over(TcpStream::connect(address).await.unwrap());
    assert!(soon("service", async { works(&mut later.await).await }).await);
}

#[tokio::test]
async fn a_listener_for_another_address_is_not_served() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let _running = Running::new(&world, tcp, hello());
    world.publish(1, SocketAddr::from(([127, 0, 0, 1], 1)), vec![chain("all", vec![])]);
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn only_connections_whose_chain_changed_are_drained() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let (kept, old) = (of("kept", "127.0.0.2/32"), of("old", "127.0.0.3/32"));
    world.publish(1, address, vec![kept.clone(), old.clone()]);
    let _running = Running::new(&world, tcp, hello());
    let (mut two, mut three) = (from("127.0.0.2", address).await, from("127.0.0.3", address).await);
    assert!(works(&mut two).await && works(&mut three).await);

    world.publish(2, address, vec![old.clone(), kept.clone()]);
    assert!(works(&mut from("127.0.0.3", address).await).await, "the new snapshot is in use");
    assert!(works(&mut two).await && works(&mut three).await, "equal chains in another order drain nobody");

    let mut new = old;
    new.http.idle_timeout = Some(Duration::from_secs(7));
    world.publish(3, address, vec![kept, new]);
    goes_away(&mut three).await;
    assert!(works(&mut two).await);
    assert!(works(&mut from("127.0.0.3", address).await).await);
}

#[tokio::test]
async fn a_connection_that_would_now_belong_elsewhere_is_drained() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let all = chain("all", vec![]);
    world.publish(1, address, vec![all.clone()]);
    let _running = Running::new(&world, tcp, hello());
    let (mut two, mut three) = (from("127.0.0.2", address).await, from("127.0.0.3", address).await);
    assert!(works(&mut two).await && works(&mut three).await);
    world.publish(2, address, vec![all, of("narrow", "127.0.0.3/32")]);
    goes_away(&mut three).await;
    assert!(works(&mut two).await);
}

#[tokio::test]
async fn new_routes_reach_live_connections_without_a_drain() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let _running = Running::new(&world, tcp, hello());
    let mut client = http2(address).await;
    assert!(works(&mut client).await);
    let none = Arc::new(RouteConfig { name: Arc::from("routes"), virtual_hosts: vec![] });
    world.publish_routes(2, address, vec![chain("all", vec![])], &none);
    soon("the new routes", async { while works(&mut client).await {} }).await;
    let refused = client.send_request(get("/hello")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    let refused = client.send_request(grpc("/hello")).await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["grpc-status"]),
        (StatusCode::OK, &"14".parse().unwrap())
    );
    world.publish(3, address, vec![chain("all", vec![])]);
    soon("the routes' return", async { while !works(&mut client).await {} }).await;
}

#[tokio::test]
async fn a_route_for_clients_is_unavailable_here() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let forward = testing::virtual_host(&["*"], vec![testing::route("/", "elsewhere")]);
    let forward = Arc::new(testing::route_config("routes", vec![forward]));
    world.publish_routes(1, address, vec![chain("all", vec![])], &forward);
    let _running = Running::new(&world, tcp, hello());
    let refused = http2(address).await.send_request(get("/hello")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_deleted_listener_drains_and_closes_and_a_new_one_serves_again() {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let _running = Running::new(&world, tcp, hello());
    let mut client = http2(address).await;
    assert!(works(&mut client).await);
    world.publish_failure(ConfigProblem::DoesNotExist);
    goes_away(&mut client).await;
    let mut refused = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon("the close", refused.read(&mut [0; 1])).await.unwrap_or(0), 0, "not a byte");
    world.publish(2, address, vec![chain("all", vec![])]);
    soon("service", async {
        loop {
            let tcp = TcpStream::connect(address).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(tcp);
            let exec = hyper_util::rt::TokioExecutor::new();
            if let Ok((mut client, connection)) = hyper::client::conn::http2::handshake(exec, io).await {
                let _connection = tokio::task::spawn(connection);
                if works(&mut client).await {
                    break;
                }
            }
        }
    })
    .await;
}
