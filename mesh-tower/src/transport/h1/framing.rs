//! The length of a request's body: what the head announces is what follows.
//!
//! A head that announces more than is sent makes the peer take the next call's bytes for the rest; one that announces
//! less leaves bytes that the peer takes for a request (RFC 9112 §11.2). Where both are known beforehand, nothing is
//! sent; else the body is counted, and its error ends the connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError, PollFrame};

/// Why a request has no valid framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidFraming {
    #[error("`content-length` is no number, or there are several that differ")]
    ContentLength,
    #[error("`transfer-encoding` does not end with `chunked`, or there is a `content-length` beside it")]
    TransferEncoding,
    #[error("`content-length` is {announced}, and the body has {actual} bytes")]
    Differs { announced: u64, actual: u64 },
    #[error("the body ends {missing} bytes before its announced length")]
    Short { missing: u64 },
    #[error("the body goes on beyond its announced length")]
    Long,
}

/// Checks the announced length of a request, and sees to it that the body keeps to it.
pub(super) async fn frame(request: &mut Request<Body>) -> Result<(), InvalidFraming> {
    let announced = announced(request.headers())?;
    let body = request.body_mut();
    let actual = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    if let (Some(announced), Some(actual)) = (announced, actual)
        && announced != actual
    {
        return Err(InvalidFraming::Differs { announced, actual });
    }
    if body.is_buffered() {
        return Ok(());
    }
    if announced == Some(0) && actual.is_none() {
        // The codec would drop what the body has, without a word.
        return match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => {
                *body = Body::empty();
                Ok(())
            }
            Some(_) => Err(InvalidFraming::Long),
        };
    }
    if let Some(left) = announced.or(actual) {
        let inner = std::mem::take(body);
        *body = Body::boxed(Box::new(Measured { inner, left }));
    } else if matches!(*request.method(), Method::GET | Method::HEAD) {
        // The codec takes for granted that there is none, and would drop it.
        request.headers_mut().entry(TRANSFER_ENCODING).or_insert(HeaderValue::from_static("chunked"));
    }
    Ok(())
}

/// The length that a head announces.
fn announced(headers: &HeaderMap) -> Result<Option<u64>, InvalidFraming> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter().map(|value| {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|text| text.parse::<u64>().ok())
    });
    let length = match lengths.next() {
        None => None,
        Some(None) => return Err(InvalidFraming::ContentLength),
        Some(first) if lengths.all(|other| other == first) => first,
        Some(_) => return Err(InvalidFraming::ContentLength),
    };
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(length),
        (Some(codings), None) if length.is_none() && ends_chunked(codings) => Ok(None),
        _ => Err(InvalidFraming::TransferEncoding),
    }
}

/// Whether `chunked` is the last coding, as the framing of a request needs, and is there once.
fn ends_chunked(codings: &HeaderValue) -> bool {
    let Ok(codings) = codings.to_str() else { return false };
    let mut codings = codings.rsplit(',').map(str::trim);
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    codings.next().is_some_and(is_chunked) && !codings.any(is_chunked)
}

/// A body of an announced length.
struct Measured {
    inner: Body,
    left: u64,
}

// === impl Measured ===

impl Measured {
    /// Whether the body has more than it announced, as far as can be known without waiting.
    fn exceeds(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        while !self.inner.is_end_stream() {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| !data.is_empty()) => {
                    return Err(BodyError::new(InvalidFraming::Long));
                }
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {}
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Ok(())
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => Some(frame),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => None,
        };
        let data = frame.as_ref().and_then(Frame::data_ref);
        let result = match data.map(|data| data.len() as u64) {
            Some(length) if length > this.left => Err(BodyError::new(InvalidFraming::Long)),
            Some(length) => {
                this.left -= length;
                if this.left == 0 { this.exceeds(cx) } else { Ok(()) }
            }
            // Trailers, or the end.
            None if this.left > 0 => Err(BodyError::new(InvalidFraming::Short { missing: this.left })),
            None => Ok(()),
        };
        Poll::Ready(match result {
            Ok(()) => frame.map(Ok),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
