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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;
    use crate::config::cluster::RetryBudget;
    use crate::config::units::{Limit, PerMillion};

    const KINDS: [PermitKind; 4] =
        [PermitKind::Request, PermitKind::Pending, PermitKind::Connection, PermitKind::Retry];

    fn all(limit: u32) -> BreakerConfig {
        let limit = Limit::new(limit);
        BreakerConfig {
            max_connections: limit,
            max_pending_requests: limit,
            max_requests: limit,
            max_retries: limit,
            ..BreakerConfig::default()
        }
    }

    fn take(permits: &Arc<Permits>, kind: PermitKind, limits: &BreakerConfig) -> Result<Permit, Overloaded> {
        match kind {
            PermitKind::Request => permits.request(limits),
            PermitKind::Pending => permits.pending(limits),
            PermitKind::Connection => permits.connection(limits),
            PermitKind::Retry => permits.retry(limits),
        }
    }

    #[test]
    fn each_kind_is_counted_by_itself_and_given_back_on_drop() {
        for kind in KINDS {
            let permits = Permits::new();
            let limits = all(2);
            let first = take(&permits, kind, &limits).unwrap();
            let _second = take(&permits, kind, &limits).unwrap();
            assert_eq!(take(&permits, kind, &limits).unwrap_err(), Overloaded { kind, limit: 2 });
            for other in KINDS {
                assert_eq!(permits.used(other), if other == kind { 2 } else { 0 });
            }
            drop(first);
            assert_eq!(permits.used(kind), 1);
            assert_eq!(take(&permits, kind, &limits).unwrap().kind(), kind);
        }
    }

    #[test]
    fn a_limit_of_zero_refuses_all() {
        let refused = Permits::new().request(&all(0)).unwrap_err();
        assert_eq!(refused.to_string(), "circuit breaker open: the limit is 0 requests in flight");
    }

    #[test]
    fn an_update_changes_the_limit_and_not_the_count() {
        let permits = Permits::new();
        let held: Vec<_> = (0..5).map(|_| permits.request(&all(5)).unwrap()).collect();
        assert!(permits.request(&all(3)).is_err(), "more are in flight than the new limit");
        assert_eq!(permits.used(PermitKind::Request), 5);
        let _sixth = permits.request(&all(6)).unwrap();
        drop(held);
        assert_eq!(permits.used(PermitKind::Request), 1);
    }

    #[test]
    fn a_retry_budget_grows_with_what_is_in_flight() {
        let budget =
            RetryBudget { budget: PerMillion::new(500_000).unwrap(), min_retry_concurrency: Limit::new(1) };
        let limits = BreakerConfig { retry_budget: Some(budget), ..all(100) };
        let permits = Permits::new();
        let _first = permits.retry(&limits).unwrap();
        assert_eq!(permits.retry(&limits).unwrap_err(), Overloaded { kind: PermitKind::Retry, limit: 1 });
        let _requests = [permits.request(&limits).unwrap(), permits.request(&limits).unwrap()];
        let _waiting = [permits.pending(&limits).unwrap(), permits.pending(&limits).unwrap()];
        let _second = permits.retry(&limits).unwrap();
        assert_eq!(permits.retry(&limits).unwrap_err().limit, 2);
    }

    #[test]
    fn threads_never_pass_the_limit_together() {
        const THREADS: u32 = 8;
        let permits = Permits::new();
        let limits = all(3);
        let start = Barrier::new(THREADS as usize);
        let (most, granted) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..5_000 {
                        if let Ok(_permit) = permits.request(&limits) {
                            most.fetch_max(permits.used(PermitKind::Request), Ordering::Relaxed);
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.load(Ordering::Relaxed)));
        assert!(granted.load(Ordering::Relaxed) > 0);
        assert_eq!(permits.used(PermitKind::Request), 0);
    }

    proptest! {
        #[test]
        fn the_count_is_always_that_of_the_permits_held(
            steps in prop::collection::vec((0usize..4, 0u32..6, any::<bool>()), 0..200),
        ) {
            let permits = Permits::new();
            let mut held: Vec<Permit> = Vec::new();
            for (kind, limit, give_back) in steps {
                let of = |held: &[Permit]| held.iter().filter(|p| p.kind() == KINDS[kind]).count() as u32;
                if give_back && !held.is_empty() {
                    drop(held.swap_remove(limit as usize % held.len()));
                } else {
                    let before = of(&held);
                    let taken = take(&permits, KINDS[kind], &all(limit));
                    prop_assert_eq!(taken.is_ok(), before < limit);
                    held.extend(taken);
                }
                prop_assert_eq!(permits.used(KINDS[kind]), of(&held));
            }
            drop(held);
            prop_assert!(KINDS.iter().all(|kind| permits.used(*kind) == 0));
        }
    }
}
