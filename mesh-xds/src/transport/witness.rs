//! Remembers what broke a connection. A call on it is often told only that it was canceled: the alert with which a control
//! plane refuses our certificate comes after the handshake, as far as TLS 1.3 is concerned, and belongs to no call.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Io;

/// The first error of a connection, once there is one. Displays as what follows a sentence about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause(Arc<OnceLock<Arc<str>>>);

/// A connection whose first error is remembered.
pub(super) struct Witness {
    io: Box<dyn Io>,
    cause: Cause,
}

/// What is read once writing has failed: alerts are small.
const LAST_WORDS: usize = 1_024;

// === impl Cause ===

impl Cause {
    fn note(&self, error: &io::Error) {
        // The first one explains the others.
        self.0.get_or_init(|| error.to_string().into());
    }

    /// The same text, with the cause where it does not have it.
    pub(crate) fn explain(&self, text: Arc<str>) -> Arc<str> {
        match self.0.get() {
            Some(cause) if !text.contains(&**cause) => format!("{text}: {cause}").into(),
            Some(_) | None => text,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

// === impl Witness ===

impl Witness {
    pub(super) fn new(io: Box<dyn Io>, cause: Cause) -> Self {
        Self { io, cause }
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.cause.note(error);
        }
        result
    }

    /// A peer that no longer reads may have said why.
    fn note_write<T>(&mut self, result: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            let mut last_words = [0; LAST_WORDS];
            // What it said instead is of no use: the connection is broken.
            let said = Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut last_words));
            let _ = self.note(said);
        }
        self.note(result)
    }
}

impl AsyncRead for Witness {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.note(result)
    }
}

impl AsyncWrite for Witness {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note_write(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note_write(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.note_write(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.note_write(result, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection that was refused by an alert, and may no longer take bytes either.
    struct Broken {
        writes: bool,
    }

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let alert = "received fatal alert: CertificateExpired";
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let broken = io::ErrorKind::BrokenPipe.into();
            Poll::Ready(if self.writes { Ok(buf.len()) } else { Err(broken) })
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn an_alert_is_the_cause_whichever_way_it_is_found() {
        let text = || Arc::from("operation was canceled");
        let explained = "operation was canceled: received fatal alert: CertificateExpired";
        let cause = Cause::default();
        assert_eq!(&*cause.explain(text()), "operation was canceled");
        Witness::new(Box::new(Broken { writes: true }), cause.clone()).read_u8().await.unwrap_err();
        assert_eq!(&*cause.explain(text()), explained);
        assert_eq!(&*cause.explain(explained.into()), explained, "once is enough");

        let cause = Cause::default();
        Witness::new(Box::new(Broken { writes: false }), cause.clone()).write_all(b"x").await.unwrap_err();
        assert_eq!(&*cause.explain(text()), explained);
    }
}
