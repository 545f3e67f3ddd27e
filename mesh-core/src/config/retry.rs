//! `envoy.config.route.v3.RetryPolicy`, as gRFC A44 reads it for gRPC and Envoy for other HTTP.

use std::time::Duration;

use http::StatusCode;

use crate::matcher::header::HeaderMatcher;

/// When and how a request is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// What is worth a retry.
    pub on: RetryOn,
    /// Retries after the first attempt, at most; gRPC caps the attempts at 5 (gRFC A44). Default 1.
    pub num_retries: u32,
    /// How long one attempt may take; none leaves only the deadline (ignored for gRPC, gRFC A44).
    pub per_try_timeout: Option<Duration>,
    /// Waiting between attempts.
    pub back_off: BackOffConfig,
    /// HTTP statuses worth a retry with `retriable-status-codes`.
    pub retriable_status_codes: Vec<StatusCode>,
    /// Response headers worth a retry with `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatcher>,
}

/// The conditions of `retry_on`, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

/// Exponential back-off with full jitter: attempt `n` waits `rand(0, min(base * 2^(n-1), max))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOffConfig {
    /// Default 25 ms; at least 1 ms.
    pub base: Duration,
    /// Default ten times the base.
    pub max: Duration,
}

// === impl RetryOn ===

impl RetryOn {
    /// gRPC `cancelled`.
    pub const CANCELLED: Self = Self(1);
    /// gRPC `deadline-exceeded`.
    pub const DEADLINE_EXCEEDED: Self = Self(1 << 1);
    /// gRPC `internal`.
    pub const INTERNAL: Self = Self(1 << 2);
    /// gRPC `resource-exhausted`.
    pub const RESOURCE_EXHAUSTED: Self = Self(1 << 3);
    /// gRPC `unavailable`.
    pub const UNAVAILABLE: Self = Self(1 << 4);
    /// HTTP `5xx`: a 5xx response, or none at all.
    pub const SERVER_ERROR: Self = Self(1 << 5);
    /// HTTP `gateway-error`: 502, 503, 504, or none at all.
    pub const GATEWAY_ERROR: Self = Self(1 << 6);
    /// `reset`: no response at all (disconnect, reset, read timeout).
    pub const RESET: Self = Self(1 << 7);
    /// `connect-failure`: no connection could be made.
    pub const CONNECT_FAILURE: Self = Self(1 << 8);
    /// `refused-stream`: the peer reset the stream with REFUSED_STREAM.
    pub const REFUSED_STREAM: Self = Self(1 << 9);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 10);
    /// `retriable-status-codes`.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 11);
    /// `retriable-headers`.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 12);
    /// `reset-before-request`: reset before the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 13);

    /// No condition: nothing is retried.
    pub const NONE: Self = Self(0);

    /// Parses `retry_on`: a comma list, spaces and case ignored, unknown tokens skipped (as Envoy and gRPC both do).
    #[must_use]
    pub fn parse(list: &str) -> Self {
        list.split(',').map(Self::token).fold(Self::NONE, Self::union)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any condition of `other` is set here.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing is retried.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn token(token: &str) -> Self {
        const TOKENS: [(&str, RetryOn); 14] = [
            ("cancelled", RetryOn::CANCELLED),
            ("deadline-exceeded", RetryOn::DEADLINE_EXCEEDED),
            ("internal", RetryOn::INTERNAL),
            ("resource-exhausted", RetryOn::RESOURCE_EXHAUSTED),
            ("unavailable", RetryOn::UNAVAILABLE),
            ("5xx", RetryOn::SERVER_ERROR),
            ("gateway-error", RetryOn::GATEWAY_ERROR),
            ("reset", RetryOn::RESET),
            ("connect-failure", RetryOn::CONNECT_FAILURE),
            ("refused-stream", RetryOn::REFUSED_STREAM),
            ("retriable-4xx", RetryOn::RETRIABLE_4XX),
            ("retriable-status-codes", RetryOn::RETRIABLE_STATUS_CODES),
            ("retriable-headers", RetryOn::RETRIABLE_HEADERS),
            ("reset-before-request", RetryOn::RESET_BEFORE_REQUEST),
        ];
        let token = token.trim();
        TOKENS.iter().find(|(name, _)| token.eq_ignore_ascii_case(name)).map_or(Self::NONE, |(_, on)| *on)
    }
}

// === impl BackOffConfig ===

impl Default for BackOffConfig {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::NONE,
            num_retries: 1,
            per_try_timeout: None,
            back_off: BackOffConfig::default(),
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
        }
    }
}
