//! Why a request failed below the balancer, and what the peer can have seen of it.
//!
//! The retry layer decides; this module only states facts ([`Progress`]), and hands the request back where it
//! never left. An I/O error proves nothing about the peer: such a request counts as sent.

use std::fmt;
use std::sync::Arc;

use crate::body::{Body, BoxError};
use crate::cause::{self, Cause};

/// What the peer can have done with a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing left this process. [`SendError::take_request`] has the request, unless the connection died in
    /// the very moment of sending.
    NotSent,
    /// The peer said that it did nothing: REFUSED_STREAM, or GOAWAY with our stream above its last id.
    Unprocessed,
    /// HTTP/1.1: a reused connection ended before any byte of a response; the peer had probably closed it while
    /// it was idle. `written` tells whether any byte of the request was written.
    ReusedEnded {
        /// Whether any byte of the request was written to the socket.
        written: bool,
    },
    /// The peer may have processed the request.
    Sent,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The connection no longer takes requests (drained, closed, out of stream ids).
    Closed,
    /// The peer lowered its stream limit between lease and send.
    StreamLimit,
    /// RST_STREAM with REFUSED_STREAM.
    Refused,
    /// GOAWAY with a last stream id below ours.
    GoAway,
    /// RST_STREAM with this HTTP/2 error code.
    Reset(u32),
    /// The connection broke: an I/O error, the peer closed it, a missed keepalive PING.
    Io,
    /// The request body failed; the peer got a CANCEL.
    RequestBody,
    /// The request cannot be expressed in the protocol (for example without an authority).
    InvalidRequest,
    /// The peer broke the protocol.
    Protocol,
    /// The response head is larger than what is accepted.
    HeadTooLarge,
}

/// A request that got no response head.
///
/// One pointer wide, because it travels through every layer's `Result`.
pub struct SendError(Box<Inner>);

struct Inner {
    kind: FailureKind,
    progress: Progress,
    source: Option<Cause>,
    connection: Option<EndReason>,
    request: Option<http::Request<Body>>,
}

/// No connection could be had. Its source is an [`io::Error`](std::io::Error), a [`TlsError`](crate::tls::TlsError) or
/// rustls's error, where one of these is the reason.
#[derive(Debug, Clone)]
pub struct ConnectError {
    reason: Arc<str>,
    kind: ConnectFailure,
    source: Option<Cause>,
}

/// Why a connection ended.
#[derive(Debug, Clone)]
pub(crate) struct EndReason {
    text: Arc<str>,
    source: Option<Cause>,
}

/// The step of a connection attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The transport could not be opened (refused, unreachable, no such socket), or broke within the TLS handshake.
    Io,
    /// The attempt took longer than the connect timeout.
    Timeout,
    /// TLS: our identity or roots are missing, the handshake failed, or the peer's identity does not match.
    Tls,
    /// The peer does not speak the configured protocol.
    Protocol,
    /// The peer said GOAWAY before the connection took a request.
    GoneAway,
    /// No attempt was made: the cluster is at its limit of connections, or too many requests wait.
    Limit,
    /// The endpoint was removed while the request waited.
    Closed,
}

// === impl SendError ===

impl SendError {
    pub(crate) fn new(kind: FailureKind, progress: Progress) -> Self {
        Self(Box::new(Inner { kind, progress, source: None, connection: None, request: None }))
    }

    pub(crate) fn not_sent(kind: FailureKind, request: http::Request<Body>) -> Self {
        let mut error = Self::new(kind, Progress::NotSent);
        error.0.request = Some(request);
        error
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(cause::of(source.into()));
        self
    }

    /// The same, with the error of the byte stream as its source, if there was one.
    pub(crate) fn broken_by(mut self, broke: Option<&Cause>) -> Self {
        if let Some(broke) = broke {
            self.0.source = Some(broke.clone());
        }
        self
    }

    /// Adds why the connection as a whole ended.
    pub(crate) fn with_connection(mut self, reason: Option<EndReason>) -> Self {
        self.0.connection = reason;
        self
    }

    /// What caused it.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.0.source.as_ref().or_else(|| self.0.connection.as_ref()?.source.as_ref())
    }

    /// What went wrong.
    pub(crate) fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// What the peer can have done with the request.
    pub(crate) fn progress(&self) -> Progress {
        self.0.progress
    }

    /// The request, whole and with an untouched body, where nothing of it was sent.
    pub(crate) fn take_request(&mut self) -> Option<http::Request<Body>> {
        self.0.request.take()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            FailureKind::Closed => f.write_str("the connection takes no more requests")?,
            FailureKind::StreamLimit => f.write_str("the peer's stream limit is reached")?,
            FailureKind::Refused => f.write_str("the peer refused the stream")?,
            FailureKind::GoAway => f.write_str("the peer is going away and did not process the request")?,
            FailureKind::Reset(code) => write!(f, "the peer reset the stream with code {code:#x}")?,
            FailureKind::Io => f.write_str("the connection broke")?,
            FailureKind::RequestBody => f.write_str("the request body failed")?,
            FailureKind::InvalidRequest => f.write_str("the request cannot be sent over this protocol")?,
            FailureKind::Protocol => f.write_str("the peer broke the protocol")?,
            FailureKind::HeadTooLarge => f.write_str("the response head is too large")?,
        }
        self.0.connection.as_ref().map_or(Ok(()), |reason| write!(f, " ({})", reason.text))
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("kind", &self.0.kind)
            .field("progress", &self.0.progress)
            .field("source", &self.0.source)
            .field("connection", &self.0.connection)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().map(|cause| &**cause as _)
    }
}

// === impl ConnectError ===

impl ConnectError {
    pub(crate) fn new(kind: ConnectFailure, reason: impl Into<Arc<str>>) -> Self {
        Self { reason: reason.into(), kind, source: None }
    }

    /// The same, with what caused it.
    pub(crate) fn caused_by(mut self, source: Option<Cause>) -> Self {
        self.source = source;
        self
    }

    /// The end of a connection as a reason that there is none.
    pub(crate) fn of_end(EndReason { text, source }: EndReason) -> Self {
        Self { reason: text, kind: ConnectFailure::Io, source }
    }

    /// The step that failed.
    pub const fn kind(&self) -> ConnectFailure {
        self.kind
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|cause| &**cause as _)
    }
}

// === impl EndReason ===

impl EndReason {
    pub(crate) fn new(text: impl Into<Arc<str>>, source: Option<Cause>) -> Self {
        Self { text: text.into(), source }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
