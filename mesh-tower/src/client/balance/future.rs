//! The future of [`super::Balance`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mesh_core::error::Rejection;
use pin_project::pin_project;

use crate::client::request::{Attempt, AttemptError, Picked, Reply};
use crate::runtime::cluster::EndpointSlot;

/// Waiting for an endpoint; boxed, because most attempts find one at once.
pub(super) type Wait<'c> = Pin<Box<dyn Future<Output = Result<EndpointSlot, Rejection>> + Send + 'c>>;

/// An attempt on its way to an endpoint. Dropping it cancels the attempt.
#[expect(clippy::large_enum_variant, reason = "a box per attempt would cost more than the space")]
#[pin_project(project = ResponseProj)]
pub(crate) enum ResponseFuture<'c, F, M> {
    Waiting {
        wait: Wait<'c>,
        attempt: Option<Attempt<'c>>,
        send: Option<M>,
    },
    Sending {
        #[pin]
        inner: F,
    },
    Refused {
        error: Option<Rejection>,
    },
}

/// Notes the choice for telemetry.
pub(super) fn picked<'c>(attempt: Attempt<'c>, slot: EndpointSlot) -> Picked<'c> {
    let Attempt { request, kind, cluster, facts } = attempt;
    let EndpointSlot { runtime, extra } = slot;
    facts.upstream = Some(runtime.clone());
    facts.extra = extra;
    Picked { request, kind, cluster, endpoint: runtime }
}

impl<'c, F, M> Future for ResponseFuture<'c, F, M>
where
    F: Future<Output = Result<Reply, AttemptError>>,
    M: FnOnce(Picked<'c>) -> F,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            let next = match self.as_mut().project() {
                ResponseProj::Sending { inner } => return inner.poll(cx),
                ResponseProj::Refused { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(error.into())),
                    None => return Poll::Pending,
                },
                ResponseProj::Waiting { wait, attempt, send } => {
                    let slot = ready!(wait.as_mut().poll(cx));
                    match (slot, attempt.take(), send.take()) {
                        (Ok(slot), Some(attempt), Some(send)) => {
                            Self::Sending { inner: send(picked(attempt, slot)) }
                        }
                        (Err(error), _, _) => Self::Refused { error: Some(error) },
                        // Both are there until the first time that the wait is over, which replaces this state.
                        (Ok(_), _, _) => Self::Refused { error: None },
                    }
                }
            };
            self.set(next);
        }
    }
}
