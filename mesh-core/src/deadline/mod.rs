//! Deadlines: `grpc-timeout` on the wire, and how long a request may take in all.
//!
//! References: the gRPC wire protocol, gRFC A31, Envoy's route timeouts. A deadline is
//! computed once, when the request is routed, and covers everything after it, retries included.
//!
//! Where the two differ the kind of the request decides:
//! * gRPC: the caller's timeout; `grpc_timeout_header_max` where set (0: the caller's timeout alone), else the
//!   route's `max_stream_duration`, else the listener's; an explicit route `timeout`. Never the implicit 15 s.
//! * Other HTTP: the route's `max_stream_duration`, else the listener's; the route's `timeout`, 15 s if not set.
//! * Both: `max_stream_duration` on the route, even an empty one, disables the route's timeout; zero is no bound.
//!
//! A malformed `grpc-timeout` is no timeout of the caller's: the bounds of the configuration remain (Envoy). A zero
//! one has passed already (gRPC); Envoy reads it as none, which would turn the shortest wish into the longest.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::route::{ForwardAction, MaxStreamDuration};
use crate::error::Reason;
use crate::request::RequestKind;

/// `grpc-timeout`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A `grpc-timeout` that is not 1 to 8 digits and a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is not 1 to 8 digits followed by one of H M S m u n")]
pub(crate) struct InvalidTimeout;

/// When a request must have ended, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// [`Reason::DeadlineExceeded`] or [`Reason::MaxStreamDuration`].
    pub bound: Reason,
}

/// What bounds a request.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Whose rules apply.
    pub kind: RequestKind,
    /// When the request arrived.
    pub arrived: Instant,
    /// The caller's own timeout.
    pub caller: Option<Duration>,
    /// The deadline of the incoming request that this one serves.
    pub inherited: Option<Instant>,
    /// The route; none before there is one.
    pub route: Option<&'a ForwardAction>,
    /// `max_stream_duration` of the listener's connection manager.
    pub listener: Option<Duration>,
}

/// Reads a `grpc-timeout` value.
///
/// # Errors
/// When it is not 1 to 8 digits followed by a unit.
pub(crate) fn parse_grpc_timeout(value: &[u8]) -> Result<Duration, InvalidTimeout> {
    let (unit, digits) = value.split_last().ok_or(InvalidTimeout)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidTimeout);
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(InvalidTimeout),
    }
}

/// The timeout that a caller asks for; none if it asks for none, or says it in a way that cannot be read.
#[must_use]
pub fn caller_timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_grpc_timeout(headers.get(GRPC_TIMEOUT)?.as_bytes()).ok()
}

/// The `grpc-timeout` of what remains: in the finest unit that 8 digits can hold, rounded up, at least one
/// nanosecond.
#[must_use]
pub fn format_grpc_timeout(remaining: Duration) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    const UNITS: [(u64, u8); 6] = [
        (1, b'n'),
        (1_000, b'u'),
        (1_000_000, b'm'),
        (1_000_000_000, b'S'),
        (60_000_000_000, b'M'),
        (3_600_000_000_000, b'H'),
    ];
    // Beyond 584 years only hours fit anyway, and no more of them than 8 digits say.
    let nanos = u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX).max(1);
    let fits = UNITS.iter().map(|(size, unit)| (nanos.div_ceil(*size), *unit)).find(|(n, _)| *n <= MOST);
    let (mut amount, unit) = match fits {
        Some(fits) if nanos < u64::MAX => fits,
        Some(_) | None => (remaining.as_secs().div_ceil(3_600).min(MOST), b'H'),
    };
    // By hand: this is on the path of every call, and one allocation is enough.
    let mut text = [unit; 9];
    let mut start = text.len() - 1;
    for digit in text.iter_mut().rev().skip(1) {
        *digit = b'0' + (amount % 10) as u8;
        amount /= 10;
        start -= 1;
        if amount == 0 {
            break;
        }
    }
    let text = text.get(start..).unwrap_or_default();
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("99999999H"))
}

/// The earliest of all bounds, and which it is; none if nothing bounds the request.
#[must_use]
#[inline]
pub fn effective(bounds: &Bounds<'_>) -> Option<Deadline> {
    let Bounds { kind, arrived, caller, inherited, route, listener } = *bounds;
    let after = |d: Duration| arrived.checked_add(d);
    let stream = max_stream_duration(kind, route.and_then(|r| r.max_stream_duration), listener);
    // In order of precedence where two fall together: what the caller asked for explains more than what we imposed.
    let all = [
        (caller.and_then(after), Reason::DeadlineExceeded),
        (inherited, Reason::DeadlineExceeded),
        (route.and_then(|r| route_timeout(kind, r)).and_then(after), Reason::DeadlineExceeded),
        (stream.and_then(after), Reason::MaxStreamDuration),
    ];
    all.into_iter().filter_map(|(at, bound)| Some(Deadline { at: at?, bound })).min_by_key(|d| d.at)
}

fn max_stream_duration(
    kind: RequestKind,
    route: Option<MaxStreamDuration>,
    listener: Option<Duration>,
) -> Option<Duration> {
    let of_grpc = match kind {
        RequestKind::Grpc => route.and_then(|r| r.grpc_timeout_header_max),
        RequestKind::Http => None,
    };
    of_grpc.or_else(|| route.and_then(|r| r.max_stream_duration)).or(listener).filter(|d| !d.is_zero())
}

fn route_timeout(kind: RequestKind, route: &ForwardAction) -> Option<Duration> {
    if route.max_stream_duration.is_some() {
        return None;
    }
    match (route.timeout, kind) {
        // Envoy counts in milliseconds: less than one is zero, and zero is none.
        (Some(timeout), _) => (timeout >= Duration::from_millis(1)).then_some(timeout),
        (None, RequestKind::Http) => Some(ForwardAction::IMPLICIT_TIMEOUT),
        (None, RequestKind::Grpc) => None,
    }
}

// === impl Deadline ===

impl Deadline {
    /// The earlier of two; the first of equal ones.
    #[must_use]
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        a.into_iter().chain(b).min_by_key(|d| d.at)
    }

    /// What is left of it.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests;
