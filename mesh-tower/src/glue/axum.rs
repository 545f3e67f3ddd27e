//! axum: its own server over our listener, and [`Peer`] as an extractor.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::path::Path;

use axum::extract::connect_info::Connected;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use http::StatusCode;
use http::request::Parts;
use mesh_core::config::endpoints::Address;

use crate::error::Error;
use crate::server::Peer;
use crate::transport::listen::{MeshIo, MeshListener};

/// The request did not come over a connection of the mesh.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request did not come over a connection of the mesh: serve the application with mesh.serve")]
#[non_exhaustive]
pub struct MissingPeer {}

impl Listener for MeshListener {
    type Io = MeshIo;
    type Addr = Address;

    /// Never ready once the mesh drains: the server's graceful shutdown, by `mesh.draining()`, is what ends it.
    async fn accept(&mut self) -> (MeshIo, Address) {
        match poll_fn(|cx| self.poll_connection(cx)).await {
            Some(io) => {
                let remote = io.peer().remote_address().unwrap_or_else(|| Address::from(Path::new("")));
                (io, remote)
            }
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Address> {
        Self::local_addr(self)
    }
}

impl Connected<IncomingStream<'_, MeshListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, MeshListener>) -> Self {
        stream.io().peer().clone()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = MissingPeer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MissingPeer> {
        Self::of(&parts.extensions).cloned().ok_or(MissingPeer {})
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.extensions).cloned())
    }
}

/// The response that a [`MeshChannel`](crate::MeshChannel) gives in its place: a status and a short text, and the error in
/// the extensions. A request that could not be built, and a mesh that cannot be used, is 500.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.http_status(), self.public_text()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for MissingPeer {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}
