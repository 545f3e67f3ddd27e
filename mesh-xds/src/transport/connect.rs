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
    async fn a_host_name_is_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = ServerAddress::Tcp { host: "localhost".to_owned(), port };
        let io = SystemConnect.connect(&address).await.unwrap();
        listener.accept().await.unwrap().0.write_all(b"hello").await.unwrap();
        says_hello(io).await;
    }
}
