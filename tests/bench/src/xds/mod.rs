//! The configuration's path at scale: `mesh-bench --xds`.
//!
//! A server child holds the control plane, the wire before it ([`mesh_tests::relay`]) and every endpoint: one socket
//! answers for all of 127.0.0.0/8. A client child is ours, tonic-xds' or grpcio's, and obeys the same orders. What spans
//! both (a push and the first request that follows it) is timed within the server child, by one clock.

mod backend;
mod client;
mod picker;
mod python;
mod rows;
mod server;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::client::role as client_role;
pub(crate) use self::rows::measure;
pub(crate) use self::server::role as server_role;

/// How long a peer may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the channel asks for.
const TARGET: &str = "xds:///scale.bench.svc:80";
const LISTENER: &str = "scale.bench.svc:80";

/// A line to a server.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum ServerOrder {
    /// Give each of the first clusters one new endpoint, again and again; the answer is [`Pushed`].
    Push(Pushes),
    /// The answer is [`Counted`].
    Count,
    /// Cut the wire's connections; no answer.
    Cut,
}

/// A series of changes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Pushes {
    times: u32,
    /// Clusters that change with each push.
    clusters: usize,
    /// Those of them that requests are waited for on, after each push or only after the last.
    watched: usize,
    each: bool,
    /// From the beginning of one to the beginning of the next, at least.
    every_ms: u64,
    /// None begins later than this.
    within_ms: u64,
}

/// How long after each push that was waited for the first request was there, on the last of the watched clusters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pushed {
    after_ns: Vec<u64>,
    /// Pushes that no request followed in time.
    lost: u32,
}

/// What has passed the wire.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Counted {
    connections: u64,
    requests: u64,
    bytes_down: u64,
}

/// Where a server child is to be found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Listening {
    /// The control plane itself.
    direct: SocketAddr,
    /// The wire before it.
    wire: SocketAddr,
}

/// A line to a client.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum ClientOrder {
    /// Connect to everything and call the last cluster; the answer is [`Started`].
    Start,
    /// Call the first clusters in turn for so long; the answer is [`Loaded`].
    Load { ms: u64, clusters: usize },
    /// Make no call for so long; the answer is the CPU time so far, in nanoseconds.
    Idle { ms: u64 },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Started {
    ready_ns: u64,
    live_bytes: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Loaded {
    calls: u64,
    failed: u64,
    error: Option<String>,
}

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Mesh,
    TonicXds,
    Grpcio,
}

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    StateOfTheWorld,
    Incremental,
}

/// What kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Ours,
    Slow,
    WritesFirst,
}

impl Client {
    fn key(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::TonicXds => "tonic_xds",
            Self::Grpcio => "grpcio",
        }
    }
}

impl Protocol {
    fn key(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => "sotw",
            Self::Incremental => "delta",
        }
    }
}

impl Server {
    fn key(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Slow => "slow",
            Self::WritesFirst => "writes_first",
        }
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Mesh, Self::TonicXds, Self::Grpcio];
        all.into_iter().find(|one| one.key() == text).ok_or_else(|| format!("unknown client `{text}`"))
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::StateOfTheWorld, Self::Incremental];
        all.into_iter().find(|one| one.key() == text).ok_or_else(|| format!("unknown protocol `{text}`"))
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Ours, Self::Slow, Self::WritesFirst];
        all.into_iter().find(|one| one.key() == text).ok_or_else(|| format!("unknown server `{text}`"))
    }
}

/// The path by which a call reaches a cluster.
fn path(cluster: usize) -> String {
    format!("/c{cluster}.Echo/Unary")
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
