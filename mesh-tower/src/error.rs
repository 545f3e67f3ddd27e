//! The public error: opaque, with predicates. Its text is for people and not API.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use mesh_core::error::{Origin, Reason, Rejection};
use mesh_core::outcome::{Failure, GrpcCode, ResponseFlags};

use crate::body::BodyError;
use crate::cause::{self, Cause};

/// Why the mesh could not do what it was asked for. A few words wide, cheap to clone.
///
/// Display is one line for operators: what happened, and with whom. `Debug` is the same line, because that is what `main`
/// prints of an error that it returns; `{:#?}` shows the parts. The sources lead to the cause: an [`io::Error`], rustls's
/// error with its alert, `h2::Error`, or the [`ConfigError`] of a resource that is missing.
///
/// In an axum handler it is a response (feature `axum`), in a tonic handler a status (feature `tonic`); neither tells the
/// caller more than response flags and a few words, but where
/// [`MeshBuilder::detailed_local_replies`](crate::MeshBuilder::detailed_local_replies) says so.
///
/// [`io::Error`]: std::io::Error
/// [`ConfigError`]: mesh_core::snapshot::ConfigError
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    /// The first of the sources, where somebody looks for one of its type.
    status: Option<Cause>,
    /// Whether its detail may be shown to whoever made the request.
    detailed: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A request could not be served.
    Request(Rejection),
    /// A request could not be built by the application.
    Unbuilt(Arc<http::Error>),
    /// The mesh itself could not be built, or be used here.
    Setup(Arc<str>),
    /// The same, because of something else.
    SetupFailed(Cause),
}

// === impl Error ===

impl Error {
    pub(crate) fn setup(what: impl Into<Arc<str>>) -> Self {
        Kind::Setup(what.into()).into()
    }

    pub(crate) fn setup_failed(cause: impl StdError + Send + Sync + 'static) -> Self {
        Kind::SetupFailed(Arc::new(cause)).into()
    }

    pub(crate) fn of(rejection: Rejection, detailed: bool) -> Self {
        Self { detailed, ..Self::from(rejection) }
    }

    /// The same, with a source that stands before its own.
    #[cfg(feature = "tonic")]
    pub(crate) fn with_status(mut self, status: Cause) -> Self {
        self.status = Some(status);
        self
    }

    /// What it comes from.
    #[cfg(feature = "tonic")]
    pub(crate) fn cause(&self) -> Option<Cause> {
        match &self.kind {
            Kind::Request(rejection) => rejection.cause().cloned(),
            Kind::Unbuilt(error) => Some(error.clone()),
            Kind::Setup(_) => None,
            Kind::SetupFailed(cause) => Some(cause.clone()),
        }
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
        matches!(
            self.reason(),
            Some(Reason::NoRoute | Reason::UnknownTarget | Reason::NoCluster | Reason::NoConfiguration)
        )
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
        Some(self.rejection()?.reason())
    }

    /// Envoy's response flags.
    #[must_use]
    pub fn flags(&self) -> ResponseFlags {
        self.rejection().map_or(ResponseFlags::NONE, Rejection::flags)
    }

    /// The gRPC status that a caller sees.
    #[must_use]
    pub fn grpc_code(&self) -> GrpcCode {
        match &self.kind {
            Kind::Request(rejection) => rejection.reason().grpc_code(),
            Kind::Unbuilt(_) => GrpcCode::INTERNAL,
            Kind::Setup(_) | Kind::SetupFailed(_) => GrpcCode::UNAVAILABLE,
        }
    }

    /// The status that a caller of plain HTTP sees.
    #[must_use]
    pub fn http_status(&self) -> StatusCode {
        match self.reason() {
            Some(reason) => reason.http_status(),
            None => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What may be said to whoever made the request.
    #[cfg(any(feature = "axum", feature = "tonic"))]
    pub(crate) fn public_text(&self) -> String {
        match &self.kind {
            _ if self.detailed => self.to_string(),
            Kind::Request(rejection) => rejection.public().to_string(),
            Kind::Unbuilt(_) => "a request could not be built".to_owned(),
            Kind::Setup(_) | Kind::SetupFailed(_) => "the mesh cannot be used".to_owned(),
        }
    }

    fn rejection(&self) -> Option<&Rejection> {
        match &self.kind {
            Kind::Request(rejection) => Some(rejection),
            Kind::Unbuilt(_) | Kind::Setup(_) | Kind::SetupFailed(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Request(rejection) => rejection.fmt(f),
            Kind::Unbuilt(error) => write!(f, "the request could not be built: {error}"),
            Kind::Setup(what) => f.write_str(what),
            Kind::SetupFailed(cause) => cause.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.debug_struct("Error").field("kind", &self.kind).finish_non_exhaustive();
        }
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        if let Some(status) = &self.status {
            return Some(&**status);
        }
        match &self.kind {
            Kind::Request(rejection) => rejection.source(),
            Kind::Unbuilt(error) => Some(&**error),
            Kind::Setup(_) => None,
            Kind::SetupFailed(cause) => Some(&**cause),
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self { kind, status: None, detailed: false }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Kind::Request(rejection).into()
    }
}

/// A request that the application could not build: `Request::get(uri).body(…)?`.
impl From<http::Error> for Error {
    fn from(error: http::Error) -> Self {
        Kind::Unbuilt(Arc::new(error)).into()
    }
}

/// A response that broke off: `response.into_body().collect().await?`.
impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        let reason = error.reason().unwrap_or(Reason::UpstreamReset);
        match error.into_source().downcast::<Self>() {
            Ok(own) => *own,
            Err(source) => {
                let detail = source.to_string();
                Rejection::new(reason).with_detail(detail).with_source(cause::of(source)).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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

    #[test]
    fn what_main_prints_is_one_line_for_people() {
        let rejection = Rejection::new(Reason::ConnectFailed).with_detail("10.0.0.1:80: refused");
        for (error, line) in [
            (Error::from(rejection), "no connection to the upstream: 10.0.0.1:80: refused"),
            (Error::setup("the mesh was shut down"), "the mesh was shut down"),
            (Error::setup_failed(io::Error::other("no such file")), "no such file"),
            (http_error().into(), "the request could not be built: invalid uri character"),
        ] {
            assert_eq!((format!("{error:?}"), error.to_string()), (line.to_owned(), line.to_owned()));
            assert!(format!("{error:#?}").starts_with("Error {"), "{error:#?}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_built_is_a_fault_of_the_application() {
        let error = Error::from(http_error());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (500, GrpcCode::INTERNAL));
        assert!(error.is_local() && !error.may_retry());
        assert!(error.source().is_some_and(|source| source.is::<http::Error>()));
    }

    #[test]
    fn an_error_of_a_body_is_what_broke_it_off() {
        let own = BodyError::new(Error::from(Rejection::new(Reason::DeadlineExceeded)));
        assert!(Error::from(own).is_timeout());
        let broken = Error::from(BodyError::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(broken.reason(), Some(Reason::UpstreamReset));
        let source = broken.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::ConnectionReset));
    }

    fn http_error() -> http::Error {
        http::Request::get("no uri at all").body(()).unwrap_err()
    }
}
