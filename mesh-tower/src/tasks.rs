//! Owned, named tasks: a spawned task never outlives its owner and is never anonymous.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// The tasks of one owner. Dropping it aborts what still runs.
pub struct Tasks {
    runtime: Handle,
    /// Handles of tasks that have not been seen to end; swept on each spawn, so it is bounded by what runs.
    running: Mutex<Vec<JoinHandle<()>>>,
}

// === impl Tasks ===

impl Tasks {
    /// No tasks yet; they will run on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, running: Mutex::new(Vec::new()) }
    }

    /// The runtime that the tasks run on.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Starts a task that lives as long as this owner at most.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.runtime.spawn(task.instrument(tracing::debug_span!("task", name)));
        let mut running = self.lock();
        running.retain(|task| !task.is_finished());
        running.push(handle);
    }

    /// How many tasks run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().iter().filter(|task| !task.is_finished()).count()
    }

    /// Ends every task now.
    pub fn abort_all(&self) {
        for task in self.lock().drain(..) {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Handles are pushed or removed whole: the list is valid after any panic.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_task_ends_with_its_owner() {
        let alive = Arc::new(());
        let tasks = Tasks::new(Handle::current());
        let held = alive.clone();
        tasks.spawn("forever", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        assert_eq!((Arc::strong_count(&alive), tasks.running()), (2, 1));
        drop(tasks);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
