//! An accepted connection: bytes, and whose they are.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::socket::Stream;
use crate::server::concurrency::Permit;
use crate::server::{AcceptedPeer, Peer};

/// A connection that was accepted, secured as its chain demands, and identified.
pub struct MeshIo {
    stream: Bytes,
    peer: Peer,
    accepted: AcceptedPeer,
    /// With a server that is not ours: who is woken when the connection has to give way. Ours asks for itself.
    told: Option<Waker>,
    foreign: bool,
    /// The connection's place under the connection limit.
    _permit: Permit,
}

pub(super) enum Bytes {
    Plain(Stream),
    Tls(Box<TlsStream<Stream>>),
}

// === impl MeshIo ===

impl MeshIo {
    pub(super) fn new(stream: Bytes, accepted: AcceptedPeer, permit: Permit, foreign: bool) -> Self {
        Self { stream, peer: accepted.clone().into(), accepted, told: None, foreign, _permit: permit }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The same, with its connection.
    pub(crate) fn accepted(&self) -> &AcceptedPeer {
        &self.accepted
    }

    /// Whether the peer has said something that was not read yet, whatever the runtime knows of it by now.
    pub(crate) fn has_unread(&self) -> bool {
        match &self.stream {
            Bytes::Plain(stream) => stream.has_unread(),
            Bytes::Tls(tls) => tls.get_ref().0.has_unread(),
        }
    }

    /// Fails once the connection was told to give way.
    fn check(&self) -> io::Result<()> {
        if self.foreign && self.accepted.connection().holding.is_told() { Err(gave_way()) } else { Ok(()) }
    }

    /// The same, for who goes to sleep: it is woken when the connection has to give way.
    fn check_later(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if self.foreign && self.accepted.connection().holding.poll_told(&mut self.told, cx).is_ready() {
            return Err(gave_way());
        }
        Ok(())
    }
}

/// Writes slices of a few bytes as one: of several, TLS makes a list on the heap, for each write.
fn poll_write_joined(
    tls: Pin<&mut TlsStream<Stream>>,
    cx: &mut Context<'_>,
    bufs: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut joined = [0; FEW];
    let mut end = 0;
    for buf in bufs {
        let Some(place) = joined.get_mut(end..end + buf.len()) else {
            return tls.poll_write_vectored(cx, bufs);
        };
        place.copy_from_slice(buf);
        end += buf.len();
    }
    tls.poll_write(cx, joined.get(..end).unwrap_or_default())
}

/// The head of a response and a message of 1 KiB, and some more.
const FEW: usize = 2 * 1_024;

fn gave_way() -> io::Error {
    let kind = io::ErrorKind::ConnectionAborted;
    io::Error::new(kind, "at the limit of requests, the heaviest connection gives way")
}

impl AsyncRead for MeshIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        let read = match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Bytes::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
        };
        if read.is_pending() {
            self.check_later(cx)?;
        }
        read
    }
}

impl AsyncWrite for MeshIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Bytes::Tls(tls) => Pin::new(&mut **tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Bytes::Tls(tls) => poll_write_joined(Pin::new(&mut **tls), cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Bytes::Plain(stream) => stream.is_write_vectored(),
            Bytes::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Bytes::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Bytes::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for MeshIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshIo").field("peer", &self.peer).finish_non_exhaustive()
    }
}
