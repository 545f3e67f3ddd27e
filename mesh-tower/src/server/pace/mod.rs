//! The pace of a request and its response: `stream_idle_timeout` and `request_timeout`, where they are configured.
//!
//! Place in the stack: kept in the [`Exchange`], armed by the [`deadline`](super::deadline) of the response, which is
//! polled whenever the application makes the request wait. Envoy: both answer 408 before the head of the response; after
//! it the one ends the stream, the other no longer counts. Deviations: a request that the application does not wait for
//! is not late (Envoy reads ahead, and we leave that to flow control); no default, so that no quiet gRPC stream ends
//! unless somebody asked for it.
//!
//! ```text
//! request body   ──Pending──► awaited ──frame──► moved … ──end, or dropped──► received
//! response       ──head──► answered ──frame──► moved …   ──end, or dropped──► over (the body then times itself)
//! either timeout ──► cut: the response says so, and a body that is still read fails
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::{Body as _, Frame, SizeHint};
use mesh_core::config::listener::ServingConfig;
use mesh_core::error::{Reason, Rejection};
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::Exchange;
use super::limits::FOREVER;
use crate::body::{Body, BodyError, PollFrame};

/// What has happened to one request, as far as its timeouts need to know.
#[derive(Debug)]
pub(crate) struct Pace {
    arrived: Instant,
    idle: Option<Duration>,
    whole: Option<Duration>,
    /// When something was last passed on, in nanoseconds after `arrived`.
    moved: AtomicU64,
    /// Flags: what is above.
    state: AtomicU8,
    parties: Mutex<Parties>,
}

/// Who waits, and why no longer.
#[derive(Debug, Default)]
struct Parties {
    body: Option<Waker>,
    response: Option<Waker>,
    cut: Option<Reason>,
}

/// A request body whose pace is watched.
struct Paced {
    inner: Body,
    exchange: Arc<Exchange>,
    /// Armed once the response is over, and nobody else looks at the time.
    timer: Option<Pin<Box<Sleep>>>,
    failed: bool,
}

const AWAITED: u8 = 1;
const RECEIVED: u8 = 1 << 1;
const ANSWERED: u8 = 1 << 2;
const OVER: u8 = 1 << 3;
const CUT: u8 = 1 << 4;
/// Nobody sees the request's body pass.
const UNSEEN: u8 = 1 << 5;

/// Watches the pace of a request body, where anything about it is configured.
pub(crate) fn watch(body: Body, exchange: &Arc<Exchange>) -> Body {
    let Some(pace) = &exchange.pace else { return body };
    if body.is_end_stream() {
        pace.set(RECEIVED);
        return body;
    }
    Body::boxed(Box::new(Paced { inner: body, exchange: exchange.clone(), timer: None, failed: false }))
}

// === impl Pace ===

impl Pace {
    /// None if nothing is configured.
    pub(super) fn of(config: &ServingConfig, now: Instant) -> Option<Box<Self>> {
        let (idle, whole) = (config.stream_idle_timeout, config.request_timeout);
        if idle.is_none() && whole.is_none() {
            return None;
        }
        Some(Box::new(Self {
            arrived: now,
            idle: idle.map(|limit| limit.min(FOREVER)),
            whole: whole.map(|limit| limit.min(FOREVER)),
            moved: AtomicU64::new(0),
            state: AtomicU8::new(0),
            parties: Mutex::default(),
        }))
    }

    /// When the request has to be ended unless something happens, and why. Whoever asks is woken if that changes to an
    /// earlier time.
    pub(super) fn due(&self, now: Instant, cx: &Context<'_>) -> Option<(Instant, Reason)> {
        wait(&mut self.parties().response, cx);
        let state = self.state.load(Ordering::Acquire);
        if state & UNSEEN != 0 {
            return None;
        }
        let idle = self.idle_at().map(|at| (at, Reason::StreamIdle));
        // Once it is late, it has to be awaited too; the body tells when it is.
        let whole = self.late_at(state).filter(|at| *at > now || state & AWAITED != 0);
        let whole = whole.map(|at| (at, Reason::RequestTimeout));
        whole.into_iter().chain(idle).min_by_key(|(at, _)| *at)
    }

    /// Something of the response was passed on; its head first.
    pub(super) fn answered(&self, now: Instant) {
        self.set(ANSWERED);
        self.move_on(now);
    }

    /// The mesh has ended the request.
    pub(super) fn cut(&self, reason: Reason) {
        self.parties().cut.get_or_insert(reason);
        self.end(CUT);
    }

    /// Nobody looks at the time of the response any more.
    pub(super) fn over(&self) {
        self.end(OVER);
    }

    /// The request's body is of a type that cannot be watched: neither timeout applies.
    pub(super) fn unseen(&self) {
        self.set(UNSEEN);
    }

    /// Whether all of the request was read, or nobody reads it, as far as can be told.
    pub(super) fn is_received(&self) -> bool {
        self.state.load(Ordering::Relaxed) & (RECEIVED | UNSEEN) != 0
    }

    fn move_on(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.arrived).as_nanos();
        self.moved.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn idle_at(&self) -> Option<Instant> {
        Some(self.arrived + Duration::from_nanos(self.moved.load(Ordering::Relaxed)) + self.idle?)
    }

    fn late_at(&self, state: u8) -> Option<Instant> {
        if state & (RECEIVED | ANSWERED) != 0 { None } else { Some(self.arrived + self.whole?) }
    }

    fn set(&self, flag: u8) -> u8 {
        self.state.fetch_or(flag, Ordering::AcqRel)
    }

    fn end(&self, flag: u8) {
        self.set(flag);
        let waker = self.parties().body.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The application waits for more of the body: what is the state?
    fn await_body(&self, now: Instant, cx: &Context<'_>) -> u8 {
        let mut parties = self.parties();
        wait(&mut parties.body, cx);
        let state = self.set(AWAITED);
        let late = self.late_at(state).is_some_and(|at| at <= now);
        let waker = if late { parties.response.take() } else { None };
        drop(parties);
        if let Some(waker) = waker {
            waker.wake();
        }
        state
    }

    fn parties(&self) -> MutexGuard<'_, Parties> {
        self.parties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) => known.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

// === impl Paced ===

impl Paced {
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let Some(pace) = &self.exchange.pace else { return Poll::Pending };
        let state = pace.await_body(Instant::now(), cx);
        if state & CUT != 0 {
            return Poll::Ready(pace.parties().cut.unwrap_or(Reason::StreamIdle));
        }
        if state & OVER == 0 {
            return Poll::Pending;
        }
        let Some(at) = pace.idle_at() else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| Reason::StreamIdle)
    }
}

impl http_body::Body for Paced {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            return this.poll_timeout(cx).map(|reason| {
                this.failed = true;
                Some(Err(BodyError::new(crate::error::Error::from(Rejection::new(reason)))))
            });
        };
        if let Some(pace) = &this.exchange.pace {
            pace.state.fetch_and(!AWAITED, Ordering::AcqRel);
            pace.move_on(Instant::now());
            let ends = !matches!(&frame, Some(Ok(frame)) if Frame::is_data(frame));
            if ends || this.inner.is_end_stream() {
                pace.set(RECEIVED);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if let Some(pace) = &self.exchange.pace {
            pace.set(RECEIVED);
        }
    }
}

#[cfg(test)]
mod tests;
