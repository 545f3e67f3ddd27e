//! When something is due: does-not-exist timers (gRFC A57) and the wait before the next connection (gRFC A27).
//!
//! Deviation: A27 reconnects at once after a stream that brought a response. Here the wait is counted from the
//! *beginning* of the attempt that ended: a stream that lived for a while is replaced at once, and a control plane
//! that answers and hangs up in a loop is asked once a second, not as fast as the network allows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mesh_core::retry::BackOff;
use mesh_core::rng::Rng;

use super::types::{Kind, Name};

/// How long a resource may take to come, before it counts as not existing (gRFC A57).
pub(crate) const ABSENT_AFTER: Duration = Duration::from_secs(15);

/// The same, where the bootstrap calls it a transient error (gRFC A88).
pub(crate) const ABSENT_AFTER_TRANSIENT: Duration = Duration::from_secs(30);

/// The longest wait before a new connection.
const RECONNECT_MAX: Duration = Duration::from_secs(120);

/// Deadlines of the resources that have been asked for and have not come.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    due: BTreeSet<(Instant, Kind, Name)>,
}

/// When to connect again: 1 s, growing by 1.6 up to 120 s, ±20 %; from the start again after a response.
#[derive(Debug)]
pub struct Reconnect {
    backoff: BackOff,
    began: Option<Instant>,
}

// === impl Deadlines ===

impl Deadlines {
    pub(super) fn start(&mut self, at: Instant, kind: Kind, name: Name) {
        self.due.insert((at, kind, name));
    }

    pub(super) fn stop(&mut self, at: Instant, kind: Kind, name: Name) {
        self.due.remove(&(at, kind, name));
    }

    pub(super) fn clear(&mut self) {
        self.due.clear();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _, _)| *at)
    }

    /// Takes one deadline that has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Kind, Name)> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, kind, name)| (kind, name))
    }
}

// === impl Reconnect ===

impl Reconnect {
    /// Before the first attempt, which needs no wait.
    #[must_use]
    pub fn new() -> Self {
        Self { backoff: BackOff::connection_between(Duration::from_secs(1), RECONNECT_MAX), began: None }
    }

    /// An attempt to connect begins.
    pub fn handle_attempt(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// The control plane answered.
    pub fn handle_response(&mut self) {
        self.backoff.reset();
    }

    /// The attempt, or the stream that came of it, ended: when to begin the next.
    pub fn next_attempt(&mut self, now: Instant, rng: &mut impl Rng) -> Instant {
        let wait = self.backoff.next(rng).min(RECONNECT_MAX);
        let began = self.began.unwrap_or(now);
        began.checked_add(wait).unwrap_or(now).max(now)
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}
