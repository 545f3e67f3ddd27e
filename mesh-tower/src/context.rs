//! What flows from an incoming request to the calls made for it: trace context and deadline.
//!
//! The server side runs the application inside [`scope`], its response body inside [`sync_scope`]; the client side
//! reads [`current`]. The context is the task's: it does not cross `tokio::spawn`, channels or `tower::buffer`.
//! [`spawn`] and [`InMeshContext`] carry it there.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tokio::task::JoinHandle;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use crate::telemetry::TraceContext;

tokio::task_local! {
    static CURRENT: MeshContext;
}

/// The context of one incoming request.
#[derive(Debug, Clone, Default)]
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
        WithContext(match current() {
            Some(context) => Inner::With(scope(context, self)),
            None => Inner::Without(self),
        })
    }
}

impl<F: Future> InMeshContext for F {}

/// Future of [`InMeshContext::in_mesh_context`]. As cancel safe as what it wraps.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct WithContext<F>(#[pin] Inner<F>);

#[pin_project(project = InnerProj)]
#[derive(Debug)]
enum Inner<F> {
    With(#[pin] TaskLocalFuture<MeshContext, F>),
    Without(#[pin] F),
}

/// The context of the request that this task serves, if it serves one.
#[must_use]
pub fn current() -> Option<MeshContext> {
    CURRENT.try_with(MeshContext::clone).ok()
}

/// The deadline of the request that this task serves.
pub(crate) fn deadline() -> Option<Instant> {
    CURRENT.try_with(|context| context.deadline).ok().flatten()
}

/// Runs a future in a context.
pub fn scope<F: Future>(context: MeshContext, future: F) -> TaskLocalFuture<MeshContext, F> {
    CURRENT.scope(context, future)
}

/// Runs a closure in a context.
pub fn sync_scope<T>(context: MeshContext, run: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, run)
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
        match self.project().0.project() {
            InnerProj::With(future) => future.poll(cx),
            InnerProj::Without(future) => future.poll(cx),
        }
    }
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
}
