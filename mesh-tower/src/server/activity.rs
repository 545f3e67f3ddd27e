//! What happens on one connection, as far as its timeouts need to know.
//!
//! Written by requests (in their own tasks, on HTTP/2), read by the connection's task.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Requests in flight, and since when there are none.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    in_flight: AtomicUsize,
    /// Nanoseconds after `began`.
    idle_since: AtomicU64,
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, in_flight: AtomicUsize::new(0), idle_since: AtomicU64::new(0) }
    }

    /// A request's head is complete.
    pub(crate) fn request_began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request, its response body included, is over.
    pub(crate) fn request_ended(&self, now: Instant) {
        self.idle_since.store(self.nanos(now), Ordering::Relaxed);
        // Release: who sees no request in flight also sees when the last one ended. Acquire: who ends after it was
        // counted among those that give way sees that it was (`counted`).
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Requests in flight, those that are being refused too.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests in flight: each of them sees, when it ends, whatever was written before this.
    pub(crate) fn counted(&self) -> usize {
        self.in_flight.fetch_add(0, Ordering::AcqRel)
    }

    /// Since when there is no request; none while there is one.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.in_flight.load(Ordering::Acquire) == 0)
            .then(|| self.began + Duration::from_nanos(self.idle_since.load(Ordering::Relaxed)))
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }
}
