//! Mutual TLS: both ends are who they say, or nothing flows.

use mesh_tests::backend::App;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::soon;
use mesh_xds::server::{Cluster, DownstreamTls, Listener, RouteConfig, UpstreamTls};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

use crate::{Pair, say, until_ok};

#[tokio::test]
async fn the_server_sees_the_callers_identity() {
    let mut pair = Pair::start(|_, listener| listener);
    let reply = until_ok(&mut pair.client).await;
    assert_eq!(reply.peer, pair.caller.spiffe());
    drop(pair.mesh);
}

#[tokio::test]
async fn older_names_of_the_provider_fields_mean_the_same() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let serving = fleet.mesh_with("server", &server);
    let served = fleet.serve(&serving, App::new("reviews"), |listener| {
        listener.tls(DownstreamTls::mutual("default").legacy_fields())
    });
    let tls = UpstreamTls::mutual("default").san(server.spiffe()).legacy_fields();
    fleet.control.set(crate::to(&served, |cluster| cluster.tls(tls)));
    let mesh = fleet.mesh_with("client", &caller);
    assert_eq!(until_ok(&mut EchoClient::new(shop(&mesh))).await.peer, caller.spiffe());
}

#[tokio::test]
async fn a_server_of_another_name_gets_no_request() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let before = pair.served.app.stats().requests;
    let other = pair.fleet.ca.spiffe("somebody-else");
    pair.fleet.control.set(crate::to(&pair.served, |c| c.tls(UpstreamTls::mutual("default").san(other))));
    let mut status = None;
    let mut until = 0;
    soon(async {
        while status.is_none() {
            status = say(&mut pair.client, "x").await.err();
            until += u64::from(status.is_none());
        }
    })
    .await;
    assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable));
    for _ in 0..20 {
        say(&mut pair.client, "x")
            .await
            .expect_err("no later request on the connection that was good before");
    }
    assert_eq!(pair.served.app.stats().requests, before + until);
    let right = UpstreamTls::mutual("default").san(pair.server.spiffe());
    pair.fleet.control.set(crate::to(&pair.served, |c| c.tls(right)));
    until_ok(&mut pair.client).await;
}

#[tokio::test]
async fn plaintext_turned_into_mtls_leaves_no_request_in_plaintext() {
    // The server speaks TLS alone from the second step on, and the client's first connection is plaintext.
    let fleet = Fleet::start();
    let (plain, identity) = (fleet.backend("plain"), fleet.ca.identity("reviews"));
    let secure = fleet.tls_backend("secure", &identity, true);
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main").endpoints(at([plain.address()])),
    ));
    let mesh = fleet.mesh_with("client", &fleet.ca.identity("productpage"));
    let mut client = EchoClient::new(shop(&mesh));
    assert_eq!(until_ok(&mut client).await.server, "plain");
    let tls = UpstreamTls::mutual("default").san(identity.spiffe());
    fleet.control.set(Cluster::eds("main").tls(tls).endpoints(at([plain.address(), secure.address()])));
    soon(async {
        loop {
            if say(&mut client, "x").await.is_ok_and(|reply| reply.server == "secure") {
                break;
            }
        }
    })
    .await;
    let before = plain.app.stats().requests;
    for _ in 0..50 {
        assert_eq!(say(&mut client, "x").await.unwrap().server, "secure");
    }
    assert_eq!(plain.app.stats().requests, before);
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let requests = pair.served.app.stats().requests;
    for (identity, admitted) in [(None, false), (Some(&pair.caller), true)] {
        let config = pair.fleet.ca.client_config(identity, &["http/1.1"]);
        let tcp = TcpStream::connect(pair.served.address()).await.unwrap();
        let name = ServerName::try_from("reviews").unwrap();
        let exchange = async {
            let mut tls = TlsConnector::from(config).connect(name, tcp).await?;
            tls.write_all(b"GET /x HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            tls.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = soon(exchange).await.unwrap_or_default();
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), admitted, "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(pair.served.app.stats().requests, requests + 1);
}

#[tokio::test]
async fn plaintext_on_a_port_with_tls_is_refused() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let mut tcp = TcpStream::connect(pair.served.address()).await.unwrap();
    tcp.write_all(b"GET /x HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(soon(tcp.read_to_end(&mut answer)).await);
    assert!(!answer.starts_with(b"HTTP/1.1"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_caller_of_another_authority_is_refused() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let stranger = mesh_tests::ca::Ca::new("cluster.local").identity("productpage");
    let mesh = pair.fleet.mesh_with("stranger", &stranger);
    let requests = pair.served.app.stats().requests;
    let mut client = EchoClient::new(shop(&mesh));
    assert_eq!(say(&mut client, "x").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(pair.served.app.stats().requests, requests);
}

#[tokio::test]
async fn a_rotated_server_certificate_is_in_every_new_handshake_and_no_call_notices() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let mut held_client = pair.client.clone();
    let held =
        mesh_tests::wait::beside(async move { held_client.unary(EchoRequest::say("held").held()).await });
    pair.served.app.until(|stats| stats.in_flight == 1).await;

    let config = pair.fleet.ca.client_config(Some(&pair.caller), &["h2"]);
    for _ in 0..3 {
        let rotated = pair.server.rotate();
        let shown = async || {
            let tcp = TcpStream::connect(pair.served.address()).await.unwrap();
            let name = ServerName::try_from("reviews").unwrap();
            let tls = TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
            tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()
        };
        soon(async { while shown().await != rotated {} }).await;
        for _ in 0..5 {
            assert_eq!(shown().await, rotated, "a new handshake showed an old certificate");
        }
        say(&mut pair.client, "on the old connection").await.unwrap();
    }
    pair.served.app.open_gate();
    soon(held).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_rotated_client_certificate_is_in_every_new_handshake() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let mut backend = fleet.tls_backend("a", &server, true);
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main")
            .tls(UpstreamTls::mutual("default").san(server.spiffe()))
            .endpoints(at([backend.address()])),
    ));
    let mesh = fleet.mesh_with("client", &caller);
    let mut client = EchoClient::new(shop(&mesh));
    assert_eq!(until_ok(&mut client).await.peer_certificate, caller.certificate());
    let rotated = caller.rotate();
    assert_ne!(say(&mut client, "established").await.unwrap().peer_certificate, rotated);
    // A watcher reads the files every 50 ms; a connection that was made before it did may be cut once more.
    soon(async {
        loop {
            backend.stop().await;
            backend.restart();
            if until_ok(&mut client).await.peer_certificate == rotated {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_certificate_refuses_and_never_becomes_plaintext() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let plain = fleet.backend("plain");
    std::fs::remove_file(caller.certificate_file()).unwrap();
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main")
            .tls(UpstreamTls::mutual("default").san(server.spiffe()))
            .endpoints(at([plain.address()])),
    ));
    let mesh = fleet.mesh_with("client", &caller);
    let mut client = EchoClient::new(shop(&mesh));
    assert_eq!(say(&mut client, "x").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(plain.app.stats().requests, 0);
}
