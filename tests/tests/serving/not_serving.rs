//! A server without a valid configuration: nobody waits for it, and `/ready` says so (gRFC A36, "not serving").

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_tests::backend::App;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, Served, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::Peer;
use mesh_xds::Kind;
use mesh_xds::server::{DownstreamTls, Listener, Resource, UpstreamTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pages::Pages;
use crate::{to, until_ok};

/// A connection that is closed without a byte, whatever its client says first.
async fn closed_at_once(address: SocketAddr) {
    for greeting in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut socket = soon(TcpStream::connect(address)).await.expect("it is accepted");
        // It may be closed already, which fails the next read as well.
        drop(socket.write_all(greeting).await);
        assert_eq!(soon(socket.read(&mut [0; 1])).await.unwrap_or(0), 0, "not a byte comes back");
    }
}

impl Pages {
    async fn ready(&self) -> String {
        self.whole("/ready").await
    }

    async fn are_not_ready(&self) {
        let answer = self.ready().await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("without a valid configuration"), "{answer}");
    }
}

#[tokio::test]
async fn before_a_control_plane_has_spoken_each_connection_is_closed_at_once() {
    let mut fleet = Fleet::start_without_control_plane();
    let serving = fleet.mesh("server");
    let served = fleet.serve(&serving, App::new("a"), |listener| listener);
    let pages = Pages::of(&serving);
    closed_at_once(served.address()).await;
    pages.are_not_ready().await;
    assert_eq!(served.app.stats().requests, 0);
    fleet.control.set(to(&served, |cluster| cluster));
    fleet.start_control_plane();
    until_ok(&mut EchoClient::new(shop(&fleet.mesh("client")))).await;
    assert!(pages.ready().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_lame_duck_is_not_ready_and_serves() {
    let fleet = Fleet::start();
    let serving = fleet.mesh_builder("server").lame_duck(Duration::from_secs(3_600)).build().expect("a mesh");
    let served = fleet.serve(&serving, App::new("a"), |listener| listener);
    let pages = Pages::of(&serving);
    fleet.control.set(to(&served, |cluster| cluster));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    assert!(pages.ready().await.starts_with("HTTP/1.1 200"));
    let leaving = beside(async move { serving.shutdown(Duration::from_secs(10)).await });
    soon(async { while pages.ready().await.starts_with("HTTP/1.1 200") {} }).await;
    assert!(pages.ready().await.contains("leaving, and still serving"));
    crate::say(&mut client, "x").await.expect("it serves");
    // The drain begins.
    leaving.abort();
    soon(async { while !pages.ready().await.contains("draining") {} }).await;
}

/// What has to hold while the listener is not valid, and once it is.
async fn serves_once_valid(fleet: &Fleet, served: &Served, valid: Listener) {
    let pages = Pages::of(&served.mesh);
    closed_at_once(served.address()).await;
    pages.are_not_ready().await;
    assert_eq!(served.app.stats().requests, 0);
    fleet.control.set(valid);
    soon(async { while pages.ready().await.starts_with("HTTP/1.1 503") {} }).await;
}

#[tokio::test]
async fn a_listener_that_is_not_there_or_not_valid_serves_nobody_until_it_is() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let absent = fleet.serve_with(&serving, App::new("a"), |_| {});
    serves_once_valid(&fleet, &absent, Listener::server(absent.address())).await;
    let serving = fleet.mesh("server 2");
    let refused = fleet.serve_with(&serving, App::new("b"), |address| {
        let name = format!("grpc/server?xds.resource.listening_address={address}");
        fleet.control.set(Resource::opaque(Kind::Listener, name, vec![0xff]));
    });
    fleet.nack().await;
    serves_once_valid(&fleet, &refused, Listener::server(refused.address())).await;
    fleet.control.set(to(&refused, |cluster| cluster));
    assert_eq!(until_ok(&mut EchoClient::new(shop(&fleet.mesh("client")))).await.server, "b");
}

#[tokio::test]
async fn a_handshake_before_the_configuration_fails_at_once_and_not_at_its_deadline() {
    let mut fleet = Fleet::start_without_control_plane();
    let identity = fleet.ca.identity("reviews");
    let serving = fleet.mesh_with("server", &identity);
    let served = fleet.serve(&serving, App::new("a"), |l| l.tls(DownstreamTls::mutual("default")));
    let tls = tokio_rustls::TlsConnector::from(fleet.ca.client_config(Some(&identity), &["h2"]));
    let socket = TcpStream::connect(served.address()).await.expect("it is accepted");
    let name = "reviews".try_into().expect("a name");
    soon(tls.connect(name, socket)).await.expect_err("there is nothing to shake hands under");
    fleet.control.set(to(&served, |c| c.tls(UpstreamTls::mutual("default").san(identity.spiffe()))));
    fleet.start_control_plane();
    let mesh = fleet.mesh_with("client", &fleet.ca.identity("productpage"));
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
}

#[tokio::test]
async fn tonics_and_axums_own_servers_close_them_too() {
    let fleet = Fleet::start_without_control_plane();
    let serving = fleet.mesh("server");
    let (of_axum, of_tonic) = (Port::reserve(), Port::reserve());
    let router = || App::new("a").router();
    let axums = axum::serve(
        serving.listen(of_axum.listen()),
        router().layer(serving.server_layer()).into_make_service_with_connect_info::<Peer>(),
    );
    let tonics = tonic::transport::Server::builder()
        .layer(serving.server_layer())
        .add_routes(tonic::service::Routes::from(router()))
        .serve_with_incoming(serving.listen(of_tonic.listen()));
    let _running = (beside(axums.into_future()), beside(tonics));
    for port in [of_axum, of_tonic] {
        closed_at_once(port.address()).await;
    }
}

#[tokio::test]
async fn a_caller_is_told_within_its_deadline_that_the_server_does_not_serve() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let served = fleet.serve_with(&serving, App::new("a"), |_| {});
    fleet.control.set(to(&served, |cluster| cluster));
    let mesh = fleet.mesh("client");
    let mut request = tonic::Request::new(EchoRequest::say("x"));
    request.set_timeout(Duration::from_secs(60));
    // Long before that.
    let status = soon(EchoClient::new(shop(&mesh)).unary(request)).await.expect_err("nobody serves");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
}
