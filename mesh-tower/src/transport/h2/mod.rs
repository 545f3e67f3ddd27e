//! The HTTP/2 client, directly on the `h2` crate, behind the trait [`HttpConnection`].
//!
//! The caller's task enqueues HEADERS and DATA itself: no dispatch task, no channel, no box on the way. A unary
//! call is HEADERS and one DATA frame that ends the stream, enqueued back to back, so that they leave in one
//! write. A task is spawned only for a request body that is not ready or does not fit the flow-control window
//! ([`upload`]).
//!
//! Streams are counted here, against the limit that the peer has announced (the connection is not ready before
//! its SETTINGS arrived) and that is read again on each send: the codec never queues a request that the peer has
//! no room for. gRFC A32 and Envoy count alike.
//!
//! Dropping the response future or an unfinished response body resets the stream with CANCEL. A call ends with
//! its response: an upload that is still running then is cancelled too.
//!
//! ```text
//! open ──GOAWAY, drain(), ids exhausted──► draining ──last stream ended──► closed
//!   └──────────────I/O error, missed keepalive, abort()────────────────────────▲
//! ```

mod driver;
mod preface;
mod recv;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::client::{ResponseFuture, SendRequest};
use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Version};
use tokio::runtime::Handle;

use self::preface::HoldsPreface;
pub(crate) use self::recv::RecvBody;
use self::upload::{PumpHandle, Upload, Uploaded};
use super::error::{ConnectError, ConnectFailure, FailureKind, Progress, SendError};
use super::io::{BoxIo, Counted, Traffic};
use super::{ConnectionEvents, HttpConnection, Unavailable};
use crate::body::Body;

/// How HTTP/2 connections are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Settings {
    /// What one response may have in flight unread. It bounds the memory of a response whose reader is slow.
    pub stream_window: u32,
    /// What all responses of a connection may have in flight unread.
    pub connection_window: u32,
    /// Our own bound on concurrent streams; the peer's applies in addition.
    pub max_concurrent_streams: u32,
    /// The largest response head that is accepted.
    pub max_header_list_size: u32,
    /// PINGs on a silent connection.
    pub keepalive: Option<KeepAlive>,
}

/// PING keepalive (Envoy: `connection_keepalive`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepAlive {
    /// A PING is sent when nothing was read for this long (at most twice this long: activity is looked at when
    /// the timer fires, not on each read).
    pub interval: Duration,
    /// The connection is dead when the PING is not answered for this long.
    pub timeout: Duration,
    /// Whether a connection without calls is probed as well.
    pub while_idle: bool,
}

/// One HTTP/2 connection. The pool and each call in flight share it; its driver task ends when the connection
/// is drained and the last call is over.
pub(crate) struct Connection {
    /// `None` once the connection takes no more requests.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    /// Streams that are reserved or open. Added to under `sender`'s lock only, so that it never passes the limit.
    active: AtomicUsize,
    max_streams: usize,
    /// A response head came over it: the peer is one that works.
    served: AtomicBool,
    traffic: Arc<Traffic>,
    events: Arc<dyn ConnectionEvents>,
    id: u64,
    runtime: Handle,
    driver: OnceLock<tokio::task::AbortHandle>,
    /// Why the connection ended, for the errors of its calls.
    reason: OnceLock<Arc<str>>,
}

/// The right to open one stream; the stream's place among the peer's limit is given back on drop.
pub(crate) struct Slot {
    connection: Arc<Connection>,
}

/// The response head. Dropping it resets the stream.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct SendFuture {
    response: ResponseFuture,
    guard: Guard,
}

/// What a call holds until it is over: its slot, and the task of its upload if it has one.
#[derive(Default)]
struct Guard {
    slot: Option<Slot>,
    /// The slot is inside when there is a pump, because the stream is in use until both sides are over.
    pump: Option<Box<PumpHandle>>,
}

// === impl Http2Settings ===

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            max_concurrent_streams: u32::MAX,
            max_header_list_size: 60 * 1024,
            keepalive: None,
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Whether the peer ever answered a request on this connection.
    pub(crate) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Speaks the preface over `io`, waits for the peer's SETTINGS and starts the driver.
    ///
    /// Cancel safe: dropping the future closes `io`.
    pub(crate) async fn establish(
        io: BoxIo,
        settings: &Http2Settings,
        id: u64,
        events: Arc<dyn ConnectionEvents>,
    ) -> Result<Arc<Self>, ConnectError> {
        let traffic = Arc::new(Traffic::default());
        let (sender, mut connection) = ::h2::client::Builder::new()
            // Zero until the peer's SETTINGS: that is how their arrival is seen.
            .initial_max_send_streams(0)
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_header_list_size(settings.max_header_list_size)
            .enable_push(false)
            .handshake::<_, Bytes>(HoldsPreface::new(Counted::new(io, traffic.clone())))
            .await
            .map_err(|e| protocol_error(&e))?;
        std::future::poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(protocol_error(&e))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(closed_early())),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;

        let runtime = Handle::current();
        let this = Arc::new(Self {
            sender: Mutex::new(Some(sender)),
            active: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            max_streams: settings.max_concurrent_streams as usize,
            traffic,
            events,
            id,
            runtime: runtime.clone(),
            driver: OnceLock::new(),
            reason: OnceLock::new(),
        });
        let driver = driver::Driver::new(connection, this.clone(), settings.keepalive.clone());
        let task = driver::spawn(&runtime, driver);
        // The driver cannot have been set before: this is the only place.
        let _ = this.driver.set(task);
        Ok(this)
    }

    /// Whether a request may be sent now by somebody who already holds a slot.
    fn check(&self, cx: &mut Context<'_>) -> Result<(), FailureKind> {
        let mut sender = self.lock_sender();
        let Some(open) = sender.as_mut() else { return Err(FailureKind::Closed) };
        if let Poll::Ready(Err(_)) = open.poll_ready(cx) {
            *sender = None;
            drop(sender);
            self.events.clone().draining(self.id);
            return Err(FailureKind::Closed);
        }
        if self.active.load(Ordering::SeqCst) > self.limit(open) {
            return Err(FailureKind::StreamLimit);
        }
        Ok(())
    }

    /// Opens a stream for the holder of a slot.
    fn open(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), SendError> {
        let mut sender = self.lock_sender();
        let Some(open) = sender.as_mut() else {
            return Err(SendError::new(FailureKind::Closed, Progress::NotSent));
        };
        let result = open.send_request(request, end);
        if self.active.load(Ordering::SeqCst) >= self.limit(open) {
            // At its limit, `h2` keeps the newest stream inside the sender and refuses the next request until that
            // stream was written, although its caller may have dropped it by then. A clone keeps none.
            *open = open.clone();
        }
        drop(sender);
        result.map_err(|e| {
            let kind =
                if e.is_go_away() || e.is_io() { FailureKind::Closed } else { FailureKind::InvalidRequest };
            SendError::new(kind, Progress::NotSent).with_source(e)
        })
    }

    fn limit(&self, sender: &SendRequest<Bytes>) -> usize {
        sender.current_max_send_streams().min(self.max_streams)
    }

    fn lock_sender(&self) -> std::sync::MutexGuard<'_, Option<SendRequest<Bytes>>> {
        // Nothing is left half done under this lock, so a panic elsewhere does not make its content wrong.
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an error on a stream says about the request.
    fn classify(&self, error: ::h2::Error) -> SendError {
        let (kind, progress) = if error.is_reset() && error.is_remote() {
            match error.reason() {
                Some(Reason::REFUSED_STREAM) => (FailureKind::Refused, Progress::Unprocessed),
                reason => (FailureKind::Reset(reason.map_or(0, u32::from)), Progress::Sent),
            }
        } else if error.is_go_away() && error.is_remote() {
            // `h2` fails a stream with the peer's GOAWAY only where its id is above the last one processed.
            (FailureKind::GoAway, Progress::Unprocessed)
        } else if error.is_io() {
            (FailureKind::Io, Progress::Sent)
        } else {
            (FailureKind::Protocol, Progress::Sent)
        };
        SendError::new(kind, progress).with_source(error).with_connection(self.reason.get().cloned())
    }
}

impl HttpConnection for Connection {
    type Slot = Slot;

    fn reserve(self: &Arc<Self>) -> Result<Slot, Unavailable> {
        let sender = self.lock_sender();
        let Some(open) = sender.as_ref() else { return Err(Unavailable::Closed) };
        if self.active.load(Ordering::SeqCst) >= self.limit(open) {
            return Err(Unavailable::Full);
        }
        self.active.fetch_add(1, Ordering::SeqCst);
        Ok(Slot { connection: self.clone() })
    }

    fn drain(&self) {
        // Dropping the sender lets the driver say GOAWAY once no stream is left.
        let sender = self.lock_sender().take();
        drop(sender);
    }

    fn abort(&self) {
        self.drain();
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }

    fn in_flight(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h2::Connection")
            .field("id", &self.id)
            .field("active", &self.active)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

// === impl Slot ===

impl Slot {
    /// Sends the request, from within the task that awaits the response.
    pub(crate) fn start(self, cx: &mut Context<'_>, request: Request<Body>) -> Result<SendFuture, SendError> {
        if let Err(kind) = self.connection.check(cx) {
            return Err(SendError::not_sent(kind, request));
        }
        let (head, body) = request.into_parts();
        let mut upload = Upload::new(body);
        // Looking ahead before HEADERS leave keeps the two frames of a unary call in one write.
        upload.fill(cx).map_err(|e| request_body_failed(e, Progress::NotSent))?;
        let (response, mut stream) = self.connection.open(prepare(head), upload.is_finished())?;
        if upload.is_finished() {
            return Ok(SendFuture { response, guard: Guard { slot: Some(self), pump: None } });
        }
        let guard = match upload.poll(cx, &mut stream) {
            Poll::Ready(Uploaded::Done | Uploaded::PeerStopped) => Guard { slot: Some(self), pump: None },
            Poll::Ready(Uploaded::Failed(error)) => {
                stream.send_reset(Reason::CANCEL);
                return Err(request_body_failed(error, Progress::Sent));
            }
            Poll::Pending => {
                Guard { slot: None, pump: Some(Box::new(PumpHandle::spawn(self, upload, stream))) }
            }
        };
        Ok(SendFuture { response, guard })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.active.fetch_sub(1, Ordering::SeqCst);
        self.connection.events.slot_freed();
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h2::Slot").field("connection", &self.connection.id).finish()
    }
}

// === impl SendFuture ===

impl Future for SendFuture {
    type Output = Result<Response<Body>, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.response).poll(cx));
        let mut guard = std::mem::take(&mut self.guard);
        Poll::Ready(match result {
            Ok(response) => {
                if let Some(connection) = guard.connection() {
                    connection.served.store(true, Ordering::Relaxed);
                }
                Ok(response.map(|recv| Body::http2(RecvBody::new(recv, guard))))
            }
            Err(error) => Err(guard.failure(error)),
        })
    }
}

impl fmt::Debug for SendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h2::SendFuture").finish_non_exhaustive()
    }
}

// === impl Guard ===

impl Guard {
    fn connection(&self) -> Option<&Connection> {
        let slot = self.slot.as_ref().or_else(|| self.pump.as_deref().map(PumpHandle::slot));
        slot.map(|slot| &*slot.connection)
    }

    /// A stream error, or what caused it: a failed request body resets the stream from our side.
    fn failure(&mut self, error: ::h2::Error) -> SendError {
        if let Some(body_error) = self.pump.as_deref().and_then(PumpHandle::take_error) {
            return request_body_failed(body_error, Progress::Sent);
        }
        match self.connection() {
            Some(connection) => connection.classify(error),
            None => SendError::new(FailureKind::Protocol, Progress::Sent).with_source(error),
        }
    }

    /// The call is over: its place on the connection is free, a running upload is cancelled.
    fn finish(&mut self) {
        *self = Self::default();
    }
}

/// Makes a head that HTTP/2 can carry: no connection-specific fields, no `host` beside `:authority`.
fn prepare(mut head: http::request::Parts) -> Request<()> {
    let has_authority = head.uri.authority().is_some();
    // One pass, because the usual head has nothing to remove.
    while let Some(name) = head.headers.iter().find(|(name, value)| is_unfit(name, value, has_authority)) {
        let name = name.0.clone();
        head.headers.remove(name);
    }
    head.version = Version::HTTP_2;
    Request::from_parts(head, ())
}

fn is_unfit(name: &HeaderName, value: &HeaderValue, has_authority: bool) -> bool {
    match name.as_str() {
        "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => true,
        "te" => value != "trailers",
        "host" => has_authority,
        _ => false,
    }
}

fn request_body_failed(error: crate::body::BodyError, progress: Progress) -> SendError {
    SendError::new(FailureKind::RequestBody, progress).with_source(error)
}

fn protocol_error(error: &::h2::Error) -> ConnectError {
    ConnectError::new(ConnectFailure::Protocol, format!("HTTP/2 handshake failed: {error}"))
}

fn closed_early() -> ConnectError {
    ConnectError::new(ConnectFailure::Protocol, "the peer closed the connection before its HTTP/2 SETTINGS")
}
