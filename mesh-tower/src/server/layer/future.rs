//! The future of a served request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, HeaderValue};
use mesh_core::error::Rejection;
use mesh_core::request::RequestKind;

use super::body::{ResponseBody, Watch};
use crate::context::{self, MeshContext};
use crate::local_reply::{self, Side};
use crate::server::deadline::Deadline;
use crate::server::exchange::Report;

/// Future of [`ServerService`](super::ServerService).
///
/// The application runs within the context of the request: calls it makes inherit trace and deadline. Dropping it drops the application's future, returns the permit and tells of the request as cancelled.
#[pin_project::pin_project]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
}

#[pin_project::pin_project(project = StateProj)]
enum State<F> {
    Serving {
        #[pin]
        inner: F,
        /// What calls that the application makes inherit.
        context: Option<MeshContext>,
        /// None once the response is out.
        report: Option<Report>,
        deadline: Option<Deadline>,
    },
    Refused {
        kind: RequestKind,
        rejection: Option<Rejection>,
        report: Option<Report>,
    },
}

// === impl ResponseFuture ===

impl<F: Future> ResponseFuture<F> {
    /// Calls the application.
    pub(crate) fn serving(report: Report, deadline: Option<Deadline>, call: impl FnOnce() -> F) -> Self {
        let mut context = Some(report.context(deadline.as_ref()));
        let inner = context::within(&mut context, call);
        Self { state: State::Serving { inner, context, report: Some(report), deadline } }
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn refused(kind: RequestKind, rejection: Rejection, report: Option<Report>) -> Self {
        Self { state: State::Refused { kind, rejection: Some(rejection), report } }
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    RB: http_body::Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Serving { inner, context, report, deadline } => {
                match context::within(context, || inner.poll(cx)) {
                    Poll::Ready(Ok(response)) => {
                        let report = report.take().expect("a future is not polled after it was ready");
                        let watch = Watch { report, deadline: deadline.take(), context: context.take() };
                        Poll::Ready(Ok(answer(response, watch)))
                    }
                    Poll::Ready(Err(error)) => {
                        if let Some(mut report) = report.take() {
                            report.service_failed();
                        }
                        Poll::Ready(Err(error))
                    }
                    Poll::Pending => {
                        let Some(deadline) = deadline else { return Poll::Pending };
                        let pace = report.as_ref().and_then(|report| report.exchange().pace());
                        deadline.poll_expired(pace, cx).map(|rejection| {
                            let report = report.take().expect("a future is not polled after it was ready");
                            Ok(expired(report, rejection))
                        })
                    }
                }
            }
            StateProj::Refused { kind, rejection, report } => {
                let rejection = rejection.take().expect("a future is not polled after it was ready");
                Poll::Ready(Ok(refuse(*kind, rejection, report.take())))
            }
        }
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponseFuture")
    }
}

fn answer<RB>(response: Response<RB>, mut watch: Watch) -> Response<ResponseBody<RB>>
where
    RB: http_body::Body<Data = Bytes>,
{
    watch.report.head(&response);
    response.map(|body| ResponseBody::of_application(body, watch))
}

/// The answer to a request whose time is up.
fn expired<RB>(report: Report, rejection: Rejection) -> Response<ResponseBody<RB>> {
    let is_in_the_way = report.is_in_the_way();
    let mut response = refuse(report.exchange().kind, rejection, Some(report));
    if is_in_the_way {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn refuse<RB>(kind: RequestKind, rejection: Rejection, report: Option<Report>) -> Response<ResponseBody<RB>> {
    let mut report = report;
    if let Some(report) = &mut report {
        report.refused(&rejection);
    }
    let response = match &mut report {
        Some(report) => {
            let replies = &report.exchange().peer.connection().server.replies;
            let response = replies.reply(Side::Server, kind, rejection);
            report.head(&response);
            response
        }
        None => local_reply::reply(kind, rejection),
    };
    response.map(|body| ResponseBody::of_mesh(body, report))
}
