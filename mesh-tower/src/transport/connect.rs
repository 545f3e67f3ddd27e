//! From an address to a connection that takes requests: byte stream, TLS, HTTP.
//!
//! The order is what keeps it safe: the peer's identity is verified against the cluster's configuration before HTTP
//! writes its first byte, and there is no path around TLS where TLS is configured.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::cluster::UpstreamProtocol;
use mesh_core::config::endpoints::Address;

use super::ConnectionEvents;
use super::client::Client;
use super::error::{ConnectError, ConnectFailure};
use super::io::BoxIo;
use super::pool::PoolSettings;
use crate::cause;
use crate::tls::TlsError;
use crate::tls::client::ClientTls;

/// Opens byte streams. The seam at which tests put memory, faults and simulated networks.
pub trait Connector: fmt::Debug + Send + Sync {
    /// Opens a stream to `address`. Dropping the future gives the attempt up.
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a>;
}

/// A byte stream to come. Connects are rare, so a box costs nothing here.
pub type ConnectFuture<'a> = Pin<Box<dyn Future<Output = io::Result<BoxIo>> + Send + 'a>>;

/// Which connections may serve a request: those of the same TLS context and protocol.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionKey {
    /// None is plaintext.
    pub(crate) tls: Option<Arc<ClientTls>>,
    /// HTTP version.
    pub(crate) protocol: UpstreamProtocol,
}

// === impl ConnectionKey ===

impl ConnectionKey {
    /// Whether connections of one key may serve requests of the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.protocol == other.protocol && same_tls(self.tls.as_ref(), other.tls.as_ref())
    }
}

/// Whether both sides mean the same TLS context, plaintext included.
pub(super) fn same_tls(a: Option<&Arc<ClientTls>>, b: Option<&Arc<ClientTls>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.is_same(b),
        _ => false,
    }
}

/// One attempt, bounded by the connect timeout as a whole.
pub(super) async fn dial(
    address: &Address,
    key: &ConnectionKey,
    settings: &PoolSettings,
    id: u64,
    events: Arc<dyn ConnectionEvents>,
) -> Result<Client, ConnectError> {
    let timeout = settings.connect_timeout;
    let attempt = async {
        let connected = settings.connector.connect(address).await;
        let io = connected
            .map_err(|e| failed(ConnectFailure::Io, address, &e).caused_by(Some(cause::of_io(&e))))?;
        let (io, alpn) = secure(io, address, key).await?;
        let protocol = negotiated(key.protocol, alpn, address)?;
        Client::establish(protocol, io, settings, id, events).await
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(timed_out(address, timeout)))
}

async fn secure(
    io: BoxIo,
    address: &Address,
    key: &ConnectionKey,
) -> Result<(BoxIo, Option<UpstreamProtocol>), ConnectError> {
    let Some(tls) = &key.tls else { return Ok((io, None)) };
    let secured = tls.connect(io, address, key.protocol).await;
    let secured = secured.map_err(|error| {
        let kind = match error {
            TlsError::Interrupted(_) => ConnectFailure::Io,
            _ => ConnectFailure::Tls,
        };
        failed(kind, address, &error).caused_by(Some(Arc::new(error)))
    })?;
    Ok((secured.io, secured.alpn))
}

/// The protocol to speak, from what was wanted and what ALPN said. A peer that takes no part in ALPN gets what
/// was wanted, as without TLS.
fn negotiated(
    wanted: UpstreamProtocol,
    alpn: Option<UpstreamProtocol>,
    address: &Address,
) -> Result<UpstreamProtocol, ConnectError> {
    match (wanted, alpn) {
        (UpstreamProtocol::Auto, None) => Ok(UpstreamProtocol::Http1),
        (UpstreamProtocol::Auto, Some(chosen)) => Ok(chosen),
        (wanted, None) => Ok(wanted),
        (wanted, Some(chosen)) if wanted == chosen => Ok(wanted),
        (wanted, Some(chosen)) => {
            let text = format!("the peer chose {chosen:?} but the cluster wants {wanted:?}");
            Err(failed(ConnectFailure::Protocol, address, &text))
        }
    }
}

fn failed(kind: ConnectFailure, address: &Address, reason: &dyn fmt::Display) -> ConnectError {
    ConnectError::new(kind, format!("{}: {reason}", Show(address)))
}

fn timed_out(address: &Address, timeout: Duration) -> ConnectError {
    let error = failed(ConnectFailure::Timeout, address, &format_args!("no connection within {timeout:?}"));
    error.caused_by(Some(Arc::new(io::Error::from(io::ErrorKind::TimedOut))))
}

/// An address as people write it.
pub(super) struct Show<'a>(pub(super) &'a Address);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Socket(socket) => socket.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
