//! The HTTP/2 client, directly on the `h2` crate, behind the trait `HttpConnection`.
//!
//! The caller's task enqueues HEADERS and DATA itself: no dispatch task, no channel, no box on the way. A unary
//! call is HEADERS and one DATA frame that ends the stream, enqueued back to back, so that they leave in one
//! write. A task is spawned only for a request body that is not ready or does not fit the flow-control window
//! (`upload`).
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
//!   └──────────────I/O error, missed keepalive─────────────────────────────────▲
//! ```

mod driver;
pub(crate) mod guard;
mod head;
pub(crate) mod keepalive;
mod recv;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod upload;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use ::h2::client::{ResponseFuture, SendRequest};
use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::{Method, Request, Response};
use tokio::runtime::Handle;

pub(crate) use self::guard::UnreadLimits;
use self::guard::{Credit, Guarded, ReceiveBudget, Role, StreamCredit};
use self::head::{Named, Prepared};
pub(crate) use self::recv::{Incoming, RecvBody, has_content};
pub(crate) use self::settings::{Http2Settings, KeepAlive};
use self::upload::{PumpHandle, Upload, Uploaded};
use super::error::{ConnectError, ConnectFailure, EndReason, FailureKind, Progress, SendError};
use super::io::{BoxIo, Counted, Traffic};
use super::pool::losses::CallRecord;
use super::{ConnectionEvents, HttpConnection, Unavailable};
use crate::body::Body;

/// One HTTP/2 connection. The pool and each call in flight share it; its driver task ends when the connection
/// is drained and the last call is over.
pub(crate) struct Connection {
    /// `None` once the connection takes no more requests.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    /// Streams that are reserved or open. Added to under `sender`'s lock only, so that it never passes the limit.
    active: AtomicUsize,
    max_streams: usize,
    /// The peer's limit, as it was seen last.
    peer_limit: AtomicUsize,
    /// Names that the peer's table has seen.
    named: AtomicU8,
    /// What readers of responses report to.
    credit: Arc<Credit>,
    /// What became of its calls.
    calls: Arc<CallRecord>,
    traffic: Arc<Traffic>,
    events: Arc<dyn ConnectionEvents>,
    id: u64,
    runtime: Handle,
    /// Why the connection ended, for the errors of its calls.
    reason: OnceLock<EndReason>,
}

/// The right to open one stream; the stream's place among the peer's limit is given back on drop.
pub(crate) struct Slot {
    connection: Arc<Connection>,
}

/// The response head. Dropping it resets the stream.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct SendFuture {
    response: ResponseFuture,
    credit: Option<StreamCredit>,
    guard: Guard,
    /// The response has no content, whatever its peer thinks of that.
    is_head: bool,
}

/// What a call holds until it is over: its slot, and the task of its upload if it has one.
#[derive(Default)]
struct Guard {
    slot: Option<Slot>,
    /// The slot is inside when there is a pump, because the stream is in use until both sides are over.
    pump: Option<Box<PumpHandle>>,
}

/// A response head larger than what we accept.
#[derive(Debug, thiserror::Error)]
#[error("the response head has {size} bytes, and {limit} are accepted")]
struct HeadTooLarge {
    size: usize,
    limit: u32,
}

// === impl Connection ===

impl Connection {
    /// What became of its calls.
    pub(crate) fn record(&self) -> Arc<CallRecord> {
        self.calls.clone()
    }

    /// Speaks the preface over `io`, waits for the peer's SETTINGS and starts the driver.
    ///
    /// Cancel safe: dropping the future closes `io`.
    pub(crate) async fn establish(
        io: BoxIo,
        settings: &Http2Settings,
        budget: Arc<ReceiveBudget>,
        id: u64,
        events: Arc<dyn ConnectionEvents>,
    ) -> Result<Arc<Self>, ConnectError> {
        let traffic = Arc::new(Traffic::default());
        let io = Guarded::new(Counted::new(io, traffic.clone()), settings.guard(Role::Client), budget);
        let credit = io.credit().clone();
        let (mut sender, mut connection) =
            settings.client().handshake::<_, Bytes>(io).await.map_err(|e| failed(&e, &traffic))?;
        std::future::poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(_) if has_gone_away(&mut sender, cx) => Poll::Ready(Err(gone_early())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(failed(&e, &traffic))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(closed_early())),
            Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;

        let runtime = Handle::current();
        let this = Arc::new(Self {
            peer_limit: AtomicUsize::new(sender.current_max_send_streams()),
            sender: Mutex::new(Some(sender)),
            active: AtomicUsize::new(0),
            named: AtomicU8::new(0),
            calls: Arc::default(),
            max_streams: settings.max_concurrent_streams as usize,
            credit,
            traffic,
            events,
            id,
            runtime: runtime.clone(),
            reason: OnceLock::new(),
        });
        let driver = driver::Driver::new(connection, this.clone(), settings.keepalive.clone());
        driver::spawn(&runtime, driver);
        Ok(this)
    }

    /// Whether a request may be sent now by somebody who already holds a slot.
    fn check(&self, cx: &mut Context<'_>) -> Result<(), FailureKind> {
        let mut sender = self.lock_sender();
        let Some(open) = sender.as_mut() else { return Err(FailureKind::Closed) };
        if let Poll::Ready(Err(error)) = open.poll_ready(cx) {
            *sender = None;
            drop(sender);
            self.takes_no_more(&error);
            return Err(FailureKind::Closed);
        }
        self.see_limit(open.current_max_send_streams());
        if self.active.load(Ordering::SeqCst) > self.limit() {
            return Err(FailureKind::StreamLimit);
        }
        Ok(())
    }

    /// Reports to the pool that the peer takes no more requests. A connection that broke reports its end itself.
    fn takes_no_more(&self, error: &::h2::Error) {
        if !error.is_io() && !error.is_library() {
            self.events.clone().draining(self.id);
        }
    }

    /// Opens a stream for the holder of a slot.
    fn open(
        &self,
        mut request: Request<()>,
        named: Named,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), SendError> {
        let mut sender = self.lock_sender();
        let new = named.without(self.named.load(Ordering::Relaxed));
        if !new.is_empty() {
            self.named.fetch_or(new.0, Ordering::Relaxed);
            new.teach(request.headers_mut());
        }
        let Some(open) = sender.as_mut() else {
            return Err(
                SendError::new(FailureKind::Closed, Progress::NotSent).broken_by(self.traffic.broke())
            );
        };
        let result = open.send_request(request, end);
        if self.active.load(Ordering::SeqCst) >= self.limit() {
            // At its limit, `h2` keeps the newest stream inside the sender and refuses the next request until that
            // stream was written, although its caller may have dropped it by then. A clone keeps none.
            *open = open.clone();
        }
        drop(sender);
        result.map_err(|e| {
            let kind =
                if e.is_go_away() || e.is_io() { FailureKind::Closed } else { FailureKind::InvalidRequest };
            let broke = self.traffic.broke().filter(|_| kind == FailureKind::Closed);
            SendError::new(kind, Progress::NotSent).with_source(e).broken_by(broke)
        })
    }

    fn limit(&self) -> usize {
        self.peer_limit.load(Ordering::Relaxed).min(self.max_streams)
    }

    /// Records the peer's limit.
    fn see_limit(&self, limit: usize) {
        self.peer_limit.store(limit, Ordering::Relaxed);
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
        let broke = self.traffic.broke().filter(|_| kind == FailureKind::Io);
        let error = SendError::new(kind, progress).with_source(error).broken_by(broke);
        error.with_connection(self.reason.get().cloned())
    }
}

impl HttpConnection for Connection {
    type Slot = Slot;

    fn reserve(self: &Arc<Self>) -> Result<Slot, Unavailable> {
        let sender = self.lock_sender();
        if sender.is_none() {
            return Err(Unavailable::Closed);
        }
        if self.active.load(Ordering::SeqCst) >= self.limit() {
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
            let broke = self.connection.traffic.broke();
            return Err(SendError::not_sent(kind, request).broken_by(broke));
        }
        let is_head = request.method() == Method::HEAD;
        let (head, body) = request.into_parts();
        let Prepared { head, length, named } = Prepared::new(head);
        let mut upload = Upload::new(body, length);
        // Looking ahead before HEADERS leave keeps the two frames of a unary call in one write.
        Pin::new(&mut upload).fill(cx).map_err(|e| request_body_failed(e, Progress::NotSent))?;
        let (response, mut stream) = self.connection.open(head, named, upload.is_finished())?;
        let credit = StreamCredit::new(self.connection.credit.clone(), response.stream_id().as_u32());
        let sending = |guard| SendFuture { response, credit: Some(credit), guard, is_head };
        if upload.is_finished() {
            return Ok(sending(Guard { slot: Some(self), pump: None }));
        }
        let guard = match Pin::new(&mut upload).poll(cx, &mut stream) {
            Poll::Ready(Uploaded::Done | Uploaded::PeerStopped) => Guard { slot: Some(self), pump: None },
            Poll::Ready(Uploaded::Failed(error)) => {
                stream.send_reset(Reason::CANCEL);
                return Err(request_body_failed(error, Progress::Sent));
            }
            Poll::Pending => {
                Guard { slot: None, pump: Some(Box::new(PumpHandle::spawn(self, upload, stream))) }
            }
        };
        Ok(sending(guard))
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
        let (mut guard, credit) = (std::mem::take(&mut self.guard), self.credit.take());
        Poll::Ready(match (result, credit) {
            (Ok(response), Some(credit)) => {
                if let Some(connection) = guard.connection() {
                    connection.calls.served();
                }
                if let Some(size) = credit.is_too_large(response.headers()) {
                    let error = HeadTooLarge { size, limit: credit.max_header_list_size() };
                    return Poll::Ready(Err(
                        SendError::new(FailureKind::HeadTooLarge, Progress::Sent).with_source(error)
                    ));
                }
                let has_content = !self.is_head && has_content(response.status());
                let incoming = |recv| Incoming::response(recv, credit, has_content);
                Ok(response.map(|recv| Body::http2(RecvBody::new(incoming(recv), guard))))
            }
            (Err(error), _) => Err(guard.failure(error)),
            (Ok(_), None) => Err(SendError::new(FailureKind::Closed, Progress::Sent)),
        })
    }
}

impl Drop for SendFuture {
    fn drop(&mut self) {
        // Empty once the future is ready.
        if let Some(connection) = self.guard.connection() {
            connection.calls.given_up();
        }
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
            Some(connection) => {
                let error = connection.classify(error);
                if error.kind() != FailureKind::GoAway {
                    connection.calls.failed();
                }
                error
            }
            None => SendError::new(FailureKind::Protocol, Progress::Sent).with_source(error),
        }
    }

    /// The call is over: its place on the connection is free, a running upload is cancelled.
    fn finish(&mut self) {
        *self = Self::default();
    }
}

fn request_body_failed(error: crate::body::BodyError, progress: Progress) -> SendError {
    SendError::new(FailureKind::RequestBody, progress).with_source(error)
}

/// The stream broke, or what came over it is not HTTP/2. A server that refuses our certificate says so here: in TLS 1.3 our
/// side of the handshake is over by then.
fn failed(error: &::h2::Error, traffic: &Traffic) -> ConnectError {
    let broke = traffic.broke().cloned();
    let kind = match &broke {
        Some(cause) if (**cause).is::<rustls::Error>() => ConnectFailure::Tls,
        _ => ConnectFailure::Protocol,
    };
    ConnectError::new(kind, format!("HTTP/2 handshake failed: {error}")).caused_by(broke)
}

/// Whether the peer has said GOAWAY.
fn has_gone_away(sender: &mut SendRequest<Bytes>, cx: &mut Context<'_>) -> bool {
    matches!(sender.poll_ready(cx), Poll::Ready(Err(error)) if error.is_go_away() && error.is_remote())
}

fn gone_early() -> ConnectError {
    ConnectError::new(ConnectFailure::GoneAway, "the peer said GOAWAY before the first request")
}

fn closed_early() -> ConnectError {
    ConnectError::new(ConnectFailure::Protocol, "the peer closed the connection before its HTTP/2 SETTINGS")
}
