//! A connection that speaks another protocol now: the application has its bytes, and its server still decides when it
//! ends.
//!
//! The socket stays in [`Upgrade`], where both can reach it: the application through the stream that it got, the
//! connection's task to close it. It counts as a request in flight until either has let go of it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::server::concurrency::Permit;
use crate::transport::listen::MeshIo;

/// The socket of an upgraded connection.
pub(super) struct Upgrade {
    socket: Mutex<Socket>,
    ended: Notify,
}

#[derive(Default)]
struct Socket {
    /// None before the upgrade, and after the end.
    io: Option<MeshIo>,
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The place among the requests of the server.
    permit: Option<Permit>,
}

/// Which half of a socket waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Read,
    Write,
}

/// The application's hold of an upgraded connection: dropping it ends the connection.
pub(super) struct UpgradedIo(Arc<Upgrade>);

/// The server's hold of an upgraded connection: dropping it ends the connection.
pub(super) struct UpgradeGuard(pub(super) Arc<Upgrade>);

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgrade")
    }
}

// === impl Upgrade ===

impl Upgrade {
    pub(super) fn new(permit: Permit) -> Arc<Self> {
        let socket = Socket { permit: Some(permit), ..Socket::default() };
        Arc::new(Self { socket: Mutex::new(socket), ended: Notify::new() })
    }

    /// Hands the socket over.
    pub(super) fn take(self: &Arc<Self>, io: MeshIo) -> UpgradedIo {
        let mut socket = self.lock();
        if !socket.over {
            socket.io = Some(io);
        }
        drop(socket);
        UpgradedIo(self.clone())
    }

    /// Waits until the connection is over. Cancel safe.
    pub(super) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().over {
                return;
            }
            ended.await;
        }
    }

    /// Closes the socket. Whoever reads or writes gets an error.
    fn end(&self) {
        let mut socket = self.lock();
        socket.over = true;
        let Socket { io, reader, writer, permit, .. } = std::mem::take(&mut *socket);
        socket.over = true;
        drop(socket);
        drop((io, permit));
        for waker in [reader, writer].into_iter().flatten() {
            waker.wake();
        }
        self.ended.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Socket> {
        // Each section is a few assignments, and the socket's own polls, after which nothing is half done.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl UpgradedIo ===

impl UpgradedIo {
    /// Polls the socket, or fails if it was closed.
    pub(super) fn poll<T>(
        &self,
        half: Half,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut MeshIo>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut socket = self.0.lock();
        let Some(io) = &mut socket.io else {
            let text = "the server has closed the connection";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
        };
        let polled = poll(Pin::new(io), cx);
        if polled.is_pending() {
            let waker = match half {
                Half::Read => &mut socket.reader,
                Half::Write => &mut socket.writer,
            };
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        polled
    }

    pub(super) fn is_write_vectored(&self) -> bool {
        use tokio::io::AsyncWrite as _;
        self.0.lock().io.as_ref().is_some_and(MeshIo::is_write_vectored)
    }
}

impl Drop for UpgradedIo {
    fn drop(&mut self) {
        self.0.end();
    }
}

// === impl UpgradeGuard ===

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}
