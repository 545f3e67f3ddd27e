//! Who is at the other end of the connection that a request came over, as the application sees it.
//!
//! The application finds a [`Peer`] in the extensions of each request: by axum's extractor of that type, by
//! `request.extensions().get::<Peer>()` in tonic and hyper code, and by `ConnectInfo<Peer>` behind axum's own server.
//! It can only be made by this library from a connection that it accepted, so it is proof, not a claim.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use mesh_core::identity;

use super::ServerRuntime;
use super::activity::Activity;
use super::chain::Chain;

/// The peer of a connection: addresses, and what TLS proved. Cheap to clone.
#[derive(Clone)]
pub struct Peer {
    connection: Arc<Connection>,
}

/// A connection that was accepted: who, under which filter chain, of which server.
pub(crate) struct Connection {
    pub(crate) peer: identity::Peer,
    pub(crate) chain: Arc<Chain>,
    pub(crate) server: Arc<ServerRuntime>,
    pub(crate) activity: Activity,
}

// === impl Peer ===

impl Peer {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection: Arc::new(connection) }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The peer of the connection that a request came over.
    pub(crate) fn of(extensions: &http::Extensions) -> Option<&Self> {
        let direct = extensions.get::<Self>();
        #[cfg(feature = "axum")]
        let direct =
            direct.or_else(|| extensions.get::<axum::extract::ConnectInfo<Self>>().map(|info| &info.0));
        direct
    }
}

impl Deref for Peer {
    type Target = identity::Peer;

    fn deref(&self) -> &identity::Peer {
        &self.connection.peer
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.peer.fmt(f)
    }
}
