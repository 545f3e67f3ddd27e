//! From an accepted socket to an identified connection: filter chain, handshake, identity, network filters.

use std::sync::Arc;

use mesh_core::chain::Ends;
use mesh_core::identity;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::io::{Bytes, MeshIo};
use crate::server::chain::{Chain, Chains, Security};
use crate::server::concurrency::Permit;
use crate::server::{Activity, Connection, Peer, ServerRuntime, rbac};
use crate::tls::server::ServerTls;

/// A socket on its way to become a connection.
pub(super) struct Accepted {
    pub(super) tcp: TcpStream,
    pub(super) permit: Permit,
    pub(super) chains: Arc<Chains>,
    pub(super) server: Arc<ServerRuntime>,
    /// Bounds the handshakes that have begun.
    pub(super) handshakes: Arc<Semaphore>,
    /// The connection will be served by a server that is not ours.
    pub(super) foreign: bool,
}

/// Makes a connection of a socket, or closes it. None of the refusals sends a byte of HTTP, and no connection of a
/// chain with TLS is ever served without.
pub(super) async fn establish(accepted: Accepted) -> Option<MeshIo> {
    let Accepted { tcp, permit, chains, server, handshakes, foreign } = accepted;
    let (Ok(local), Ok(remote)) = (tcp.local_addr(), tcp.peer_addr()) else {
        return None; // reset before it was accepted
    };
    let Some(chain) = chains.find(&Ends { local, remote }) else {
        tracing::debug!(%remote, "no filter chain matches; closed");
        return None;
    };
    if foreign && chain.has_http_policy() && !server.is_layered() {
        tracing::error!(
            chain = %chain.config().name, %remote,
            "refused: the listener has HTTP policy, but mesh.server_layer() is not part of the application"
        );
        return None;
    }
    // Small frames must not wait for acknowledgements of earlier ones.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%remote, %error, "TCP_NODELAY not set");
    }
    let (stream, tls) = match chain.security() {
        Security::Plaintext => (Bytes::Plain(tcp), None),
        Security::Impossible => {
            tracing::error!(chain = %chain.config().name, %remote, "refused: TLS is configured, this mesh has none");
            return None;
        }
        Security::Tls(tls) => {
            let limit = server.limits.handshake_timeout;
            match timeout(limit, handshake(tls, tcp, &handshakes)).await {
                Ok(Some((stream, peer))) => (stream, Some(Arc::new(peer))),
                Ok(None) => return None,
                Err(_) => {
                    tracing::debug!(%remote, "no TLS handshake within {limit:?}; closed");
                    return None;
                }
            }
        }
    };
    let peer = identity::Peer { remote: Some(remote), local: Some(local), tls };
    if !rbac::admits_connection(chain.config(), &peer) {
        return None;
    }
    let connection = connection(peer, chain.clone(), server);
    Some(MeshIo::new(stream, Peer::new(connection), permit))
}

fn connection(peer: identity::Peer, chain: Arc<Chain>, server: Arc<ServerRuntime>) -> Connection {
    Connection { peer, chain, server, activity: Activity::new(Instant::now()) }
}

async fn handshake(
    tls: &ServerTls,
    tcp: TcpStream,
    permits: &Semaphore,
) -> Option<(Bytes, identity::TlsPeer)> {
    // A client that has said nothing takes no permit and costs a socket alone.
    tcp.readable().await.ok()?;
    let _permit = permits.acquire().await.ok()?;
    match tls.accept(tcp).await {
        Ok((stream, peer)) => Some((Bytes::Tls(Box::new(stream)), peer)),
        Err(error) => {
            tracing::debug!(%error, "handshake refused");
            None
        }
    }
}
