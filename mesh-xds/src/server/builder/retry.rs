//! `envoy.config.route.v3.RetryPolicy`.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as pb;

use super::{duration, uint32};

/// When to try again, how often, and after how long.
#[derive(Debug, Clone)]
pub struct Retry {
    pb: pb::RetryPolicy,
}

impl Retry {
    /// On these conditions (Envoy's `retry_on`, comma-separated: `unavailable,5xx`), once.
    #[must_use]
    pub fn on(conditions: impl Into<String>) -> Self {
        Self { pb: pb::RetryPolicy { retry_on: conditions.into(), ..Default::default() } }
    }

    /// At most so many tries after the first.
    #[must_use]
    pub fn times(mut self, retries: u32) -> Self {
        self.pb.num_retries = Some(uint32(retries));
        self
    }

    /// Each try ends after this long.
    #[must_use]
    pub fn per_try_timeout(mut self, limit: Duration) -> Self {
        self.pb.per_try_timeout = Some(duration(limit));
        self
    }

    /// The pause before the first retry, and the longest.
    #[must_use]
    pub fn back_off(mut self, base: Duration, max: Duration) -> Self {
        self.pb.retry_back_off = Some(pb::retry_policy::RetryBackOff {
            base_interval: Some(duration(base)),
            max_interval: Some(duration(max)),
        });
        self
    }

    /// The statuses that `retriable-status-codes` means.
    #[must_use]
    pub fn status_codes(mut self, codes: impl IntoIterator<Item = u32>) -> Self {
        self.pb.retriable_status_codes.extend(codes);
        self
    }

    pub(super) fn into_message(self) -> pb::RetryPolicy {
        self.pb
    }
}
