//! The application behind the server stack, as hyper's service of one connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tower_service::Service;

use super::http1::Http1Incoming;
use crate::body::{Body, ServedBody};
use crate::glue::{self, Handlers};
use crate::server::{AcceptedPeer, pace, stack};
use crate::server::{ResponseBody, ResponseFuture};

/// The service of one connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionService<S> {
    app: S,
    peer: AcceptedPeer,
}

/// Waits until a clone of the application is ready, then calls it.
///
/// Dropping it drops the request, or the application's future.
#[pin_project::pin_project(project = CallProj)]
pub(super) enum Call<S, F> {
    Waiting(S, Option<(AcceptedPeer, Request<ServedBody>)>),
    Called(#[pin] ResponseFuture<F>),
}

// === impl ConnectionService ===

impl<S> ConnectionService<S> {
    pub(super) fn new(app: S, peer: AcceptedPeer) -> Self {
        Self { app, peer }
    }
}

impl<S, B> hyper::service::Service<Request<Http1Incoming>> for ConnectionService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
    B: http_body::Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = Call<S, S::Future>;

    fn call(&self, request: Request<Http1Incoming>) -> Self::Future {
        Call::new(self.app.clone(), self.peer.clone(), request.map(ServedBody::Http1))
    }
}

// === impl Call ===

impl<S, F> Call<S, F> {
    pub(super) const fn new(app: S, peer: AcceptedPeer, request: Request<ServedBody>) -> Self {
        Self::Waiting(app, Some((peer, request)))
    }
}

impl<S, B> Future for Call<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    B: http_body::Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<B>>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CallProj::Waiting(app, request) => {
                    ready!(app.poll_ready(cx))?;
                    let (peer, request) = request.take().expect("a call has one request until it is called");
                    let called = call(app, &peer, request);
                    self.set(Self::Called(called));
                }
                CallProj::Called(future) => return future.poll(cx),
            }
        }
    }
}

/// Takes a request through the stack to an application that is ready.
fn call<S, B>(app: &mut S, peer: &AcceptedPeer, mut request: Request<ServedBody>) -> ResponseFuture<S::Future>
where
    S: Service<Request<Body>, Response = Response<B>> + 'static,
{
    let stack::Admitted { report, verdict } = stack::admit(peer, &mut request, Instant::now());
    match verdict {
        Ok(deadline) => {
            let exchange = report.exchange().clone();
            let mut request =
                request.map(|body| pace::watch(Body::served(body, exchange.clone()), &exchange));
            glue::put_peer(request.extensions_mut(), peer.clone(), Handlers::of::<S>());
            ResponseFuture::serving(report, deadline, || app.call(request))
        }
        Err(rejection) => ResponseFuture::refused(report.exchange().kind, rejection, Some(report)),
    }
}
