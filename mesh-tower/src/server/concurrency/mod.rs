//! How much a server takes on at once: connections, and requests over all of them.
//!
//! Place in the stack: requests after `pin`, before the HTTP filters; connections before anything is read. Envoy:
//! overload manager. On drop: the permit is returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A counter with a bound. Cheap to clone; clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct Permits {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// One of the permits; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit {
    used: Arc<AtomicUsize>,
}

// === impl Permits ===

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: Arc::new(AtomicUsize::new(0)), limit }
    }

    /// A permit, or none at the limit.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        // Relaxed: the count guards no other memory.
        if self.used.fetch_add(1, Ordering::Relaxed) < self.limit {
            return Some(Permit { used: self.used.clone() });
        }
        self.used.fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// A permit, whatever the limit.
    pub(crate) fn enter(&self) -> Permit {
        self.used.fetch_add(1, Ordering::Relaxed);
        Permit { used: self.used.clone() }
    }

    /// How many are out.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_above_the_limit_and_admits_after_a_drop() {
        let permits = Permits::new(1);
        let first = permits.try_acquire();
        assert!(first.is_some() && permits.try_acquire().is_none());
        assert_eq!(permits.used(), 1);
        drop(first);
        assert_eq!(permits.used(), 0);
        assert!(permits.try_acquire().is_some());
    }
}
