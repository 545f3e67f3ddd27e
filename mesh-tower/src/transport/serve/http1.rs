//! What HTTP/1.1 needs beside its codec: heads that are timed, `connection: close` for connections that go away, and
//! responses that keep to their length.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;

use super::framing::{BodyLength, Framing, Unfinished};
use super::signal::Signal;
use super::target::TargetForm;
use super::upgrade::Upgrade;
use crate::body::{BodyError, PollFrame};
use crate::server::{AcceptedPeer, form};

/// What the parts of one HTTP/1.1 connection tell each other: its socket, its service, its supervisor. All of them run
/// in the connection's task.
#[derive(Debug, Default)]
pub(super) struct Link {
    signal: Arc<Signal>,
    /// Counts the heads and trailers that have begun.
    begun: AtomicU32,
    /// The socket has passed on a part of a head, and not its end.
    head: AtomicBool,
    /// The same of trailers.
    trailers: AtomicBool,
    /// From the end of a request's head to the end of its response.
    in_flight: AtomicBool,
    /// What is special about the target of the head that was passed on last; encoded.
    target: AtomicU8,
    /// The length of the body that follows the head which the codec has read; encoded.
    body: AtomicU64,
    /// The application has read the body of the request to its end.
    body_read: AtomicBool,
    /// Bytes of the body that the socket has not passed on; more than there can be, where that is not known.
    body_left: AtomicU64,
    /// Bytes that were read and not passed on.
    read_ahead: AtomicU64,
    going_away: AtomicBool,
    /// It ends, unless a request has begun.
    closing: AtomicBool,
    /// Set before the response that upgrades the connection is written.
    upgrade: OnceLock<Arc<Upgrade>>,
}

/// The service of one connection.
pub(super) struct Http1Service<S> {
    inner: S,
    peer: AcceptedPeer,
    link: Arc<Link>,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Http1Incoming {
    body: Incoming,
    link: Arc<Link>,
}

/// The response to come. Dropping it drops the application's future.
#[pin_project::pin_project]
pub(super) struct Http1Future<F> {
    #[pin]
    inner: F,
    method: Method,
    server: AcceptedPeer,
    in_flight: Option<InFlight>,
}

/// The body of a response.
#[pin_project::pin_project]
pub(super) struct Http1Body<B> {
    #[pin]
    inner: B,
    /// The head announces another length than the body has: the codec counts by the head, and closes the connection.
    hidden: bool,
    /// Dropped after the body.
    in_flight: InFlight,
}

/// A request between the end of its head and the end of its response.
struct InFlight(Arc<Link>);

// === impl Link ===

impl Link {
    pub(super) fn new(signal: Arc<Signal>) -> Arc<Self> {
        Arc::new(Self { signal, ..Self::default() })
    }

    /// Tells the framing of what the codec has read, before it passes on more.
    pub(super) fn update(&self, framing: &mut Framing) {
        match self.body.load(Ordering::Relaxed) {
            0 => return,
            CHUNKED => framing.head_read(BodyLength::Chunked),
            length => framing.head_read(BodyLength::Known(length - 1)),
        }
        self.body.store(0, Ordering::Relaxed);
    }

    /// Takes note of how much is there beyond what was passed on.
    pub(super) fn note_read_ahead(&self, bytes: usize) {
        self.read_ahead.store(bytes as u64, Ordering::Relaxed);
    }

    /// Whether the connection is of use after a response that begins now: the codec closes it when it finds that it would
    /// have to wait for the rest of the request, and the client has to hear that before.
    fn stays(&self) -> bool {
        let left = match self.body.load(Ordering::Relaxed) {
            0 => self.body_left.load(Ordering::Relaxed),
            encoded => encoded - 1,
        };
        self.body_read.load(Ordering::Relaxed) || left <= self.read_ahead.load(Ordering::Relaxed)
    }

    /// Takes note of what the bytes that were passed on leave unfinished.
    pub(super) fn passed(&self, framing: &Framing) {
        let unfinished = framing.unfinished();
        self.body_left.store(framing.body_left(), Ordering::Relaxed);
        self.target.store(framing.target() as u8, Ordering::Relaxed);
        self.note(&self.head, unfinished == Unfinished::Head);
        self.note(&self.trailers, unfinished == Unfinished::Trailers);
    }

    fn note(&self, flag: &AtomicBool, now: bool) {
        if flag.load(Ordering::Relaxed) != now {
            flag.store(now, Ordering::Relaxed);
            if now {
                self.begin();
            }
        }
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.signal.raise();
    }

    /// The head or the trailers that are awaited, as a number of their own.
    pub(super) fn pending(&self) -> Option<u32> {
        let head = self.head.load(Ordering::Relaxed) && !self.in_flight.load(Ordering::Relaxed);
        (head || self.trailers.load(Ordering::Relaxed)).then(|| self.begun.load(Ordering::Relaxed))
    }

    /// Whether a request is being served.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// From now on each response is the last one.
    pub(super) fn go_away(&self) {
        self.going_away.store(true, Ordering::Relaxed);
    }

    /// From now on it ends where it would wait for a request.
    pub(super) fn close_idle(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether it ends rather than to wait for what it has not read.
    pub(super) fn ends(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        is(&self.closing) && !is(&self.in_flight) && !is(&self.head) && !is(&self.trailers)
    }

    pub(super) fn upgrade(&self) -> Option<&Arc<Upgrade>> {
        self.upgrade.get()
    }

    /// The codec has read a head.
    fn request_began(&self, body: &Incoming) {
        let body = body.size_hint().exact().map_or(CHUNKED, |length| length.saturating_add(1));
        self.body.store(body, Ordering::Relaxed);
        self.body_read.store(false, Ordering::Relaxed);
        self.head.store(false, Ordering::Relaxed);
        self.in_flight.store(true, Ordering::Relaxed);
    }

    fn request_ended(&self) {
        self.in_flight.store(false, Ordering::Relaxed);
        if self.head.load(Ordering::Relaxed) {
            self.begin();
        } else if self.going_away.load(Ordering::Relaxed) {
            self.signal.raise();
        }
    }
}

/// Above any length that can be announced.
const CHUNKED: u64 = u64::MAX;

// === impl Http1Incoming ===

impl Http1Incoming {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Not everybody asks for the end, and one that has failed is none.
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
            || self.is_end_stream()
        {
            self.link.body_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::new)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Http1Service ===

impl<S> Http1Service<S> {
    pub(super) fn new(inner: S, peer: AcceptedPeer, link: Arc<Link>) -> Self {
        Self { inner, peer, link }
    }
}

impl<S, B> Service<Request<Incoming>> for Http1Service<S>
where
    S: Service<Request<Http1Incoming>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    type Response = Response<Http1Body<B>>;
    type Error = S::Error;
    type Future = Http1Future<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.link.request_began(request.body());
        let in_flight = Some(InFlight(self.link.clone()));
        let method = request.method().clone();
        let link = self.link.clone();
        let mut request = request.map(|body| Http1Incoming { body, link });
        match TargetForm::of(self.link.target.load(Ordering::Relaxed)) {
            TargetForm::Plain => {}
            TargetForm::AuthorityOnly => form::note_authority_only(&mut request),
            TargetForm::Fragment => form::note_fragment(&mut request),
        }
        Http1Future { inner: self.inner.call(request), method, server: self.peer.clone(), in_flight }
    }
}

// === impl Http1Future ===

impl<F, B, E> Future for Http1Future<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<Http1Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let in_flight = this.in_flight.take().expect("a future is not polled after it was ready");
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS
            || (*this.method == Method::CONNECT && status.is_success())
        {
            let permit = this.server.connection().server.requests.enter();
            let _ = in_flight.0.upgrade.set(Upgrade::new(permit));
        } else if in_flight.0.going_away.load(Ordering::Relaxed) || !in_flight.0.stays() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let hidden = response.headers().contains_key(CONTENT_LENGTH)
            && !is_announced(response.headers(), this.method, response.body());
        Poll::Ready(Ok(response.map(|inner| Http1Body { inner, hidden, in_flight })))
    }
}

/// Whether a body has the length that its head announces. The codec believes the body where the body knows its length,
/// and writes what the head says: the peer would take the next response for the rest of this one.
fn is_announced<B: Body>(headers: &HeaderMap, method: &Method, body: &B) -> bool {
    let exact = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    let Some(exact) = exact else { return true };
    if *method == Method::HEAD && exact == 0 {
        return true;
    }
    let announces =
        |value: &HeaderValue| value.to_str().ok().and_then(|text| text.parse().ok()) == Some(exact);
    headers.get_all(CONTENT_LENGTH).iter().all(announces)
}

// === impl Http1Body ===

impl<B: Body<Data = Bytes>> Body for Http1Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        !self.hidden && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.hidden { SizeHint::default() } else { self.inner.size_hint() }
    }
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}
