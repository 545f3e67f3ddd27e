//! How a connection to a control plane is made; replaceable, for tests and simulations.

use std::fmt;
use std::io;
use std::net::SocketAddr;
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

/// A name that cannot be resolved: what a connector's error holds, so that it is not taken for a peer that is away.
#[derive(Debug, thiserror::Error)]
#[error("the name {host:?} cannot be resolved")]
pub struct NameNotResolved {
    host: String,
    #[source]
    source: io::Error,
}

/// Connects over the operating system's sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemConnect;

// === impl NameNotResolved ===

impl NameNotResolved {
    /// The error of a connector.
    #[must_use]
    pub fn error(host: &str, source: io::Error) -> io::Error {
        io::Error::new(source.kind(), Self { host: host.to_owned(), source })
    }

    /// Whether an error of a connector is this.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

// === impl SystemConnect ===

impl Connect for SystemConnect {
    fn connect<'a>(&'a self, address: &'a ServerAddress) -> Connecting<'a> {
        Box::pin(async move {
            match address {
                ServerAddress::Tcp { host, port } => {
                    let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                    let found = found.map_err(|source| NameNotResolved::error(host, source))?;
                    let addresses: Vec<SocketAddr> = found.collect();
                    let tcp = TcpStream::connect(&*addresses).await?;
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    async fn says_hello(mut io: Box<dyn Io>) {
        let mut text = [0; 5];
        io.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[tokio::test]
    async fn a_unix_socket_is_connected_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xds.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let io = SystemConnect.connect(&ServerAddress::Unix(path)).await.unwrap();
        listener.accept().await.unwrap().0.write_all(b"hello").await.unwrap();
        says_hello(io).await;
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_is_told_from_a_peer_that_is_away() {
        // Longer than a label may be: no server is asked.
        let host = format!("{}.invalid", "x".repeat(64));
        let address = ServerAddress::Tcp { host: host.clone(), port: 1 };
        let Err(error) = SystemConnect.connect(&address).await else { panic!("{host} is no name") };
        assert!(NameNotResolved::is(&error), "{error}");
        assert_eq!(error.to_string(), format!("the name {host:?} cannot be resolved"));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: closed };
        let Err(error) = SystemConnect.connect(&address).await else { panic!("nobody listens") };
        assert!(!NameNotResolved::is(&error), "{error}");
    }

    #[tokio::test]
    async fn a_host_name_is_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = ServerAddress::Tcp { host: "localhost".to_owned(), port };
        let io = SystemConnect.connect(&address).await.unwrap();
        listener.accept().await.unwrap().0.write_all(b"hello").await.unwrap();
        says_hello(io).await;
    }
}
