//! Circuit breaking: what may be in flight to one cluster (gRFC A32, Envoy `circuit_breakers`).
//!
//! One [`Permits`] per cluster, shared by every channel of a `Mesh`. Limits are passed in with each request for a
//! permit, from the configuration that the request is pinned to: an update changes the limit and never the count. A
//! refusal is final for the attempt ([`Reason::Overflow`](crate::error::Reason::Overflow)) and is never retried.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::cluster::BreakerConfig;
use crate::retry::budget;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermitKind {
    /// Requests in flight.
    Request,
    /// Requests that wait for a connection.
    Pending,
    /// Connections.
    Connection,
    /// Retries in flight.
    Retry,
}

/// The counters of one cluster.
#[derive(Debug, Default)]
pub struct Permits {
    requests: AtomicU32,
    pending: AtomicU32,
    connections: AtomicU32,
    retries: AtomicU32,
}

/// One counted thing; dropping it gives the place back.
#[must_use = "a permit that is dropped is given back at once"]
pub struct Permit {
    of: Arc<Permits>,
    kind: PermitKind,
}

/// The cluster is at a limit. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker open: the limit is {limit} {kind}")]
pub struct Overloaded {
    /// What there is too much of.
    pub kind: PermitKind,
    /// The limit it met.
    pub limit: u32,
}

// === impl Permits ===

impl Permits {
    /// Nothing in flight.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Takes a place for a request in flight.
    ///
    /// # Errors
    /// When `max_requests` are in flight; a limit of 0 refuses all.
    pub fn request(self: &Arc<Self>, limits: &BreakerConfig) -> Result<Permit, Overloaded> {
        self.take(PermitKind::Request, limits.max_requests.get())
    }

    /// Takes a place for a request that waits for a connection.
    ///
    /// # Errors
    /// When `max_pending_requests` wait.
    pub fn pending(self: &Arc<Self>, limits: &BreakerConfig) -> Result<Permit, Overloaded> {
        self.take(PermitKind::Pending, limits.max_pending_requests.get())
    }

    /// Takes a place for a connection.
    ///
    /// # Errors
    /// When there are `max_connections`.
    pub fn connection(self: &Arc<Self>, limits: &BreakerConfig) -> Result<Permit, Overloaded> {
        self.take(PermitKind::Connection, limits.max_connections.get())
    }

    /// Takes a place for a retry: within the retry budget where there is one, else within `max_retries`.
    ///
    /// # Errors
    /// When as many retries are in flight.
    pub fn retry(self: &Arc<Self>, limits: &BreakerConfig) -> Result<Permit, Overloaded> {
        let limit = match &limits.retry_budget {
            Some(budget) => {
                // Envoy's base: requests in flight and those that wait.
                let active = self.used(PermitKind::Request).saturating_add(self.used(PermitKind::Pending));
                budget::allowed(budget, active)
            }
            None => limits.max_retries.get(),
        };
        self.take(PermitKind::Retry, limit)
    }

    /// How many of a kind there are right now.
    #[must_use]
    pub fn used(&self, kind: PermitKind) -> u32 {
        self.counter(kind).load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, kind: PermitKind, limit: u32) -> Result<Permit, Overloaded> {
        let grow = |used: u32| if used < limit { used.checked_add(1) } else { None };
        // Relaxed: the count guards no other memory. Compare-and-swap: the limit is never passed, not for a moment.
        match self.counter(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow) {
            Ok(_) => Ok(Permit { of: self.clone(), kind }),
            Err(_) => Err(Overloaded { kind, limit }),
        }
    }

    fn counter(&self, kind: PermitKind) -> &AtomicU32 {
        match kind {
            PermitKind::Request => &self.requests,
            PermitKind::Pending => &self.pending,
            PermitKind::Connection => &self.connections,
            PermitKind::Retry => &self.retries,
        }
    }
}

// === impl Permit ===

impl Permit {
    /// What it counts.
    #[must_use]
    pub fn kind(&self) -> PermitKind {
        self.kind
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.counter(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.kind).finish()
    }
}

// === impl PermitKind ===

impl fmt::Display for PermitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "requests in flight",
            Self::Pending => "requests that wait for a connection",
            Self::Connection => "connections",
            Self::Retry => "retries in flight",
        })
    }
}
