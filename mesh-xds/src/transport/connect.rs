//! How a connection to a control plane is made; replaceable, for tests and simulations.

use std::fmt;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::bootstrap::ServerAddress;

/// A byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection that is being made.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Makes connections to control planes. TLS comes on top of what it returns.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Connects to `address`. Dropping the future gives up the attempt.
    fn connect<'a>(&'a self, address: &'a ServerAddress) -> Connecting<'a>;
}

/// Connects over the operating system's sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemConnect;

// === impl SystemConnect ===

impl Connect for SystemConnect {
    fn connect<'a>(&'a self, address: &'a ServerAddress) -> Connecting<'a> {
        Box::pin(async move {
            match address {
                ServerAddress::Tcp { host, port } => {
                    let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                    tcp.set_nodelay(true)?;
                    Ok(Box::new(tcp) as Box<dyn Io>)
                }
                ServerAddress::Unix(path) => unix(path).await,
            }
        })
    }
}

#[cfg(unix)]
async fn unix(path: &std::path::Path) -> io::Result<Box<dyn Io>> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn unix(_path: &std::path::Path) -> io::Result<Box<dyn Io>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
