//! Real sockets on loopback; configuration from code.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

mod apps;
mod drain;
mod limits;
mod policy;
mod updates;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get as route_get;
use tokio::task::JoinHandle;

use super::serve;
use crate::body::{Body, BoxError};
use crate::server::testing::*;

/// A server in a task; it is cut off when the test ends.
struct Running {
    task: JoinHandle<()>,
}

impl Running {
    fn new<S, B>(world: &World, tcp: tokio::net::TcpListener, app: S) -> Self
    where
        S: tower_service::Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { task: tokio::task::spawn(serve(world.server.clone(), tcp, app)) }
    }

    /// The server's own end.
    async fn ended(mut self) {
        soon("the end of the server", &mut self.task).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `app` under one plaintext chain that lets everybody in.
async fn open_to_all(app: Router) -> (World, SocketAddr, Running) {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![])]);
    let running = Running::new(&world, tcp, app);
    (world, address, running)
}

fn hello() -> Router {
    Router::new().route("/hello", route_get(|| async { "hello" }))
}

/// Answers once the gate opens, the head at once and the body in two parts around it.
fn gated(gate: &Arc<tokio::sync::Notify>) -> Router {
    let (head, body) = (gate.clone(), gate.clone());
    let wait = || async move {
        head.notified().await;
        "waited"
    };
    let stream = || async move {
        let parts = futures_util::stream::unfold((0, body), |(n, gate)| async move {
            match n {
                0 => Some((Ok::<_, BoxError>("first,"), (1, gate))),
                1 => {
                    gate.notified().await;
                    Some((Ok("second"), (2, gate)))
                }
                _ => None,
            }
        });
        axum::body::Body::from_stream(parts)
    };
    Router::new().route("/wait", route_get(wait)).route("/stream", route_get(stream))
}
