//! HTTP/2 on a connection that we own, on the `h2` crate behind the guard that clients have too
//! ([`guard`](crate::transport::h2::guard)).
//!
//! The connection's task reads frames and opens a task for each stream, which calls the application and sends its
//! response. A stream that the peer resets drops the application's future. A connection whose peer has begun a header block
//! and does not end it, or cuts a frame and says no more, is closed after the headers timeout: nothing else can be read from
//! it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::h2::server::{Connection, Handshake, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue};
use http::{Method, Request, Response};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::io::ServerIo;
use super::service::Call;
use super::signal::Signal;
use super::stream::ServedStream;
use crate::body::{Announced, Body, BoxError, ServedBody};
use crate::server::{AcceptedPeer, ConnectionLimits, stack};
use crate::transport::h2::guard::{Credit, Guarded, Role, StreamCredit, Unfinished};
use crate::transport::h2::keepalive::Pinger;
use crate::transport::h2::{Http2Settings, Incoming, KeepAlive};

/// The codec of one connection, and what is done with its streams.
pub(super) struct Http2<S> {
    state: State,
    app: S,
    peer: AcceptedPeer,
    runtime: Handle,
    settings: Http2Settings,
    credit: Arc<Credit>,
    keepalive: Option<Pinger>,
    stall: Stall,
    leaving: bool,
    /// Ends as soon as no stream is open, whatever the peer says.
    unanswered: bool,
}

enum State {
    Handshake(Handshake<Guarded<ServerIo>, Bytes>),
    Serving(Connection<Guarded<ServerIo>, Bytes>),
}

/// Notices a frame or a header block that is never completed.
struct Stall {
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// What was unfinished when the timer was set.
    then: (Unfinished, u32, u32),
}

// === impl Http2 ===

impl<S> Http2<S> {
    pub(super) fn new(io: ServerIo, app: S, peer: AcceptedPeer, limits: &ConnectionLimits) -> Self {
        let server = &peer.connection().server;
        let settings = Http2Settings {
            max_concurrent_streams: limits.max_concurrent_streams,
            max_header_list_size: limits.max_header_bytes,
            keepalive: Some(KeepAlive {
                interval: server.limits.keepalive_interval,
                timeout: server.limits.keepalive_timeout,
                while_idle: true,
            }),
            ..Http2Settings::default()
        };
        let io = Guarded::new(io, settings.guard(Role::Server), server.budget.clone());
        let credit = io.credit().clone();
        Self {
            state: State::Handshake(settings.server().handshake(io)),
            app,
            runtime: server.runtime.clone(),
            settings,
            credit,
            keepalive: None,
            stall: Stall::new(limits.headers_timeout),
            leaving: false,
            unanswered: false,
            peer,
        }
    }

    /// Takes no more streams; ends when those that are open have ended.
    pub(super) fn go_away(&mut self) {
        self.leaving = true;
        if let State::Serving(codec) = &mut self.state {
            codec.graceful_shutdown();
        }
    }

    /// The peer has not answered our goodbye for so long that it is not waited for.
    pub(super) fn close_unanswered(&mut self) {
        self.unanswered = true;
    }

    /// Ready when the peer is dead, or has stopped within a frame.
    fn poll_peer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let read = u64::from(self.credit.progress().1);
        let idle = self.peer.connection().activity.idle_since().is_some();
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll(cx, read, idle).is_ready()
        {
            tracing::debug!("keepalive PING was not answered; closed");
            return Poll::Ready(());
        }
        self.stall.poll(&self.credit, cx)
    }
}

impl<S, B> Http2<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            let codec = match &mut self.state {
                State::Handshake(handshake) => {
                    let codec = ready!(Pin::new(handshake).poll(cx))?;
                    self.begin(codec);
                    continue;
                }
                State::Serving(codec) => codec,
            };
            match codec.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.serve(request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if self.unanswered && !codec.has_streams() => {
                    self.unanswered = false;
                    // What crosses this was not processed, and the peer is told so.
                    codec.abrupt_shutdown(Reason::NO_ERROR);
                }
                Poll::Pending => return self.poll_peer(cx).map(Ok),
            }
        }
    }

    fn begin(&mut self, mut codec: Connection<Guarded<ServerIo>, Bytes>) {
        let keepalive = self.settings.keepalive.clone();
        self.keepalive = keepalive.and_then(|config| Some(Pinger::new(codec.ping_pong()?, config)));
        if self.leaving {
            codec.graceful_shutdown();
        }
        self.state = State::Serving(codec);
    }

    /// Opens the task of a stream.
    fn serve(&self, mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if self.is_cancelled(&mut respond) {
            // The application never sees it; it is recorded like any call whose caller has gone.
            drop(stack::admit(&self.peer, &mut request, Instant::now()));
            drop(self.credit_of(request.body()));
            return;
        }
        let is_head = request.method() == Method::HEAD;
        let length = request.headers().get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
        let continued = expects_to_continue(&request).then(Arc::<Signal>::default);
        let request = request.map(|recv| {
            let credit = self.credit_of(&recv);
            let mut body = Incoming::new(recv, credit);
            if let Some(continued) = &continued {
                body.tell_when_awaited(Waker::from(continued.clone()));
            }
            ServedBody::Http2(body, Announced::new(length))
        });
        let call = Call::new(self.app.clone(), self.peer.clone(), request);
        self.runtime.spawn(ServedStream::new(call, respond, is_head, continued));
    }

    /// Whether the caller has reset a stream already. Asked only where it has sent a reset at all.
    fn is_cancelled(&self, respond: &mut SendResponse<Bytes>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.credit.has_resets() && respond.poll_reset(&mut cx).is_ready()
    }

    /// What the reader of a request reports to. Dropping it reports that there is none.
    fn credit_of(&self, recv: &RecvStream) -> StreamCredit {
        StreamCredit::new(self.credit.clone(), recv.stream_id().as_u32())
    }
}

// === impl Stall ===

impl Stall {
    const fn new(timeout: Duration) -> Self {
        Self { timeout, timer: None, then: (Unfinished::Nothing, 0, 0) }
    }

    /// Ready when what had begun is still not complete.
    fn poll(&mut self, credit: &Credit, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = credit.progress();
            match &mut self.timer {
                None if now.0 == Unfinished::Nothing => return Poll::Pending,
                // Set once and left alone: it is looked at again when it rings.
                None => {
                    self.then = now;
                    self.timer = Some(Box::pin(sleep(self.timeout)));
                }
                Some(timer) => {
                    ready!(timer.as_mut().poll(cx));
                    if is_stalled(self.then, now) {
                        tracing::debug!(timeout = ?self.timeout, "a frame or header block was not completed; closed");
                        return Poll::Ready(());
                    }
                    if now.0 == Unfinished::Nothing {
                        self.timer = None;
                        return Poll::Pending;
                    }
                    self.then = now;
                    timer.as_mut().reset(Instant::now() + self.timeout);
                }
            }
        }
    }
}

/// Whether the client may wait for our word before it sends the body (RFC 9110 §10.1.1).
fn expects_to_continue(request: &Request<RecvStream>) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.headers().get(EXPECT).is_some_and(expects) && !request.body().is_end_stream()
}

/// A header block must end in time; any other frame must go on.
fn is_stalled(then: (Unfinished, u32, u32), now: (Unfinished, u32, u32)) -> bool {
    match now.0 {
        Unfinished::Nothing => false,
        Unfinished::HeaderBlock => then.0 == Unfinished::HeaderBlock && then.2 == now.2,
        Unfinished::Frame => then.1 == now.1,
    }
}
