//! The server stack as a Tower layer, for tonic's and axum's own servers.

mod body;
mod future;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use mesh_core::error::{Reason, Rejection};
use mesh_core::request::RequestKind;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

pub use self::body::ResponseBody;
pub use self::future::ResponseFuture;
use super::exchange::Exchange;
use super::peer::Peer;
use super::{pace, stack};
use crate::glue::{self, Handlers};

/// Puts the server stack around a service.
///
/// It works on connections of a [`MeshListener`](crate::MeshListener) only: a request that did not come over one has no
/// [`Peer`](crate::Peer), and is refused. `mesh.serve` runs the same stack around the whole application and needs no
/// layer; a layer of axum's `Router` does not cover routes that are added after it. `stream_idle_timeout` and
/// `request_timeout` need to see the request's body pass: they apply to bodies of axum's and tonic's types and to our
/// own, and to no other.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerLayer {}

/// A service behind the server stack.
///
/// Its error is the service's own: what the mesh refuses, it refuses with a response.
#[derive(Debug, Clone)]
pub struct ServerService<S> {
    inner: S,
}

// === impl ServerLayer ===

impl ServerLayer {
    pub(crate) fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerService<S>;

    fn layer(&self, inner: S) -> ServerService<S> {
        ServerService { inner }
    }
}

// === impl ServerService ===

impl<S, B, RB> Service<Request<B>> for ServerService<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    B: 'static,
    RB: http_body::Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // tonic's own server has put it there, axum's has put it into `ConnectInfo`.
        let is_tonics = request.extensions().get::<Peer>().is_some();
        let handlers = if is_tonics { Handlers::Tonic } else { Handlers::Any };
        let Some(peer) = Peer::of(request.extensions()).and_then(Peer::accepted).cloned() else {
            let kind = RequestKind::of(request.headers());
            return ResponseFuture::refused(kind, Rejection::new(Reason::Unauthenticated), None);
        };
        let stack::Admitted { report, verdict } = stack::admit(&peer, &mut request, Instant::now());
        match verdict {
            Ok(deadline) => {
                glue::put_peer(request.extensions_mut(), peer, handlers);
                watch_pace(request.body_mut(), report.exchange());
                ResponseFuture::serving(report, deadline, || self.inner.call(request))
            }
            Err(rejection) => ResponseFuture::refused(report.exchange().kind, rejection, Some(report)),
        }
    }
}

/// Watches the pace of a body, where one is configured.
fn watch_pace<B: 'static>(body: &mut B, exchange: &Arc<Exchange>) {
    if let Some(pace) = exchange.pace()
        && !glue::map_body(body, |body| pace::watch(body, exchange))
    {
        pace.unseen();
    }
}
