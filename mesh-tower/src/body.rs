//! The one body type of the library: what the client stack sends, what it returns, what the server hands out.
//!
//! HTTP/2 and HTTP/1.1 bodies are variants and not trait objects, so a response costs no box, and neither does
//! tonic's body, which is a box already; any other body is boxed once, by [`Body::new`]. Reading a frame releases its flow-control window at once, dropping an
//! unfinished body cancels what produces it (HTTP/2: RST_STREAM CANCEL; HTTP/1.1: the connection is closed).

use std::any::Any;
use std::fmt;
use std::pin::Pin;
#[cfg(any(feature = "http1", feature = "http2"))]
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_core::error::Reason;

#[cfg(any(feature = "http1", feature = "http2"))]
use crate::server::exchange::Exchange;
#[cfg(feature = "http1")]
use crate::transport::h1::RecvBody as Http1Body;
#[cfg(feature = "http2")]
use crate::transport::h2::{Incoming as Http2Incoming, RecvBody as Http2Body};
#[cfg(any(feature = "http1", feature = "http2"))]
use crate::transport::serve::Http1Incoming;

/// An error of any type that can cross tasks.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What polling one of our bodies gives.
pub(crate) type PollFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// A streaming HTTP body.
#[derive(Default)]
pub struct Body {
    repr: Repr,
}

#[derive(Default)]
enum Repr {
    #[default]
    Empty,
    Full(Bytes),
    #[cfg(feature = "http2")]
    Http2(Http2Body),
    #[cfg(feature = "http1")]
    Http1(Http1Body),
    #[cfg(any(feature = "http1", feature = "http2"))]
    Served(ServedBody, Arc<Exchange>),
    #[cfg(feature = "tonic")]
    Tonic(tonic::body::Body),
    Boxed(BoxBody),
}

/// The body of a request that we serve.
#[cfg(any(feature = "http1", feature = "http2"))]
#[derive(Debug)]
pub(crate) enum ServedBody {
    Http1(Http1Incoming),
    #[cfg(feature = "http2")]
    /// With what is left of the length that its head announced.
    Http2(Http2Incoming, Announced),
}

/// What is left of the length that the head of a message announced. One word: bodies travel in every call.
#[cfg(feature = "http2")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced(u64);

/// Reading a body failed. The source tells why; for HTTP/2 it is the `h2::Error`, which gRPC clients map to a
/// status.
#[derive(Debug, thiserror::Error)]
#[error("reading the body failed")]
pub struct BodyError {
    #[source]
    source: BoxError,
    reason: Option<Reason>,
}

// === impl Body ===

impl Body {
    /// A body without data and without trailers.
    pub const fn empty() -> Self {
        Self { repr: Repr::Empty }
    }

    /// A body of one known piece of data.
    pub fn full(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        if data.is_empty() { Self::empty() } else { Self { repr: Repr::Full(data) } }
    }

    /// Any other body. It is boxed once; a [`Body`], tonic's body, an empty body and `Full<Bytes>` are recognised and
    /// not boxed.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // The type tests are decided at compile time.
        let mut slot = Some(body);
        let any: &mut dyn Any = &mut slot;
        if let Some(body) = any.downcast_mut::<Option<Self>>() {
            return body.take().unwrap_or_default();
        }
        if let Some(full) = any.downcast_mut::<Option<http_body_util::Full<Bytes>>>()
            && let Some(data) = full.take().and_then(single_frame)
        {
            return Self::full(data);
        }
        #[cfg(feature = "tonic")]
        if let Some(body) = any.downcast_mut::<Option<tonic::body::Body>>() {
            let body = body.take().filter(|body| !http_body::Body::is_end_stream(body));
            return Self { repr: body.map_or(Repr::Empty, Repr::Tonic) };
        }
        match slot {
            Some(body) if !body.is_end_stream() => Self { repr: Repr::Boxed(Box::pin(Erased { body })) },
            _ => Self::empty(),
        }
    }

    /// A body that is boxed already.
    pub(crate) fn boxed<B>(body: Box<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self { repr: Repr::Boxed(Box::into_pin(body)) }
    }

    /// Whether all of it is there.
    #[cfg(feature = "http1")]
    pub(crate) const fn is_buffered(&self) -> bool {
        matches!(self.repr, Repr::Empty | Repr::Full(_))
    }

    /// The request body of a connection that we serve; what is read of it counts in `exchange`.
    #[cfg(any(feature = "http1", feature = "http2"))]
    pub(crate) const fn served(body: ServedBody, exchange: Arc<Exchange>) -> Self {
        Self { repr: Repr::Served(body, exchange) }
    }

    #[cfg(feature = "http2")]
    pub(crate) const fn http2(body: Http2Body) -> Self {
        Self { repr: Repr::Http2(body) }
    }

    #[cfg(feature = "http1")]
    pub(crate) const fn http1(body: Http1Body) -> Self {
        Self { repr: Repr::Http1(body) }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        match &mut self.repr {
            Repr::Empty => Poll::Ready(None),
            Repr::Full(data) => {
                let data = std::mem::take(data);
                self.repr = Repr::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            #[cfg(feature = "http2")]
            Repr::Http2(body) => body.poll_frame(cx),
            #[cfg(feature = "http1")]
            Repr::Http1(body) => body.poll_frame(cx),
            #[cfg(any(feature = "http1", feature = "http2"))]
            Repr::Served(body, exchange) => {
                let frame = std::task::ready!(body.poll_frame(cx));
                if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref) {
                    exchange.count_request(data.len());
                }
                Poll::Ready(frame)
            }
            #[cfg(feature = "tonic")]
            Repr::Tonic(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::new),
            Repr::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.repr {
            Repr::Empty => true,
            Repr::Full(_) => false,
            #[cfg(feature = "http2")]
            Repr::Http2(body) => body.is_end_stream(),
            #[cfg(feature = "http1")]
            Repr::Http1(body) => body.is_end_stream(),
            #[cfg(any(feature = "http1", feature = "http2"))]
            Repr::Served(body, _) => body.is_end_stream(),
            #[cfg(feature = "tonic")]
            Repr::Tonic(body) => body.is_end_stream(),
            Repr::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.repr {
            Repr::Empty => SizeHint::with_exact(0),
            Repr::Full(data) => SizeHint::with_exact(data.len() as u64),
            #[cfg(feature = "http2")]
            Repr::Http2(body) if body.is_end_stream() => SizeHint::with_exact(0),
            #[cfg(feature = "http2")]
            Repr::Http2(_) => SizeHint::default(),
            #[cfg(feature = "http1")]
            Repr::Http1(body) => body.size_hint(),
            #[cfg(any(feature = "http1", feature = "http2"))]
            Repr::Served(body, _) => body.size_hint(),
            #[cfg(feature = "tonic")]
            Repr::Tonic(body) => body.size_hint(),
            Repr::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.repr {
            Repr::Empty => "empty",
            Repr::Full(_) => "full",
            #[cfg(feature = "http2")]
            Repr::Http2(_) => "http2",
            #[cfg(feature = "http1")]
            Repr::Http1(_) => "http1",
            #[cfg(any(feature = "http1", feature = "http2"))]
            Repr::Served(..) => "served",
            #[cfg(feature = "tonic")]
            Repr::Tonic(_) => "tonic",
            Repr::Boxed(_) => "boxed",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl From<Bytes> for Body {
    fn from(data: Bytes) -> Self {
        Self::full(data)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

// === impl ServedBody ===

#[cfg(any(feature = "http1", feature = "http2"))]
impl ServedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        match self {
            Self::Http1(body) => body.poll_frame(cx),
            #[cfg(feature = "http2")]
            Self::Http2(body, length) => {
                let frame = std::task::ready!(body.poll_frame(cx));
                if let Some(data) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref) {
                    length.read(data.len());
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            #[cfg(feature = "http2")]
            Self::Http2(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            #[cfg(feature = "http2")]
            Self::Http2(body, _) if body.is_end_stream() => SizeHint::with_exact(0),
            #[cfg(feature = "http2")]
            Self::Http2(_, length) => length.left().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

// === impl Announced ===

#[cfg(feature = "http2")]
impl Announced {
    const NOTHING: u64 = u64::MAX;

    pub(crate) fn new(length: Option<u64>) -> Self {
        Self(length.unwrap_or(Self::NOTHING))
    }

    fn left(self) -> Option<u64> {
        (self.0 != Self::NOTHING).then_some(self.0)
    }

    fn read(&mut self, bytes: usize) {
        if self.0 != Self::NOTHING {
            self.0 = self.0.saturating_sub(bytes as u64);
        }
    }
}

// === impl BodyError ===

impl BodyError {
    pub(crate) fn new(source: impl Into<BoxError>) -> Self {
        Self { source: source.into(), reason: None }
    }

    /// An error that is one already stays it.
    pub(crate) fn of(source: impl Into<BoxError>) -> Self {
        match source.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(source) => Self::new(source),
        }
    }

    /// The same, with what it means to the call.
    pub(crate) const fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn into_source(self) -> BoxError {
        self.source
    }

    /// What it means to the call, where that is known.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

/// A foreign body with its error made ours.
#[pin_project::pin_project]
struct Erased<B> {
    #[pin]
    body: B,
}

impl<B> http_body::Body for Erased<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        self.project().body.poll_frame(cx).map_err(BodyError::new)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The data of a `Full`, which is always ready.
fn single_frame(mut full: http_body_util::Full<Bytes>) -> Option<Bytes> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    match http_body::Body::poll_frame(Pin::new(&mut full), &mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => Some(Bytes::new()),
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_body_is_never_boxed_twice() {
        let once = Body::new(StreamBody::new(tokio_stream_of(["a", "b"])));
        let twice = Body::new(once);
        let Repr::Boxed(inner) = &twice.repr else { panic!("expected a boxed body, got {twice:?}") };
        assert!(!inner.is_end_stream());
        assert_eq!(twice.collect().await.unwrap().to_bytes(), "ab");
    }

    #[test]
    fn known_bodies_need_no_box() {
        assert_eq!(format!("{:?}", Body::new(Full::new(Bytes::from("x")))), r#"Body("full")"#);
        assert_eq!(format!("{:?}", Body::new(Empty::<Bytes>::new())), r#"Body("empty")"#);
        assert_eq!(format!("{:?}", Body::full("")), r#"Body("empty")"#);
    }

    #[cfg(feature = "tonic")]
    #[tokio::test]
    async fn tonics_body_is_passed_on_as_it_is_and_its_errors_keep_their_status() {
        let status = tonic::Status::resource_exhausted("no more");
        let frames = [Ok(Frame::data(Bytes::from("a"))), Err(status)];
        let tonics = tonic::body::Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        let mut body = Body::new(tonics);
        assert_eq!(format!("{body:?}"), r#"Body("tonic")"#);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let error = body.frame().await.unwrap().unwrap_err();
        let source =
            std::error::Error::source(&error).and_then(|source| source.downcast_ref::<tonic::Status>());
        assert_eq!(source.map(tonic::Status::message), Some("no more"));
        assert_eq!(format!("{:?}", Body::new(tonic::body::Body::empty())), r#"Body("empty")"#);
    }

    #[tokio::test]
    async fn a_full_body_is_read_once_and_knows_its_size() {
        let mut body = Body::full("hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_source_of_a_foreign_error_survives() {
        let failing = StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(
            std::io::Error::other("disk on fire"),
        )]));
        let error = Body::new(failing).collect().await.unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk on fire");
    }

    fn tokio_stream_of(
        parts: impl IntoIterator<Item = &'static str>,
    ) -> impl futures_core::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> {
        let frames: Vec<_> = parts.into_iter().map(|p| Ok(Frame::data(Bytes::from(p)))).collect();
        futures_util::stream::iter(frames)
    }
}
