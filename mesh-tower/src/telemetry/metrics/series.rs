//! One series: a counter and three histograms, all atomic.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mesh_core::telemetry::event::RequestEvent;
use mesh_core::telemetry::names::BUCKETS;

/// What is counted for one set of labels.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) duration: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
}

/// A histogram over Envoy's buckets. The last bucket is `+Inf`.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// Thousandths of the unit, so that a sum of fractions is one atomic addition.
    sum_milli: AtomicU64,
}

// === impl Series ===

impl Series {
    pub(super) fn record(&self, event: &RequestEvent<'_>) {
        let micros = u64::try_from(event.duration.as_micros()).unwrap_or(u64::MAX);
        self.duration.observe_milli(micros);
        self.request_bytes.observe_milli(event.request_bytes.saturating_mul(1_000));
        self.response_bytes.observe_milli(event.response_bytes.saturating_mul(1_000));
    }

    /// Every request is observed once, so the counter is the count of a histogram.
    pub(super) fn requests(&self) -> u64 {
        self.duration.count()
    }
}

// === impl Histogram ===

impl Histogram {
    fn observe_milli(&self, milli: u64) {
        let value = milli as f64 / 1_000.0;
        let at = BUCKETS.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_milli.fetch_add(milli, Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    pub(super) fn render(&self, text: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            total += bucket.load(Relaxed);
            let _ = writeln!(text, r#"{name}_bucket{{{labels},le="{bound}"}} {total}"#);
        }
        total += self.buckets.last().map_or(0, |bucket| bucket.load(Relaxed));
        let sum = self.sum_milli.load(Relaxed) as f64 / 1_000.0;
        let _ = write!(
            text,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {total}\n{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}\n"
        );
    }
}
