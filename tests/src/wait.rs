//! Waiting for events. The limits are generous: they exist so that a broken test fails instead of hanging.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::{Resolution, Subscription};
use tokio::sync::watch;

/// How long an event may take before the test fails. Far above what it takes on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits for something that has to happen.
///
/// # Panics
/// If it does not happen within [`LIMIT`].
#[track_caller]
pub fn soon<T>(event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(LIMIT, event).await {
            Ok(value) => value,
            Err(_) => panic!("{caller}: the event did not come within {LIMIT:?}"),
        }
    }
}

/// Waits until a watched value satisfies a condition, and returns it.
///
/// # Panics
/// If it does not within [`LIMIT`], or its owner is gone.
#[track_caller]
pub fn until<T: Clone>(
    mut value: watch::Receiver<T>,
    condition: impl FnMut(&T) -> bool,
) -> impl Future<Output = T> {
    soon(async move {
        let found = value.wait_for(condition).await.expect("the owner of the value is alive");
        found.clone()
    })
}

/// Waits until the runtime of the caller runs at most `tasks` tasks: what a leak check compares with its baseline.
///
/// The end of a task is not an event that its observer could wait for, so this yields to the scheduler in between.
///
/// # Panics
/// If that does not come within [`LIMIT`].
#[track_caller]
pub fn until_tasks_at_most(tasks: usize) -> impl Future<Output = ()> {
    soon(async move {
        let metrics = tokio::runtime::Handle::current().metrics();
        while metrics.num_alive_tasks() > tasks {
            tokio::task::yield_now().await;
        }
    })
}

/// Waits until a target resolves to something that satisfies a condition, and returns it.
///
/// # Panics
/// If it does not within [`LIMIT`].
#[track_caller]
pub fn until_resolved<S>(
    target: &Subscription<S>,
    mut condition: impl FnMut(&Resolution<S>) -> bool,
) -> impl Future<Output = Arc<Resolution<S>>> {
    let mut changes = target.cell().subscribe();
    soon(async move {
        loop {
            let resolution = changes.changed().await;
            if condition(&resolution) {
                return resolution;
            }
        }
    })
}

/// Waits until a target has a snapshot that satisfies a condition, and returns it.
///
/// # Panics
/// If it does not within [`LIMIT`].
#[track_caller]
pub fn until_snapshot<S>(
    target: &Subscription<S>,
    mut condition: impl FnMut(&S) -> bool,
) -> impl Future<Output = Arc<S>> {
    let resolved = until_resolved(
        target,
        move |resolution| matches!(resolution, Resolution::Ready(snapshot) if condition(snapshot)),
    );
    async move {
        match &*resolved.await {
            Resolution::Ready(snapshot) => Arc::clone(snapshot),
            Resolution::Pending(_) | Resolution::Failed(_) => {
                unreachable!("the condition asks for a snapshot")
            }
        }
    }
}

/// Runs a future beside the test. It ends with the test's runtime at the latest.
#[expect(clippy::disallowed_methods, reason = "the runtime of a test owns its tasks")]
pub fn beside<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}
