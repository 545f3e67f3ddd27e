//! When one connection has to go, and how.
//!
//! ```text
//! Open ──drain, listener gone, other chain, max_connection_duration──► GoingAway ──grace over──► Close
//!   └────idle, a head that takes too long, others need its requests───────────────────────────────►┘ (idle: goes away first)
//! ```
//! HTTP/2 says goodbye and ends by itself; a peer that does not answer the goodbye is left after a moment, once no stream is
//! open. HTTP/1.1 says it with its next response, so a connection that has none under
//! way stays open for a moment: a request that crosses the notice is still served.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use super::http1::Link;
use crate::server::peer::RemoteOf;
use crate::server::{AcceptedPeer, ConnectionLimits};
use crate::transport::listen::Serving;

/// What a connection must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Take no more requests; end when those in flight have ended.
    GoAway,
    /// HTTP/1.1: no request has come for a while after `GoAway`; HTTP/2: the peer has had that while to answer it. End,
    /// unless a request has begun.
    CloseIdle,
    /// End now.
    Close,
}

/// Watches the configuration and the clock for one connection.
pub(super) struct Supervisor {
    peer: AcceptedPeer,
    limits: ConnectionLimits,
    changed: Pin<Box<dyn Future<Output = ()> + Send>>,
    timer: Pin<Box<Sleep>>,
    codec: CodecState,
    /// The head that is awaited, and since when.
    head: Option<(u32, Instant)>,
    /// Since when the connection is going away.
    going_since: Option<Instant>,
    /// Who is woken when others need its requests.
    told: Option<Waker>,
    /// When the connection has lasted long enough.
    retires_at: Option<Instant>,
    /// When a connection that is going away must be gone.
    gone_at: Option<Instant>,
}

/// What the codec of a connection is, as far as its end is concerned.
enum CodecState {
    /// Nothing has been read yet.
    Unknown,
    Http1(Arc<Link>),
    /// Ends by itself when it is going away, if its peer answers.
    Http2,
    /// Ends by itself: what an application has made of the connection.
    Other,
}

// === impl Supervisor ===

impl Supervisor {
    pub(super) fn new(
        peer: &AcceptedPeer,
        limits: ConnectionLimits,
        serving: watch::Receiver<Serving>,
    ) -> Self {
        let now = Instant::now();
        Self {
            told: None,
            retires_at: limits.max_duration.map(|limit| now + limit),
            changed: Box::pin(must_go(peer.clone(), serving)),
            timer: Box::pin(sleep_until(now + limits.idle_timeout)),
            peer: peer.clone(),
            limits,
            codec: CodecState::Unknown,
            head: None,
            going_since: None,
            gone_at: None,
        }
    }

    /// The connection speaks HTTP/1.1.
    pub(super) fn watch_http1(&mut self, link: Arc<Link>) {
        self.codec = CodecState::Http1(link);
    }

    /// The connection speaks HTTP/2.
    pub(super) fn watch_http2(&mut self) {
        self.codec = CodecState::Http2;
    }

    /// The connection speaks a protocol whose application says goodbye itself.
    pub(super) fn watch_other(&mut self) {
        self.codec = CodecState::Other;
    }

    /// The next command. `GoAway` and `CloseIdle` come once at most, `Close` is the last.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Command> {
        if self.peer.connection().holding.poll_told(&mut self.told, cx).is_ready() {
            return Poll::Ready(Command::Close);
        }
        if self.gone_at.is_none() && self.changed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.go_away());
        }
        loop {
            let now = Instant::now();
            let due = self.due(now);
            if due <= now {
                return Poll::Ready(self.expired(now));
            }
            // A timer that is early is left alone: when it rings, the time is looked at again.
            if due < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// When something is due, as far as can be told now.
    fn due(&mut self, now: Instant) -> Instant {
        let pending = match &self.codec {
            CodecState::Http1(link) => link.pending(),
            CodecState::Unknown | CodecState::Http2 | CodecState::Other => None,
        };
        let known = self.head.take();
        self.head = pending.map(|head| match known {
            Some((same, since)) if same == head => (head, since),
            _ => (head, now),
        });
        let head = self.head.map(|(_, since)| since + self.limits.head_timeout);
        // With requests in flight there is no idleness to measure: look again later.
        let idle = self.peer.connection().activity.idle_since().unwrap_or(now) + self.limits.idle_timeout;
        let of_now = self.gone_at.unwrap_or_else(|| self.retires_at.map_or(idle, |at| at.min(idle)));
        let of_now = self.idle_close().map_or(of_now, |at| at.min(of_now));
        head.map_or(of_now, |head| head.min(of_now))
    }

    /// When a connection that is going away is closed for want of a request, or of an answer.
    fn idle_close(&self) -> Option<Instant> {
        let going_since = self.going_since?;
        let connection = self.peer.connection();
        let grace = connection.server.limits.drain_idle_grace;
        let busy = match &self.codec {
            CodecState::Http1(link) => link.is_in_flight(),
            CodecState::Unknown => false,
            // Its codec knows what is still open.
            CodecState::Http2 => return Some(going_since + grace),
            CodecState::Other => true,
        };
        if busy || self.head.is_some() {
            return None;
        }
        let since = connection.activity.idle_since()?.max(going_since);
        Some(since + grace)
    }

    fn expired(&mut self, now: Instant) -> Command {
        if self.head.is_some_and(|(_, since)| since + self.limits.head_timeout <= now) {
            tracing::debug!(peer = %RemoteOf(&self.peer), "request headers took too long; closed");
            return Command::Close;
        }
        if self.idle_close().is_some_and(|at| at <= now) {
            self.going_since = None;
            return Command::CloseIdle;
        }
        if self.gone_at.is_some() { Command::Close } else { self.go_away() }
    }

    fn go_away(&mut self) -> Command {
        let now = Instant::now();
        self.going_since = Some(now);
        self.gone_at = Some(now + self.peer.connection().server.limits.drain_grace);
        Command::GoAway
    }
}

/// Ready when this connection's chain is no longer the one that it would get today.
async fn must_go(peer: AcceptedPeer, mut serving: watch::Receiver<Serving>) {
    let ends = peer.ends();
    let moved = |serving: &Serving| match serving {
        Serving::Chains(chains) => {
            let today = chains.find(&ends);
            !today.is_some_and(|chain| Arc::ptr_eq(chain, &peer.connection().chain))
        }
        Serving::Waiting => false,
        Serving::Absent | Serving::Draining => true,
    };
    // An error means that the listener has ended, and its connections with it.
    let _ = serving.wait_for(moved).await;
}
