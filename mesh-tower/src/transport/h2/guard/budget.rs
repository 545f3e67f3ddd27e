//! What the unread bodies of one mesh may cost, over all its HTTP/2 connections.
//!
//! Small and fast bodies are never counted here: a stream draws on the budget when it holds [`NOTICED`] bytes that
//! nobody reads, and when its window grows beyond what every stream has.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Unread bytes of one stream from which on they count.
pub(super) const NOTICED: u64 = 16 * 1024;

/// Bounds of the memory that received and unread bodies take.
///
/// A stream that reaches a bound waits for its own reader; others go on. Servers and clients of one mesh share `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadLimits {
    /// Bytes of unread bodies that one HTTP/2 connection may hold. Default 64 MiB. Half of it is divided among the streams
    /// that the connection may have, the other half goes to those streams whose readers keep up.
    pub per_connection: usize,
    /// Bytes of unread bodies that all HTTP/2 connections of the mesh may hold. Default 512 MiB. Beyond it, windows grow no
    /// more, and a connection whose streams would hold more is read on when other readers have made room.
    pub total: usize,
}

/// The part of [`UnreadLimits::total`] that is in use.
#[derive(Debug)]
pub(crate) struct ReceiveBudget {
    limits: UnreadLimits,
    used: AtomicUsize,
    /// Whether a connection waits for room.
    is_waited_for: AtomicBool,
    /// Connections that wait for room. Each is in it once at most between two releases.
    waiting: Mutex<Vec<Waker>>,
}

// === impl UnreadLimits ===

impl Default for UnreadLimits {
    fn default() -> Self {
        Self { per_connection: 64 * 1024 * 1024, total: 512 * 1024 * 1024 }
    }
}

// === impl ReceiveBudget ===

impl Default for ReceiveBudget {
    fn default() -> Self {
        Self::of(UnreadLimits::default())
    }
}

impl ReceiveBudget {
    pub(crate) fn new(limits: UnreadLimits) -> Arc<Self> {
        Arc::new(Self::of(limits))
    }

    fn of(limits: UnreadLimits) -> Self {
        Self {
            limits,
            used: AtomicUsize::new(0),
            is_waited_for: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    pub(crate) const fn limits(&self) -> &UnreadLimits {
        &self.limits
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Takes `bytes`, or nothing where that would pass the limit.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let room = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limits.total);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_ok()
    }

    /// Takes `bytes`, or has `waker` called when some were given back.
    pub(super) fn take_or_wait(&self, bytes: usize, waker: &Waker) -> bool {
        if self.try_take(bytes) {
            return true;
        }
        {
            let mut waiting = self.lock();
            if !waiting.iter().any(|known| known.will_wake(waker)) {
                waiting.push(waker.clone());
            }
            self.is_waited_for.store(true, Ordering::SeqCst);
        }
        // What was given back in between woke nobody.
        self.try_take(bytes)
    }

    pub(super) fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if !self.is_waited_for.swap(false, Ordering::SeqCst) {
            return;
        }
        let waiting = std::mem::take(&mut *self.lock());
        for waker in waiting {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        // A list of wakers is never half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
