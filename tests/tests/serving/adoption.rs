//! tonic's and axum's own servers over the mesh's connections.

use std::future::IntoFuture as _;

use mesh_tests::backend::App;
use mesh_tests::echo::EchoClient;
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::Peer;
use mesh_xds::server::{Cluster, DownstreamTls, Listener, Policy, Principal, Rbac, RouteConfig, UpstreamTls};
use tonic::Code;

use crate::{say, until_ok};

#[tokio::test]
async fn axums_own_server_sees_the_peer_and_enforces_policy() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let serving = fleet.mesh_with("server", &server);
    let port = Port::reserve();
    let policy = Policy::new().principal(Principal::spiffe(caller.spiffe()));
    fleet.control.set((
        Listener::server(port.address())
            .tls(DownstreamTls::mutual("default"))
            .rbac(Rbac::allow().policy("productpage", policy)),
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main")
            .tls(UpstreamTls::mutual("default").san(server.spiffe()))
            .endpoints(at([port.address()])),
    ));
    let app = App::new("axum").router().layer(serving.server_layer());
    let served =
        axum::serve(serving.listen(port.listen()), app.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(serving.draining());
    let server = beside(served.into_future());

    let mesh = fleet.mesh_with("client", &caller);
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    let stranger = fleet.mesh_with("other", &fleet.ca.identity("ratings"));
    let mut other = EchoClient::new(shop(&stranger));
    assert_eq!(say(&mut other, "x").await.unwrap_err().code(), Code::PermissionDenied);
    drop((client, other, mesh, stranger));
    soon(serving.shutdown(std::time::Duration::from_secs(10))).await;
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn tonics_own_server_serves_over_our_connections() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let serving = fleet.mesh_with("server", &server);
    let port = Port::reserve();
    fleet.control.set((
        Listener::server(port.address()).tls(DownstreamTls::mutual("default")),
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main")
            .tls(UpstreamTls::mutual("default").san(server.spiffe()))
            .endpoints(at([port.address()])),
    ));
    let routes = tonic::service::Routes::from(App::new("tonic").router());
    let served = tonic::transport::Server::builder()
        .layer(serving.server_layer())
        .add_routes(routes)
        .serve_with_incoming_shutdown(serving.listen(port.listen()), serving.draining());
    let server = beside(served);
    let mesh = fleet.mesh_with("client", &caller);
    let mut client = EchoClient::new(shop(&mesh));
    assert_eq!(until_ok(&mut client).await.server, "tonic");
    drop((client, mesh));
    soon(serving.shutdown(std::time::Duration::from_secs(10))).await;
    soon(server).await.unwrap().unwrap();
}

/// What handlers of axum and of tonic see of their caller: `ConnectInfo`, `remote_addr`, `Peer`.
fn addresses() -> axum::Router {
    use axum::extract::{ConnectInfo, Request};
    use axum::routing::any;
    use std::net::SocketAddr;
    let of_axum = |ConnectInfo(remote): ConnectInfo<SocketAddr>, peer: Peer| async move {
        format!("{remote} {}", Some(remote) == peer.remote)
    };
    // What tonic's generated code makes of a request before it is its handler's.
    let of_tonic = |request: Request| async move {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.remote);
        let request = tonic::Request::from_http(request);
        let remote = request.remote_addr();
        format!("{} {}", remote.map(|remote| remote.to_string()).unwrap_or_default(), remote == peer)
    };
    axum::Router::new().route("/axum", any(of_axum)).route("/tonic", any(of_tonic))
}

#[tokio::test]
async fn handlers_find_the_address_of_their_caller_where_they_look_for_it() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for (server, paths) in [
        ("serve a router", &["/axum", "/tonic"][..]),
        ("serve tonic's routes", &["/tonic"]),
        ("axum's own server", &["/axum", "/tonic"]),
        ("tonic's own server", &["/tonic"]),
    ] {
        let fleet = Fleet::start();
        let (mesh, port) = (fleet.mesh("server"), Port::reserve());
        fleet.control.set(Listener::server(port.address()));
        let (tcp, serving) = (port.listen(), mesh.clone());
        let routes = tonic::service::Routes::from(addresses());
        let _server = match server {
            "serve a router" => beside(async move { drop(serving.serve(tcp, addresses()).await) }),
            "serve tonic's routes" => beside(async move { drop(serving.serve(tcp, routes).await) }),
            "axum's own server" => beside(async move {
                let app = addresses().layer(serving.server_layer());
                let app = app.into_make_service_with_connect_info::<Peer>();
                drop(axum::serve(serving.listen(tcp), app).await);
            }),
            _ => beside(async move {
                let server = tonic::transport::Server::builder().accept_http1(true);
                let server = server.layer(serving.server_layer()).add_routes(routes);
                drop(server.serve_with_incoming(serving.listen(tcp)).await);
            }),
        };
        for path in paths {
            let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
            let answered = async {
                loop {
                    let mut tcp = tokio::net::TcpStream::connect(port.address()).await.unwrap();
                    let (ours, mut answer) = (tcp.local_addr().unwrap(), String::new());
                    // Until it has its configuration, a server closes each connection.
                    let sent = tcp.write_all(request.as_bytes()).await;
                    if sent.is_ok() && tcp.read_to_string(&mut answer).await.is_ok_and(|bytes| bytes > 0) {
                        return (ours, answer);
                    }
                }
            };
            let (ours, answer) = soon(answered).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{server} {path}: {answer}");
            assert!(answer.contains(&format!("{ours} true")), "{server} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_test_may_make_a_peer_for_its_handler_and_not_for_the_mesh() {
    use mesh_core::identity;
    use tower::{Layer as _, ServiceExt as _};
    let remote = Some(([10, 0, 0, 1], 40_000).into());
    let certificate = identity::CertificateNames {
        spiffe: identity::SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/front").ok(),
        ..Default::default()
    };
    let tls = identity::TlsPeer { certificate: Some(certificate), server_name: None };
    let peer = Peer::for_test(identity::Peer { remote, tls: Some(tls.into()), ..Default::default() });
    let who = |peer: Peer| async move { format!("{} {:?}", peer.spiffe().unwrap(), peer.remote.unwrap()) };
    let app = axum::Router::new().route("/", axum::routing::get(who));
    let request = || {
        let mut request = axum::extract::Request::new(axum::body::Body::empty());
        request.extensions_mut().insert(peer.clone());
        request
    };
    let answer = app.clone().oneshot(request()).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap();
    assert_eq!(body, "spiffe://cluster.local/ns/shop/sa/front 10.0.0.1:40000");

    let fleet = Fleet::start();
    let layered = fleet.mesh("server").server_layer().layer(app);
    let refused = layered.oneshot(request()).await.unwrap();
    assert_eq!(refused.status(), http::StatusCode::FORBIDDEN, "no connection, no identity");
}
