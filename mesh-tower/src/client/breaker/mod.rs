//! Circuit breaking: at most `max_requests` in flight to one cluster.
//!
//! Place in the stack: per attempt, below `retry`, above `balance`. Envoy: `circuit_breakers` (gRFC A32). The permit
//! is held until the body of the response ends. On drop: it is returned. On config change: the new limit applies to
//! new requests. `max_pending_requests` is applied by `endpoint`, `max_connections` by the cluster's runtime,
//! `max_retries` and the retry budget by `retry`: all count in the same [`Permits`](mesh_core::breaker::Permits).

mod future;

use std::future::Future;

use mesh_core::breaker::Overloaded;
use mesh_core::error::{Reason, Rejection};

use self::future::ResponseFuture;
use super::request::{Attempt, AttemptError, AttemptStage, Reply};
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
    fn call<'c>(
        &'c self,
        attempt: Attempt<'c>,
    ) -> impl Future<Output = Result<Reply, AttemptError>> + Send + 'c {
        match attempt.cluster.runtime.permits().request(&attempt.cluster.config.limits) {
            Ok(permit) => ResponseFuture::Admitted { inner: self.inner.call(attempt), permit: Some(permit) },
            Err(overloaded) => ResponseFuture::Refused {
                error: Some(refusal(attempt.cluster.config.name.as_ref(), overloaded)),
            },
        }
    }
}

/// The refusal of a request that is over a limit of its cluster.
pub(crate) fn refusal(cluster: &str, overloaded: Overloaded) -> Rejection {
    Rejection::new(Reason::Overflow).with_detail(format!("cluster {cluster:?}: {overloaded}"))
}
