//! The application behind the server stack, as hyper's service of one connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower_service::Service;

use crate::body::Body;
use crate::server::layer::{ResponseBody, ResponseFuture};
use crate::server::{Peer, stack};

/// The service of one connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionService<S> {
    app: S,
    peer: Peer,
}

/// Waits until a clone of the application is ready, then calls it.
///
/// Dropping it drops the request, or the application's future.
#[pin_project::pin_project(project = CallProj)]
pub(super) enum Call<S, F> {
    Waiting(S, Option<(Peer, Request<Incoming>)>),
    Called(#[pin] ResponseFuture<F>),
}

// === impl ConnectionService ===

impl<S> ConnectionService<S> {
    pub(super) fn new(app: S, peer: Peer) -> Self {
        Self { app, peer }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: http_body::Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = Call<S, S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Call::Waiting(self.app.clone(), Some((self.peer.clone(), request)))
    }
}

// === impl Call ===

impl<S, B> Future for Call<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<B>>,
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
fn call<S, B>(app: &mut S, peer: &Peer, mut request: Request<Incoming>) -> ResponseFuture<S::Future>
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    let stack::Admitted { report, verdict } = stack::admit(peer, &mut request, Instant::now());
    match verdict {
        Ok(deadline) => {
            let exchange = report.exchange().clone();
            let mut request = request.map(|body| Body::served(body, exchange));
            request.extensions_mut().insert(peer.clone());
            ResponseFuture::serving(report, deadline, || app.call(request))
        }
        Err(rejection) => ResponseFuture::refused(report.exchange().kind, rejection, Some(report)),
    }
}
