//! Polls something seldom on a task that is woken often.
//!
//! A connection's task is woken for every read; the things that supervise it (timers, configuration) change once in a
//! while, and asking each of them costs a lock. A [`Signal`] is their waker: it remembers that one of them has called,
//! and wakes the task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Whether something supervised has called since the last look.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: AtomicBool,
    /// The task to wake.
    task: Mutex<Option<Waker>>,
}

// === impl Signal ===

impl Signal {
    /// A signal that has been raised: the first look looks at everything.
    pub(super) fn raised() -> Arc<Self> {
        Arc::new(Self { raised: AtomicBool::new(true), task: Mutex::new(None) })
    }

    /// Raises it from within the task, which looks before it sleeps.
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
    }

    /// Takes the signal down, and tells whether it was up.
    pub(super) fn lower(&self) -> bool {
        self.raised.load(Ordering::Relaxed) && self.raised.swap(false, Ordering::AcqRel)
    }

    /// Whom to wake. Called once, or whenever the task moves to another waker.
    pub(super) fn register(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *task {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}
