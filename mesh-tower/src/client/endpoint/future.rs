//! The future of [`super::Endpoint`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use http_body::Body as _;
use mesh_core::config::endpoints::Address;
use mesh_core::error::Rejection;
use mesh_core::outcome::Outcome;
use mesh_core::request::RequestKind;
use mesh_core::retry::Untouched;

use super::refusal::{send_failed, unsent};
use crate::body::Body;
use crate::client::request::{AttemptError, Exchange};
use crate::runtime::endpoint::{Upstream, UpstreamFuture};
use crate::transport::pool::Lease;
use crate::transport::pool::ResponseFuture as Sending;

/// Waiting for a connection or a stream; boxed, because most attempts find one at once.
type Wait<'c> = Pin<Box<dyn Future<Output = Result<Lease, Rejection>> + Send + 'c>>;

/// A request on its way. Dropping it cancels the request.
pub(crate) struct ResponseFuture<'c> {
    state: State<'c>,
    exchange: &'c mut Exchange,
    kind: RequestKind,
    /// Idempotent and without a body: may be repeated where a reused connection just ended.
    can_repeat: bool,
}

/// ```text
/// Waiting ──► Leased ──► Sending        Refused: from every state but Sending
/// ```
pub(super) enum State<'c> {
    Waiting(Wait<'c>),
    Leased(Option<Lease>),
    Sending(Sending),
    InProcess(UpstreamFuture),
    Refused(Option<AttemptError>),
}

impl State<'_> {
    pub(super) fn in_process(upstream: &dyn Upstream, endpoint: &Address, exchange: &mut Exchange) -> Self {
        // The attempt has its request until it is sent.
        exchange.send(|request| upstream.send(endpoint, request)).map_or(Self::Refused(None), Self::InProcess)
    }
}

impl<'c> ResponseFuture<'c> {
    pub(super) fn new(state: State<'c>, exchange: &'c mut Exchange, kind: RequestKind) -> Self {
        Self { state, exchange, kind, can_repeat: false }
    }
}

impl Future for ResponseFuture<'_> {
    type Output = Result<Outcome, AttemptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = loop {
            this.state = match &mut this.state {
                State::Sending(sending) => break ready!(Pin::new(sending).poll(cx)),
                State::InProcess(sending) => break ready!(sending.as_mut().poll(cx)),
                State::Leased(lease) => {
                    // Both are there until this state is replaced.
                    let started = lease.take().and_then(|lease| {
                        this.can_repeat = this.exchange.request().is_some_and(can_repeat);
                        this.exchange.send(|request| lease.start(cx, request))
                    });
                    match started {
                        Some(Ok(sending)) => State::Sending(sending),
                        Some(Err(error)) => break Err(error),
                        None => State::Refused(None),
                    }
                }
                State::Waiting(wait) => match ready!(wait.as_mut().poll(cx)) {
                    Ok(lease) => State::Leased(Some(lease)),
                    Err(rejection) => State::Refused(Some(unsent(rejection))),
                },
                State::Refused(error) => match error.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => return Poll::Pending,
                },
            };
        };
        Poll::Ready(match result {
            Ok(response) => Ok(this.exchange.receive(response, this.kind)),
            Err(mut error) => {
                this.exchange.give_back(error.take_request());
                Err(send_failed(&error, this.can_repeat))
            }
        })
    }
}

fn can_repeat(request: &Request<Body>) -> bool {
    Untouched::of_reused(true, request.method(), !request.body().is_end_stream()).is_some()
}
