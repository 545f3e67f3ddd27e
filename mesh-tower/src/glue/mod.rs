//! Trait implementations for other libraries, each behind its feature. Nothing else imports axum, tonic or mesh-xds.

use std::any::Any;

use http::Extensions;

use crate::body::Body;
use crate::server::{AcceptedPeer, Peer};

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "xds")]
mod xds;

/// What an application may be made of, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// Those of tonic alone, which never ask for what axum's do.
    Tonic,
    Any,
}

// === impl Handlers ===

impl Handlers {
    /// The handlers of an application of this type. Decided at compile time.
    pub(crate) fn of<S: 'static>() -> Self {
        #[cfg(feature = "tonic")]
        if tonic::is_routes::<S>() {
            return Self::Tonic;
        }
        Self::Any
    }
}

/// Puts the peer of a request where handlers look for it: [`Peer`] itself, tonic's `Request::remote_addr`, and axum's
/// `ConnectInfo<SocketAddr>`, each of the two where there may be such handlers.
#[cfg_attr(not(feature = "axum"), expect(unused_variables, reason = "nobody asks"))]
pub(crate) fn put_peer(extensions: &mut Extensions, peer: AcceptedPeer, handlers: Handlers) {
    #[cfg(any(feature = "axum", feature = "tonic"))]
    if let Some(remote) = peer.remote {
        #[cfg(feature = "tonic")]
        extensions.insert(::tonic::transport::server::TcpConnectInfo {
            local_addr: peer.local,
            remote_addr: Some(remote),
        });
        #[cfg(feature = "axum")]
        if handlers == Handlers::Any {
            extensions.insert(::axum::extract::ConnectInfo(remote));
        }
    }
    extensions.insert(Peer::from(peer));
}

/// Maps a body that is ours, axum's or tonic's. Any other stays as it is, and the answer is no.
pub(crate) fn map_body<B: 'static>(body: &mut B, map: impl FnOnce(Body) -> Body) -> bool {
    // The type tests are decided at compile time.
    let any: &mut dyn Any = body;
    if let Some(body) = any.downcast_mut::<Body>() {
        *body = map(std::mem::take(body));
        return true;
    }
    #[cfg(feature = "axum")]
    if let Some(body) = any.downcast_mut::<::axum::body::Body>() {
        *body = ::axum::body::Body::new(map(Body::new(std::mem::take(body))));
        return true;
    }
    #[cfg(feature = "tonic")]
    if let Some(body) = any.downcast_mut::<::tonic::body::Body>() {
        *body = ::tonic::body::Body::new(map(Body::new(std::mem::take(body))));
        return true;
    }
    false
}
