//! A refusal of the mesh: what happened, whose fault it is, whether trying again can help.
//!
//! Three axes (reason, origin, retryability) that every layer of the data path shares. The only place that turns a
//! [`Rejection`] into HTTP or gRPC is `mesh-tower`'s `local_reply`.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::outcome::{Failure, GrpcCode, ResponseFlags};

/// A request that cannot be served.
#[derive(Debug, Clone)]
pub struct Rejection {
    reason: Reason,
    detail: Option<Arc<str>>,
    more_flags: ResponseFlags,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No virtual host or no route matches, or the target does not exist.
    NoRoute,
    /// The route names a cluster that does not exist or is invalid.
    NoCluster,
    /// The configuration has not arrived, or is invalid, or the control plane cannot be reached.
    NoConfiguration,
    /// Too many callers wait for the first configuration.
    TooManyWaiting,
    /// The cluster has no endpoint that may be used.
    NoHealthyUpstream,
    /// A circuit breaker is open: requests, pending, connections or retries.
    Overflow,
    /// `drop_overloads`.
    Dropped,
    /// No connection could be made.
    ConnectFailed,
    /// The peer provably did not process the request.
    UpstreamRefused,
    /// The connection or stream ended before a response.
    UpstreamReset,
    /// The peer broke the protocol.
    UpstreamProtocol,
    /// One attempt took too long.
    PerTryTimeout,
    /// The deadline of the request, or the route's timeout.
    DeadlineExceeded,
    /// `max_stream_duration`.
    MaxStreamDuration,
    /// Policy says no: RBAC.
    Denied,
    /// The server has no identity of the peer, and policy needs one.
    Unauthenticated,
    /// A server-side limit on streams or connections.
    ServerOverload,
    /// The route's action is for the other side, or one that this side does not serve.
    UnsupportedAction,
    /// The request body failed while it was being sent.
    RequestBody,
    /// The caller went away.
    Cancelled,
    /// The mesh was shut down.
    ShutDown,
    /// The request itself is malformed.
    BadRequest,
}

/// Whose fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Ours, or our configuration's.
    Local,
    /// The peer that we call.
    Upstream,
    /// The peer that calls us.
    Downstream,
}

// === impl Rejection ===

impl Rejection {
    /// A refusal for this reason.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason, detail: None, more_flags: ResponseFlags::NONE }
    }

    /// The same, with what a person needs to know: node id, resource name, last error.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Arc<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same, with further flags (retries used up).
    #[must_use]
    pub fn with_flags(mut self, flags: ResponseFlags) -> Self {
        self.more_flags = self.more_flags.union(flags);
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What a person needs to know.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Whose fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.reason.origin()
    }

    /// Envoy's flags.
    #[must_use]
    pub fn flags(&self) -> ResponseFlags {
        self.reason.flags().union(self.more_flags)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.message())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

// === impl Reason ===

impl Reason {
    /// Whose fault.
    #[must_use]
    pub fn origin(self) -> Origin {
        self.row().1
    }

    /// The status that a caller of plain HTTP sees.
    #[must_use]
    pub fn http_status(self) -> StatusCode {
        StatusCode::from_u16(self.row().2).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// The status that a gRPC caller sees.
    #[must_use]
    pub fn grpc_code(self) -> GrpcCode {
        self.row().3
    }

    /// Envoy's flag.
    #[must_use]
    pub fn flags(self) -> ResponseFlags {
        self.row().4
    }

    /// Envoy's `response_code_details`.
    #[must_use]
    pub fn details(self) -> &'static str {
        self.row().5
    }

    /// What happened, in words.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.row().6
    }

    /// What the retry policy makes of it; none where no attempt was made or the caller is gone.
    #[must_use]
    pub fn failure(self) -> Failure {
        match self {
            Self::ConnectFailed => Failure::Connect,
            Self::UpstreamRefused => Failure::Refused,
            Self::UpstreamReset | Self::UpstreamProtocol => Failure::Reset,
            Self::PerTryTimeout => Failure::PerTryTimeout,
            Self::DeadlineExceeded | Self::MaxStreamDuration => Failure::Deadline,
            _ => Failure::Local,
        }
    }

    fn row(self) -> &'static Row {
        // A test holds the table to the order of the variants.
        &ROWS[self as usize]
    }
}

/// One row of the table of reasons: origin, HTTP status, gRPC code, flag, Envoy's `response_code_details`, words.
type Row = (Reason, Origin, u16, GrpcCode, ResponseFlags, &'static str, &'static str);

type R = Reason;
type G = GrpcCode;
type F = ResponseFlags;

/// Everything that follows from a reason, in the order of its variants.
#[rustfmt::skip]
static ROWS: [Row; 22] = [
    (R::NoRoute, Origin::Local, 404, G::UNAVAILABLE, F::NO_ROUTE_FOUND, "route_not_found", "no route"),
    (R::NoCluster, Origin::Local, 503, G::UNAVAILABLE, F::NO_CLUSTER_FOUND, "cluster_not_found", "no such cluster"),
    (R::NoConfiguration, Origin::Local, 503, G::UNAVAILABLE, F::NO_ROUTE_FOUND, "no_configuration", "no configuration"),
    (R::TooManyWaiting, Origin::Local, 503, G::UNAVAILABLE, F::OVERLOAD_MANAGER, "too_many_waiting", "too many callers wait for the first configuration"),
    (R::NoHealthyUpstream, Origin::Local, 503, G::UNAVAILABLE, F::NO_HEALTHY_UPSTREAM, "no_healthy_upstream", "no healthy upstream"),
    (R::Overflow, Origin::Local, 503, G::UNAVAILABLE, F::UPSTREAM_OVERFLOW, "overflow", "circuit breaker open"),
    (R::Dropped, Origin::Local, 503, G::UNAVAILABLE, F::DROP_OVERLOAD, "drop_overload", "dropped by the control plane"),
    (R::ConnectFailed, Origin::Upstream, 503, G::UNAVAILABLE, F::UPSTREAM_CONNECTION_FAILURE, "upstream_reset_before_response_started{connection_failure}", "no connection to the upstream"),
    (R::UpstreamRefused, Origin::Upstream, 503, G::UNAVAILABLE, F::UPSTREAM_REMOTE_RESET, "upstream_reset_before_response_started{remote_refused_stream_reset}", "the upstream refused the stream"),
    (R::UpstreamReset, Origin::Upstream, 503, G::UNAVAILABLE, F::UPSTREAM_CONNECTION_TERMINATION, "upstream_reset_before_response_started{connection_termination}", "the upstream ended the stream"),
    (R::UpstreamProtocol, Origin::Upstream, 502, G::UNAVAILABLE, F::UPSTREAM_PROTOCOL_ERROR, "upstream_reset_before_response_started{protocol_error}", "the upstream broke the protocol"),
    (R::PerTryTimeout, Origin::Upstream, 504, G::UNAVAILABLE, F::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_timeout", "the attempt timed out"),
    (R::DeadlineExceeded, Origin::Upstream, 504, G::DEADLINE_EXCEEDED, F::UPSTREAM_REQUEST_TIMEOUT, "upstream_response_timeout", "deadline exceeded"),
    (R::MaxStreamDuration, Origin::Upstream, 504, G::DEADLINE_EXCEEDED, F::UPSTREAM_MAX_STREAM_DURATION_REACHED, "upstream_max_stream_duration_reached", "maximum stream duration reached"),
    (R::Denied, Origin::Downstream, 403, G::PERMISSION_DENIED, F::UNAUTHORIZED, "rbac_access_denied", "denied by policy"),
    (R::Unauthenticated, Origin::Downstream, 403, G::PERMISSION_DENIED, F::UNAUTHORIZED, "peer_not_identified", "the peer of the connection is not known"),
    (R::ServerOverload, Origin::Local, 503, G::UNAVAILABLE, F::OVERLOAD_MANAGER, "overload", "the server is at its limit"),
    (R::UnsupportedAction, Origin::Local, 503, G::UNAVAILABLE, F::NO_ROUTE_FOUND, "route_action_unsupported", "the route's action is not for this side"),
    (R::RequestBody, Origin::Downstream, 503, G::CANCELLED, F::DOWNSTREAM_CONNECTION_TERMINATION, "request_body_failed", "the request body failed"),
    (R::Cancelled, Origin::Downstream, 499, G::CANCELLED, F::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect", "the caller went away"),
    (R::ShutDown, Origin::Local, 503, G::UNAVAILABLE, F::OVERLOAD_MANAGER, "shutting_down", "shutting down"),
    (R::BadRequest, Origin::Downstream, 400, G::INTERNAL, F::NONE, "bad_request", "malformed request"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_finds_its_own_row() {
        for (position, row) in ROWS.iter().enumerate() {
            assert_eq!(row.0 as usize, position, "{:?}", row.0);
            assert!(std::ptr::eq(row.0.row(), row));
        }
        assert_eq!(ROWS.len(), Reason::BadRequest as usize + 1, "BadRequest is the last variant");
    }

    #[test]
    fn every_reason_can_be_told_from_every_other() {
        let details: HashSet<&str> = ROWS.iter().map(|row| row.0.details()).collect();
        let messages: HashSet<&str> = ROWS.iter().map(|row| row.0.message()).collect();
        assert_eq!((details.len(), messages.len()), (ROWS.len(), ROWS.len()));
    }

    #[test]
    fn every_reason_is_an_error_for_both_kinds_of_caller_and_has_a_flag() {
        for &(reason, _, http, code, flags, ..) in &ROWS {
            assert_eq!(reason.http_status().as_u16(), http);
            assert!(reason.http_status().is_client_error() || reason.http_status().is_server_error());
            assert_ne!(code, GrpcCode::OK, "{reason:?}");
            // Envoy marks a malformed request by its details alone.
            assert_eq!(flags.is_empty(), reason == Reason::BadRequest, "{reason:?}");
        }
    }

    #[test]
    fn a_rejection_says_what_happened_and_adds_flags_to_its_reasons() {
        let rejection = Rejection::new(Reason::ConnectFailed)
            .with_detail("10.0.0.1:80: refused")
            .with_flags(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        assert!(rejection.to_string().ends_with(": 10.0.0.1:80: refused"));
        assert_eq!(rejection.flags().to_string(), "UF,URX");
        assert_eq!(rejection.origin(), Origin::Upstream);
    }

    #[test]
    fn only_what_an_upstream_did_is_shown_to_the_retry_policy() {
        for &(reason, origin, ..) in &ROWS {
            assert_eq!(reason.failure() == Failure::Local, origin != Origin::Upstream, "{reason:?}");
        }
    }
}
