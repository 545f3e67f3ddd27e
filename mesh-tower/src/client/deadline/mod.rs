//! How long a call may take in all.
//!
//! Place in the stack: below `trace`, above everything that can wait (configuration, picker, connection, retries).
//! The bounds known before routing (the caller's `grpc-timeout`, the inherited deadline) are armed here; `route` arms
//! a tighter one from the configuration with the same [`Within`]; the body of the response goes on under the last of
//! them. References: gRFC A31, Envoy's route timeouts. On drop: the timer goes with it. On config change: a call keeps
//! the bounds of the route it was given.

mod future;
#[cfg(test)]
mod tests;

use std::future::Future;

use mesh_core::deadline::{Bounds, effective};
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) use self::future::{Within, timer};
use super::request::{Call, CallStage};
use super::service::{Service, Stage};

/// The layer.
#[derive(Debug)]
pub(crate) struct Deadline<S> {
    inner: S,
    runtime: Handle,
}

impl<S> Deadline<S> {
    pub(crate) fn new(inner: S, runtime: Handle) -> Self {
        Self { inner, runtime }
    }
}

impl<S: Service<CallStage>> Service<CallStage> for Deadline<S> {
    fn call<'c>(
        &'c self,
        call: &'c mut Call,
    ) -> impl Future<Output = Result<<CallStage as Stage>::Response, <CallStage as Stage>::Error>> + Send + 'c
    {
        if call.timeout.is_some() || call.inherited.is_some() {
            call.deadline = effective(&Bounds {
                kind: call.kind,
                arrived: call.arrived.into_std(),
                caller: call.timeout,
                inherited: call.inherited.map(Instant::into_std),
                route: None,
                listener: None,
            });
        }
        let deadline = call.deadline;
        Within::new(self.inner.call(call), deadline, &self.runtime)
    }
}
