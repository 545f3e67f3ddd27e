//! The clients and servers that are compared. Each client is one [`Caller`] over one mTLS connection.

pub(crate) mod h2;
pub(crate) mod hyper;
pub(crate) mod mesh;
pub(crate) mod tonic;
pub(crate) mod tonic_xds;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderMap;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::Result;
use crate::certs::{self, Files};

/// Ten seconds in all, also under valgrind.
const CONNECT_ATTEMPTS: u32 = 200;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Something that can make one echo call after another.
pub(crate) trait Caller: Clone + 'static {
    /// One echo; an answer other than the payload with status OK is an error.
    async fn call(&mut self) -> Result<()>;

    /// What the client can prove of itself; peers without features prove nothing.
    async fn evidence(&mut self) -> Result<Evidence> {
        Ok(Evidence::default())
    }
}

/// Proof, from the inside of a process, that what it was measured with was on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// Requests that the metrics have counted.
    pub(crate) requests: u64,
    /// Metric series.
    pub(crate) series: u64,
    /// Spans recorded.
    pub(crate) spans: u64,
    /// A cluster that admits nothing refused a call.
    pub(crate) breaker_refuses: bool,
    /// Attempts made for a call that every attempt failed with UNAVAILABLE.
    pub(crate) attempts: u64,
    /// The verified principal that the application sees (servers).
    pub(crate) peer: Option<String>,
    /// `grpc-status` of a call to a service that does not exist and that no policy allows.
    pub(crate) foreign_status: Option<String>,
}

/// Where the child finds its server, its certificates and (for the xDS peers) its control plane.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The echo server.
    pub(crate) server: SocketAddr,
    /// Directory with the PEM files.
    pub(crate) certs: PathBuf,
    /// The control plane of the xDS peers.
    pub(crate) xds: SocketAddr,
}

/// The clients that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClientKind {
    /// hyper's HTTP/2 connection, no codec.
    Hyper,
    /// The `h2` crate, no codec.
    H2,
    /// tonic's `Channel`.
    Tonic,
    /// tonic-xds' channel.
    TonicXds,
    /// Ours.
    Mesh,
}

impl ClientKind {
    /// Every client, floor first.
    pub(crate) const ALL: [Self; 5] = [Self::Hyper, Self::H2, Self::Tonic, Self::TonicXds, Self::Mesh];

    /// The key in the JSON and on the command line.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Hyper => "hyper",
            Self::H2 => "h2",
            Self::Tonic => "tonic",
            Self::TonicXds => "tonic_xds",
            Self::Mesh => "mesh",
        }
    }
}

impl FromStr for ClientKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wanted = text.replace('-', "_");
        Self::ALL
            .into_iter()
            .find(|kind| kind.key() == wanted)
            .ok_or_else(|| format!("unknown client `{text}`"))
    }
}

/// The servers that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ServerKind {
    /// tonic's `Server`.
    Tonic,
    /// `mesh.serve`.
    Mesh,
}

impl ServerKind {
    /// Every server.
    pub(crate) const ALL: [Self; 2] = [Self::Tonic, Self::Mesh];

    /// The key in the JSON and on the command line.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Tonic => "tonic",
            Self::Mesh => "mesh",
        }
    }
}

impl FromStr for ServerKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.key() == text)
            .ok_or_else(|| format!("unknown server `{text}`"))
    }
}

/// One TLS connection to the server, as the bare peers open it. A server of the mesh closes what comes before its
/// configuration, which is said to be there only by that it does not.
pub(crate) async fn connect_tls(site: &Site) -> Result<TlsStream<TcpStream>> {
    let mut left = CONNECT_ATTEMPTS;
    loop {
        left -= 1;
        match try_connect_tls(site).await {
            Err(_) if left > 0 => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
            done => return done,
        }
    }
}

async fn try_connect_tls(site: &Site) -> Result<TlsStream<TcpStream>> {
    let config = certs::client_config(&Files::client(&site.certs))?;
    let tcp = TcpStream::connect(site.server).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(certs::SERVER_NAME)?;
    Ok(tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?)
}

/// The request head that a gRPC client sends, for peers without a codec.
pub(crate) fn grpc_head<B>(site: &Site, body: B) -> Result<http::Request<B>> {
    let uri = format!("https://{}{}", site.server, crate::echo::PATH);
    Ok(http::Request::post(uri)
        .version(http::Version::HTTP_2)
        .header(http::header::TE, "trailers")
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::USER_AGENT, "mesh-bench")
        .body(body)?)
}

/// Fails unless the trailers say OK and the frame has the length of the one that was sent.
pub(crate) fn check_answer(trailers: Option<&HeaderMap>, got: usize, sent: usize) -> Result<()> {
    let status = trailers.and_then(|map| map.get("grpc-status"));
    if status.is_none_or(|value| value != "0") {
        return Err(format!("grpc-status is {status:?}").into());
    }
    if got != sent {
        return Err(format!("{sent} bytes went up and {got} came back").into());
    }
    Ok(())
}
