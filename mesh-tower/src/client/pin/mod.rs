//! One snapshot per request: loaded once, here.
//!
//! Place in the stack: below `deadline`, above `route`. The first calls of a target wait for its first configuration
//! (gRFC A57), at most [`MAX_WAITING`] of them, within their deadline and [`MAX_WAIT`]. On drop: a waiting call gives
//! its place back. On config change: a call keeps the snapshot it has.

mod snapshot;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use mesh_core::deadline::Deadline;
use mesh_core::error::{Reason, Rejection};
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) use self::snapshot::{PinnedCluster, PinnedSnapshot};
pub(crate) use self::target::Target;
use super::deadline::Within;
use super::request::{Call, CallStage, Pinned, PinnedStage, Reply};
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
    async fn wait(&self, runtime: &Handle) -> Result<Arc<PinnedSnapshot>, Rejection> {
        let at = (Instant::now() + MAX_WAIT).into_std();
        let limit = Deadline { at, bound: Reason::NoConfiguration };
        let first = Within::new(self.target.first(), Some(limit), runtime).await;
        // The limit knows no more than its reason; the target knows what is missing.
        first.map_err(|rejection| match rejection.detail() {
            Some(_) => rejection,
            None => self.target.refusal(rejection.reason()),
        })
    }
}

impl<S: Service<PinnedStage>> Service<CallStage> for Pin<S> {
    async fn call<'c>(&'c self, call: &'c mut Call) -> Result<Reply, Rejection> {
        let snapshot = match self.target.current() {
            Some(current) => current?,
            None => Box::pin(self.wait(&call.shared.runtime)).await?,
        };
        call.facts.snapshot = snapshot.version;
        self.inner.call(Pinned { call, snapshot }).await
    }
}
