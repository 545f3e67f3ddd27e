//! Sockets that are listened on, and what they accept: TCP, and unix-domain sockets where the platform has them.
//!
//! The application binds a socket, so its file is the application's: its mode, what an earlier process left at its path,
//! and its removal at the end.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_core::config::endpoints::Address;
use mesh_core::identity;
use socket2::SockRef;
#[cfg(unix)]
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// A socket to serve on: a [`TcpListener`] or a [`UnixListener`](tokio::net::UnixListener), which an application has bound.
pub struct ListeningSocket(Listener);

enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// A connection that a socket has accepted.
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A connection, and the address of its peer. None over a unix-domain socket.
pub(super) type Incoming = (Stream, Option<SocketAddr>);

// === impl ListeningSocket ===

impl ListeningSocket {
    /// The address that it is bound to; none if the system does not tell, or the socket has none.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match &self.0 {
            Listener::Tcp(tcp) => tcp.local_addr().ok().map(Address::Socket),
            #[cfg(unix)]
            Listener::Unix(unix) => address_of(&unix.local_addr().ok()?),
        }
    }

    /// Sets how many connections the kernel may hold for us.
    pub(super) fn set_backlog(&self, backlog: i32) -> io::Result<()> {
        match &self.0 {
            Listener::Tcp(tcp) => SockRef::from(tcp).listen(backlog),
            #[cfg(unix)]
            Listener::Unix(unix) => SockRef::from(unix).listen(backlog),
        }
    }

    /// The next connection. Cancel safe.
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        match &self.0 {
            Listener::Tcp(tcp) => {
                tcp.poll_accept(cx).map_ok(|(tcp, remote)| (Stream::Tcp(tcp), Some(remote)))
            }
            #[cfg(unix)]
            Listener::Unix(unix) => unix.poll_accept(cx).map_ok(|(unix, _)| (Stream::Unix(unix), None)),
        }
    }

    /// Closes the socket. Returns the connections that the kernel has accepted already, as many as its backlog holds.
    pub(super) fn into_queued(self) -> Vec<Incoming> {
        match self.0 {
            Listener::Tcp(tcp) => {
                let Ok(tcp) = tcp.into_std() else { return Vec::new() };
                std::iter::from_fn(|| tcp.accept().ok())
                    .filter_map(|(tcp, remote)| {
                        tcp.set_nonblocking(true).ok()?;
                        Some((Stream::Tcp(TcpStream::from_std(tcp).ok()?), Some(remote)))
                    })
                    .collect()
            }
            #[cfg(unix)]
            Listener::Unix(unix) => {
                let Ok(unix) = unix.into_std() else { return Vec::new() };
                std::iter::from_fn(|| unix.accept().ok())
                    .filter_map(|(unix, _)| {
                        unix.set_nonblocking(true).ok()?;
                        Some((Stream::Unix(UnixStream::from_std(unix).ok()?), None))
                    })
                    .collect()
            }
        }
    }
}

impl From<TcpListener> for ListeningSocket {
    fn from(tcp: TcpListener) -> Self {
        Self(Listener::Tcp(tcp))
    }
}

#[cfg(unix)]
impl From<UnixListener> for ListeningSocket {
    fn from(unix: UnixListener) -> Self {
        Self(Listener::Unix(unix))
    }
}

impl fmt::Debug for ListeningSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListeningSocket").field(&self.address()).finish()
    }
}

/// A path, or `@` and an abstract name.
#[cfg(unix)]
fn address_of(bound: &tokio::net::unix::SocketAddr) -> Option<Address> {
    use std::path::Path;
    if let Some(path) = bound.as_pathname() {
        return Some(Address::from(path));
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = bound.as_abstract_name() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt as _;
        let text = OsString::from_vec([&b"@"[..], name].concat());
        return Some(Address::from(Path::new(&text)));
    }
    None
}

// === impl Stream ===

impl Stream {
    /// Both ends, before anything has been proved. None if the connection was reset before it was accepted.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "TCP knows its own address"))]
    pub(super) fn peer(&self, listening: Option<Address>) -> Option<identity::Peer> {
        match self {
            Self::Tcp(tcp) => {
                let (local, remote) = (tcp.local_addr().ok()?, tcp.peer_addr().ok()?);
                Some(identity::Peer { remote: Some(remote), local: Some(local), ..Default::default() })
            }
            #[cfg(unix)]
            Self::Unix(_) => {
                let unix = match listening {
                    Some(Address::Unix(path)) => path,
                    Some(Address::Socket(_)) | None => std::path::Path::new("").into(),
                };
                Some(identity::Peer { unix: Some(unix), ..Default::default() })
            }
        }
    }

    /// Small frames must not wait for acknowledgements of earlier ones. Only TCP delays them.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_nodelay(true),
            #[cfg(unix)]
            Self::Unix(_) => Ok(()),
        }
    }

    /// Waits for the first byte, or the end, and leaves it where it is. Cancel safe.
    pub(super) async fn peek(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.peek(&mut [0]).await.map(drop),
            #[cfg(unix)]
            Self::Unix(unix) => {
                let peek = || SockRef::from(unix).peek(&mut [MaybeUninit::uninit()]);
                unix.async_io(Interest::READABLE, peek).await.map(drop)
            }
        }
    }

    /// Whether there is something to read, whatever the runtime knows of it by now.
    pub(super) fn has_unread(&self) -> bool {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            #[cfg(unix)]
            Self::Unix(unix) => SockRef::from(unix),
        };
        socket.peek(&mut [MaybeUninit::uninit()]).is_ok_and(|count| count > 0)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
        }
    }

    /// Sockets of both kinds gather.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sockets have no buffer of ours.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
