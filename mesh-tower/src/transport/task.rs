//! Tasks of the transport. Each has an owner: dropping the [`Task`] aborts it.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

/// A spawned task that ends with its owner at the latest.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    /// Spawns `future` on `runtime`, inside `span`: a task is never anonymous.
    pub(crate) fn spawn(
        runtime: &Handle,
        span: Span,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self(runtime.spawn(future.instrument(span)))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
