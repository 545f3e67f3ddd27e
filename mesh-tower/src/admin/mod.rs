//! What an operator asks a process: is it ready, and what does it count. Its connections are few: more than
//! [`CONNECTIONS`] at once wait.

mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use self::service::Endpoints;
use crate::error::Error;
use crate::mesh::Mesh;
use crate::telemetry::Metrics;

/// Connections at once.
pub(crate) const CONNECTIONS: usize = 64;

/// How long a scraper may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);

/// The admin endpoint of a mesh.
///
/// * `GET /ready`: 200 once every target that a channel is open to, and every listener, has a valid configuration;
///   503 with what is missing before, and again from the beginning of a shutdown on; a line more for each resource that
///   is refused
/// * `GET /metrics`: Prometheus text, for scrapers
/// * `GET /unapplied`: fields of the configuration in use that have no effect here, a line each
/// * `GET /refused`: resources that are refused as the control plane, or the file, has them now, a line each with the
///   reason, and whether a last good value serves meanwhile
///
/// Plain HTTP/1.1 without authentication, so it is served on loopback unless the caller says otherwise.
#[derive(Debug, Clone)]
#[must_use = "nothing is served until `serve` is awaited"]
pub struct Admin {
    mesh: Mesh,
    metrics: Option<Arc<Metrics>>,
    anywhere: bool,
}

// === impl Admin ===

impl Admin {
    /// The admin endpoint of this mesh.
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh, metrics: None, anywhere: false }
    }

    /// Serves these metrics, which are a sink of the same mesh's events.
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Serves on addresses other than loopback too: whoever reaches them can read everything.
    pub fn allow_any_address(mut self) -> Self {
        self.anywhere = true;
        self
    }

    /// Serves until dropped, past the draining of the mesh: `/ready` is how a load balancer learns of it.
    ///
    /// Dropping the future closes the socket and its connections.
    ///
    /// # Errors
    /// When the socket is not on loopback and that was not allowed.
    pub async fn serve(self, tcp: TcpListener) -> Result<(), Error> {
        let address = tcp.local_addr().map_err(Error::setup_failed)?;
        if !self.anywhere && !address.ip().is_loopback() {
            return Err(Error::setup(format!(
                "the admin endpoint is bound to {address}: bind it to loopback, or say allow_any_address()"
            )));
        }
        let endpoints = Endpoints::new(self.mesh, self.metrics);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = tcp.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((io, remote)) => {
                        let span = tracing::debug_span!("admin", %remote);
                        connections.spawn(drive(io, endpoints.clone()).instrument(span));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the admin endpoint cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn drive(io: TcpStream, endpoints: Endpoints) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    if let Err(error) = builder.serve_connection(TokioIo::new(io), endpoints).await {
        tracing::debug!(%error, "admin connection ended");
    }
}
