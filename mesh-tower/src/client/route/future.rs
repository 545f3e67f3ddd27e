//! The future of [`super::Route`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_core::error::Rejection;
use pin_project::pin_project;

use crate::client::request::Reply;

/// A call that goes on, or an answer that is known. Dropping it cancels the call.
#[expect(clippy::large_enum_variant, reason = "a box per call would cost more than the space")]
#[pin_project(project = ResponseProj)]
pub(crate) enum ResponseFuture<F> {
    Forward {
        #[pin]
        inner: F,
    },
    Answer {
        reply: Option<Result<Reply, Rejection>>,
    },
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Reply, Rejection>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            ResponseProj::Forward { inner } => inner.poll(cx),
            ResponseProj::Answer { reply } => match reply.take() {
                Some(reply) => Poll::Ready(reply),
                None => Poll::Pending,
            },
        }
    }
}
