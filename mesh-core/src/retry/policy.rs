//! The retries of one request: attempts, back-off, the server's pushback.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::backoff::BackOff;
use super::classify::{self, Untouched};
use crate::config::retry::RetryPolicy;
use crate::outcome::{Failure, Outcome};
use crate::request::RequestKind;
use crate::rng::Rng;

/// How an attempt ended, as far as a retry depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Whose rules apply.
    pub kind: RequestKind,
    /// How.
    pub outcome: Outcome,
    /// Headers of the response, or the trailers of a trailers-only one.
    pub headers: Option<&'a HeaderMap>,
    /// Proof that the peer did nothing, where there is one.
    pub untouched: Option<Untouched>,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Repeat at once: no policy is asked, no permit is needed, the attempt is not counted.
    Transparent,
    /// Another attempt after this wait, if the breaker gives a retry permit.
    Retry {
        /// How long to wait.
        after: Duration,
    },
    /// This end is the end.
    Stop(Stop),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// There is nothing to repair, or the policy does not retry this.
    NotRetriable,
    /// The policy's attempts are used up (flag `URX`).
    Exhausted,
    /// The server asked not to be tried again.
    Pushback,
}

/// The retries of one request so far.
#[derive(Debug, Clone, Default)]
pub struct Retries {
    attempts: u32,
    /// A transparent retry was spent that there is only one of.
    repeated: bool,
    back_off: Option<BackOff>,
}

/// Most attempts of a gRPC request (gRFC A6).
const GRPC_ATTEMPTS: u32 = 5;

/// The server's wish, in milliseconds (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Envoy's mark of a response that rate limiting made: trying again would defeat it.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

// === impl Retries ===

impl Retries {
    /// Before the first attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Attempts that ended and were counted.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Decides after an attempt ended. The deadline is not asked: whoever waits is bounded by it.
    pub fn after(&mut self, policy: Option<&RetryPolicy>, ended: &Ended<'_>, rng: &mut impl Rng) -> Verdict {
        if self.repeats(ended) {
            return Verdict::Transparent;
        }
        self.attempts = self.attempts.saturating_add(1);
        let Some(policy) = policy.filter(|p| classify::retriable(p, ended)) else {
            return Verdict::Stop(Stop::NotRetriable);
        };
        if self.attempts >= most_attempts(policy, ended.kind) {
            return Verdict::Stop(Stop::Exhausted);
        }
        let header = |name| ended.headers.and_then(|h| h.get(name));
        match (ended.kind, header(PUSHBACK)) {
            (RequestKind::Grpc, Some(value)) => match pushback(value) {
                Some(after) => {
                    self.back_off = None; // gRFC A6: the next wait is the first one again
                    Verdict::Retry { after }
                }
                None => Verdict::Stop(Stop::Pushback),
            },
            (RequestKind::Http, _) if header(RATE_LIMITED).is_some() => Verdict::Stop(Stop::Pushback),
            (RequestKind::Grpc | RequestKind::Http, _) => {
                let back_off = self.back_off.get_or_insert_with(|| BackOff::retry(&policy.back_off));
                Verdict::Retry { after: back_off.next(rng) }
            }
        }
    }

    /// Whether a transparent retry is due. An I/O error proves nothing: it comes without a proof, and is not refused.
    fn repeats(&mut self, ended: &Ended<'_>) -> bool {
        let once = match (ended.untouched, ended.outcome) {
            // Refused by our own side, or chosen in the moment in which its last connection was lost.
            (Some(Untouched::NeverSent), Outcome::Failed(Failure::Refused | Failure::Connect)) => {
                return true;
            }
            // A connection that goes away refuses nothing, and the next one has a pace of its own. gRFC A6 allows one
            // such repetition; a server that serves few requests per connection needs as many as it has callers.
            (Some(Untouched::GoneAway), Outcome::Failed(Failure::Refused)) => return true,
            (Some(Untouched::ByPeer), Outcome::Failed(Failure::Refused)) => true,
            (Some(Untouched::Reused), Outcome::Failed(Failure::Refused | Failure::Reset)) => true,
            _ => false,
        };
        // Once only: a peer that refuses twice is more likely broken than unlucky.
        once && !std::mem::replace(&mut self.repeated, true)
    }
}

/// How long one attempt may take; never a bound for gRPC, whose deadline covers all attempts (gRFC A44).
#[must_use]
pub fn attempt_timeout(policy: Option<&RetryPolicy>, kind: RequestKind) -> Option<Duration> {
    match kind {
        RequestKind::Grpc => None,
        RequestKind::Http => policy?.per_try_timeout.filter(|t| !t.is_zero()),
    }
}

fn most_attempts(policy: &RetryPolicy, kind: RequestKind) -> u32 {
    let attempts = policy.num_retries.saturating_add(1);
    match kind {
        RequestKind::Grpc => attempts.min(GRPC_ATTEMPTS),
        RequestKind::Http => attempts,
    }
}

/// The wait that the server asks for; none if it asks for no retry, or says what cannot be read.
fn pushback(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let millis = text.parse::<i32>().ok()?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}
