//! The counting allocator: every heap allocation of this process, exactly.
//!
//! It wraps the system allocator in every role, so that all peers carry the same few instructions of counting.

use std::alloc::System;

use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Running totals of the process; two of them subtracted give the cost of what lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocated {
    /// Calls that may return new memory: fresh allocations and re-allocations alike.
    pub(crate) count: u64,
    /// Bytes asked for, re-allocation growth included.
    pub(crate) bytes: u64,
}

impl Allocated {
    /// The totals at this moment.
    pub(crate) fn now() -> Self {
        let stats = ALLOCATOR.stats();
        Self { count: (stats.allocations + stats.reallocations) as u64, bytes: stats.bytes_allocated as u64 }
    }

    /// What was allocated since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, bytes: self.bytes.saturating_sub(earlier.bytes) }
    }
}

/// Bytes that are on the heap now.
pub(crate) fn live_bytes() -> i64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::Allocated;

    #[test]
    fn one_box_is_at_least_one_allocation_of_its_size() {
        let before = Allocated::now();
        drop(black_box(Box::new([0_u8; 4096])));
        let spent = Allocated::now().since(before);
        assert!(spent.count >= 1, "{spent:?}");
        assert!(spent.bytes >= 4096, "{spent:?}");
    }
}
