//! The future of a call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;

use crate::body::Body;
use crate::error::Error;

type Call = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

/// Future of a [`MeshChannel`](super::MeshChannel)'s call: the head of the response. Dropping it cancels the call,
/// gives back every permit, and tells of the call as cancelled.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture(pub(super) Call);

impl ResponseFuture {
    pub(super) fn new(call: Call) -> Self {
        Self(call)
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A call that is refused on the spot is ready at its first poll. It has to cost its task a turn all the same: a
        // caller's tight loop would otherwise starve the tasks that could make the next call succeed.
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let outcome = self.0.as_mut().poll(cx);
        if outcome.is_ready() {
            turn.made_progress();
        }
        outcome
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
