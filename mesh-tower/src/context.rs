//! What flows from an incoming request to the calls made for it: trace context and deadline.
//!
//! The server side keeps the context of a request in a slot beside what it polls, and polls `within` it: the context
//! is moved into the thread and back, never copied. The client side reads [`current`]. The context is the task's: it
//! does not cross `tokio::spawn`, channels or `tower::buffer`. [`spawn`] and [`InMeshContext`] carry it there.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::telemetry::TraceContext;

thread_local! {
    static CURRENT: Cell<Option<MeshContext>> = const { Cell::new(None) };
}

/// The context of one incoming request.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MeshContext {
    /// The span that serves the request: the parent of the calls made for it.
    pub trace: Option<TraceContext>,
    /// When the request must have been answered.
    pub deadline: Option<Instant>,
}

/// Carries the current context into a future that runs elsewhere.
pub trait InMeshContext: Future + Sized {
    /// This future in the context that is current now.
    fn in_mesh_context(self) -> WithContext<Self> {
        WithContext { slot: current(), inner: self }
    }
}

impl<F: Future> InMeshContext for F {}

/// Future of [`InMeshContext::in_mesh_context`] and of [`scope`]. As cancel safe as what it wraps.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct WithContext<F> {
    /// None where there was no context to carry.
    slot: Option<MeshContext>,
    #[pin]
    inner: F,
}

/// The context of the request that this task serves, if it serves one.
#[must_use]
pub fn current() -> Option<MeshContext> {
    peek(|context| context.cloned())
}

/// The deadline of the request that this task serves.
pub(crate) fn deadline() -> Option<Instant> {
    peek(|context| context?.deadline)
}

/// Runs a future in a context.
pub fn scope<F: Future>(context: MeshContext, future: F) -> WithContext<F> {
    WithContext { slot: Some(context), inner: future }
}

/// Runs a closure in the context that `slot` holds; it holds it again afterwards, even if the closure panics. An empty
/// slot changes nothing.
pub(crate) fn within<T>(slot: &mut Option<MeshContext>, run: impl FnOnce() -> T) -> T {
    struct Inside<'s> {
        slot: &'s mut Option<MeshContext>,
    }

    impl Drop for Inside<'_> {
        fn drop(&mut self) {
            swap(self.slot);
        }
    }

    if slot.is_none() {
        return run();
    }
    swap(slot);
    let _inside = Inside { slot };
    run()
}

/// `tokio::spawn` with the current context carried along.
///
/// # Panics
/// Outside a Tokio runtime, as `tokio::spawn` does.
#[expect(clippy::disallowed_methods, reason = "the caller owns the task, as with tokio::spawn")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.in_mesh_context())
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        within(this.slot, || this.inner.poll(cx))
    }
}

/// A thread that is about to end has no context.
fn swap(slot: &mut Option<MeshContext>) {
    _ = CURRENT.try_with(|current| current.swap(Cell::from_mut(slot)));
}

fn peek<T>(look: impl FnOnce(Option<&MeshContext>) -> T) -> T {
    let taken = CURRENT.try_with(Cell::take).ok().flatten();
    let seen = look(taken.as_ref());
    _ = CURRENT.try_with(|current| current.set(taken));
    seen
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_context_crosses_a_spawn_only_where_it_is_carried() {
        let at = Instant::now() + Duration::from_secs(1);
        let context = MeshContext { trace: None, deadline: Some(at) };
        scope(context, async move {
            assert_eq!(deadline(), Some(at));
            assert_eq!(spawn(async { deadline() }).await.unwrap(), Some(at));
            let carried = async { deadline() }.in_mesh_context();
            #[expect(clippy::disallowed_methods, reason = "what a user may do")]
            let (plain, carried) = (tokio::spawn(async { deadline() }), tokio::spawn(carried));
            assert_eq!((plain.await.unwrap(), carried.await.unwrap()), (None, Some(at)));
        })
        .await;
        assert_eq!(deadline(), None);
    }

    #[test]
    fn a_context_ends_with_its_closure_even_in_a_panic_and_the_outer_one_goes_on() {
        let now = Instant::now();
        let context =
            |after| Some(MeshContext { trace: None, deadline: Some(now + Duration::from_secs(after)) });
        let (mut outer, mut inner) = (context(1), context(2));
        within(&mut outer, || {
            let run = || within(&mut inner, || panic!("{:?}", deadline()));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(deadline(), Some(now + Duration::from_secs(1)));
            within(&mut None, || assert!(deadline().is_some(), "an empty slot changes nothing"));
        });
        assert_eq!(inner.and_then(|context| context.deadline), Some(now + Duration::from_secs(2)));
        assert!(outer.is_some() && deadline().is_none());
    }
}
