//! The public error: opaque, with predicates. Its text is for people and not API.

use std::fmt;
use std::sync::Arc;

use mesh_core::error::{Origin, Reason, Rejection};
use mesh_core::outcome::{Failure, GrpcCode, ResponseFlags};

/// Why the mesh could not do what it was asked for. One pointer or so wide, cheap to clone.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A request could not be served.
    Request(Rejection),
    /// The mesh itself could not be built, or be used here.
    Setup(Arc<str>),
}

// === impl Error ===

impl Error {
    pub(crate) fn setup(what: impl Into<Arc<str>>) -> Self {
        Self { kind: Kind::Setup(what.into()) }
    }

    /// The deadline, a route's timeout or an attempt's timeout ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self.reason(),
            Some(Reason::DeadlineExceeded | Reason::MaxStreamDuration | Reason::PerTryTimeout)
        )
    }

    /// Nothing in the configuration says where the request goes.
    #[must_use]
    pub fn is_no_route(&self) -> bool {
        matches!(self.reason(), Some(Reason::NoRoute | Reason::NoCluster | Reason::NoConfiguration))
    }

    /// Our own decision or our own configuration, not a peer's doing.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.reason().is_none_or(|reason| reason.origin() == Origin::Local)
    }

    /// Policy refused it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.reason(), Some(Reason::Denied | Reason::Unauthenticated))
    }

    /// The peer provably did nothing, so that trying again is safe.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        let local =
            matches!(self.reason(), Some(Reason::Overflow | Reason::NoHealthyUpstream | Reason::Dropped));
        local || self.reason().is_some_and(|r| matches!(r.failure(), Failure::Connect | Failure::Refused))
    }

    /// Why, where a request was refused.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match &self.kind {
            Kind::Request(rejection) => Some(rejection.reason()),
            Kind::Setup(_) => None,
        }
    }

    /// Envoy's response flags.
    #[must_use]
    pub fn flags(&self) -> ResponseFlags {
        match &self.kind {
            Kind::Request(rejection) => rejection.flags(),
            Kind::Setup(_) => ResponseFlags::NONE,
        }
    }

    /// The gRPC status that a caller sees.
    #[must_use]
    pub fn grpc_code(&self) -> GrpcCode {
        self.reason().map_or(GrpcCode::UNAVAILABLE, Reason::grpc_code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Request(rejection) => rejection.fmt(f),
            Kind::Setup(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self { kind: Kind::Request(rejection) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_follow_the_reason() {
        let of = |reason: Reason| Error::from(Rejection::new(reason));
        assert!(of(Reason::DeadlineExceeded).is_timeout());
        assert!(of(Reason::NoRoute).is_no_route() && of(Reason::NoRoute).is_local());
        assert!(of(Reason::UpstreamRefused).may_retry() && !of(Reason::UpstreamReset).may_retry());
        assert!(!of(Reason::UpstreamReset).is_local());
        assert!(of(Reason::Denied).is_denied());
    }
}
