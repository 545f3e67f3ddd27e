//! Sockets of the operating system: TCP, and unix-domain sockets where there are any.

use std::io;

use mesh_core::config::endpoints::Address;
use tokio::net::TcpStream;

use super::connect::{ConnectFuture, Connector};
use super::io::BoxIo;

/// Connects to addresses as they are, with TCP_NODELAY: a request is one small write that must not wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketConnector;

impl Connector for SocketConnector {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        Box::pin(async move {
            match address {
                Address::Socket(socket) => {
                    let stream = TcpStream::connect(socket).await?;
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as BoxIo)
                }
                Address::Unix(path) => connect_unix(path).await,
            }
        })
    }
}

#[cfg(unix)]
async fn connect_unix(path: &std::path::Path) -> io::Result<BoxIo> {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use tokio::net::UnixStream;
    let stream = match path.as_os_str().as_bytes() {
        // The system's own spelling of an abstract name.
        [b'@', name @ ..] if ABSTRACT_NAMES => {
            UnixStream::connect(OsString::from_vec([&[0], name].concat())).await?
        }
        _ => UnixStream::connect(path).await?,
    };
    Ok(Box::new(stream))
}

/// Whether the system has sockets by name, without a file. Elsewhere a name with an `@` is a path.
#[cfg(unix)]
const ABSTRACT_NAMES: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(not(unix))]
async fn connect_unix(_path: &std::path::Path) -> io::Result<BoxIo> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this platform has no unix-domain sockets"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_core::config::cluster::UpstreamProtocol;
    use tokio::runtime::Handle;

    use super::*;
    use crate::body::Body;
    use crate::transport::connect::ConnectionKey;
    use crate::transport::error::ConnectFailure;
    use crate::transport::pool::{EndpointPool, PoolSettings};
    use crate::transport::testing::{echo, post, serve_h2, spawn};

    const KEY: ConnectionKey = ConnectionKey { tls: None, protocol: UpstreamProtocol::Http2 };

    fn pool(address: Address) -> EndpointPool {
        EndpointPool::new(address, PoolSettings::new(Arc::new(SocketConnector)), Handle::current())
    }

    #[tokio::test]
    async fn requests_travel_over_tcp() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            serve_h2(io, ::h2::server::Builder::new(), echo).await;
        });
        let pool = pool(Address::Socket(address));
        let lease = pool.acquire(&KEY).await.unwrap();
        assert!(lease.send(post(Body::full("x"))).await.unwrap().status().is_success());
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_an_error_that_names_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = pool(Address::Socket(address)).acquire(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), ConnectFailure::Io);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[cfg(unix)]
    async fn travels_over_unix(listener: tokio::net::UnixListener, address: &std::path::Path) {
        spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            serve_h2(io, ::h2::server::Builder::new(), echo).await;
        });
        let pool = pool(Address::from(address));
        let lease = pool.acquire(&KEY).await.unwrap();
        assert!(lease.send(post(Body::full("x"))).await.unwrap().status().is_success());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn requests_travel_over_unix_sockets() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("peer.sock");
        travels_over_unix(tokio::net::UnixListener::bind(&path).unwrap(), &path).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn requests_travel_to_an_abstract_name() {
        let dir = tempfile::TempDir::new().unwrap();
        let name = dir.path().display();
        let listener = tokio::net::UnixListener::bind(format!("\0{name}")).unwrap();
        travels_over_unix(listener, format!("@{name}").as_ref()).await;
    }
}
