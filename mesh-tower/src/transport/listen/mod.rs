//! Accepts connections, each under the filter chain of its listener's latest configuration (gRFC A36).
//!
//! ```text
//! nothing yet ──valid listener──► serving ──listener gone──► absent ──valid listener──► serving
//! (accept and close, no bytes)   (accept)                  (accept and close, no bytes)
//! ```
//! Per connection: connection limit, filter chain, TLS handshake, identity, network filters. That runs in a task of the
//! connection's own, owned by the listener and bounded in time. A client that stays silent takes no turn at the
//! cryptography, so it delays nobody, and under pressure it gives way (`pending`). Errors of one connection end that connection; errors of the socket are waited out.

mod acceptor;
mod handshake;
mod io;
mod pending;
mod socket;
#[cfg(test)]
mod tests;
mod turns;

use std::io as std_io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use mesh_core::config::endpoints::Address;

pub(crate) use self::acceptor::{Acceptor, Serving};
pub use self::io::MeshIo;
pub use self::socket::ListeningSocket;
use crate::server::ServerRuntime;

/// Accepted, secured and identified connections, for a server that is not ours.
///
/// A `Stream` for tonic's `serve_with_incoming`, a `Listener` for axum's `serve`. It ends (tonic) or stays silent
/// (axum) when the mesh drains. Dropping it closes the socket and the connections that are still shaking hands.
///
/// tonic's and axum's own servers cannot be told to send one connection away, so with them a changed chain applies to
/// new connections only, and a shutdown of the mesh ends accepting but does not wait for their calls, nor for
/// connections that they have upgraded: the end of their own `serve` future tells. `mesh.serve` has no such limits.
#[derive(Debug)]
pub struct MeshListener {
    acceptor: Acceptor,
}

// === impl MeshListener ===

impl MeshListener {
    pub(crate) fn new(server: Arc<ServerRuntime>, socket: ListeningSocket) -> Self {
        Self { acceptor: Acceptor::new(server, socket, true) }
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> std_io::Result<Address> {
        self.acceptor
            .address()
            .cloned()
            .ok_or_else(|| std_io::Error::other("the address of the listening socket is not known"))
    }

    /// The next connection; none once the mesh drains. Cancel safe.
    pub(crate) fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<MeshIo>> {
        self.acceptor.poll_connection(cx)
    }
}

impl Stream for MeshListener {
    type Item = std_io::Result<MeshIo>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std_io::Result<MeshIo>>> {
        self.get_mut().poll_connection(cx).map(|next| next.map(Ok))
    }
}
