//! How long the application may take: the caller's `grpc-timeout` and the listener's `max_stream_duration`.
//!
//! Place in the stack: last before the application. Covers the response to its last byte: before the head a local
//! reply, after it a trailers frame with DEADLINE_EXCEEDED (gRPC) or the end of the stream (other HTTP).
//!
//! A timer is armed only once the application has made the request wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_core::deadline::{Bounds, caller_timeout, effective};
use mesh_core::error::{Reason, Rejection};
use mesh_core::request::{RequestHead, RequestKind};
use tokio::time::{Instant, Sleep, sleep_until};

use super::survey::Survey;

/// When a request must be over, and its timer.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    bound: Reason,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The deadline of a request that arrived `now`; none if nothing bounds it.
pub(super) fn of(
    head: &RequestHead<'_>,
    survey: &Survey,
    listener: Option<Duration>,
    now: Instant,
) -> Option<Deadline> {
    let caller = match head.kind {
        RequestKind::Grpc if survey.grpc_timeout => caller_timeout(head.headers),
        RequestKind::Grpc | RequestKind::Http => None,
    };
    if caller.is_none() && listener.is_none() {
        return None;
    }
    let bounds =
        Bounds { kind: head.kind, arrived: now.into_std(), caller, inherited: None, route: None, listener };
    effective(&bounds).map(|d| Deadline { at: Instant::from_std(d.at), bound: d.bound, timer: None })
}

// === impl Deadline ===

impl Deadline {
    /// When.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// Ready when the time is up. Call it after the work was polled and is pending.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Rejection> {
        let at = self.at;
        ready!(self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx));
        Poll::Ready(Rejection::new(self.bound))
    }
}
