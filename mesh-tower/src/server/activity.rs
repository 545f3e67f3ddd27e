//! What happens on one connection, as far as its timeouts need to know.
//!
//! Written by the socket wrapper and by requests (their own tasks, on HTTP/2), read by the connection's task.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Requests in flight, and since when there are none.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    in_flight: AtomicUsize,
    /// Nanoseconds after `began`.
    idle_since: AtomicU64,
    /// HTTP/1.1: a part of a request's head was read, and not yet all of it.
    head_pending: AtomicBool,
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_pending: AtomicBool::new(false),
        }
    }

    /// A request's head is complete.
    pub(crate) fn request_began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_pending.store(false, Ordering::Relaxed);
    }

    /// A request, its response body included, is over.
    pub(crate) fn request_ended(&self, now: Instant) {
        self.idle_since.store(self.nanos(now), Ordering::Relaxed);
        // Release: who sees no request in flight also sees when the last one ended.
        self.in_flight.fetch_sub(1, Ordering::Release);
    }

    /// Bytes were read. True if they begin the head of a request.
    pub(crate) fn bytes_read(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && !self.head_pending.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn head_pending(&self) -> bool {
        self.head_pending.load(Ordering::Relaxed)
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
