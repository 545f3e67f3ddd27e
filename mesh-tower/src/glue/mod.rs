//! Trait implementations for other libraries, each behind its feature. Nothing else imports axum, tonic or mesh-xds.

use std::any::Any;
#[cfg(feature = "tonic")]
use std::any::TypeId;

use http::Extensions;

use crate::body::Body;
use crate::server::{AcceptedPeer, Peer};

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "xds")]
mod xds;

/// Whether an application is one of tonic alone, whose handlers never ask for what axum's do.
pub(crate) fn is_tonic<S: 'static>() -> bool {
    #[cfg(feature = "tonic")]
    return TypeId::of::<S>() == TypeId::of::<::tonic::service::Routes>();
    #[cfg(not(feature = "tonic"))]
    return false;
}

/// Puts the peer of a request where handlers look for it: [`Peer`] itself, tonic's `Request::remote_addr`, and axum's
/// `ConnectInfo<SocketAddr>`, where the application may be one of axum.
#[cfg_attr(not(feature = "axum"), expect(unused_variables, reason = "nobody asks"))]
pub(crate) fn put_peer(extensions: &mut Extensions, peer: AcceptedPeer, may_be_axum: bool) {
    #[cfg(any(feature = "axum", feature = "tonic"))]
    if let Some(remote) = peer.remote {
        #[cfg(feature = "tonic")]
        extensions.insert(::tonic::transport::server::TcpConnectInfo {
            local_addr: peer.local,
            remote_addr: Some(remote),
        });
        #[cfg(feature = "axum")]
        if may_be_axum {
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
