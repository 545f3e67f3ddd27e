//! The task of one connection.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{Connection, ConnectionState};
use crate::body::Body;
use crate::transport::error::EndReason;
use crate::transport::io::Counted;

/// Drives a connection to its end: the peer closes it, it is idle for too long, or it goes over to another protocol.
pub(super) async fn drive(http: http1::Connection<TokioIo<Counted>, Body>, connection: Arc<Connection>) {
    let ended = Ended(connection);
    let mut http = pin!(http.with_upgrades());
    let mut idle = pin!(sleep(ended.0.idle_timeout));
    let mut upload = None;
    let mut registered: Option<Waker> = None;
    std::future::poll_fn(|cx| {
        if !registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            registered = Some(cx.waker().clone());
            ended.0.register(cx.waker());
        }
        if let Poll::Ready(result) = http.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "HTTP/1.1 connection failed");
            }
            return Poll::Ready(());
        }
        if ended.0.poll_upload(&mut upload, cx).is_ready() {
            tracing::debug!("a request that was answered made no progress; closed");
            return Poll::Ready(());
        }
        while idle.as_mut().poll(cx).is_ready() {
            match ended.0.idle_deadline() {
                Some(deadline) if deadline > Instant::now() => idle.as_mut().reset(deadline),
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    })
    .await;
}

/// Watches a request that goes on after its response has ended.
pub(super) struct Upload {
    timer: Pin<Box<Sleep>>,
    /// Bytes written when the timer was set.
    written: u64,
}

/// Tells the pool that the connection ended, however its task ended.
struct Ended(Arc<Connection>);

impl Drop for Ended {
    fn drop(&mut self) {
        *self.0.lock() = ConnectionState::Closed;
        let broke = self.0.traffic.broke();
        let reason = broke.map(|cause| EndReason::new(cause.to_string(), Some(cause.clone())));
        self.0.events.clone().closed(self.0.id, reason);
    }
}

// === impl Connection ===

impl Connection {
    fn register(&self, waker: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// When the connection may be closed for idleness, or that it is closed.
    fn idle_deadline(&self) -> Option<Instant> {
        match &*self.lock() {
            ConnectionState::Idle { since, .. } => Some(*since + self.idle_timeout),
            ConnectionState::InUse { .. } | ConnectionState::Uploading { .. } => {
                Some(Instant::now() + self.idle_timeout)
            }
            ConnectionState::Closed => None,
        }
    }

    /// Puts the sender back once both directions have ended. Ready if the request makes no progress.
    fn poll_upload(&self, upload: &mut Option<Upload>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.uploading.load(Ordering::Acquire) || self.settle() {
            *upload = None;
            return Poll::Pending;
        }
        let (written, grace) = (self.traffic.written(), self.upload_grace);
        let upload = upload.get_or_insert_with(|| Upload { timer: Box::pin(sleep(grace)), written });
        while upload.timer.as_mut().poll(cx).is_ready() {
            if upload.written == written {
                return Poll::Ready(());
            }
            upload.written = written;
            upload.timer = Box::pin(sleep_until(Instant::now() + grace));
        }
        Poll::Pending
    }

    /// Whether no request goes on alone any more.
    fn settle(&self) -> bool {
        let mut state = self.lock();
        let ConnectionState::Uploading { sender, .. } = &*state else {
            self.uploading.store(false, Ordering::Release);
            return true;
        };
        // The codec, which was polled just now, is ready for a request only when it has finished with the last one.
        if !sender.is_ready() {
            return false;
        }
        self.uploading.store(false, Ordering::Release);
        let taken = std::mem::replace(&mut *state, ConnectionState::Closed);
        if let ConnectionState::Uploading { sender, reused, draining: false } = taken {
            *state = ConnectionState::Idle { sender, since: Instant::now(), reused };
        }
        drop(state);
        self.events.slot_freed();
        true
    }
}
