//! The HTTP/1.1 client: one request at a time per connection, reused while idle, on hyper's connection type.
//!
//! Requests go out in origin form with a `Host` field that equals the authority by which the request was routed.
//! A reused connection may have been closed by the peer while it was idle. This module does not retry; it states
//! the facts that the retry layer needs ([`Progress::ReusedEnded`]: reused, no byte of a response, was anything
//! written).
//!
//! Dropping the response future or an unread response body closes the connection: HTTP/1.1 has no other way to
//! cancel.
//!
//! ```text
//!        ┌──────── both directions have ended ◄──────────────┐
//!        ▼                                                   │
//! Idle ──reserve──► InUse ──response ended, request not──► Uploading ──no progress──► Closed
//!                     └──dropped, failed, upgraded──► Closed
//! ```
//! Before a request is written, what the peer has said in the meantime is looked at: bytes that nobody asked for end the
//! connection, and never become the answer of the next request (RFC 9112 §9.2, response splitting). The body of a
//! request has the length that its head announces (`framing`), or the call fails and the connection with it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::header::UPGRADE;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Instrument;

use super::error::{ConnectError, ConnectFailure, FailureKind, Progress, SendError};
use super::io::{BoxIo, Counted, Traffic};
use super::{ConnectionEvents, HttpConnection, Unavailable};
use crate::body::{Body, BodyError, PollFrame};

mod driver;
mod framing;
mod head;
#[cfg(test)]
mod tests;

/// How HTTP/1.1 connections are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http1Settings {
    /// An unused connection is closed after this long. Shorter than common servers' idle limits, so that we
    /// rather than the peer close.
    pub(crate) idle_timeout: Duration,
    /// The most connections that one endpoint gets.
    pub(crate) max_connections: usize,
    /// The body of a request that was answered before its end may go on, while no other request uses the connection. It
    /// is cut off, and the connection closed, once nothing of it was sent for this long.
    pub(crate) upload_grace: Duration,
    /// Bytes of the head of one response, and of its trailers. A larger one fails its call.
    pub(crate) max_header_bytes: usize,
    /// A request of GET, HEAD, OPTIONS or TRACE without a body is sent once more, on another connection, when a reused one
    /// ended before any byte of its response: the peer had most likely closed it while it was idle. Default true. A
    /// request of which nothing was written is repeated in any case.
    pub(crate) repeat_safe_requests: bool,
}

/// One HTTP/1.1 connection.
pub(crate) struct Connection {
    /// Who has the sender: nobody, one call, the connection's task, or nobody ever again.
    state: Mutex<ConnectionState>,
    /// The state is `Uploading`: the connection's task need not lock to find that it is not.
    uploading: AtomicBool,
    /// Wakes the connection's task.
    task: Mutex<Option<Waker>>,
    traffic: Arc<Traffic>,
    events: Arc<dyn ConnectionEvents>,
    id: u64,
    idle_timeout: Duration,
    upload_grace: Duration,
    repeat_safe_requests: bool,
}

enum ConnectionState {
    Idle {
        sender: SendRequest<Body>,
        since: Instant,
        reused: bool,
    },
    InUse {
        draining: bool,
    },
    /// The response has ended, the request has not, as far as is known.
    Uploading {
        sender: SendRequest<Body>,
        reused: bool,
        draining: bool,
    },
    Closed,
}

/// The right to send one request. Dropped before the response is read to its end, it takes the connection along.
pub(crate) struct Slot {
    connection: Arc<Connection>,
    sender: Option<SendRequest<Body>>,
    reused: bool,
    /// A request is on the wire, so the connection can be used again only after its whole response.
    busy: bool,
}

/// A response head to come.
pub(crate) type SendFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, SendError>> + Send>>;

/// The response body; at its end the connection is free for the next request.
pub(crate) struct RecvBody {
    incoming: Incoming,
    slot: Option<Slot>,
}

// === impl Http1Settings ===

impl Default for Http1Settings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(55),
            max_connections: 1024,
            upload_grace: Duration::from_secs(5),
            max_header_bytes: 60 * 1024,
            repeat_safe_requests: true,
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Starts HTTP/1.1 over `io`. The connection's task ends with it.
    pub(crate) async fn establish(
        io: BoxIo,
        settings: &Http1Settings,
        id: u64,
        events: Arc<dyn ConnectionEvents>,
    ) -> Result<Arc<Self>, ConnectError> {
        let traffic = Arc::new(Traffic::default());
        let io = TokioIo::new(Counted::new(io, traffic.clone()));
        let (sender, http) = hyper::client::conn::http1::Builder::new()
            .max_header_size(settings.max_header_bytes)
            .handshake::<_, Body>(io)
            .await
            .map_err(|e| ConnectError::new(ConnectFailure::Protocol, format!("HTTP/1.1: {e}")))?;
        let this = Arc::new(Self {
            state: Mutex::new(ConnectionState::Idle { sender, since: Instant::now(), reused: false }),
            uploading: AtomicBool::new(false),
            task: Mutex::new(None),
            traffic,
            events,
            id,
            idle_timeout: settings.idle_timeout,
            upload_grace: settings.upload_grace,
            repeat_safe_requests: settings.repeat_safe_requests,
        });
        let span = tracing::debug_span!(parent: None, "mesh.h1_connection", id);
        Handle::current().spawn(driver::drive(http, this.clone()).instrument(span));
        Ok(this)
    }

    /// Whether the peer ever answered.
    pub(crate) fn has_served(&self) -> bool {
        self.traffic.read() > 0
    }

    /// Takes the sender back from a call whose response has ended, or that sent nothing.
    fn put_back(&self, sender: SendRequest<Body>, reused: bool) {
        let mut state = self.lock();
        let ConnectionState::InUse { draining } = *state else { return drop(state) };
        *state = if sender.is_closed() || (draining && sender.is_ready()) {
            ConnectionState::Closed
        } else if sender.is_ready() {
            ConnectionState::Idle { sender, since: Instant::now(), reused }
        } else {
            // The connection's task has not seen the end yet, or the request goes on: it puts the sender back.
            self.uploading.store(true, Ordering::Release);
            ConnectionState::Uploading { sender, reused, draining }
        };
        let uploading = matches!(*state, ConnectionState::Uploading { .. });
        drop(state);
        if uploading { self.wake() } else { self.events.slot_freed() }
    }

    fn wake(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ConnectionState> {
        // Each critical section is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnection for Connection {
    type Slot = Slot;

    fn reserve(self: &Arc<Self>) -> Result<Slot, Unavailable> {
        let mut state = self.lock();
        match &*state {
            ConnectionState::Idle { .. } => {}
            ConnectionState::InUse { draining: false }
            | ConnectionState::Uploading { draining: false, .. } => {
                return Err(Unavailable::Full);
            }
            _ => return Err(Unavailable::Closed),
        }
        let taken = std::mem::replace(&mut *state, ConnectionState::Closed);
        let ConnectionState::Idle { sender, since, reused } = taken else { return Err(Unavailable::Closed) };
        if sender.is_closed() || (reused && since.elapsed() >= self.idle_timeout) {
            return Err(Unavailable::Closed);
        }
        *state = ConnectionState::InUse { draining: false };
        drop(state);
        Ok(Slot { connection: self.clone(), sender: Some(sender), reused, busy: false })
    }

    fn drain(&self) {
        match &mut *self.lock() {
            ConnectionState::InUse { draining } | ConnectionState::Uploading { draining, .. } => {
                *draining = true;
            }
            state => *state = ConnectionState::Closed,
        }
    }

    fn in_flight(&self) -> usize {
        let used = |s: &ConnectionState| {
            matches!(s, ConnectionState::InUse { .. } | ConnectionState::Uploading { .. })
        };
        usize::from(used(&self.lock()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h1::Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

// === impl Slot ===

impl Slot {
    /// Sends the request when the future is first polled.
    pub(crate) fn send(self, request: Request<Body>) -> SendFuture {
        Box::pin(self.exchange(request))
    }

    async fn exchange(mut self, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        if let Err(invalid) = framing::frame(&mut request).await {
            return Err(SendError::new(FailureKind::InvalidRequest, Progress::Sent).with_source(invalid));
        }
        // A turn of the runtime's IO: what the peer has said by now, or that it has closed, reaches the connection's
        // task before the request does.
        tokio::task::yield_now().await;
        let Some(sender) = self.sender.as_mut().filter(|sender| !sender.is_closed()) else {
            self.busy = true;
            let broke = self.connection.traffic.broke();
            return Err(SendError::not_sent(FailureKind::Closed, request).broken_by(broke));
        };
        let may_upgrade = request.headers().contains_key(UPGRADE);
        let original = head::prepare(&mut request);
        self.busy = true;
        let traffic = self.connection.traffic.clone();
        let (read, written) = (traffic.read(), traffic.written());
        match sender.try_send_request(request).await {
            Ok(response) => self.respond(response, may_upgrade),
            Err(mut error) => {
                if let Some(mut request) = error.take_message() {
                    original.restore(&mut request);
                    return Err(SendError::not_sent(FailureKind::Closed, request).broken_by(traffic.broke()));
                }
                let silent = traffic.read() == read;
                let written = traffic.written() != written;
                let closed_while_idle = self.reused && silent;
                // Else it counts as sent, as on a new connection.
                let repeatable = closed_while_idle && (!written || self.connection.repeat_safe_requests);
                Err(classify(error.into_error(), repeatable, written).broken_by(traffic.broke()))
            }
        }
    }

    /// The head of a response is there.
    fn respond(self, response: Response<Incoming>, may_upgrade: bool) -> Result<Response<Body>, SendError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !may_upgrade {
            let error = SendError::new(FailureKind::Protocol, Progress::Sent);
            return Err(error.with_source("a 101 response to a request without `upgrade`"));
        }
        // A connection that changes its protocol now belongs to whoever takes it from the response.
        let upgraded = response.extensions().get::<OnUpgrade>().is_some();
        Ok(response.map(|incoming| {
            let slot = if upgraded {
                None
            } else if incoming.is_end_stream() {
                self.release();
                None
            } else {
                Some(self)
            };
            Body::http1(RecvBody { incoming, slot })
        }))
    }

    fn release(mut self) {
        self.busy = false;
        self.reused = true;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        match self.sender.take() {
            Some(sender) if !self.busy => self.connection.put_back(sender, self.reused),
            sender => {
                *self.connection.lock() = ConnectionState::Closed;
                drop(sender);
                self.connection.events.slot_freed();
            }
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h1::Slot")
            .field("connection", &self.connection.id)
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}

fn classify(error: hyper::Error, repeatable: bool, written: bool) -> SendError {
    let (kind, progress) = if error.is_user() {
        (FailureKind::RequestBody, Progress::Sent)
    } else if error.is_parse() {
        (FailureKind::Protocol, Progress::Sent)
    } else if repeatable {
        (FailureKind::Io, Progress::ReusedEnded { written })
    } else {
        (FailureKind::Io, Progress::Sent)
    };
    SendError::new(kind, progress).with_source(error)
}

// === impl RecvBody ===

impl RecvBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match frame {
            Some(Ok(frame)) => {
                // Nothing follows trailers, and not everybody asks.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.slot = None;
                Poll::Ready(Some(Err(BodyError::new(error))))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn finish(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.release();
        }
    }
}
