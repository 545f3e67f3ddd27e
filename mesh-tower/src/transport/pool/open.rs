//! Counts the connections of one endpoint, whatever their keys: what its limit is about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count, shared by the groups of an endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<AtomicUsize>);

/// One connection, or one attempt to open it. Counts until it is dropped.
#[derive(Debug)]
pub(super) struct Opened(Arc<AtomicUsize>);

// === impl Open ===

impl Open {
    /// Counts one more.
    pub(super) fn one(&self) -> Opened {
        self.0.fetch_add(1, Ordering::Relaxed);
        Opened(self.0.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Opened ===

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
