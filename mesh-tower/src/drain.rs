//! Graceful shutdown: leave, say it, wait, force.
//!
//! # Contract
//! 0. *Leave*, for [`MeshBuilder::lame_duck`](crate::MeshBuilder::lame_duck), by default for no time: `/ready` is 503, and
//!    everything is served as before, new connections too. It is for callers who have not heard yet that this replica
//!    leaves. A second shutdown ends it, and so does dropping the first one's future.
//! 1. *Say*: `Drain::shutdown` makes every [`Draining`] future ready. Servers accept what the kernel has queued and
//!    close their listening sockets, so new connections are refused by the kernel; every connection is told to go away
//!    (HTTP/2 GOAWAY, HTTP/1.1 `connection: close` on its next response). An HTTP/1.1 connection without a request stays
//!    open for [`ServerLimits::drain_idle_grace`](crate::server::ServerLimits::drain_idle_grace).
//! 2. *Wait*: calls in flight go on, their response bodies to the last byte, upgraded connections to their end, for as
//!    long as the limit allows.
//! 3. *Force*: at the limit the remaining connections are closed; their calls end as cancelled.
//!
//! The limit is that of steps 1 and 2. Calls that the application makes may be made until its servers have drained; from
//! then on they are refused, and those in flight are waited for within the same limit. When `shutdown` returns, no server
//! task is left and no call is in flight, but for calls of the application that the limit has overtaken; the answer tells
//! which way it went. `Mesh::serve` returns no sooner. A second `shutdown` waits for the same end, and may force it
//! earlier.
//!
//! ```text
//! Open ──shutdown──► Leaving ──lame duck over──► Draining ──limit──► Forced
//! ```
//!
//! # Kubernetes
//! SIGTERM comes at the moment in which the endpoint begins to be removed from load balancers, and that takes seconds. So
//! the replica goes on for a while, and then drains, all within `terminationGracePeriodSeconds`: longer than the lame duck
//! and the limit together, here 5 s + 20 s < 30 s. There is no `preStop` hook to write.
//!
//! ```no_run
//! # async fn run(app: mesh_tower::MeshChannel) -> Result<(), Box<dyn std::error::Error>> {
//! # async fn sigterm() {}
//! use std::time::Duration;
//! use mesh_tower::MeshBuilder;
//!
//! # let bootstrap = mesh_tower::mesh_xds::bootstrap::Bootstrap::from_env()?;
//! let mesh = MeshBuilder::from_bootstrap(bootstrap)?.lame_duck(Duration::from_secs(5)).build()?;
//! let tcp = tokio::net::TcpListener::bind("0.0.0.0:50051").await?;
//! let (serving, leaving) = tokio::join!(mesh.serve(tcp, app), async {
//!     sigterm().await; // tokio::signal::unix::signal(SignalKind::terminate())?.recv()
//!     mesh.shutdown(Duration::from_secs(20)).await
//! });
//! # drop(leaving);
//! serving?;
//! # Ok(())
//! # }
//! ```
//! ```yaml
//! spec:
//!   terminationGracePeriodSeconds: 30
//!   containers:
//!   - name: app
//!     readinessProbe:                  # of mesh_tower::Admin, never TCP
//!       httpGet: { path: /ready, port: 15021 }
//!       periodSeconds: 2
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;

/// Where a shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Open,
    /// Not ready, and still serving.
    Leaving,
    /// No new work; what runs may finish.
    Draining,
    /// What still runs ends now.
    Forced,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drained {
    /// Every call finished. Connections without a call may have been closed at the limit.
    Complete,
    /// The limit was reached and calls that still ran were cut off.
    Forced,
}

/// The switch of one mesh. Everything that serves holds a [`Held`].
#[derive(Debug)]
pub(crate) struct Drain {
    phase: watch::Sender<Phase>,
    /// Counts the holders: closed when the last [`Held`] is gone.
    holders: watch::Sender<()>,
    /// Calls were cut off.
    cut: Arc<AtomicBool>,
}

/// Something that a shutdown waits for. Dropping it says that it is done.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    phase: watch::Receiver<Phase>,
    _holder: watch::Receiver<()>,
    cut: Arc<AtomicBool>,
}

/// Ready once a shutdown drains, after its lame duck (or the mesh is gone). Cancel safe.
#[must_use = "a future does nothing until it is awaited"]
pub struct Draining(Pin<Box<dyn Future<Output = ()> + Send>>);

// === impl Drain ===

impl Drain {
    pub(crate) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Open), holders: watch::Sender::new(()), cut: Arc::default() }
    }

    /// Joins what a shutdown waits for.
    pub(crate) fn hold(&self) -> Held {
        Held { phase: self.phase.subscribe(), _holder: self.holders.subscribe(), cut: self.cut.clone() }
    }

    /// See [`Draining`].
    pub(crate) fn draining(&self) -> Draining {
        let mut phase = self.phase.subscribe();
        Draining(Box::pin(async move {
            // An error means that the mesh is gone, which ends serving just the same.
            let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await;
        }))
    }

    /// Says that the mesh leaves, and waits; a further shutdown does not, and ends the wait of the first. Dropping the
    /// future begins the drain.
    pub(crate) async fn leave(&self, lame_duck: Duration) {
        let drain = Leaving(self);
        if !lame_duck.is_zero() && self.advance(Phase::Leaving) {
            let mut phase = self.phase.subscribe();
            // The sender lives in `self`. Whoever drains before its time wins.
            let _ = tokio::time::timeout(lame_duck, phase.wait_for(|phase| *phase >= Phase::Draining)).await;
        }
        drop(drain);
    }

    /// Whether the mesh has begun to leave.
    pub(crate) fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }

    /// Waits until everything has drained that holds it. Cancel safe.
    pub(crate) async fn let_go(&self) {
        self.holders.closed().await;
    }

    /// Waits until the shutdown is forced. Cancel safe.
    pub(crate) async fn forced(&self) {
        // The sender lives in `self`.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Forced).await;
    }

    /// Ends what still runs.
    pub(crate) fn force(&self) {
        self.advance(Phase::Forced);
    }

    /// Drains for at most `limit`, then forces. Dropping the future leaves the drain running without a limit.
    pub(crate) async fn shutdown(&self, limit: Duration) -> Drained {
        self.advance(Phase::Draining);
        if tokio::time::timeout(limit, self.holders.closed()).await.is_ok() {
            return Drained::Complete;
        }
        self.advance(Phase::Forced);
        self.holders.closed().await;
        if self.cut.load(Ordering::Acquire) { Drained::Forced } else { Drained::Complete }
    }

    /// Whether it was not there yet.
    fn advance(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let earlier = *phase < to;
            if earlier {
                *phase = to;
            }
            earlier
        })
    }
}

/// Begins the drain when it goes, however that comes.
struct Leaving<'a>(&'a Drain);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.advance(Phase::Draining);
    }
}

// === impl Held ===

impl Held {
    /// Waits until the shutdown has come to `phase`. Cancel safe.
    pub(crate) async fn reached(&mut self, phase: Phase) {
        // The mesh is gone without a shutdown: nobody is left to wait, so what runs is forced to end.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    /// Says that calls are cut off, now that the shutdown is forced.
    pub(crate) fn cut_off(&self) {
        self.cut.store(true, Ordering::Release);
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
    use tokio::time::Instant;
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
        assert!(drain.is(Phase::Draining) && !drain.is(Phase::Forced));
        drop(first);
        assert_pending!(shutdown.poll());
        drop(second);
        assert_ready_eq!(shutdown.poll(), Drained::Complete);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_what_is_left_is_forced_and_still_waited_for() {
        let drain = Drain::new();
        let mut held = drain.hold();
        let mut forced = task::spawn(async move {
            held.reached(Phase::Forced).await;
            held.cut_off();
            std::future::pending::<()>().await;
        });
        let mut shutdown = task::spawn(drain.shutdown(Duration::from_secs(60)));
        assert_pending!(shutdown.poll());
        assert_pending!(forced.poll());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_pending!(shutdown.poll());
        assert_pending!(forced.poll());
        assert_pending!(shutdown.poll());
        drop(forced);
        assert_ready_eq!(shutdown.poll(), Drained::Forced);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_cuts_no_call_off_is_complete() {
        let drain = Drain::new();
        let held = drain.hold();
        let mut shutdown = task::spawn(drain.shutdown(Duration::from_secs(60)));
        assert_pending!(shutdown.poll());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_pending!(shutdown.poll());
        drop(held);
        assert_ready_eq!(shutdown.poll(), Drained::Complete);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lame_duck_is_not_ready_and_drains_when_its_time_is_over() {
        let drain = Drain::new();
        let begun = Instant::now();
        let mut leaving = task::spawn(drain.leave(Duration::from_secs(5)));
        assert_pending!(leaving.poll());
        assert!(drain.is(Phase::Leaving) && !drain.is(Phase::Draining));
        leaving.await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert!(drain.is(Phase::Draining) && !drain.is(Phase::Forced));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_shutdown_or_the_end_of_the_first_ones_future_ends_the_lame_duck() {
        let drain = Drain::new();
        let mut first = task::spawn(drain.leave(Duration::from_secs(5)));
        assert_pending!(first.poll());
        assert_ready!(task::spawn(drain.leave(Duration::from_secs(5))).poll());
        assert!(first.is_woken());
        assert_ready!(first.poll());
        let dropped = Drain::new();
        let mut first = task::spawn(dropped.leave(Duration::from_secs(5)));
        assert_pending!(first.poll());
        assert!(!dropped.is(Phase::Draining));
        drop(first);
        assert!(dropped.is(Phase::Draining));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_lame_duck_the_drain_begins_at_once() {
        let drain = Drain::new();
        assert_ready!(task::spawn(drain.leave(Duration::ZERO)).poll());
        assert!(drain.is(Phase::Draining));
    }

    #[tokio::test]
    async fn nothing_to_wait_for_is_complete_at_once() {
        assert_eq!(Drain::new().shutdown(Duration::ZERO).await, Drained::Complete);
    }
}
