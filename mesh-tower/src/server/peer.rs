//! Who is at the other end of the connection that a request came over, as the application sees it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use mesh_core::identity;
use tokio::time::Instant;

use super::ServerRuntime;
use super::activity::Activity;
use super::chain::Chain;
use super::shares::Holding;

/// The peer of a connection: addresses, and what TLS proved. Cheap to clone.
///
/// The application finds it in the extensions of each request: by axum's extractor of this type, by
/// `request.extensions().get::<Peer>()` in tonic and hyper code, and by `ConnectInfo<Peer>` behind axum's own server.
/// That of a request from the network was made from the connection that it came over, so it is proof, not a claim;
/// [`Peer::for_test`] makes one for a test of a handler, which the server stack never takes for a connection.
#[derive(Clone)]
pub struct Peer(Repr);

#[derive(Clone)]
enum Repr {
    Accepted(AcceptedPeer),
    /// By a test.
    Made(Arc<identity::Peer>),
}

/// The peer of a connection that was accepted.
#[derive(Clone)]
pub(crate) struct AcceptedPeer {
    connection: Arc<Connection>,
}

/// A connection that was accepted: who, under which filter chain, of which server.
pub(crate) struct Connection {
    pub(crate) peer: identity::Peer,
    pub(crate) chain: Arc<Chain>,
    pub(crate) server: Arc<ServerRuntime>,
    pub(crate) activity: Activity,
    /// Its part of the server's requests.
    pub(crate) holding: Holding,
}

/// Where a peer comes from, for logs: an address, `unix:` and a path, or `-`.
pub(crate) struct RemoteOf<'a>(pub(crate) &'a identity::Peer);

// === impl Peer ===

impl Peer {
    /// A peer with these addresses and names, for a test that calls a handler without a connection:
    /// `request.extensions_mut().insert(Peer::for_test(…))`.
    ///
    /// ```
    /// use mesh_tower::Peer;
    /// use mesh_tower::mesh_core::identity;
    ///
    /// let remote = Some(([10, 0, 0, 1], 40_000).into());
    /// let peer = Peer::for_test(identity::Peer { remote, ..Default::default() });
    /// assert_eq!(peer.remote, remote);
    /// ```
    #[must_use]
    pub fn for_test(peer: identity::Peer) -> Self {
        Self(Repr::Made(Arc::new(peer)))
    }

    /// The peer of the connection that a request came over.
    pub(crate) fn of(extensions: &http::Extensions) -> Option<&Self> {
        let direct = extensions.get::<Self>();
        #[cfg(feature = "axum")]
        let direct =
            direct.or_else(|| extensions.get::<axum::extract::ConnectInfo<Self>>().map(|info| &info.0));
        direct
    }

    /// As far as it is one of a connection.
    pub(crate) fn accepted(&self) -> Option<&AcceptedPeer> {
        match &self.0 {
            Repr::Accepted(accepted) => Some(accepted),
            Repr::Made(_) => None,
        }
    }
}

impl From<AcceptedPeer> for Peer {
    fn from(accepted: AcceptedPeer) -> Self {
        Self(Repr::Accepted(accepted))
    }
}

// === impl AcceptedPeer ===

impl AcceptedPeer {
    pub(crate) fn new(connection: Connection) -> Self {
        let connection = Arc::new(connection);
        connection.holding.joined(&connection);
        Self { connection }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Deref for AcceptedPeer {
    type Target = identity::Peer;

    fn deref(&self) -> &identity::Peer {
        &self.connection.peer
    }
}

impl fmt::Debug for AcceptedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.peer.fmt(f)
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(peer: identity::Peer, chain: Arc<Chain>, server: Arc<ServerRuntime>) -> Self {
        let holding = server.shares.holding(peer.remote);
        Self { peer, chain, server, activity: Activity::new(Instant::now()), holding }
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.activity.request_began();
        self.holding.request_began();
    }

    /// A request, its response body included, is over.
    pub(super) fn request_ended(&self, now: Instant) {
        self.activity.request_ended(now);
        self.holding.request_ended(&self.server.shares);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.shares.left(&self.holding);
    }
}

impl Deref for Peer {
    type Target = identity::Peer;

    fn deref(&self) -> &identity::Peer {
        match &self.0 {
            Repr::Accepted(accepted) => accepted,
            Repr::Made(peer) => peer,
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// === impl RemoteOf ===

impl fmt::Display for RemoteOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.remote_address() {
            Some(address) => address.fmt(f),
            None => f.write_str("-"),
        }
    }
}
