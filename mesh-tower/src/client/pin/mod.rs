//! One snapshot per request: loaded once, here.
//!
//! Place in the stack: below `deadline`, above `route`. The first calls of a target wait for its first configuration
//! (gRFC A57), at most [`MAX_WAITING`] of them, within their deadline and [`MAX_WAIT`]. On drop: a waiting call gives
//! its place back. On config change: a call keeps the snapshot it has.
//!
//! Deviation: while no control plane can be reached, gRPC fails every call that is not "wait for ready". Here a call
//! with a deadline waits for as long as its caller has said, because a process that starts a moment before its control
//! plane is nobody's mistake; a call without one fails at once.

mod snapshot;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use mesh_core::deadline::Deadline;
use mesh_core::error::{Reason, Rejection};
use mesh_core::outcome::Outcome;
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) use self::snapshot::{PinnedCluster, PinnedSnapshot};
pub(crate) use self::target::{Patience, Target};
use super::deadline::Within;
use super::request::{Call, CallStage, Pinned, PinnedStage};
use super::service::Service;

/// Calls of one target that may wait for its first configuration.
const MAX_WAITING: usize = 1024;

/// How long a call without a deadline waits for the first configuration: a little longer than it takes a source of
/// configuration to find out that there is none (15 s, gRFC A57), whose reason is the better one to tell.
const MAX_WAIT: Duration = Duration::from_secs(20);

/// The layer.
#[derive(Debug)]
pub(crate) struct Pin<S> {
    inner: S,
    target: Arc<Target>,
}

impl<S> Pin<S> {
    pub(crate) fn new(inner: S, target: Arc<Target>) -> Self {
        Self { inner, target }
    }

    /// The slow path: boxed, because it is rare and large.
    async fn wait(
        &self,
        patience: Patience,
        deadline: Option<Deadline>,
        runtime: &Handle,
    ) -> Result<Arc<PinnedSnapshot>, Rejection> {
        let longest = Deadline { at: (Instant::now() + MAX_WAIT).into_std(), bound: Reason::NoConfiguration };
        let limit = deadline.filter(|own| own.at <= longest.at).unwrap_or(longest);
        let first = Within::new(self.target.first(patience), Some(limit), runtime).await;
        // The limit knows no more than its reason; the target knows what is missing.
        first.map_err(|rejection| match rejection.detail() {
            Some(_) => rejection,
            None => self.target.refusal(rejection.reason()),
        })
    }
}

impl<S: Service<PinnedStage>> Service<CallStage> for Pin<S> {
    async fn call<'c>(&'c self, call: &'c mut Call) -> Result<Outcome, Rejection> {
        let patience = if call.deadline.is_some() { Patience::Wait } else { Patience::FailFast };
        let snapshot = match self.target.current(patience) {
            Some(current) => current?,
            None => Box::pin(self.wait(patience, call.deadline, &call.shared.runtime)).await?,
        };
        call.facts.snapshot = snapshot.version;
        self.inner.call(Pinned { call, snapshot }).await
    }
}
