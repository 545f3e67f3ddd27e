//! The future of [`super::Breaker`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mesh_core::breaker::Permit;
use mesh_core::error::Rejection;
use pin_project::pin_project;

use crate::client::request::{AttemptError, Reply};

/// An attempt that was admitted or refused. Dropping it returns the permit.
#[pin_project(project = ResponseProj)]
pub(crate) enum ResponseFuture<F> {
    Admitted {
        #[pin]
        inner: F,
        permit: Option<Permit>,
    },
    Refused {
        error: Option<Rejection>,
    },
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Reply, AttemptError>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            ResponseProj::Admitted { inner, permit } => {
                let mut result = ready!(inner.poll(cx));
                let permit = permit.take();
                if let Ok(reply) = &mut result {
                    reply.held.request = permit;
                }
                Poll::Ready(result)
            }
            ResponseProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error.into())),
                None => Poll::Pending,
            },
        }
    }
}
