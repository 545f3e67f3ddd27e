//! The future of [`super::Endpoint`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use http_body::Body as _;
use mesh_core::error::Rejection;
use mesh_core::retry::Untouched;

use super::refusal::{handed_back, send_failed};
use crate::body::Body;
use crate::client::request::{AttemptError, Held, Reply};
use crate::runtime::endpoint::{InFlight, UpstreamFuture};
use crate::transport::pool::Lease;
use crate::transport::pool::ResponseFuture as Sending;

/// Waiting for a connection or a stream; boxed, because most attempts find one at once.
type Wait<'c> = Pin<Box<dyn Future<Output = Result<Lease, Rejection>> + Send + 'c>>;

/// A request on its way. Dropping it cancels the request.
pub(crate) struct ResponseFuture<'c> {
    state: State<'c>,
    in_flight: Option<InFlight>,
    /// Idempotent and without a body: may be repeated where a reused connection just ended.
    can_repeat: bool,
}

enum State<'c> {
    Waiting { wait: Wait<'c>, request: Option<Request<Body>> },
    Sending(Sending),
    InProcess(UpstreamFuture),
    Refused(Option<AttemptError>),
}

impl<'c> ResponseFuture<'c> {
    pub(super) fn sending(lease: Lease, request: Request<Body>, in_flight: InFlight) -> Self {
        let can_repeat = can_repeat(&request);
        Self { state: State::Sending(lease.send(request)), in_flight: Some(in_flight), can_repeat }
    }

    pub(super) fn in_process(sending: UpstreamFuture, in_flight: InFlight) -> Self {
        Self { state: State::InProcess(sending), in_flight: Some(in_flight), can_repeat: false }
    }

    pub(super) fn waiting(wait: Wait<'c>, request: Request<Body>, in_flight: InFlight) -> Self {
        let can_repeat = can_repeat(&request);
        let state = State::Waiting { wait, request: Some(request) };
        Self { state, in_flight: Some(in_flight), can_repeat }
    }

    pub(super) fn refused(rejection: Rejection, request: Request<Body>) -> Self {
        let error = handed_back(rejection, request);
        Self { state: State::Refused(Some(error)), in_flight: None, can_repeat: false }
    }
}

impl Future for ResponseFuture<'_> {
    type Output = Result<Reply, AttemptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let result = match &mut this.state {
                State::Sending(sending) => ready!(Pin::new(sending).poll(cx)),
                State::InProcess(sending) => ready!(sending.as_mut().poll(cx)),
                State::Refused(error) => match error.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => return Poll::Pending,
                },
                State::Waiting { wait, request } => {
                    this.state = match (ready!(wait.as_mut().poll(cx)), request.take()) {
                        (Ok(lease), Some(request)) => State::Sending(lease.send(request)),
                        (Err(rejection), Some(request)) => {
                            State::Refused(Some(handed_back(rejection, request)))
                        }
                        // The request is there until the wait is over, which replaces this state.
                        (_, None) => State::Refused(None),
                    };
                    continue;
                }
            };
            let in_flight = this.in_flight.take();
            return Poll::Ready(match result {
                Ok(response) => {
                    Ok(Reply { response, held: Held { _in_flight: in_flight, ..Held::default() } })
                }
                Err(error) => Err(send_failed(error, this.can_repeat)),
            });
        }
    }
}

fn can_repeat(request: &Request<Body>) -> bool {
    Untouched::of_reused(true, request.method(), !request.body().is_end_stream()).is_some()
}
