//! Clients that withhold what a TLS handshake waits for: nobody else waits for them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use mesh_tests::echo::EchoRequest;
use mesh_tests::wait::{beside, soon};
use mesh_tower::ServerLimits;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::{Pair, until_ok};

/// The good clients' own address, and one that only attackers have.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];

/// Far below what the attackers open; each test says that it is.
const HANDSHAKES: usize = 16;

/// What an attacker says before it falls silent.
#[derive(Debug, Clone, Copy)]
enum Says {
    Nothing,
    OneByte,
    HalfAHello,
    Hello,
    Garbage,
    /// A hello, one byte after the other, and slowly.
    Drops,
}

const SHAPES: [Says; 6] =
    [Says::Nothing, Says::OneByte, Says::HalfAHello, Says::Hello, Says::Garbage, Says::Drops];

impl Says {
    fn bytes(self, hello: &[u8]) -> &[u8] {
        match self {
            Self::Nothing | Self::Drops => &[],
            Self::OneByte => &hello[..1],
            Self::HalfAHello => &hello[..hello.len() / 2],
            Self::Hello => hello,
            Self::Garbage => b"GET / HTTP/1.1\r\n\r\n",
        }
    }
}

/// Attackers with open connections. Dropping it closes them.
struct Attack {
    silent: Vec<TcpStream>,
    _dripping: JoinSet<()>,
}

impl Attack {
    async fn begin(pair: &Pair, from: Ipv4Addr, says: Says, connections: usize) -> Self {
        let hello = hello(&pair.config());
        let (mut silent, mut dripping) = (Vec::new(), JoinSet::new());
        for _ in 0..connections {
            let mut socket = pair.connect(from).await;
            // A peer that is closed meanwhile has lost.
            drop(socket.write_all(says.bytes(&hello)).await);
            match says {
                Says::Drops => drop(dripping.spawn(drip(socket, hello.clone()))),
                _ => silent.push(socket),
            }
        }
        Self { silent, _dripping: dripping }
    }
}

async fn drip(mut socket: TcpStream, hello: Vec<u8>) {
    for byte in hello {
        if socket.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A whole ClientHello.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("reviews").expect("a name");
    let mut client = ClientConnection::new(config.clone(), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory");
    bytes
}

impl Pair {
    fn few_handshakes(change: impl FnOnce(&mut ServerLimits)) -> Self {
        let mut limits = ServerLimits::default();
        limits.handshakes = HANDSHAKES;
        change(&mut limits);
        Self::start_limited(limits, |_, listener| listener)
    }

    fn config(&self) -> Arc<ClientConfig> {
        self.fleet.ca.client_config(Some(&self.caller), &["h2"])
    }

    async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a loopback address");
        soon(socket.connect(self.served.address())).await.expect("a connection")
    }

    /// One handshake of a good client, to its end on both sides.
    async fn shake(&self, config: &Arc<ClientConfig>) -> Duration {
        let begin = Instant::now();
        let name = ServerName::try_from("reviews").expect("a name");
        let connector = TlsConnector::from(config.clone());
        let mut tls =
            soon(connector.connect(name, self.connect(ADDRESSES[0]).await)).await.expect("a handshake");
        // The server's SETTINGS, which come after the client's certificate was accepted.
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("a preface");
        soon(tls.read_exact(&mut [0; 9])).await.expect("SETTINGS");
        begin.elapsed()
    }

    /// The slowest of 20 handshakes.
    async fn slowest(&self) -> Duration {
        let config = self.config();
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            slowest = slowest.max(self.shake(&config).await);
        }
        slowest
    }
}

/// How many connections a test may have beside what it needs otherwise, each of which takes two descriptors.
fn connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit = open_files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1_024);
    // Other tests of this program run at the same time.
    (limit / 16_usize).clamp(60, 300)
}

/// Far below the handshake timeout (10 s), within which each of them would have waited; far above what a handshake takes.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_fall_silent_in_a_handshake_delay_nobody() {
    for from in ADDRESSES {
        for says in SHAPES {
            let mut pair = Pair::few_handshakes(|_| {});
            until_ok(&mut pair.client).await;
            let attackers = connections();
            assert!(attackers > 3 * HANDSHAKES, "above the limit");
            let attack = Attack::begin(&pair, from, says, attackers).await;
            let slowest = pair.slowest().await;
            assert!(slowest < SOON, "{says:?} × {attackers} from {from}: {slowest:?}");
            soon(pair.client.unary(EchoRequest::say("x"))).await.unwrap();
            drop(attack);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_new_silent_connections_delays_nobody() {
    for says in [Says::Nothing, Says::OneByte, Says::Hello] {
        let mut pair = Pair::few_handshakes(|_| {});
        until_ok(&mut pair.client).await;
        let (address, hello) = (pair.served.address(), hello(&pair.config()));
        let most = connections();
        let attack = beside(async move {
            let mut open = std::collections::VecDeque::new();
            loop {
                let mut socket = TcpStream::connect(address).await.expect("a connection");
                drop(socket.write_all(says.bytes(&hello)).await);
                open.push_back(socket);
                if open.len() > most {
                    open.pop_front();
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        for _ in 0..3 {
            let slowest = pair.slowest().await;
            assert!(slowest < SOON, "{says:?}: {slowest:?}");
        }
        attack.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_do_not_use_up_the_connection_limit() {
    for from in ADDRESSES {
        let mut pair = Pair::few_handshakes(|limits| limits.connections = 40);
        until_ok(&mut pair.client).await;
        let attack = Attack::begin(&pair, from, Says::OneByte, 60).await;
        let slowest = pair.slowest().await;
        assert!(slowest < SOON, "from {from}: {slowest:?}");
        drop(attack);
    }
}

#[tokio::test]
async fn under_pressure_the_oldest_silent_connection_of_the_heaviest_address_is_closed_first() {
    let pair = Pair::few_handshakes(|limits| limits.connections = 12);
    let mut client = pair.client.clone();
    until_ok(&mut client).await;
    let config = pair.config();
    // One of the good client's address, older than all others, and patient.
    let mut patient = pair.connect(ADDRESSES[0]).await;
    let mut attack = Attack::begin(&pair, ADDRESSES[1], Says::Nothing, 30).await;
    pair.shake(&config).await;
    let (first, last) = (attack.silent.remove(0), attack.silent.pop().expect("30 connections"));
    let closed = |mut socket: TcpStream| async move { matches!(socket.read(&mut [0]).await, Ok(0) | Err(_)) };
    assert!(soon(closed(first)).await, "the oldest one gave way");
    patient.write_all(&hello(&config)).await.expect("it is open");
    assert_ne!(
        soon(patient.read(&mut [0; 1])).await.expect("an answer"),
        0,
        "it is the only one of its address"
    );
    let mut last = last;
    last.write_all(&hello(&config)).await.expect("it is open");
    assert_ne!(soon(last.read(&mut [0; 1])).await.expect("an answer"), 0, "it is one of the youngest");
}

#[tokio::test]
async fn a_hello_that_never_ends_is_refused() {
    let pair = Pair::few_handshakes(|_| {});
    let mut client = pair.client.clone();
    until_ok(&mut client).await;
    let mut socket = pair.connect(ADDRESSES[0]).await;
    // A handshake record of 16,000 bytes with the beginning of a ClientHello of 60,000, again and again.
    let mut record = vec![0x16, 3, 1, 0x3e, 0x80, 1, 0, 0xea, 0x60];
    record.resize(5 + 16_000, 0);
    let refused = async {
        for _ in 0..3 {
            if socket.write_all(&record).await.is_err() {
                return;
            }
        }
        while let Ok(1..) = socket.read(&mut [0; 64]).await {}
    };
    let begin = Instant::now();
    soon(refused).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "long before the handshake timeout");
}
