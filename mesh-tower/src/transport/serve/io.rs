//! The bytes of a connection, between its socket and its codec: what was read to tell the protocol comes first. Of
//! HTTP/1.1, heads are handed on one by one ([`framing`](super::framing)), and an upgraded connection goes over to where
//! its server can end it ([`upgrade`](super::upgrade)).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::framing::Framing;
use super::http1::Link;
use super::upgrade::{Half, UpgradedIo};
use crate::transport::h2::guard::PREFACE;
use crate::transport::listen::MeshIo;

/// A connection's bytes, as its codec sees them.
pub(super) struct ServerIo {
    /// Read already, not passed on yet.
    read_ahead: Bytes,
    carrier: Carrier,
    http1: Option<Http1Io>,
}

/// HTTP/1.1: where in its messages a connection is.
struct Http1Io {
    framing: Framing,
    link: Arc<Link>,
}

enum Carrier {
    Own(MeshIo),
    Upgraded(UpgradedIo),
    /// Between the two.
    Moving,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads the first bytes of a connection, at most as many as it takes to tell what the client speaks. None if it
/// closes without a word. Cancel safe: what was read is in `seen`.
pub(super) async fn sniff(io: &mut MeshIo, seen: &mut Vec<u8>) -> io::Result<Option<Protocol>> {
    loop {
        let missing = PREFACE.len() - seen.len();
        if io.take(missing as u64).read_buf(seen).await? == 0 && seen.is_empty() {
            return Ok(None);
        }
        if seen == PREFACE {
            return Ok(Some(Protocol::Http2));
        }
        if !PREFACE.starts_with(seen) || missing == PREFACE.len() - seen.len() {
            return Ok(Some(Protocol::Http1));
        }
    }
}

// === impl Http1Io ===

impl Http1Io {
    /// How many of these bytes may be passed on now; the link is told what they leave unfinished.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        self.link.update(&mut self.framing);
        let passed = self.framing.pass(bytes);
        self.link.passed(&self.framing);
        passed
    }
}

// === impl ServerIo ===

impl ServerIo {
    /// `link` goes with HTTP/1.1.
    pub(super) fn new(read_ahead: Bytes, io: MeshIo, link: Option<Arc<Link>>) -> Self {
        let http1 = link.map(|link| Http1Io { framing: Framing::new(), link });
        Self { read_ahead, carrier: Carrier::Own(io), http1 }
    }

    /// Hands the socket over once the response that upgrades the connection is about to be written.
    fn note_upgrade(&mut self) {
        if let Some(upgrade) = self.http1.as_ref().and_then(|http1| http1.link.upgrade())
            && let Carrier::Own(_) = &self.carrier
            && let Carrier::Own(io) = std::mem::replace(&mut self.carrier, Carrier::Moving)
        {
            self.carrier = Carrier::Upgraded(upgrade.take(io));
            self.http1 = None;
        }
    }

    /// Takes note of bytes that were read, and keeps back what follows a head.
    fn note_read(&mut self, before: usize, buf: &mut ReadBuf<'_>) {
        let Some(http1) = &mut self.http1 else { return };
        let read = &buf.filled()[before..];
        if read.is_empty() {
            return;
        }
        let passed = http1.pass(read);
        if passed < read.len() {
            self.read_ahead = Bytes::copy_from_slice(&read[passed..]);
            buf.set_filled(before + passed);
        }
        http1.link.note_read_ahead(self.read_ahead.len());
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.read_ahead.has_remaining() {
            let next = this.read_ahead.slice(..this.read_ahead.len().min(buf.remaining()));
            let passed = match &mut this.http1 {
                Some(http1) if !next.is_empty() => http1.pass(&next),
                _ => next.len(),
            };
            this.read_ahead.advance(passed);
            if let Some(http1) = &this.http1 {
                http1.link.note_read_ahead(this.read_ahead.len());
            }
            buf.put_slice(&next[..passed]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(match &mut this.carrier {
            Carrier::Own(io) => match Pin::new(&mut *io).poll_read(cx, buf) {
                // As if the client had closed it. A request that is here already is served, though the runtime may not
                // have heard of it.
                Poll::Pending
                    if this.http1.as_ref().is_some_and(|http1| http1.link.ends()) && !io.has_unread() =>
                {
                    Poll::Ready(Ok(()))
                }
                read => read,
            },
            Carrier::Upgraded(io) => io.poll(Half::Read, cx, |io, cx| io.poll_read(cx, buf)),
            Carrier::Moving => Poll::Ready(Ok(())),
        })?;
        this.note_read(before, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note_upgrade();
        match &mut self.carrier {
            Carrier::Own(io) => Pin::new(io).poll_write(cx, buf),
            Carrier::Upgraded(io) => io.poll(Half::Write, cx, |io, cx| io.poll_write(cx, buf)),
            Carrier::Moving => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_upgrade();
        match &mut self.carrier {
            Carrier::Own(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Carrier::Upgraded(io) => io.poll(Half::Write, cx, |io, cx| io.poll_write_vectored(cx, bufs)),
            Carrier::Moving => Poll::Ready(Ok(0)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Own(io) => io.is_write_vectored(),
            Carrier::Upgraded(io) => io.is_write_vectored(),
            Carrier::Moving => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Own(io) => Pin::new(io).poll_flush(cx),
            Carrier::Upgraded(io) => io.poll(Half::Write, cx, |io, cx| io.poll_flush(cx)),
            Carrier::Moving => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Own(io) => Pin::new(io).poll_shutdown(cx),
            Carrier::Upgraded(io) => io.poll(Half::Write, cx, |io, cx| io.poll_shutdown(cx)),
            Carrier::Moving => Poll::Ready(Ok(())),
        }
    }
}
