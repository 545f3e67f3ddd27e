//! How long the application may take: the caller's `grpc-timeout` and the listener's `max_stream_duration`.
//!
//! Place in the stack: last before the application. Covers the response to its last byte: before the head a local
//! reply, after it a trailers frame with DEADLINE_EXCEEDED (gRPC) or the end of the stream (other HTTP).
//!
//! Where the listener asks for a [pace](super::pace), it is kept by the same timer.
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

use super::pace::Pace;
use crate::header_scan::HeaderScan;

/// When a request must be over, and its timer.
#[derive(Debug)]
pub(crate) struct Deadline {
    end: Option<(Instant, Reason)>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The deadline of a request that arrived `now`; none if nothing bounds it.
pub(super) fn of(
    head: &RequestHead<'_>,
    scan: &HeaderScan,
    listener: Option<Duration>,
    is_paced: bool,
    now: Instant,
) -> Option<Deadline> {
    let caller = match head.kind {
        RequestKind::Grpc if scan.grpc_timeout => caller_timeout(head.headers),
        RequestKind::Grpc | RequestKind::Http => None,
    };
    if caller.is_none() && listener.is_none() {
        return is_paced.then_some(Deadline { end: None, timer: None });
    }
    let bounds =
        Bounds { kind: head.kind, arrived: now.into_std(), caller, inherited: None, route: None, listener };
    let end = effective(&bounds).map(|d| (Instant::from_std(d.at), d.bound));
    (end.is_some() || is_paced).then_some(Deadline { end, timer: None })
}

// === impl Deadline ===

impl Deadline {
    /// When the request must be over, whatever happens.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.end.map(|(at, _)| at)
    }

    /// Ready when the time is up. Call it after the work was polled and is pending.
    pub(crate) fn poll_expired(&mut self, pace: Option<&Pace>, cx: &mut Context<'_>) -> Poll<Rejection> {
        loop {
            let paced = pace.and_then(|pace| pace.due(Instant::now(), cx));
            let Some((at, bound)) = self.end.into_iter().chain(paced).min_by_key(|(at, _)| *at) else {
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            // A timer that is early is left alone: when it rings, the time is looked at again.
            if at < timer.deadline() || (timer.is_elapsed() && timer.deadline() < at) {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(Rejection::new(bound));
            }
        }
    }
}
