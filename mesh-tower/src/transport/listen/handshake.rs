//! From an accepted socket to an identified connection: filter chain, handshake, identity, network filters.
//!
//! ```text
//! silent ──first byte──► hello ──whole ClientHello──► crypto ──our flight──► waits ──bytes──► crypto ──► established
//! └────────no turn, gives way under pressure───────┘ └ a turn ┘           └ gives way ┘    └ a turn ┘
//! ```
//! A turn ([`super::turns`]) lasts while cryptography runs and never while anything waits, so what others withhold
//! delays nobody.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use mesh_core::config::endpoints::Address;
use mesh_core::identity;
use tokio::time::{Instant, timeout};

use super::io::{Bytes, MeshIo};
use super::pending::Place;
use super::socket::Stream;
use super::turns::Turns;
use crate::server::chain::{Chains, Security};
use crate::server::concurrency::Permit;
use crate::server::peer::RemoteOf;
use crate::server::refused::{Refused, Why};
use crate::server::{AcceptedPeer, Connection, ServerRuntime, rbac};
use crate::tls::server::{ServerTls, read_hello};
use crate::tls::{HandshakeFailure, TlsError};

/// A socket on its way to become a connection.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// The address that it was accepted on.
    pub(super) listening: Option<Address>,
    pub(super) permit: Permit,
    pub(super) chains: Arc<Chains>,
    pub(super) server: Arc<ServerRuntime>,
    /// At cryptography.
    pub(super) turns: Arc<Turns>,
    /// Among the connections that wait for their peers.
    pub(super) place: Place,
    /// The connection will be served by a server that is not ours.
    pub(super) foreign: bool,
}

/// Makes a connection of a socket, or closes it. None of the refusals sends a byte of HTTP, and no connection of a
/// chain with TLS is ever served without.
pub(super) async fn establish(accepted: Accepted) -> Option<MeshIo> {
    let Accepted { stream, listening, permit, chains, server, turns, place, foreign } = accepted;
    let unknown = stream.peer(listening)?;
    let refused = &server.refused;
    let Some(chain) = chains.find(&unknown.ends()) else {
        refused.connection(Why::NoChain, &unknown, &"no filter chain matches");
        return None;
    };
    if foreign && chain.has_http_policy() && !server.is_layered() {
        tracing::error!(
            chain = %chain.config().name, remote = %RemoteOf(&unknown),
            "refused: the listener has HTTP policy, but mesh.server_layer() is not part of the application"
        );
        return None;
    }
    if let Err(error) = stream.set_nodelay() {
        tracing::debug!(remote = %RemoteOf(&unknown), %error, "TCP_NODELAY not set");
    }
    let (stream, tls) = match chain.security() {
        Security::Plaintext => (Bytes::Plain(stream), None),
        Security::Impossible => {
            tracing::error!(chain = %chain.config().name, remote = %RemoteOf(&unknown), "refused: TLS is configured, this mesh has none");
            return None;
        }
        Security::Tls(tls) => {
            let limit = server.limits.handshake_timeout;
            let shaken = timeout(limit, handshake(tls, stream, &turns, place)).await;
            let (stream, peer) = shaken_hands(shaken.ok(), &unknown, refused)?;
            (stream, Some(Arc::new(peer)))
        }
    };
    let peer = identity::Peer { tls, ..unknown };
    if !rbac::admits_connection(chain.config(), &peer, refused) {
        return None;
    }
    let connection = Connection::new(peer, chain.clone(), server);
    Some(MeshIo::new(stream, AcceptedPeer::new(connection), permit, foreign))
}

type Secured = (Bytes, identity::TlsPeer);

/// `result` is none when the time was up.
fn shaken_hands(
    result: Option<Result<Secured, TlsError>>,
    peer: &identity::Peer,
    refused: &Refused,
) -> Option<Secured> {
    match result {
        Some(Ok(secured)) => return Some(secured),
        Some(Err(error @ TlsError::Interrupted(_))) => refused.connection(Why::Unfinished, peer, &error),
        Some(Err(error)) => refused.connection(Why::Handshake, peer, &error),
        None => refused.connection(Why::Unfinished, peer, &"no TLS handshake in time"),
    }
    None
}

async fn handshake(
    tls: &ServerTls,
    stream: Stream,
    turns: &Arc<Turns>,
    mut place: Place,
) -> Result<Secured, TlsError> {
    // Before its first byte a connection has no buffers.
    stream.peek().await.map_err(|error| TlsError::Interrupted(HandshakeFailure::new(&error)))?;
    let hello = read_hello(stream).await?;
    place.works();
    // The answer to a ClientHello is where most of the cryptography is.
    let answered = async { tls.answer(hello) };
    let accept = in_turns(turns, &mut place, answered).await?;
    let accept = async { tls.identify(accept.await) };
    let (stream, peer) = in_turns(turns, &mut place, accept).await?;
    Ok((Bytes::Tls(Box::new(stream)), peer))
}

/// Polls a future, each time in a turn of its own; between polls it waits for its peer.
async fn in_turns<F: Future>(turns: &Arc<Turns>, place: &mut Place, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let turn = turns.take(place.origin()).await;
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        drop(turn);
        if let Poll::Ready(output) = polled {
            return output;
        }
        place.waits(Instant::now());
        // `future` has the waker of this task.
        let mut woken = false;
        poll_fn(|_| if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        place.works();
    }
}
