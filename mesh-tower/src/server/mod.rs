//! Serving: connections we own (`mesh.serve`), or a listener and a layer for tonic's and axum's own servers.
//!
//! A connection is accepted (`transport::listen`), belongs to a filter chain
//! ([`chain`](mesh_core::chain)), shakes hands, becomes a [`Peer`], passes the network filters, and only then speaks
//! HTTP (`transport::serve`). Each of its requests goes through `stack`, whose text is the
//! order of the steps, to the application. Behind somebody else's server [`ServerLayer`] is that same stack.

mod activity;
pub(crate) mod chain;
pub(crate) mod concurrency;
mod deadline;
pub(crate) mod exchange;
pub(crate) mod form;
mod layer;
pub(crate) mod limits;
pub(crate) mod pace;
pub(crate) mod peer;
pub(crate) mod rbac;
pub(crate) mod refused;
mod route;
pub(crate) mod shares;
pub(crate) mod stack;
#[cfg(test)]
pub(crate) mod testing;
mod trace;
mod untrusted;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mesh_core::rng::Xoshiro;
use mesh_core::snapshot::ConfigSource;
use tokio::runtime::Handle;

use self::concurrency::Permits;
pub use self::layer::{ResponseBody, ResponseFuture, ServerLayer, ServerService};
pub(crate) use self::limits::{ConnectionLimits, ServerLimits};
pub(crate) use self::peer::{AcceptedPeer, Connection, Peer};
use self::refused::Refused;
use self::shares::Shares;
pub(crate) use self::untrusted::is_untrusted;
use crate::drain::Drain;
use crate::local_reply::LocalReplies;
use crate::telemetry::Telemetry;
use crate::tls::TlsRuntime;
use crate::transport::h2::guard::ReceiveBudget;

/// What all servers of one mesh share.
pub(crate) struct ServerRuntime {
    pub(crate) source: Arc<dyn ConfigSource>,
    pub(crate) tls: Option<Arc<TlsRuntime>>,
    pub(crate) telemetry: Telemetry,
    pub(crate) drain: Arc<Drain>,
    pub(crate) limits: ServerLimits,
    pub(crate) replies: Arc<LocalReplies>,
    /// What unread request bodies may cost.
    pub(crate) budget: Arc<ReceiveBudget>,
    pub(crate) runtime: Handle,
    /// Requests in flight.
    pub(crate) requests: Permits,
    /// Who has them.
    pub(crate) shares: Shares,
    /// Open connections.
    pub(crate) connections: Permits,
    /// Who is not let in.
    pub(crate) refused: Refused,
    /// Listeners that have no valid configuration.
    pub(crate) not_ready: Permits,
    /// Whether a [`ServerLayer`] was taken: without one, a listener with HTTP policy must not be served elsewhere.
    layered: AtomicBool,
    seed: AtomicU64,
}

/// What a [`ServerRuntime`] is made of.
pub(crate) struct ServerParts {
    pub(crate) source: Arc<dyn ConfigSource>,
    /// None refuses every connection of a chain with TLS.
    pub(crate) tls: Option<Arc<TlsRuntime>>,
    pub(crate) telemetry: Telemetry,
    pub(crate) drain: Arc<Drain>,
    pub(crate) limits: ServerLimits,
    pub(crate) replies: Arc<LocalReplies>,
    pub(crate) budget: Arc<ReceiveBudget>,
    pub(crate) runtime: Handle,
}

// === impl ServerRuntime ===

impl ServerRuntime {
    pub(crate) fn new(parts: ServerParts) -> Arc<Self> {
        let ServerParts { source, tls, telemetry, drain, limits, replies, budget, runtime } = parts;
        Arc::new(Self {
            source,
            tls,
            telemetry,
            drain,
            replies,
            budget,
            runtime,
            requests: Permits::new(limits.requests),
            shares: Shares::new(&limits),
            connections: Permits::new(limits.connections),
            refused: Refused::default(),
            limits,
            not_ready: Permits::new(usize::MAX),
            layered: AtomicBool::new(false),
            // The standard library's own source of randomness: enough for sampling, and no dependency.
            seed: AtomicU64::new(RandomState::new().hash_one(0u8)),
        })
    }

    /// The server stack as a layer.
    pub(crate) fn layer(&self) -> ServerLayer {
        self.layered.store(true, Ordering::Release);
        ServerLayer::new()
    }

    pub(crate) fn is_layered(&self) -> bool {
        self.layered.load(Ordering::Acquire)
    }

    /// A generator of its own for one decision: no lock, no thread-local.
    pub(crate) fn rng(&self) -> Xoshiro {
        Xoshiro::seeded(self.seed.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for ServerRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRuntime")
            .field("requests", &self.requests.used())
            .field("connections", &self.connections.used())
            .finish_non_exhaustive()
    }
}
