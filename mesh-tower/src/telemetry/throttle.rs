//! Lines of log that others can cause: some a second, and how many were left out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Lets so many lines of a kind through in each [`INTERVAL`], and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    burst: u64,
    began: OnceLock<Instant>,
    /// Milliseconds after the first line, at which the interval ends.
    until: AtomicU64,
    /// Lines of this interval.
    lines: AtomicU64,
    left_out: AtomicU64,
}

/// Often enough to see what goes on, seldom enough that a flood is no flood of lines.
const INTERVAL: Duration = Duration::from_secs(1);

// === impl Throttle ===

impl Throttle {
    pub(crate) const fn new(burst: u64) -> Self {
        Self {
            burst,
            began: OnceLock::new(),
            until: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written; then, how many were left out since the last one.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let began = *self.began.get_or_init(|| now);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (at, until) = (millis(now.saturating_duration_since(began)), self.until.load(Ordering::Relaxed));
        let next = at.saturating_add(millis(INTERVAL));
        if at >= until
            && self.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.lines.store(1, Ordering::Relaxed);
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < self.burst {
            return Some(0);
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_some_lines_a_second_and_a_count_of_the_others() {
        for burst in [1, 3] {
            let throttle = Throttle::new(burst);
            let take = || throttle.take(Instant::now());
            for _ in 0..burst {
                assert_eq!(take(), Some(0));
            }
            for _ in 0..1_000 {
                assert_eq!(take(), None);
            }
            tokio::time::advance(INTERVAL - Duration::from_millis(1)).await;
            assert_eq!(take(), None);
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(take(), Some(1_001));
            tokio::time::advance(INTERVAL).await;
            assert_eq!(take(), Some(0));
        }
    }
}
