//! Real sockets on loopback; configuration from code.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

mod apps;
mod drain;
mod heads;
mod leaving;
mod lengths;
mod limits;
mod malformed;
mod pace;
mod policy;
mod reported;
mod shares;
#[cfg(feature = "http2")]
mod streams;
#[cfg(unix)]
mod unix;
mod updates;
mod upgrades;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get as route_get;
use mesh_core::config::cluster::UpstreamProtocol;
use mesh_core::config::endpoints::Address;
use mesh_core::config::listener::FilterChain;
use tokio::task::JoinHandle;

use super::serve;
use crate::body::{Body, BoxError};
use crate::server::testing::*;
use crate::tls::TlsRuntime;
use crate::tls::provider::static_::StaticProvider;
use crate::tls::testing::{Ca, downstream, runtime, upstream};
use crate::transport::io::BoxIo;
use crate::transport::listen::ListeningSocket;

/// A server in a task; it is cut off when the test ends.
struct Running {
    task: JoinHandle<()>,
}

impl Running {
    fn new<S, B>(world: &World, socket: impl Into<ListeningSocket>, app: S) -> Self
    where
        S: tower_service::Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError> + Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { task: tokio::task::spawn(serve(world.server.clone(), socket.into(), app)) }
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

/// What a connection runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plaintext,
    Tls,
}

/// A server's identity and a client's.
struct Pki {
    server: Arc<TlsRuntime>,
    client: Arc<TlsRuntime>,
}

impl Pki {
    fn new() -> Self {
        let ca = Ca::new();
        let identity = |name: &str| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/{name}");
            runtime(&StaticProvider::new(Some(ca.spiffe(&id)), Some(ca.roots())))
        };
        Self { server: identity("server"), client: identity("client") }
    }

    /// A chain for everybody who comes over this.
    fn chain(&self, wire: Wire) -> FilterChain {
        FilterChain { tls: (wire == Wire::Tls).then(downstream), ..chain("all", vec![]) }
    }

    async fn connect(&self, wire: Wire, address: SocketAddr) -> BoxIo {
        let tcp = Box::new(tokio::net::TcpStream::connect(address).await.unwrap());
        self.secure(wire, tcp, &address.into(), UpstreamProtocol::Http1).await
    }

    async fn secure(&self, wire: Wire, io: BoxIo, to: &Address, protocol: UpstreamProtocol) -> BoxIo {
        match wire {
            Wire::Plaintext => io,
            Wire::Tls => {
                let tls = self.client.client(&upstream(None));
                tls.connect(io, to, protocol).await.unwrap().io
            }
        }
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

/// The next response on a connection that is spoken by hand: its head, and its body of known length.
async fn response<T: tokio::io::AsyncRead + Unpin>(io: &mut T) -> Option<(String, String)> {
    use tokio::io::AsyncReadExt as _;
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        io.read_exact(&mut body).await.ok()?;
        Some((head, String::from_utf8(body).unwrap()))
    };
    soon("a response or the end", read).await
}

/// Lets every task that can run do so.
async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
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
