//! Failover and failback between priorities (gRFC A56).
//!
//! ```text
//!            not created ──needed──► active, failover timer 10 s
//! active:    READY, IDLE, TRANSIENT_FAILURE   end the timer
//!            CONNECTING after READY or IDLE   starts it; CONNECTING after TRANSIENT_FAILURE does not
//! chosen:    the first that is READY or IDLE (those below it are deactivated) or whose timer runs,
//!            else the first that is CONNECTING, else the last
//! deactivated ──15 min──► not created;  needed again before that: active, as if nothing had happened
//! ```
//! Deviation: IDLE after TRANSIENT_FAILURE counts as CONNECTING, so that a connection that ends its back-off does not
//! draw requests back to a priority that has just been seen to fail.

use std::time::{Duration, Instant};

use super::Connectivity;

/// How long a priority may try before the next one is used as well.
pub(crate) const FAILOVER: Duration = Duration::from_secs(10);

/// How long the connections of a priority that is no longer needed are kept.
pub(crate) const DEACTIVATION: Duration = Duration::from_secs(15 * 60);

/// The priorities of one cluster.
#[derive(Debug, Clone, Default)]
pub struct Priorities {
    children: Vec<Child>,
    chosen: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    state: Connectivity,
    /// It was in TRANSIENT_FAILURE more recently than it was READY.
    failed: bool,
    active: bool,
    failover_at: Option<Instant>,
    deactivate_at: Option<Instant>,
}

// === impl Priorities ===

impl Priorities {
    /// No priority yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the connectivity of every priority, and the time, and decides. Idempotent: call it on any change of
    /// either, and at [`Self::next_wake`]. A priority beyond the list is gone at once.
    pub fn update(&mut self, now: Instant, states: &[Connectivity]) -> Option<usize> {
        self.children.resize(states.len(), Child::ABSENT);
        for (child, state) in self.children.iter_mut().zip(states) {
            child.step(now, *state);
        }
        self.chosen = self.choose(now);
        self.chosen
    }

    /// The priority that takes requests; none if there is no priority.
    #[must_use]
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Whether the endpoints of this priority must be connected or connecting.
    #[must_use]
    pub fn wants(&self, priority: usize) -> bool {
        self.children.get(priority).is_some_and(|c| c.active && c.deactivate_at.is_none())
    }

    /// Whether connections that this priority has are kept.
    #[must_use]
    pub fn keeps(&self, priority: usize) -> bool {
        self.children.get(priority).is_some_and(|c| c.active)
    }

    /// When to call [`Self::update`] again if nothing else happens.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        self.children.iter().flat_map(|c| [c.failover_at, c.deactivate_at]).flatten().min()
    }

    fn choose(&mut self, now: Instant) -> Option<usize> {
        for at in 0..self.children.len() {
            let Some(child) = self.children.get_mut(at) else { break };
            child.activate(now);
            if child.is_good() {
                for lower in self.children.iter_mut().skip(at + 1) {
                    lower.deactivate(now);
                }
                return Some(at);
            }
            if child.failover_at.is_some() {
                return Some(at);
            }
        }
        let connecting = self.children.iter().position(Child::is_trying);
        connecting.or_else(|| self.children.len().checked_sub(1))
    }
}

// === impl Child ===

impl Child {
    const ABSENT: Self = Self {
        state: Connectivity::Idle,
        failed: false,
        active: false,
        failover_at: None,
        deactivate_at: None,
    };

    fn step(&mut self, now: Instant, state: Connectivity) {
        if self.deactivate_at.is_some_and(|at| at <= now) {
            *self = Self::ABSENT;
        }
        let was = std::mem::replace(&mut self.state, state);
        match state {
            Connectivity::TransientFailure => self.failed = true,
            Connectivity::Ready => self.failed = false,
            Connectivity::Idle | Connectivity::Connecting => {}
        }
        if !self.active {
            return;
        }
        if self.failover_at.is_some_and(|at| at <= now) {
            self.failover_at = None;
            return;
        }
        if state != Connectivity::Connecting {
            self.failover_at = None;
        } else if was != Connectivity::Connecting && !self.failed {
            self.failover_at = now.checked_add(FAILOVER);
        }
    }

    fn activate(&mut self, now: Instant) {
        self.deactivate_at = None;
        if !self.active {
            self.active = true;
            let trying = self.state == Connectivity::Connecting;
            self.failover_at = if trying { now.checked_add(FAILOVER) } else { None };
        }
    }

    fn deactivate(&mut self, now: Instant) {
        if self.active && self.deactivate_at.is_none() {
            self.deactivate_at = now.checked_add(DEACTIVATION);
            self.failover_at = None;
        }
    }

    fn is_good(&self) -> bool {
        match self.state {
            Connectivity::Ready => true,
            Connectivity::Idle => !self.failed,
            Connectivity::Connecting | Connectivity::TransientFailure => false,
        }
    }

    fn is_trying(&self) -> bool {
        matches!(self.state, Connectivity::Connecting | Connectivity::Idle)
    }
}

#[cfg(test)]
mod tests;
