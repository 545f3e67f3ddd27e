//! Clients that connect and say nothing.

use std::time::Duration;

use mesh_tests::echo::EchoRequest;
use mesh_tests::wait::soon;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::{Pair, until_ok};

/// The median of nine handshakes.
async fn handshake(pair: &Pair) -> Duration {
    let config = pair.fleet.ca.client_config(Some(&pair.caller), &["h2"]);
    let mut times = Vec::new();
    for _ in 0..9 {
        let begin = Instant::now();
        let tcp = TcpStream::connect(pair.served.address()).await.expect("a connection");
        let name = ServerName::try_from("reviews").expect("a name");
        drop(TlsConnector::from(config.clone()).connect(name, tcp).await.expect("a handshake"));
        times.push(begin.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn five_hundred_silent_clients_delay_nobodys_handshake() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let before = handshake(&pair).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(soon(TcpStream::connect(pair.served.address())).await.unwrap());
    }
    let after = soon(handshake(&pair)).await;
    assert!(
        after <= before + Duration::from_millis(50),
        "{before:?} before, {after:?} with 500 silent clients"
    );
    soon(pair.client.unary(EchoRequest::say("x"))).await.unwrap();
    drop(silent);
}
