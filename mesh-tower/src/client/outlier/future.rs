//! The future of [`super::Outlier`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mesh_core::outcome::Outcome;
use pin_project::pin_project;

use super::Observation;
use crate::client::request::{AttemptError, Reply};

/// An attempt that is watched. Dropping it reports the attempt as cancelled.
#[pin_project]
pub(crate) struct ResponseFuture<F> {
    #[pin]
    inner: F,
    observation: Option<Observation>,
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, observation: Observation) -> Self {
        Self { inner, observation: Some(observation) }
    }
}

impl<F> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Reply, AttemptError>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(cx));
        if let Some(mut observation) = this.observation.take() {
            match &mut result {
                Ok(reply) => {
                    observation.head(&reply.response);
                    reply.held.observation = Some(observation);
                }
                Err(error) => observation.failed(Outcome::Failed(error.rejection.reason().failure())),
            }
        }
        Poll::Ready(result)
    }
}
