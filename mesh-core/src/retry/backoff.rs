//! Exponential back-off: the only one in the workspace.
//!
//! * Retries: full jitter, as Envoy waits: attempt `n` waits `rand(0, min(base * 2^(n-1), max))` (gRFC A44's fields).
//! * Connections, to endpoints and to control planes: 1 s, growing by 1.6 up to 120 s, give or take 20 % (gRPC's
//!   connection back-off, gRFC A27).

use std::time::Duration;

use crate::config::retry::BackOffConfig;
use crate::rng::Rng;

/// A sequence of waits.
#[derive(Debug, Clone)]
pub struct BackOff {
    first: Duration,
    max: Duration,
    factor: f64,
    jitter: Jitter,
    next: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Jitter {
    /// Anything from nothing to the whole.
    Full,
    /// This share more or less.
    Around(f64),
}

impl BackOff {
    /// For retries of one request.
    #[must_use]
    pub fn retry(config: &BackOffConfig) -> Self {
        Self::new(config.base, config.max, 2.0, Jitter::Full)
    }

    /// For connections.
    #[must_use]
    pub fn connection() -> Self {
        Self::connection_between(Duration::from_secs(1), Duration::from_secs(120))
    }

    /// For connections, with another first wait and another longest one.
    #[must_use]
    pub fn connection_between(first: Duration, max: Duration) -> Self {
        Self::new(first, max, 1.6, Jitter::Around(0.2))
    }

    /// The next wait.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let whole = self.next;
        self.next = whole.mul_f64(self.factor).min(self.max);
        match self.jitter {
            Jitter::Full => whole.mul_f64(rng.unit()),
            Jitter::Around(share) => whole.mul_f64(1.0 - share + 2.0 * share * rng.unit()),
        }
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    fn new(first: Duration, max: Duration, factor: f64, jitter: Jitter) -> Self {
        // A day is beyond every use, and far below what a multiplication could overflow.
        let max = max.min(Duration::from_secs(86_400));
        let first = first.min(max);
        Self { first, max, factor, jitter, next: first }
    }
}
