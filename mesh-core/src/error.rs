//! A refusal of the mesh: what happened, whose fault it is, whether trying again can help.
//!
//! Three axes (reason, origin, retryability) that every layer of the data path shares. The only place that turns a
//! [`Rejection`] into HTTP or gRPC is `mesh-tower`'s `local_reply`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::outcome::{Failure, GrpcCode, ResponseFlags};

/// A request that cannot be served.
#[derive(Debug, Clone)]
pub struct Rejection {
    reason: Reason,
    /// One word: refusals travel through every layer's `Result`.
    more: Option<Arc<More>>,
}

/// What is known beyond the reason.
#[derive(Debug, Clone, Default)]
struct More {
    detail: Option<Arc<str>>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No virtual host or no route matches, or the routes of the target do not exist.
    NoRoute,
    /// The control plane does not know the target.
    UnknownTarget,
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
    /// The route's action is for the other side: a client's for the application, a server's for a cluster.
    UnsupportedAction,
    /// The request body failed while it was being sent.
    RequestBody,
    /// The caller went away.
    Cancelled,
    /// The mesh was shut down.
    ShutDown,
    /// The request itself is malformed.
    BadRequest,
    /// The head of the request is larger than what is accepted.
    HeadersTooLarge,
    /// The head or the trailers of the response are larger than what is accepted.
    UpstreamHeadersTooLarge,
    /// `stream_idle_timeout`: nothing was sent either way for too long.
    StreamIdle,
    /// `request_timeout`: the caller took too long to send its request.
    RequestTimeout,
    /// `max_headers_count`.
    TooManyHeaders,
    /// The peer reset the stream with an error, or before its time: RST_STREAM.
    UpstreamRemoteReset,
    /// The peer reset the stream with CANCEL.
    UpstreamCancelled,
    /// The peer reset the stream with ENHANCE_YOUR_CALM.
    UpstreamCalm,
    /// The peer reset the stream with INADEQUATE_SECURITY.
    UpstreamSecurity,
    /// The route's action is not implemented.
    UnimplementedAction,
}

/// Whose fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
        Self { reason, more: None }
    }

    /// The same, with what a person needs to know: node id, resource name, last error.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Arc<str>>) -> Self {
        self.more().detail = Some(detail.into());
        self
    }

    /// The same, with the error that it comes from, which [`Error::source`] gives.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Error + Send + Sync>) -> Self {
        self.more().source = Some(source);
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
        self.more.as_ref()?.detail.as_deref()
    }

    /// The error that it comes from.
    #[must_use]
    pub fn cause(&self) -> Option<&Arc<dyn Error + Send + Sync>> {
        self.more.as_ref()?.source.as_ref()
    }

    /// Whose fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.reason.origin()
    }

    /// Envoy's flags.
    #[must_use]
    pub fn flags(&self) -> ResponseFlags {
        self.reason.flags()
    }

    /// What may be said to whoever made the request: flags and a few words, and nothing of our configuration.
    #[must_use]
    pub fn public(&self) -> Public<'_> {
        Public(self)
    }

    fn more(&mut self) -> &mut More {
        Arc::make_mut(self.more.get_or_insert_default())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.message())?;
        match self.detail() {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.cause()?)
    }
}

/// The text of a [`Rejection`] for whoever made the request: `UF: no connection to the upstream`.
#[derive(Debug, Clone, Copy)]
pub struct Public<'a>(&'a Rejection);

impl fmt::Display for Public<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.0.flags();
        if !flags.is_empty() {
            write!(f, "{flags}: ")?;
        }
        f.write_str(self.0.reason.message())
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

// === impl Reason ===

impl Reason {
    /// How many there are: each is below it as a number.
    pub const COUNT: usize = Self::UnimplementedAction as usize + 1;

    /// What a peer's RST_STREAM with this code means, before and after the head of its response (gRPC's table of HTTP/2
    /// error codes). REFUSED_STREAM proves something only before it, and is no reset where it does. An unknown code is as
    /// good as INTERNAL_ERROR (RFC 9113 §7).
    #[must_use]
    pub const fn of_reset(code: u32) -> Self {
        match code {
            0x7 => Self::UpstreamReset,
            0x8 => Self::UpstreamCancelled,
            0xb => Self::UpstreamCalm,
            0xc => Self::UpstreamSecurity,
            _ => Self::UpstreamRemoteReset,
        }
    }

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
            Self::UpstreamReset | Self::UpstreamProtocol | Self::UpstreamHeadersTooLarge => Failure::Reset,
            Self::UpstreamRemoteReset
            | Self::UpstreamCancelled
            | Self::UpstreamCalm
            | Self::UpstreamSecurity => Failure::RemoteReset(self.grpc_code()),
            Self::PerTryTimeout => Failure::PerTryTimeout,
            Self::DeadlineExceeded | Self::MaxStreamDuration => Failure::Deadline,
            _ => Failure::Local,
        }
    }

    /// The error type of RFC 9209 (`proxy-status`), assigned as Envoy assigns its flags.
    #[must_use]
    pub fn proxy_error(self) -> &'static str {
        match self {
            Self::NoRoute | Self::UnknownTarget => "destination_not_found",
            Self::NoCluster | Self::NoHealthyUpstream => "destination_unavailable",
            Self::NoConfiguration | Self::UnsupportedAction | Self::UnimplementedAction => {
                "proxy_configuration_error"
            }
            Self::TooManyWaiting | Self::ServerOverload | Self::ShutDown => "proxy_internal_response",
            Self::Overflow | Self::Dropped => "connection_limit_reached",
            Self::ConnectFailed => "connection_refused",
            Self::UpstreamRefused
            | Self::UpstreamReset
            | Self::UpstreamRemoteReset
            | Self::UpstreamCancelled
            | Self::UpstreamCalm
            | Self::UpstreamSecurity => "connection_terminated",
            Self::UpstreamProtocol => "http_protocol_error",
            Self::UpstreamHeadersTooLarge => "http_response_header_section_size",
            Self::PerTryTimeout | Self::DeadlineExceeded | Self::MaxStreamDuration | Self::StreamIdle => {
                "http_response_timeout"
            }
            Self::Denied | Self::Unauthenticated => "http_request_denied",
            Self::RequestBody
            | Self::Cancelled
            | Self::BadRequest
            | Self::HeadersTooLarge
            | Self::TooManyHeaders
            | Self::RequestTimeout => "http_request_error",
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
static ROWS: [Row; Reason::COUNT] = [
    (R::NoRoute, Origin::Local, 404, G::UNAVAILABLE, F::NO_ROUTE_FOUND, "route_not_found", "no route"),
    (R::UnknownTarget, Origin::Local, 404, G::UNAVAILABLE, F::NO_ROUTE_FOUND, "target_not_found", "no such target"),
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
    (R::HeadersTooLarge, Origin::Downstream, 431, G::RESOURCE_EXHAUSTED, F::DOWNSTREAM_PROTOCOL_ERROR, "request_headers_too_large", "the headers of the request are too large"),
    (R::UpstreamHeadersTooLarge, Origin::Upstream, 502, G::RESOURCE_EXHAUSTED, F::UPSTREAM_PROTOCOL_ERROR, "upstream_headers_too_large", "the headers or trailers of the response are too large"),
    (R::StreamIdle, Origin::Downstream, 408, G::DEADLINE_EXCEEDED, F::STREAM_IDLE_TIMEOUT, "stream_idle_timeout", "the stream was idle for too long"),
    (R::RequestTimeout, Origin::Downstream, 408, G::DEADLINE_EXCEEDED, F::NONE, "request_overall_timeout", "the request took too long to arrive"),
    (R::TooManyHeaders, Origin::Downstream, 431, G::RESOURCE_EXHAUSTED, F::DOWNSTREAM_PROTOCOL_ERROR, "too_many_headers", "too many headers"),
    (R::UpstreamRemoteReset, Origin::Upstream, 503, G::INTERNAL, F::UPSTREAM_REMOTE_RESET, "upstream_reset_before_response_started{remote_reset}", "the upstream reset the stream"),
    (R::UpstreamCancelled, Origin::Upstream, 503, G::CANCELLED, F::UPSTREAM_REMOTE_RESET, "upstream_reset_before_response_started{remote_reset,cancel}", "the upstream cancelled the stream"),
    (R::UpstreamCalm, Origin::Upstream, 503, G::RESOURCE_EXHAUSTED, F::UPSTREAM_REMOTE_RESET, "upstream_reset_before_response_started{remote_reset,enhance_your_calm}", "the upstream has too much of our streams"),
    (R::UpstreamSecurity, Origin::Upstream, 503, G::PERMISSION_DENIED, F::UPSTREAM_REMOTE_RESET, "upstream_reset_before_response_started{remote_reset,inadequate_security}", "the connection is not secure enough for the upstream"),
    (R::UnimplementedAction, Origin::Local, 503, G::UNAVAILABLE, F::NO_ROUTE_FOUND, "route_action_unimplemented", "the route's action is not implemented"),
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
        assert_eq!(
            ROWS.len(),
            Reason::UnimplementedAction as usize + 1,
            "UnimplementedAction is the last variant"
        );
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
            // Envoy marks what is the matter with a request itself by its details alone.
            let of_request = [R::BadRequest, R::RequestTimeout].contains(&reason);
            assert_eq!(flags.is_empty(), of_request, "{reason:?}");
        }
    }

    #[test]
    fn a_rejection_says_what_happened_by_the_flags_of_its_reason() {
        let rejection = Rejection::new(Reason::ConnectFailed).with_detail("10.0.0.1:80: refused");
        assert!(rejection.to_string().ends_with(": 10.0.0.1:80: refused"));
        assert_eq!(rejection.flags().to_string(), "UF");
        assert_eq!(rejection.public().to_string(), "UF: no connection to the upstream");
        assert_eq!(Rejection::new(Reason::BadRequest).public().to_string(), "malformed request");
        assert_eq!(rejection.origin(), Origin::Upstream);
    }

    #[test]
    fn a_reset_is_the_status_that_grpc_has_for_its_code() {
        // gRPC over HTTP/2, "Errors"; where it has no mapping, grpc-go's.
        let codes = [
            (0x0, G::INTERNAL),
            (0x1, G::INTERNAL),
            (0x2, G::INTERNAL),
            (0x3, G::INTERNAL),
            (0x4, G::INTERNAL),
            (0x5, G::INTERNAL),
            (0x6, G::INTERNAL),
            (0x7, G::UNAVAILABLE),
            (0x8, G::CANCELLED),
            (0x9, G::INTERNAL),
            (0xa, G::INTERNAL),
            (0xb, G::RESOURCE_EXHAUSTED),
            (0xc, G::PERMISSION_DENIED),
            (0xd, G::INTERNAL),
            (0xe, G::INTERNAL),
            (u32::MAX, G::INTERNAL),
        ];
        for (code, status) in codes {
            let reason = Reason::of_reset(code);
            assert_eq!((reason.grpc_code(), reason.http_status().as_u16()), (status, 503), "{code:#x}");
            assert_ne!(reason.failure(), Failure::Refused, "{code:#x}: a reset alone proves nothing");
        }
    }

    #[test]
    fn a_rejection_keeps_the_error_that_it_comes_from() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let rejection = Rejection::new(Reason::ConnectFailed).with_source(Arc::new(refused)).with_detail("x");
        let source = rejection.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(
            (rejection.detail(), Rejection::new(Reason::NoRoute).source().is_none()),
            (Some("x"), true)
        );
    }

    #[test]
    fn only_what_an_upstream_did_is_shown_to_the_retry_policy() {
        for &(reason, origin, ..) in &ROWS {
            assert_eq!(reason.failure() == Failure::Local, origin != Origin::Upstream, "{reason:?}");
        }
    }
}
