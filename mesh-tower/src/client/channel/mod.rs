//! The channel: one Tower service for tonic clients, hyper code and axum handlers.
//!
//! It is always ready, because what a request needs is unknown until it is routed: load is bounded by the limits of
//! its cluster, not by readiness. A call costs one box for its future and one for what it carries.

mod future;
pub(crate) mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use mesh_core::deadline::caller_timeout;
use mesh_core::error::{Reason, Rejection};
use mesh_core::request::RequestKind;
use tokio::time::Instant;
use tower_service::Service;

pub use self::future::ResponseFuture;
use self::target::TargetAuthority;
use super::pin::Target;
use super::request::{Call, Shared};
use super::service::Service as _;
use super::stack::{ClientStack, compose};
use crate::body::{Body, BoxError};
use crate::context;
use crate::error::Error;
use crate::header_scan::HeaderScan;
use crate::local_reply::Side;

/// Calls one target through the mesh. Cheap to clone; clones share everything.
///
/// A request that cannot be served is answered: gRPC callers get a status, other callers an HTTP response, both with
/// the [`Error`] in the response's extensions. [`MeshChannel::strict`] gives it as `Err` instead.
#[derive(Clone)]
pub struct MeshChannel {
    inner: Arc<Inner>,
}

/// A [`MeshChannel`] that fails where the other answers.
#[derive(Debug, Clone)]
pub struct StrictChannel {
    channel: MeshChannel,
}

struct Inner {
    stack: ClientStack,
    target: Arc<Target>,
    authority: Arc<TargetAuthority>,
    shared: Arc<Shared>,
}

// === impl MeshChannel ===

impl MeshChannel {
    pub(crate) fn new(target: Arc<Target>, authority: TargetAuthority, shared: Arc<Shared>) -> Self {
        let stack = compose(target.clone(), &shared.runtime);
        Self { inner: Arc::new(Inner { stack, target, authority: Arc::new(authority), shared }) }
    }

    /// The same channel, which fails with an [`Error`] where this one answers on the mesh's behalf.
    #[must_use]
    pub fn strict(self) -> StrictChannel {
        StrictChannel { channel: self }
    }

    fn send<B>(&self, request: Request<B>, strict: bool) -> ResponseFuture
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let call = self.inner.start(request.map(Body::new));
        let inner = self.inner.clone();
        ResponseFuture::new(Box::pin(async move {
            let kind = call.kind;
            let outcome = if inner.shared.shut_down.load(Ordering::Relaxed) {
                Err(Rejection::new(Reason::ShutDown))
            } else {
                inner.stack.call(call).await
            };
            match outcome {
                Ok(response) => Ok(response),
                Err(rejection) if strict => Err(strict_error(kind, inner.shared.replies.error(rejection))),
                Err(rejection) => Ok(inner.shared.replies.reply(Side::Client, kind, rejection)),
            }
        }))
    }
}

/// tonic's client looks for a status among the sources of an error.
fn strict_error(kind: RequestKind, error: Error) -> Error {
    #[cfg(feature = "tonic")]
    let error = if kind == RequestKind::Grpc { crate::glue::tonic::with_status(error) } else { error };
    #[cfg(not(feature = "tonic"))]
    let _ = kind;
    error
}

impl<B> Service<Request<B>> for MeshChannel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.send(request, false)
    }
}

impl fmt::Debug for MeshChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshChannel").field("target", &self.inner.target).finish_non_exhaustive()
    }
}

// === impl StrictChannel ===

impl<B> Service<Request<B>> for StrictChannel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.channel.send(request, true)
    }
}

// === impl Inner ===

impl Inner {
    fn start(&self, request: Request<Body>) -> Box<Call> {
        let HeaderScan { kind, hosts, grpc_timeout, traceparent, .. } =
            HeaderScan::of_call(request.headers());
        let timeout = match kind {
            RequestKind::Grpc if grpc_timeout => caller_timeout(request.headers()),
            RequestKind::Grpc | RequestKind::Http => None,
        };
        self.shared.calls.begin();
        // Made where it stays: it is large.
        let place = Box::new_uninit();
        let call = Call {
            request,
            exchange: Default::default(),
            kind,
            has_host: hosts > 0,
            has_traceparent: traceparent,
            authority: self.authority.clone(),
            arrived: Instant::now(),
            timeout,
            inherited: context::deadline(),
            deadline: None,
            shared: self.shared.clone(),
            span: None,
            facts: Default::default(),
            answer: Default::default(),
        };
        Box::write(place, call)
    }
}
