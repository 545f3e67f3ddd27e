//! Unix-domain sockets: the same stack, without addresses.

use std::io::Write as _;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use mesh_core::matcher::string::StringMatcher;
use mesh_core::rbac::{Permission, Policy, Principal, RbacAction, RbacConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tonic::service::Routes;

use super::*;
use crate::drain::Drained;
use crate::server::{Peer, ServerLimits};

const LONG: Duration = Duration::from_secs(600);

/// A socket in a directory of its own.
struct Bound {
    path: PathBuf,
    _dir: TempDir,
}

impl Bound {
    fn bind() -> (UnixListener, Self) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("shop.sock");
        (UnixListener::bind(&path).unwrap(), Self { path, _dir: dir })
    }

    fn address(&self) -> Address {
        Address::from(&*self.path)
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }
}

/// A client of either version.
enum Client {
    Http1(H1),
    Http2(H2),
}

impl Client {
    async fn over(io: BoxIo, protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http1 => Self::Http1(http1_over(io).await),
            UpstreamProtocol::Http2 | UpstreamProtocol::Auto => Self::Http2(http2_over(io).await),
        }
    }

    async fn send(&mut self, request: Request<Empty<bytes::Bytes>>) -> Response<Incoming> {
        match self {
            Self::Http1(client) => client.send_request(request).await.unwrap(),
            Self::Http2(client) => client.send_request(request).await.unwrap(),
        }
    }
}

/// Says whose request it is.
fn app() -> Router {
    let who = |peer: Peer| async move {
        assert_eq!((peer.remote, peer.local), (None, None));
        let principal = peer.spiffe().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        format!("{principal} at {}", peer.unix.as_deref().unwrap().display())
    };
    hello().route("/who", route_get(who))
}

#[tokio::test]
async fn both_versions_are_served_with_and_without_tls_and_the_peer_has_no_address() {
    for (wire, who) in [(Wire::Plaintext, "nobody"), (Wire::Tls, "spiffe://cluster.local/ns/shop/sa/client")]
    {
        let pki = Pki::new();
        let world = World::with(ServerLimits::default(), Some(pki.server.clone()));
        let (socket, bound) = Bound::bind();
        world.publish(1, bound.address(), vec![pki.chain(wire)]);
        let _running = Running::new(&world, socket, app());
        for (protocol, version) in
            [(UpstreamProtocol::Http1, Version::HTTP_11), (UpstreamProtocol::Http2, Version::HTTP_2)]
        {
            let io = bound.connect().await;
            // A client that is in no hurry with its first byte.
            turns().await;
            let io = pki.secure(wire, Box::new(io), &bound.address(), protocol).await;
            let mut client = Client::over(io, protocol).await;
            for _ in 0..3 {
                let response = client.send(get("/who")).await;
                assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
                assert_eq!(text(response).await, format!("{who} at {}", bound.path.display()));
            }
        }
        let seen = world.events.wait_for(6).await;
        let address = bound.address().to_string();
        assert!(seen.iter().all(|event| event.remote.as_ref() == Some(&address)), "{seen:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn abstract_names_are_served_and_peers_may_have_one() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().display().to_string();
    let world = World::new();
    let socket = UnixListener::bind(format!("\0{name}")).unwrap();
    world.publish(1, &*PathBuf::from(format!("@{name}")), vec![chain("all", vec![])]);
    let _running = Running::new(&world, socket, app());
    for own in [Some(format!("\0{name} caller")), Some(format!("{name}/caller.sock")), None] {
        let client = tokio::net::UnixSocket::new_stream().unwrap();
        if let Some(own) = &own {
            client.bind(own).unwrap();
        }
        let io = client.connect(format!("\0{name}")).await.unwrap();
        let response = http1_over(io).await.send_request(get("/who")).await.unwrap();
        assert_eq!(text(response).await, format!("nobody at @{name}"), "{own:?}");
    }
}

#[tokio::test]
async fn a_socket_whose_path_is_not_the_listeners_serves_nobody() {
    let world = World::new();
    let (socket, bound) = Bound::bind();
    let _running = Running::new(&world, socket, hello());
    let other: Address = SocketAddr::from(([127, 0, 0, 1], 80)).into();
    for address in [Address::from(&*bound.path.with_extension("other")), other] {
        world.publish(1, address, vec![chain("all", vec![])]);
        assert_eq!(soon("the close", bound.connect().await.read(&mut [0; 1])).await.unwrap_or(0), 0);
    }
    world.publish(2, bound.address(), vec![chain("all", vec![])]);
    soon("the right one", async {
        while http1_over(bound.connect().await).await.send_request(get("/hello")).await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_socket_without_an_address_serves_nobody() {
    // What was never bound: the system tells no address, and lets nobody listen on it either.
    let unbound = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let listener = StdUnixListener::from(std::os::fd::OwnedFd::from(unbound));
    listener.set_nonblocking(true).unwrap();
    let world = World::new();
    let socket = ListeningSocket::from(UnixListener::from_std(listener).unwrap());
    assert_eq!(socket.address(), None);
    let running = Running::new(&world, socket, hello());
    world.publish(1, Address::from(Path::new("")), vec![chain("all", vec![])]);
    turns().await;
    assert!(!running.task.is_finished());
    assert_eq!(world.server.not_ready.used(), 1);
}

fn rules(action: RbacAction, permission: Permission, principal: Principal) -> RbacConfig {
    let policy = Policy { name: Arc::from("p"), permissions: vec![permission], principals: vec![principal] };
    RbacConfig { action, policies: vec![policy] }
}

/// The rules about addresses, each with its opposite.
fn about_addresses() -> Vec<(Permission, Principal)> {
    let net = |text: &str| text.parse().unwrap();
    let principals = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "127.0.0.1/32"]
        .into_iter()
        .flat_map(|range| [Principal::DirectRemoteIp(net(range)), Principal::RemoteIp(net(range))])
        .flat_map(|rule| [rule.clone(), Principal::Not(Box::new(rule))]);
    let permissions = [
        Permission::DestinationIp(net("0.0.0.0/0")),
        Permission::DestinationPort(80),
        Permission::DestinationPortRange(0..65_536),
    ];
    let permissions =
        permissions.into_iter().flat_map(|rule| [rule.clone(), Permission::Not(Box::new(rule))]);
    principals
        .map(|principal| (Permission::Any, principal))
        .chain(permissions.map(|permission| (permission, Principal::Any)))
        .collect()
}

#[tokio::test]
async fn no_rule_about_an_address_lets_in_a_peer_that_has_none() {
    let (socket, bound) = Bound::bind();
    let world = World::new();
    let mut version = 0;
    let _running = Running::new(&world, socket, hello());
    for (permission, principal) in about_addresses() {
        for action in [RbacAction::Allow, RbacAction::Deny] {
            let rules = rules(action, permission.clone(), principal.clone());
            version += 1;
            world.publish(version, bound.address(), vec![chain(&version.to_string(), vec![rules.clone()])]);
            for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
                let mut client = Client::over(Box::new(bound.connect().await), protocol).await;
                let mut request = get("/hello");
                request.headers_mut().insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
                let status = client.send(request).await.status();
                assert_eq!(status, StatusCode::FORBIDDEN, "{rules:?}");
            }
            version += 1;
            let mut on_connections = chain(&version.to_string(), vec![]);
            on_connections.network_rbac = vec![Arc::new(rules.clone())];
            world.publish(version, bound.address(), vec![on_connections]);
            let read = bound.connect().await.read_u8().await;
            assert!(read.is_err(), "{rules:?}");
        }
    }
}

#[tokio::test]
async fn other_rules_decide_as_over_tcp() {
    let any = || rules(RbacAction::Allow, Permission::Any, Principal::Any);
    let forwarded =
        || rules(RbacAction::Allow, Permission::Any, Principal::RemoteIp("10.0.0.0/8".parse().unwrap()));
    for (rules, trusts_forwarded_for, expected) in [
        (any(), false, StatusCode::OK),
        (forwarded(), false, StatusCode::FORBIDDEN),
        // A proxy in front of the socket, which the configuration believes.
        (forwarded(), true, StatusCode::OK),
    ] {
        let (socket, bound) = Bound::bind();
        let world = World::new();
        let mut chain = chain("all", vec![rules]);
        chain.http.serving.trusts_forwarded_for = trusts_forwarded_for;
        world.publish(1, bound.address(), vec![chain]);
        let _running = Running::new(&world, socket, hello());
        for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
            let mut client = Client::over(Box::new(bound.connect().await), protocol).await;
            let mut request = get("/hello");
            request.headers_mut().insert("x-forwarded-for", "10.0.0.7".parse().unwrap());
            assert_eq!(client.send(request).await.status(), expected, "{trusts_forwarded_for}");
        }
    }
}

#[tokio::test]
async fn calls_in_flight_and_queued_connections_are_served_to_their_end_and_the_file_stays() {
    let gate = Arc::new(Notify::new());
    let (socket, bound) = Bound::bind();
    let limits = ServerLimits { drain_idle_grace: LONG, ..ServerLimits::default() };
    let world = World::with(limits, None);
    world.publish(1, bound.address(), vec![chain("all", vec![])]);
    let running = Running::new(&world, socket, hello().merge(gated(&gate)));
    let mut http2 = http2_over(bound.connect().await).await;
    let mut streaming = http2.send_request(get("/stream")).await.unwrap();
    assert_eq!(streaming.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first,");
    let mut http1 = bound.connect().await;
    http1.write_all(HELLO).await.unwrap();
    let (head, _) = response(&mut http1).await.unwrap();
    assert!(!head.contains("connection:"), "{head}");
    // Without a turn of the runtime, nobody can have accepted it.
    let mut queued = StdUnixStream::connect(&bound.path).unwrap();
    queued.write_all(HELLO).unwrap();
    queued.set_nonblocking(true).unwrap();

    let drain = world.server.drain.clone();
    let shutdown = tokio::task::spawn(async move { drain.shutdown(LONG).await });
    soon("GOAWAY", async {
        while http2.send_request(get("/hello")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(UnixStream::connect(&bound.path).await.is_err(), "nobody listens any more");
    http1.write_all(HELLO).await.unwrap();
    for client in [&mut http1, &mut UnixStream::from_std(queued).unwrap()] {
        let (head, body) = response(client).await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("connection: close\r\n"), "{head}");
        assert_eq!(body, "hello");
    }
    drop(http1);
    assert!(!shutdown.is_finished());
    gate.notify_one();
    assert_eq!(text(streaming).await, "second");
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
    // Who bound the socket made its file, and removes it.
    assert!(bound.path.exists() && UnixListener::bind(&bound.path).is_err());
}

#[tokio::test]
async fn a_listener_that_changes_sends_its_connections_away() {
    let (socket, bound) = Bound::bind();
    let world = World::new();
    world.publish(1, bound.address(), vec![chain("one", vec![])]);
    let _running = Running::new(&world, socket, hello());
    let mut client = http2_over(bound.connect().await).await;
    assert_eq!(text(client.send_request(get("/hello")).await.unwrap()).await, "hello");
    world.publish(2, bound.address(), vec![chain("one", vec![])]);
    turns().await;
    assert_eq!(text(client.send_request(get("/hello")).await.unwrap()).await, "hello", "nothing has changed");
    world.publish(3, bound.address(), vec![chain("two", vec![])]);
    soon("GOAWAY", async {
        while client.send_request(get("/hello")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut client = http2_over(bound.connect().await).await;
    assert_eq!(text(client.send_request(get("/hello")).await.unwrap()).await, "hello");
}

#[tokio::test]
async fn tonics_and_axums_own_servers_take_it_too() {
    use crate::transport::listen::MeshListener;
    for tonics in [true, false] {
        let (socket, bound) = Bound::bind();
        let world = World::new();
        let no_admin =
            rules(RbacAction::Deny, Permission::UrlPath(StringMatcher::exact("/admin")), Principal::Any);
        world.publish(1, bound.address(), vec![chain("all", vec![no_admin])]);
        let (app, layer) = (app().route("/admin", route_get(|| async { "secret" })), world.server.layer());
        let listener = MeshListener::new(world.server.clone(), socket.into());
        assert_eq!(listener.local_addr().unwrap(), bound.address());
        let serving = if tonics {
            let server = tonic::transport::Server::builder().layer(layer).add_routes(Routes::from(app));
            tokio::task::spawn(async move { server.serve_with_incoming(listener).await.unwrap() })
        } else {
            let app = app.layer(layer).into_make_service_with_connect_info::<Peer>();
            tokio::task::spawn(async move { axum::serve(listener, app).await.unwrap() })
        };
        let mut client = http2_over(bound.connect().await).await;
        let expected = format!("nobody at {}", bound.path.display());
        assert_eq!(text(client.send_request(get("/who")).await.unwrap()).await, expected);
        let denied = client.send_request(grpc("/admin")).await.unwrap();
        assert_eq!(denied.headers()["grpc-status"], "7");
        serving.abort();
    }
}

const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nhost: shop.test\r\n\r\n";
