//! Reports how each attempt ended to the endpoint that took it: the slot of outlier detection (gRFC A50).
//!
//! Place in the stack: per attempt, below `balance`, around `endpoint`. An attempt is reported once: at its failure,
//! at the end of its response body (where gRPC tells its status), or, on drop, as cancelled. On config change: nothing.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use mesh_core::outcome::{GrpcCode, Outcome};
use mesh_core::request::RequestKind;

use super::request::{AttemptError, Picked, PickedStage};
use super::service::Service;
use crate::local_reply::GRPC_STATUS;
use crate::runtime::endpoint::EndpointRuntime;

/// The layer.
#[derive(Debug)]
pub(crate) struct Outlier<S> {
    inner: S,
}

/// An attempt whose end is still to be reported; dropping it reports what is known.
#[derive(Debug)]
pub(crate) struct Observation {
    endpoint: Arc<EndpointRuntime>,
    kind: RequestKind,
    outcome: Outcome,
}

impl<S> Outlier<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Service<PickedStage>> Service<PickedStage> for Outlier<S> {
    async fn call<'c>(&'c self, picked: Picked<'c>) -> Result<Outcome, AttemptError> {
        let Picked { exchange, kind, cluster, endpoint, held } = picked;
        held.observation = Some(Observation::new(endpoint.clone(), kind));
        let picked = Picked { exchange, kind, cluster, endpoint, held: &mut *held };
        let result = self.inner.call(picked).await;
        if let Some(observation) = &mut held.observation {
            match &result {
                Ok(outcome) => observation.head(*outcome),
                Err(error) => observation.failed(Outcome::Failed(error.rejection.reason().failure())),
            }
        }
        result
    }
}

/// What a response head says about its attempt.
pub(crate) fn outcome_of<B>(response: &Response<B>, kind: RequestKind) -> Outcome {
    let grpc = match kind {
        RequestKind::Grpc => grpc_status(response.headers()),
        RequestKind::Http => None,
    };
    Outcome::Response { http: response.status(), grpc }
}

/// `grpc-status`, if it is there.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<GrpcCode> {
    // A pass over a few headers costs less than a lookup.
    let status = headers.iter().find(|(name, _)| **name == GRPC_STATUS);
    status.map(|(_, status)| GrpcCode::parse(status.as_bytes()))
}

// === impl Observation ===

impl Observation {
    fn new(endpoint: Arc<EndpointRuntime>, kind: RequestKind) -> Self {
        Self { endpoint, kind, outcome: Outcome::Cancelled }
    }

    /// The response head is there. For HTTP that is the outcome; for gRPC the status is still to come.
    fn head(&mut self, outcome: Outcome) {
        self.outcome = match outcome {
            Outcome::Response { http: StatusCode::OK, grpc: None } if self.kind == RequestKind::Grpc => {
                Outcome::Cancelled
            }
            known => known,
        };
    }

    /// The body ended, with this status in its trailers if any.
    pub(crate) fn end(&mut self, trailers: Option<GrpcCode>) {
        if self.kind == RequestKind::Grpc && self.outcome == Outcome::Cancelled {
            // A stream that ends without a status broke off somewhere.
            let grpc = trailers.unwrap_or(GrpcCode::UNKNOWN);
            self.outcome = Outcome::Response { http: StatusCode::OK, grpc: Some(grpc) };
        }
    }

    /// The attempt, or the body of its response, failed.
    pub(crate) fn failed(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.endpoint.record(self.outcome);
    }
}
