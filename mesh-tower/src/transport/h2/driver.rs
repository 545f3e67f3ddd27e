//! The task that moves one connection's bytes, and notices GOAWAY, a dead peer, and the end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep};
use tracing::Instrument;

use super::guard::Guarded;
use super::keepalive::Pinger;
use super::{Connection, KeepAlive};
use crate::transport::error::EndReason;
use crate::transport::io::Counted;

/// How long a drained connection without streams may take to say goodbye to a peer that does not read (twice
/// this at most: the timer looks at the streams when it fires).
const LINGER: Duration = Duration::from_secs(5);

/// Runs until the connection has ended, however it ends; its drop tells the pool.
pub(super) struct Driver {
    h2: ::h2::client::Connection<Guarded<Counted>, Bytes>,
    connection: Arc<Connection>,
    keepalive: Option<Pinger>,
    linger: Option<Pin<Box<Sleep>>>,
    draining: bool,
    /// The peer's stream limit when it was looked at last.
    limit: usize,
}

/// Starts the driver.
pub(super) fn spawn(runtime: &Handle, driver: Driver) {
    let span = tracing::debug_span!(parent: None, "mesh.h2_connection", id = driver.connection.id);
    runtime.spawn(driver.instrument(span));
}

// === impl Driver ===

impl Driver {
    pub(super) fn new(
        mut h2: ::h2::client::Connection<Guarded<Counted>, Bytes>,
        connection: Arc<Connection>,
        keepalive: Option<KeepAlive>,
    ) -> Self {
        let keepalive = keepalive.and_then(|config| Some(Pinger::new(h2.ping_pong()?, config)));
        Self { h2, connection, keepalive, linger: None, draining: false, limit: 0 }
    }

    /// Notices that the connection takes no more requests, and a limit that was raised. Tells the pool when it is
    /// the peer's doing.
    fn look_at_peer(&mut self, cx: &mut Context<'_>) {
        let mut sender = self.connection.lock_sender();
        let Some(open) = sender.as_mut() else {
            self.draining = true;
            return;
        };
        if let Poll::Ready(Err(error)) = open.poll_ready(cx) {
            self.draining = true;
            *sender = None;
            drop(sender);
            self.connection.takes_no_more(&error);
            return;
        }
        let limit = open.current_max_send_streams();
        drop(sender);
        self.connection.see_limit(limit);
        if std::mem::replace(&mut self.limit, limit) < limit {
            self.connection.events.slot_freed();
        }
    }

    fn end(&self, reason: &str) {
        let source = self.connection.traffic.broke().cloned();
        let _ = self.connection.reason.set(EndReason::new(reason, source));
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.h2).poll(cx) {
            match result {
                Ok(()) => this.end("connection closed"),
                Err(error) => this.end(&format!("connection failed: {error}")),
            }
            if !this.draining {
                // GOAWAY and the end may come in one read.
                this.look_at_peer(cx);
            }
            return Poll::Ready(());
        }
        if !this.draining && (this.connection.credit.take_news() || this.connection.lock_sender().is_none()) {
            this.look_at_peer(cx);
        }
        let idle = this.connection.active.load(Ordering::SeqCst) == 0;
        if let Some(pinger) = &mut this.keepalive
            && pinger.poll(cx, this.connection.traffic.read(), idle).is_ready()
        {
            this.end("keepalive PING was not answered");
            return Poll::Ready(());
        }
        if this.draining {
            let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            while linger.as_mut().poll(cx).is_ready() {
                // A drained connection without streams closes by itself, unless its peer does not read.
                if this.connection.active.load(Ordering::SeqCst) == 0 {
                    this.end("the peer did not let the connection close");
                    return Poll::Ready(());
                }
                linger.as_mut().reset(Instant::now() + LINGER);
            }
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end("connection aborted");
        self.connection.lock_sender().take();
        let reason = self.connection.reason.get().cloned();
        self.connection.events.clone().closed(self.connection.id, reason);
    }
}
