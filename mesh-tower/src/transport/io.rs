//! The byte stream below a codec, with the two facts about it that the codecs cannot tell.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cause::{self, Cause};

/// How long a server that has said its last takes what its client still sends, so that the client can read the last
/// responses.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// More is not taken of a client that does not listen.
pub(crate) const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// Anything that a connection can run on: TCP, a unix socket, TLS over either, memory in tests.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connected byte stream of any kind.
pub type BoxIo = Box<dyn Io>;

/// Bytes seen by a [`Counted`] stream. Keepalive asks whether anything arrived; the HTTP/1.1 retry rule asks
/// whether anything was written or read. And how the stream broke, which codecs do not pass on whole.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
    broke: OnceLock<Cause>,
}

/// A byte stream that counts.
pub(crate) struct Counted {
    io: BoxIo,
    traffic: Arc<Traffic>,
}

// === impl Traffic ===

impl Traffic {
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    #[cfg(any(feature = "http1", test))]
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How the stream broke, if it did.
    pub(crate) fn broke(&self) -> Option<&Cause> {
        self.broke.get()
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(n)) => Self::add(&self.written, *n),
            Poll::Ready(Err(error)) => self.note(error),
            Poll::Pending => {}
        }
    }

    #[cold]
    fn note(&self, error: &io::Error) {
        // The first error is the cause of those that follow.
        self.broke.get_or_init(|| cause::of_io(error));
    }

    /// Only the connection's task adds, so a load and a store are enough.
    fn add(counter: &AtomicU64, n: usize) {
        counter.store(counter.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
    }
}

// === impl Counted ===

impl Counted {
    pub(crate) fn new(io: BoxIo, traffic: Arc<Traffic>) -> Self {
        Self { io, traffic }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        Traffic::add(&self.traffic.read, buf.filled().len().saturating_sub(before));
        if let Poll::Ready(Err(error)) = &result {
            self.traffic.note(error);
        }
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.traffic.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.traffic.wrote(&result);
        result
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
