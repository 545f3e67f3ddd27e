//! The bytes of a connection, between its socket and its codec: what was read to tell the protocol comes first, and
//! the beginning of an HTTP/1.1 request's head is noticed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::signal::Signal;
use crate::server::Peer;
use crate::transport::listen::MeshIo;

/// What a client says first on HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection's bytes, as its codec sees them.
pub(super) struct ServerIo {
    /// Read already, not passed on yet.
    read_ahead: Bytes,
    io: MeshIo,
    /// HTTP/1.1: whom to tell that a head has begun.
    heads: Option<(Peer, Arc<Signal>)>,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads the first bytes of a connection, at most as many as it takes to tell what the client speaks. None if it
/// closes without a word.
pub(super) async fn sniff(io: &mut MeshIo) -> io::Result<Option<(Protocol, Bytes)>> {
    let mut seen = Vec::with_capacity(PREFACE.len());
    loop {
        let missing = PREFACE.len() - seen.len();
        if io.take(missing as u64).read_buf(&mut seen).await? == 0 && seen.is_empty() {
            return Ok(None);
        }
        if seen == PREFACE {
            return Ok(Some((Protocol::Http2, seen.into())));
        }
        if !PREFACE.starts_with(&seen) || missing == PREFACE.len() - seen.len() {
            return Ok(Some((Protocol::Http1, seen.into())));
        }
    }
}

// === impl ServerIo ===

impl ServerIo {
    pub(super) fn new(read_ahead: Bytes, io: MeshIo, heads: Option<(Peer, Arc<Signal>)>) -> Self {
        Self { read_ahead, io, heads }
    }

    fn note_head(&self) {
        if let Some((peer, signal)) = &self.heads
            && peer.connection().activity.bytes_read()
        {
            signal.raise();
        }
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.read_ahead.has_remaining() {
            let n = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead.split_to(n));
        } else {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        }
        if buf.filled().len() > before {
            self.note_head();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
