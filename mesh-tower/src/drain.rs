//! Graceful shutdown: say it, wait, force.
//!
//! # Contract
//! 1. *Say*: [`Drain::shutdown`] makes every [`Draining`] future ready. Servers close their listening sockets, so new
//!    connections are refused by the kernel; every connection is told to go away (HTTP/2 GOAWAY, HTTP/1.1
//!    `connection: close` on its last response).
//! 2. *Wait*: calls in flight go on, their response bodies to the last byte, for as long as the limit allows.
//! 3. *Force*: at the limit the remaining connections are closed; their calls end as cancelled.
//!
//! When `shutdown` returns, no server task is left and no call is in flight, whichever way it went; the answer tells
//! which. A second `shutdown` waits for the same end, and may force it earlier.
//!
//! ```text
//! Open ──shutdown──► Draining ──limit──► Forced
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;

/// Where a shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Open,
    /// No new work; what runs may finish.
    Draining,
    /// What still runs ends now.
    Forced,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every call finished.
    Complete,
    /// The limit was reached and what still ran was cut off.
    Forced,
}

/// The switch of one mesh. Everything that serves holds a [`Held`].
#[derive(Debug)]
pub(crate) struct Drain {
    phase: watch::Sender<Phase>,
    /// Counts the holders: closed when the last [`Held`] is gone.
    holders: watch::Sender<()>,
}

/// Something that a shutdown waits for. Dropping it says that it is done.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    phase: watch::Receiver<Phase>,
    _holder: watch::Receiver<()>,
}

/// Ready once a shutdown has begun (or the mesh is gone). Cancel safe.
#[must_use = "a future does nothing until it is awaited"]
pub struct Draining(Pin<Box<dyn Future<Output = ()> + Send>>);

// === impl Drain ===

impl Drain {
    pub(crate) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Open), holders: watch::Sender::new(()) }
    }

    /// Joins what a shutdown waits for.
    pub(crate) fn hold(&self) -> Held {
        Held { phase: self.phase.subscribe(), _holder: self.holders.subscribe() }
    }

    /// See [`Draining`].
    pub(crate) fn draining(&self) -> Draining {
        let mut phase = self.phase.subscribe();
        Draining(Box::pin(async move {
            // An error means that the mesh is gone, which ends serving just the same.
            let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
        }))
    }

    /// Drains for at most `limit`, then forces. Dropping the future leaves the drain running without a limit.
    pub(crate) async fn shutdown(&self, limit: Duration) -> Drained {
        self.advance(Phase::Draining);
        if tokio::time::timeout(limit, self.holders.closed()).await.is_ok() {
            return Drained::Complete;
        }
        self.advance(Phase::Forced);
        self.holders.closed().await;
        Drained::Forced
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let earlier = *phase < to;
            if earlier {
                *phase = to;
            }
            earlier
        });
    }
}

// === impl Held ===

impl Held {
    /// Waits until the shutdown has come to `phase`. Cancel safe.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        // The mesh is gone without a shutdown: nobody is left to wait, so what runs is forced to end.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    /// Whether the shutdown has come to `phase`.
    pub(crate) fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }
}

// === impl Draining ===

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Draining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Draining")
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::task;
    use tokio_test::{assert_pending, assert_ready, assert_ready_eq};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_its_last_holder_and_is_complete() {
        let drain = Drain::new();
        let mut draining = task::spawn(drain.draining());
        assert_pending!(draining.poll());
        let (first, second) = (drain.hold(), drain.hold());
        let mut shutdown = task::spawn(drain.shutdown(Duration::from_secs(60)));
        assert_pending!(shutdown.poll());
        assert_ready!(draining.poll());
        assert!(first.is(Phase::Draining) && !first.is(Phase::Forced));
        drop(first);
        assert_pending!(shutdown.poll());
        drop(second);
        assert_ready_eq!(shutdown.poll(), Drained::Complete);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_what_is_left_is_forced_and_still_waited_for() {
        let drain = Drain::new();
        let mut held = drain.hold();
        let mut forced = task::spawn(async move { held.reached(Phase::Forced).await });
        let mut shutdown = task::spawn(drain.shutdown(Duration::from_secs(60)));
        assert_pending!(shutdown.poll());
        assert_pending!(forced.poll());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_pending!(shutdown.poll());
        assert_ready!(forced.poll());
        drop(forced);
        assert_ready_eq!(shutdown.poll(), Drained::Forced);
    }

    #[tokio::test]
    async fn nothing_to_wait_for_is_complete_at_once() {
        assert_eq!(Drain::new().shutdown(Duration::ZERO).await, Drained::Complete);
    }
}
