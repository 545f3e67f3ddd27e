//! Serves an application on connections that we own: `mesh.serve`.
//!
//! One task accepts (the caller's own: the future of `serve`), one task per connection drives it, HTTP/2 streams have a
//! task each. Connection tasks are owned by the future: dropping it closes the socket and cuts off every connection,
//! and with a connection end its streams. To stop without cutting anybody off, use `mesh.shutdown`.
//!
//! A connection goes away (GOAWAY, or `connection: close`) when the mesh drains, when its listener is gone, and when its
//! filter chain is no longer the one that its addresses lead to. Calls in flight then have
//! [`ServerLimits::drain_grace`](crate::server::ServerLimits::drain_grace), or what is left of the shutdown's limit. An
//! upgraded connection (101, a WebSocket) is a call in flight until the application lets go of it; whatever ends the
//! server ends it too.

mod connection;
mod framing;
mod http1;
#[cfg(feature = "http2")]
mod http2;
mod io;
#[cfg(feature = "http1")]
mod leave;
mod service;
mod signal;
#[cfg(feature = "http2")]
mod stream;
mod supervisor;
mod target;
#[cfg(test)]
mod tests;
mod upgrade;

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::task::JoinSet;
use tower_service::Service;
use tracing::Instrument as _;

pub(crate) use self::http1::Http1Incoming;
use super::listen::{Acceptor, ListeningSocket};
use crate::body::{Body, BoxError};
use crate::drain::Phase;
use crate::server::ServerRuntime;
use crate::server::peer::RemoteOf;

/// Serves until the mesh has drained.
pub(crate) async fn serve<S, B>(server: Arc<ServerRuntime>, socket: ListeningSocket, app: S)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    #[cfg(feature = "tonic")]
    let app = match crate::glue::tonic::routes(app) {
        Ok(routes) => return crate::glue::tonic::serve_routes(server, socket, routes).await,
        Err(app) => app,
    };
    serve_app(server, socket, app).await;
}

/// The same, for an application as it is.
pub(crate) async fn serve_app<S, B>(server: Arc<ServerRuntime>, socket: ListeningSocket, app: S)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // Held to the last connection: a shutdown waits for it.
    let mut held = server.drain.hold();
    let mut acceptor = Acceptor::new(server.clone(), socket, false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            next = poll_fn(|cx| acceptor.poll_connection(cx)) => {
                let Some(io) = next else { break };
                let span = tracing::debug_span!("connection", remote = %RemoteOf(io.peer()));
                let task = connection::drive(io, app.clone(), acceptor.serving()).instrument(span);
                connections.spawn_on(task, &server.runtime);
            }
            Some(_) = connections.join_next() => {}
            () = held.reached(Phase::Forced) => break,
        }
    }
    // What has not been established is closed.
    drop(acceptor);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = all_gone => {}
        () = held.reached(Phase::Forced) => {
            if server.requests.used() > 0 {
                held.cut_off();
            }
        }
    }
    connections.shutdown().await;
    tracing::info!("drained");
}
