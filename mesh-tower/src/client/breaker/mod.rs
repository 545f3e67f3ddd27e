//! Circuit breaking: at most `max_requests` in flight to one cluster.
//!
//! Place in the stack: per attempt, below `retry`, above `balance`. Envoy: `circuit_breakers` (gRFC A32). The permit
//! is held until the body of the response ends. On drop: it is returned. On config change: the new limit applies to
//! new requests. `max_pending_requests` is applied by `endpoint`, `max_connections` by the cluster's runtime,
//! `max_retries` and the retry budget by `retry`: all count in the same [`Permits`](mesh_core::breaker::Permits).

use mesh_core::breaker::Overloaded;
use mesh_core::error::{Reason, Rejection};
use mesh_core::outcome::Outcome;

use super::request::{Attempt, AttemptError, AttemptStage};
use super::service::Service;

/// The layer.
#[derive(Debug)]
pub(crate) struct Breaker<S> {
    inner: S,
}

impl<S> Breaker<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Service<AttemptStage>> Service<AttemptStage> for Breaker<S> {
    async fn call<'c>(&'c self, attempt: Attempt<'c>) -> Result<Outcome, AttemptError> {
        let config = &attempt.cluster.config;
        let permit = attempt.cluster.runtime.permits().request(&config.limits);
        attempt.held.request = Some(permit.map_err(|overloaded| refusal(&config.name, overloaded))?);
        self.inner.call(attempt).await
    }
}

/// The refusal of a request that is over a limit of its cluster.
pub(crate) fn refusal(cluster: &str, overloaded: Overloaded) -> Rejection {
    Rejection::new(Reason::Overflow).with_detail(format!("cluster {cluster:?}: {overloaded}"))
}
