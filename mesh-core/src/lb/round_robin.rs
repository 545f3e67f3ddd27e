//! Weighted round robin: exact over each cycle of `total` picks, smooth within it, one atomic addition per pick.
//!
//! Weights are slots on a ring ([`Weighted`]). The cursor walks the ring in strides of about `total / φ`, coprime
//! with `total`: every slot is visited once per cycle, and the visits of any entry lie nearly evenly apart (the
//! golden-ratio sequence has the lowest discrepancy of all strides). Deviation from gRFC A58, whose static stride
//! scheduler serves the same ends: its cost grows with the largest weight over the mean, this one's does not.

use std::sync::atomic::{AtomicU64, Ordering};

use super::weighted::Weighted;
use crate::rng::Rng;

/// The shared cursor over a set of weights.
#[derive(Debug)]
pub(super) struct Cursor {
    next: AtomicU64,
    stride: u64,
}

impl Cursor {
    /// A cursor that starts at random, so that many clients do not all begin with the same endpoint.
    pub(super) fn new(weights: &Weighted, rng: &mut impl Rng) -> Self {
        let total = weights.total().get();
        let stride = if weights.is_even() { 1 } else { stride(total) };
        Self { next: AtomicU64::new(rng.below(total.into())), stride: stride.into() }
    }

    /// The next entry.
    pub(super) fn next(&self, weights: &Weighted) -> usize {
        let total = u64::from(weights.total().get());
        // Relaxed: only the count matters, no other memory is published by it.
        let n = self.next.fetch_add(1, Ordering::Relaxed) % total;
        let slot = if self.stride == 1 { n } else { n * self.stride % total };
        weights.at(slot as u32)
    }
}

/// A stride near `total / φ` that shares no factor with `total` and walks the ring most evenly.
///
/// The unevenness of a walk is bounded by the sum of the partial quotients of `stride / total`: the golden ratio has
/// the least possible, but a whole number near it may have a large one, so the best of a few neighbours is taken.
fn stride(total: u32) -> u32 {
    const NEIGHBOURS: u32 = 16;
    let ideal = (f64::from(total) * 0.618_033_988_749_894_9) as u32;
    let near = ideal.saturating_sub(NEIGHBOURS).max(1)..total.min(ideal.saturating_add(NEIGHBOURS));
    let rated = near.filter_map(|stride| Some((unevenness(stride, total)?, stride)));
    rated.min().map_or(1, |(_, stride)| stride)
}

/// The sum of the partial quotients of `stride / total`; none if the two share a factor.
fn unevenness(stride: u32, total: u32) -> Option<u32> {
    let (mut a, mut b, mut sum) = (total, stride, 0u32);
    while b != 0 {
        sum = sum.saturating_add(a / b);
        (a, b) = (b, a % b);
    }
    (a == 1).then_some(sum)
}
