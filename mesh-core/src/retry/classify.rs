//! Which ends of an attempt are worth another one.

use http::{HeaderMap, Method, StatusCode};

use super::policy::Ended;
use crate::config::retry::{RetryOn, RetryPolicy};
use crate::matcher::header::{HeaderMatcher, MatchedHeader};
use crate::outcome::{Failure, GrpcCode, Outcome};
use crate::request::{RequestHead, RequestKind, Target};

/// Why a request may be repeated without a policy: the peer's application never saw it, or does not mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Untouched {
    /// The whole request was handed back: nothing of it was written.
    NeverSent,
    /// The peer said so: REFUSED_STREAM.
    ByPeer,
    /// The connection went away, and its peer said that it did nothing: GOAWAY below our stream.
    GoneAway,
    /// HTTP/1.1: a reused connection ended before any byte of a response ([`Self::of_reused`]).
    Reused,
}

// === impl Untouched ===

impl Untouched {
    /// A reused HTTP/1.1 connection ended before any byte of a response: most likely the peer had closed it while it
    /// was idle. The request may be repeated if nothing of it was written, or if its method is safe (GET, HEAD, OPTIONS,
    /// TRACE; RFC 9110 §9.2.1) and it has no body. One that is only idempotent may not: the second DELETE finds nothing,
    /// and the second PUT may undo what somebody else has done in between.
    #[must_use]
    pub fn of_reused(written: bool, method: &Method, has_body: bool) -> Option<Self> {
        (!written || (method.is_safe() && !has_body)).then_some(Self::Reused)
    }
}

/// The gRPC status of an attempt that failed before it was committed; none if it is committed or has succeeded.
#[must_use]
pub(super) fn grpc_code(outcome: Outcome) -> Option<GrpcCode> {
    match outcome {
        Outcome::Response { grpc: Some(GrpcCode::OK), .. } | Outcome::Cancelled => None,
        Outcome::Response { grpc: Some(code), .. } => Some(code),
        // Response headers without a status commit a call (gRFC A6), unless they are no gRPC response at all.
        Outcome::Response { http: StatusCode::OK, grpc: None } => None,
        Outcome::Response { http, grpc: None } => Some(GrpcCode::of_http(http)),
        Outcome::Failed(Failure::Deadline) => Some(GrpcCode::DEADLINE_EXCEEDED),
        Outcome::Failed(Failure::RemoteReset(code)) => Some(code),
        Outcome::Failed(_) => Some(GrpcCode::UNAVAILABLE),
    }
}

/// Whether a policy counts this end among those that it retries.
pub(super) fn retriable(policy: &RetryPolicy, ended: &Ended<'_>) -> bool {
    match (ended.kind, ended.outcome) {
        (_, Outcome::Cancelled | Outcome::Failed(Failure::Local | Failure::Deadline)) => false,
        (RequestKind::Grpc, outcome) => {
            grpc_code(outcome).is_some_and(|code| policy.on.intersects(grpc_condition(code)))
        }
        (RequestKind::Http, Outcome::Response { http, .. }) => http_response(policy, http, ended.headers),
        (RequestKind::Http, Outcome::Failed(failure)) => policy.on.intersects(http_conditions(failure)),
    }
}

fn grpc_condition(code: GrpcCode) -> RetryOn {
    match code {
        GrpcCode::CANCELLED => RetryOn::CANCELLED,
        GrpcCode::DEADLINE_EXCEEDED => RetryOn::DEADLINE_EXCEEDED,
        GrpcCode::INTERNAL => RetryOn::INTERNAL,
        GrpcCode::RESOURCE_EXHAUSTED => RetryOn::RESOURCE_EXHAUSTED,
        GrpcCode::UNAVAILABLE => RetryOn::UNAVAILABLE,
        _ => RetryOn::NONE,
    }
}

fn http_response(policy: &RetryPolicy, status: StatusCode, headers: Option<&HeaderMap>) -> bool {
    let on = policy.on;
    let code = status.as_u16();
    (on.intersects(RetryOn::SERVER_ERROR) && status.is_server_error())
        || (on.intersects(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&code))
        || (on.intersects(RetryOn::RETRIABLE_4XX) && status == StatusCode::CONFLICT)
        || (on.intersects(RetryOn::RETRIABLE_STATUS_CODES) && policy.retriable_status_codes.contains(&status))
        || (on.intersects(RetryOn::RETRIABLE_HEADERS)
            && headers.is_some_and(|h| policy.retriable_headers.iter().any(|m| has(m, h))))
}

/// The conditions that an attempt without a response fulfils.
fn http_conditions(failure: Failure) -> RetryOn {
    let reset = RetryOn::SERVER_ERROR.union(RetryOn::GATEWAY_ERROR).union(RetryOn::RESET);
    match failure {
        Failure::Connect => reset.union(RetryOn::CONNECT_FAILURE).union(RetryOn::RESET_BEFORE_REQUEST),
        Failure::Refused => reset.union(RetryOn::REFUSED_STREAM),
        Failure::Reset | Failure::RemoteReset(_) | Failure::PerTryTimeout => reset,
        Failure::Deadline | Failure::Local => RetryOn::NONE,
    }
}

/// Whether the headers of a response satisfy a rule. A response has no method, path or authority to match.
fn has(matcher: &HeaderMatcher, headers: &HeaderMap) -> bool {
    let MatchedHeader::Name(_) = matcher.name else { return false };
    let head = RequestHead {
        method: &Method::GET,
        scheme: "",
        authority: "",
        target: Target::new(""),
        headers,
        kind: RequestKind::Http,
        trusts_forwarded_for: false,
    };
    matcher.is_match(&head)
}
