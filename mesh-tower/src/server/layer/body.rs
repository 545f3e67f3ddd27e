//! The body of a response: the application's, or the mesh's own; watched to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use mesh_core::error::Rejection;
use mesh_core::request::RequestKind;

use crate::body::{Body, BodyError, BoxError};
use crate::context::{self, MeshContext};
use crate::error::Error;
use crate::local_reply::Side;
use crate::server::deadline::Deadline;
use crate::server::exchange::Report;

/// A response body behind the server stack.
///
/// Dropping it before its end tells of the request as cancelled by the caller.
#[pin_project::pin_project(PinnedDrop)]
pub struct ResponseBody<B> {
    #[pin]
    inner: Inner<B>,
    report: Option<Report>,
    deadline: Option<Deadline>,
    /// Calls that the application makes while it streams inherit it.
    context: Option<MeshContext>,
    /// What is still to come by the length that the body announced.
    announced: Option<u64>,
}

/// What goes with the application's response to its end.
pub(super) struct Watch {
    pub(super) report: Report,
    pub(super) deadline: Option<Deadline>,
    pub(super) context: Option<MeshContext>,
}

#[pin_project::pin_project(project = InnerProj)]
enum Inner<B> {
    Application(#[pin] B),
    Mesh(Body),
    /// Cut off, or over.
    Ended,
}

// === impl ResponseBody ===

impl<B: http_body::Body<Data = Bytes>> ResponseBody<B> {
    pub(super) fn of_application(body: B, watch: Watch) -> Self {
        let Watch { mut report, deadline, context } = watch;
        let announced = body.size_hint().exact();
        if announced == Some(0) || body.is_end_stream() || report.is_bodiless() {
            // Nobody polls a body that is over.
            report.complete();
        }
        Self { inner: Inner::Application(body), report: Some(report), deadline, context, announced }
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn of_mesh(body: Body, mut report: Option<Report>) -> Self {
        if let Some(report) = &mut report {
            report.complete();
        }
        Self { inner: Inner::Mesh(body), report, deadline: None, context: None, announced: None }
    }

    /// The last frame, once the time of the request is up. Whoever cannot write what it was given polls this instead
    /// of [`poll_frame`](http_body::Body::poll_frame), so that a peer that does not read cannot hold the request.
    pub(crate) fn poll_time_up(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame<Bytes>, BodyError>> {
        let mut this = self.project();
        let Some(deadline) = this.deadline else { return Poll::Pending };
        let pace = this.report.as_ref().and_then(|report| report.exchange().pace());
        let rejection = ready!(deadline.poll_expired(pace, cx));
        this.inner.set(Inner::Ended);
        Poll::Ready(cut_off(this.report.take(), rejection))
    }
}

impl<B> http_body::Body for ResponseBody<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.as_mut().project();
        let polled = match this.inner.as_mut().project() {
            InnerProj::Application(body) => {
                context::within(this.context, || body.poll_frame(cx)).map_err(BodyError::new)
            }
            InnerProj::Mesh(body) => Pin::new(body).poll_frame(cx),
            InnerProj::Ended => return Poll::Ready(None),
        };
        let Poll::Ready(frame) = polled else {
            return self.poll_time_up(cx).map(Some);
        };
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                *this.announced = this.announced.map(|left| left.saturating_sub(sent));
                let over = *this.announced == Some(0) || this.inner.is_end_stream();
                if let Some(report) = this.report {
                    report.frame(frame);
                    if over {
                        report.complete();
                    }
                }
            }
            Some(Err(_)) => {
                if let Some(mut report) = this.report.take() {
                    report.service_failed();
                }
            }
            None => {
                if let Some(mut report) = this.report.take() {
                    report.complete();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Application(body) => body.size_hint(),
            Inner::Mesh(body) => body.size_hint(),
            Inner::Ended => SizeHint::with_exact(0),
        }
    }
}

impl<B> std::fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponseBody")
    }
}

#[pin_project::pinned_drop]
impl<B> PinnedDrop for ResponseBody<B> {
    fn drop(self: Pin<&mut Self>) {
        // The application's body goes first: what it holds is released before the request counts as over.
        let mut this = self.project();
        this.inner.set(Inner::Ended);
    }
}

// === impl Inner ===

impl<B: http_body::Body<Data = Bytes>> Inner<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Application(body) => body.is_end_stream(),
            Self::Mesh(body) => body.is_end_stream(),
            Self::Ended => true,
        }
    }
}

/// The last frame of a response whose time is up.
fn cut_off(report: Option<Report>, rejection: Rejection) -> Result<Frame<Bytes>, BodyError> {
    let Some(mut report) = report else { return Err(BodyError::new(Error::from(rejection))) };
    report.refused(&rejection);
    report.complete();
    let exchange = report.exchange();
    let replies = &exchange.peer.connection().server.replies;
    match exchange.kind {
        RequestKind::Grpc => Ok(Frame::trailers(replies.trailers(Side::Server, &rejection))),
        RequestKind::Http => Err(BodyError::new(replies.error(rejection))),
    }
}
