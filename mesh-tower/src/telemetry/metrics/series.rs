//! One series: a counter and three histograms, all atomic; and what they held at one moment.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mesh_core::telemetry::event::RequestEvent;
use mesh_core::telemetry::names::BUCKETS;

/// What is counted for one set of labels.
#[derive(Debug, Default)]
pub(super) struct Series {
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// A histogram over Envoy's buckets. The last bucket is `+Inf`.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// Thousandths of the unit, so that a sum of fractions is one atomic addition.
    sum_milli: AtomicU64,
}

/// What a series held at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) duration: Distribution,
    pub(super) request_bytes: Distribution,
    pub(super) response_bytes: Distribution,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Distribution {
    buckets: [u64; BUCKETS.len() + 1],
    sum_milli: u64,
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
        self.duration.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            duration: self.duration.distribution(),
            request_bytes: self.request_bytes.distribution(),
            response_bytes: self.response_bytes.distribution(),
        }
    }

    /// Counts in addition what another series counted.
    pub(super) fn add(&self, counts: &Counts) {
        self.duration.add(&counts.duration);
        self.request_bytes.add(&counts.request_bytes);
        self.response_bytes.add(&counts.response_bytes);
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

    fn distribution(&self) -> Distribution {
        let buckets = std::array::from_fn(|at| self.buckets.get(at).map_or(0, |bucket| bucket.load(Relaxed)));
        Distribution { buckets, sum_milli: self.sum_milli.load(Relaxed) }
    }

    fn add(&self, more: &Distribution) {
        for (bucket, more) in self.buckets.iter().zip(more.buckets) {
            bucket.fetch_add(more, Relaxed);
        }
        self.sum_milli.fetch_add(more.sum_milli, Relaxed);
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn requests(&self) -> u64 {
        self.duration.buckets.iter().sum()
    }

    /// What came since an earlier moment of the same series.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            duration: self.duration.since(&earlier.duration),
            request_bytes: self.request_bytes.since(&earlier.request_bytes),
            response_bytes: self.response_bytes.since(&earlier.response_bytes),
        }
    }
}

// === impl Distribution ===

impl Distribution {
    fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets;
        for (bucket, earlier) in buckets.iter_mut().zip(earlier.buckets) {
            *bucket = bucket.saturating_sub(earlier);
        }
        Self { buckets, sum_milli: self.sum_milli.wrapping_sub(earlier.sum_milli) }
    }

    pub(super) fn render(&self, text: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            total += bucket;
            let _ = writeln!(text, r#"{name}_bucket{{{labels},le="{bound}"}} {total}"#);
        }
        total += self.buckets.last().unwrap_or(&0);
        let sum = self.sum_milli as f64 / 1_000.0;
        let _ = write!(
            text,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {total}\n{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}\n"
        );
    }
}
