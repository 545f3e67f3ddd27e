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
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn connect_unix(_path: &std::path::Path) -> io::Result<BoxIo> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this platform has no unix-domain sockets"))
}
