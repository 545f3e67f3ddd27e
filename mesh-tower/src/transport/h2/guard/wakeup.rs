//! Whether the socket may have something to read.
//!
//! The task of a connection is woken for much else: requests and responses to write, reports of readers. As long as the
//! socket has not called since it was found empty, asking it again is work for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// The waker that the socket gets.
#[derive(Debug, Default)]
struct Wakeup {
    /// The socket has called.
    called: AtomicBool,
    /// The task of the connection.
    task: Mutex<Option<Waker>>,
}

/// The reading side of a socket.
#[derive(Debug)]
pub(super) struct Readable {
    wakeup: Arc<Wakeup>,
    /// `wakeup`, as the socket takes it.
    waker: Waker,
    /// The socket was found empty, and has the waker.
    is_asleep: bool,
}

// === impl Readable ===

impl Readable {
    pub(super) fn new() -> Self {
        let wakeup = Arc::new(Wakeup::default());
        Self { waker: Waker::from(wakeup.clone()), wakeup, is_asleep: false }
    }

    /// The task to wake has changed.
    pub(super) fn register(&self, task: &Waker) {
        *self.wakeup.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.clone());
    }

    /// Whether the socket has to be asked.
    pub(super) fn is_due(&self) -> bool {
        !self.is_asleep || self.wakeup.called.load(Ordering::Acquire)
    }

    /// The waker for the socket, which is asked now.
    pub(super) fn ask(&mut self) -> &Waker {
        self.is_asleep = false;
        self.wakeup.called.store(false, Ordering::Release);
        &self.waker
    }

    /// The socket was found empty.
    pub(super) fn sleep(&mut self) {
        self.is_asleep = true;
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}
