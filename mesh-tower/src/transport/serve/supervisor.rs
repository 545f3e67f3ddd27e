//! When one connection has to go, and how.
//!
//! ```text
//! Open ──drain, listener gone, other chain──► GoingAway ──grace over──► Close
//!   └────idle, or a head that takes too long──────────────────────────────►┘ (idle: goes away first)
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_core::chain::Ends;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::server::{ConnectionLimits, Peer};
use crate::transport::listen::Serving;

/// What a connection must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Take no more requests; end when those in flight have ended.
    GoAway,
    /// End now.
    Close,
}

/// Watches the configuration and the clock for one connection.
pub(super) struct Supervisor {
    peer: Peer,
    limits: ConnectionLimits,
    changed: Pin<Box<dyn Future<Output = ()> + Send>>,
    timer: Pin<Box<Sleep>>,
    /// Since when the pending head is pending.
    head_since: Option<Instant>,
    /// When a connection that is going away must be gone.
    gone_at: Option<Instant>,
}

// === impl Supervisor ===

impl Supervisor {
    pub(super) fn new(peer: &Peer, limits: ConnectionLimits, serving: watch::Receiver<Serving>) -> Self {
        Self {
            changed: Box::pin(must_go(peer.clone(), serving)),
            timer: Box::pin(sleep_until(Instant::now() + limits.idle_timeout)),
            peer: peer.clone(),
            limits,
            head_since: None,
            gone_at: None,
        }
    }

    /// The next command. `GoAway` comes once at most, `Close` is the last.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Command> {
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
        let activity = &self.peer.connection().activity;
        self.head_since = activity.head_pending().then(|| self.head_since.unwrap_or(now));
        let head = self.head_since.map(|since| since + self.limits.headers_timeout);
        // With requests in flight there is no idleness to measure: look again later.
        let idle = activity.idle_since().unwrap_or(now) + self.limits.idle_timeout;
        let of_now = self.gone_at.unwrap_or(idle);
        head.map_or(of_now, |head| head.min(of_now))
    }

    fn expired(&mut self, now: Instant) -> Command {
        let head_late = self.head_since.is_some_and(|since| since + self.limits.headers_timeout <= now);
        if head_late {
            tracing::debug!(peer = ?self.peer.remote, "request headers took too long; closed");
            return Command::Close;
        }
        if self.gone_at.is_some() { Command::Close } else { self.go_away() }
    }

    fn go_away(&mut self) -> Command {
        let grace = self.peer.connection().server.limits.drain_grace;
        self.gone_at = Some(Instant::now() + grace);
        Command::GoAway
    }
}

/// Ready when this connection's chain is no longer the one that it would get today.
async fn must_go(peer: Peer, mut serving: watch::Receiver<Serving>) {
    let (Some(local), Some(remote)) = (peer.local, peer.remote) else { return std::future::pending().await };
    let ends = Ends { local, remote };
    let moved = |serving: &Serving| match serving {
        Serving::Chains(chains) => {
            let today = chains.find(&ends);
            !today.is_some_and(|chain| std::sync::Arc::ptr_eq(chain, &peer.connection().chain))
        }
        Serving::Waiting => false,
        Serving::Absent | Serving::Draining => true,
    };
    // An error means that the listener has ended, and its connections with it.
    let _ = serving.wait_for(moved).await;
}
