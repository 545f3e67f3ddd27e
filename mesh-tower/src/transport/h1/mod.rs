//! The HTTP/1.1 client: one request at a time per connection, reused while idle, on hyper's connection type.
//!
//! Requests go out in origin form with a `Host` field that equals the authority by which the request was routed.
//! A reused connection may have been closed by the peer while it was idle. This module does not retry; it states
//! the facts that the retry layer needs ([`Progress::ReusedEnded`]: reused, no byte of a response, was anything
//! written).
//!
//! Dropping the response future or an unread response body closes the connection: HTTP/1.1 has no other way to
//! cancel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::error::{ConnectError, ConnectFailure, FailureKind, Progress, SendError};
use super::io::{BoxIo, Counted, Traffic};
use super::{ConnectionEvents, HttpConnection, Unavailable};
use crate::body::{Body, BodyError, PollFrame};

#[cfg(test)]
mod tests;

/// How HTTP/1.1 connections are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Settings {
    /// An unused connection is closed after this long. Shorter than common servers' idle limits, so that we
    /// rather than the peer close.
    pub idle_timeout: Duration,
    /// The most connections that one endpoint gets.
    pub max_connections: usize,
}

/// One HTTP/1.1 connection.
pub(crate) struct Connection {
    /// Who has the sender: nobody, one call, or nobody ever again.
    state: Mutex<State>,
    traffic: Arc<Traffic>,
    events: Arc<dyn ConnectionEvents>,
    id: u64,
    idle_timeout: Duration,
    driver: OnceLock<tokio::task::AbortHandle>,
}

enum State {
    Idle { sender: SendRequest<Body>, since: Instant, reused: bool },
    InUse { draining: bool },
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
        Self { idle_timeout: Duration::from_secs(55), max_connections: 1024 }
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
            .handshake::<_, Body>(io)
            .await
            .map_err(|e| ConnectError::new(ConnectFailure::Protocol, format!("HTTP/1.1: {e}")))?;
        let this = Arc::new(Self {
            state: Mutex::new(State::Idle { sender, since: Instant::now(), reused: false }),
            traffic,
            events,
            id,
            idle_timeout: settings.idle_timeout,
            driver: OnceLock::new(),
        });
        let span = tracing::debug_span!(parent: None, "mesh.h1_connection", id);
        let task = Handle::current().spawn(drive(http, Ended(this.clone())).instrument(span));
        // The driver cannot have been set before: this is the only place.
        let _ = this.driver.set(task.abort_handle());
        Ok(this)
    }

    /// When the connection may be closed for idleness, or that it is closed.
    fn idle_deadline(&self) -> Option<Instant> {
        match &*self.lock() {
            State::Idle { since, .. } => Some(*since + self.idle_timeout),
            State::InUse { .. } => Some(Instant::now() + self.idle_timeout),
            State::Closed => None,
        }
    }

    fn put_back(&self, sender: SendRequest<Body>, reused: bool) {
        let mut state = self.lock();
        *state = match &*state {
            State::InUse { draining: false } if !sender.is_closed() => {
                State::Idle { sender, since: Instant::now(), reused }
            }
            _ => State::Closed,
        };
        drop(state);
        self.events.slot_freed();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each critical section is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnection for Connection {
    type Slot = Slot;

    fn reserve(self: &Arc<Self>) -> Result<Slot, Unavailable> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Idle { sender, since, reused } => {
                if sender.is_closed() || (reused && since.elapsed() >= self.idle_timeout) {
                    return Err(Unavailable::Closed);
                }
                *state = State::InUse { draining: false };
                Ok(Slot { connection: self.clone(), sender: Some(sender), reused, busy: false })
            }
            State::InUse { draining } => {
                *state = State::InUse { draining };
                Err(if draining { Unavailable::Closed } else { Unavailable::Full })
            }
            State::Closed => Err(Unavailable::Closed),
        }
    }

    fn drain(&self) {
        let mut state = self.lock();
        *state = match &*state {
            State::InUse { .. } => State::InUse { draining: true },
            State::Idle { .. } | State::Closed => State::Closed,
        };
    }

    fn abort(&self) {
        *self.lock() = State::Closed;
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }

    fn in_flight(&self) -> usize {
        usize::from(matches!(&*self.lock(), State::InUse { .. }))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h1::Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Tells the pool that the connection ended, however its task ended.
struct Ended(Arc<Connection>);

impl Drop for Ended {
    fn drop(&mut self) {
        *self.0.lock() = State::Closed;
        self.0.events.clone().closed(self.0.id, None);
    }
}

async fn drive(http: hyper::client::conn::http1::Connection<TokioIo<Counted>, Body>, ended: Ended) {
    let mut http = std::pin::pin!(http);
    let idle = sleep(ended.0.idle_timeout);
    let mut idle = std::pin::pin!(idle);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = http.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "HTTP/1.1 connection failed");
            }
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

// === impl Slot ===

impl Slot {
    /// Sends the request when the future is first polled.
    pub(crate) fn send(self, request: Request<Body>) -> SendFuture {
        Box::pin(self.exchange(request))
    }

    async fn exchange(mut self, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        let Some(sender) = self.sender.as_mut() else {
            return Err(SendError::not_sent(FailureKind::Closed, request));
        };
        // A connection that was just put back is ready once its task has seen the end of the last response.
        if sender.ready().await.is_err() {
            self.busy = true;
            return Err(SendError::not_sent(FailureKind::Closed, request));
        }
        let original = prepare(&mut request);
        self.busy = true;
        let traffic = self.connection.traffic.clone();
        let (read, written) = (traffic.read(), traffic.written());
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|incoming| {
                let slot = if incoming.is_end_stream() {
                    self.release();
                    None
                } else {
                    Some(self)
                };
                Body::http1(RecvBody { incoming, slot })
            })),
            Err(mut error) => {
                if let Some(mut request) = error.take_message() {
                    original.restore(&mut request);
                    return Err(SendError::not_sent(FailureKind::Closed, request));
                }
                let silent = traffic.read() == read;
                let written = traffic.written() != written;
                Err(classify(error.into_error(), self.reused && silent, written))
            }
        }
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
                *self.connection.lock() = State::Closed;
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

/// What [`prepare`] changed, so that a request that is handed back is the one that was handed in.
struct Original {
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
}

impl Original {
    fn restore(self, request: &mut Request<Body>) {
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        match self.host {
            Some(host) => request.headers_mut().insert(HOST, host),
            None => request.headers_mut().remove(HOST),
        };
    }
}

/// Origin form, `Host`, version.
fn prepare(request: &mut Request<Body>) -> Original {
    let original = Original {
        uri: request.uri().clone(),
        host: request.headers().get(HOST).cloned(),
        version: request.version(),
    };
    *request.version_mut() = Version::HTTP_11;
    if let Some(host) = original.uri.authority().and_then(host_value) {
        request.headers_mut().insert(HOST, host);
    }
    if request.method() != Method::CONNECT {
        let path = original.uri.path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    original
}

/// The authority without user information.
fn host_value(authority: &Authority) -> Option<HeaderValue> {
    let text = authority.as_str();
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}

fn classify(error: hyper::Error, reused_and_silent: bool, written: bool) -> SendError {
    let (kind, progress) = if error.is_user() {
        (FailureKind::RequestBody, Progress::Sent)
    } else if error.is_parse() {
        (FailureKind::Protocol, Progress::Sent)
    } else if reused_and_silent {
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
                if self.incoming.is_end_stream() {
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
