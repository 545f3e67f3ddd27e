//! Work under a deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_core::deadline::Deadline;
use mesh_core::error::Rejection;
use pin_project::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

/// Work that fails with the bound's reason when the deadline passes first.
///
/// The timer is made only once the work has been found pending: a call that never waits never touches the timer
/// wheel, and the place for it takes no room in the futures of the layers above. Cancel safe: dropping it drops the work.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Within<'c, F> {
    #[pin]
    work: F,
    deadline: Option<Deadline>,
    timer: Option<Pin<Box<Sleep>>>,
    runtime: &'c Handle,
}

/// A timer that works on any executor: it belongs to the runtime of the mesh.
pub(crate) fn timer(at: std::time::Instant, runtime: &Handle) -> Sleep {
    let _entered = runtime.enter();
    sleep_until(Instant::from_std(at))
}

// === impl Within ===

impl<'c, F> Within<'c, F> {
    pub(crate) fn new(work: F, deadline: Option<Deadline>, runtime: &'c Handle) -> Self {
        Self { work, deadline, timer: None, runtime }
    }
}

impl<F, T, E> Future for Within<'_, F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.work.poll(cx) {
            return Poll::Ready(result);
        }
        let Some(deadline) = this.deadline else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(timer(deadline.at, this.runtime)));
        timer.as_mut().poll(cx).map(|()| Err(Rejection::new(deadline.bound).into()))
    }
}
