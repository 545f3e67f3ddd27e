//! The body that a peer sends over HTTP/2, of requests and of responses: what is read is reported to the guard of the
//! connection, which gives it back to the window of the stream.

use std::fmt;
use std::task::{Context, Poll, Waker, ready};

use ::h2::{Reason, RecvStream};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use mesh_core::error::Reason as MeshReason;

use super::Guard;
use super::guard::{COMPLETE, StreamCredit};
use super::upload::PumpHandle;
use crate::body::{BodyError, PollFrame};

/// One side's body of a stream. Dropping it before its end resets the stream.
pub(crate) struct Incoming {
    recv: RecvStream,
    credit: StreamCredit,
    state: State,
    /// The message has content, whatever length its head announces.
    has_content: bool,
    /// Called when a reader waits for the first of it.
    awaited: Option<Box<Waker>>,
}

/// The response body of a call. Dropping it before its end resets the stream with CANCEL.
pub(crate) struct RecvBody {
    incoming: Incoming,
    guard: Guard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Done,
}

/// Trailers have the limit of heads.
#[derive(Debug, thiserror::Error)]
#[error("the trailers have {size} bytes, and {limit} are accepted")]
struct TrailersTooLarge {
    size: usize,
    limit: u32,
}

/// The stream ended before the message did.
#[derive(Debug, thiserror::Error)]
#[error("the peer ended the stream before the message was complete")]
struct Truncated;

// === impl Incoming ===

impl Incoming {
    pub(crate) const fn new(recv: RecvStream, credit: StreamCredit) -> Self {
        Self { recv, credit, state: State::Data, has_content: true, awaited: None }
    }

    /// Has `awaited` called when somebody waits for the first bytes.
    pub(crate) fn tell_when_awaited(&mut self, awaited: Waker) {
        self.awaited = Some(Box::new(awaited));
    }

    /// The body of a response.
    pub(super) const fn response(recv: RecvStream, credit: StreamCredit, has_content: bool) -> Self {
        Self { recv, credit, state: State::Data, has_content, awaited: None }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        while self.state == State::Data {
            let Poll::Ready(data) = self.recv.poll_data(cx) else {
                if let Some(awaited) = self.awaited.take() {
                    awaited.wake();
                }
                return Poll::Pending;
            };
            match data {
                Some(Ok(data)) => {
                    if let Some(read) = self.credit.read(data.len()) {
                        // Fails only where the stream is gone, which the next poll reports.
                        let _ = self.recv.flow_control().release_capacity(read);
                    }
                    // Of a message without content there is none, whatever the peer sends.
                    if self.has_content {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return self.broken(error),
                None => self.state = State::Trailers,
            }
        }
        if self.state == State::Trailers {
            match ready!(self.recv.poll_trailers(cx)) {
                Ok(Some(trailers)) => return self.trailers(trailers),
                Ok(None) => self.finish(),
                Err(error) => return self.broken(error),
            }
        }
        Poll::Ready(None)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.state == State::Done || self.recv.is_end_stream()
    }

    fn trailers(&mut self, trailers: HeaderMap) -> PollFrame {
        self.finish();
        if let Some(size) = self.credit.is_too_large(&trailers) {
            let error = TrailersTooLarge { size, limit: self.credit.max_header_list_size() };
            return Poll::Ready(Some(
                Err(BodyError::new(error).because(MeshReason::UpstreamHeadersTooLarge)),
            ));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    /// Ends the body: a reset that came after the whole message spoils nothing, any other cuts it off.
    fn broken(&mut self, error: ::h2::Error) -> PollFrame {
        self.state = State::Done;
        match error.reason() {
            Some(reason) if error.is_reset() && u32::from(reason) == COMPLETE => {
                self.credit.finish();
                Poll::Ready(None)
            }
            // The codec compares lengths, and knows only of HEAD that there is nothing to compare.
            _ if !self.has_content && error.is_library() => {
                self.credit.finish();
                Poll::Ready(None)
            }
            // As an error of the codec it would say that there was none.
            Some(Reason::NO_ERROR) if error.is_reset() => Poll::Ready(Some(Err(BodyError::new(Truncated)))),
            _ => Poll::Ready(Some(Err(BodyError::new(error)))),
        }
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.credit.finish();
    }

    const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // A reader that knows the length does not ask for the end.
        if self.state != State::Done && self.recv.is_end_stream() {
            self.credit.finish();
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("h2::Incoming").finish_non_exhaustive()
    }
}

// === impl RecvBody ===

impl RecvBody {
    pub(super) const fn new(incoming: Incoming, guard: Guard) -> Self {
        Self { incoming, guard }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        let polled = self.incoming.poll_frame(cx);
        if !self.incoming.is_done() {
            return polled;
        }
        let cause = match &polled {
            Poll::Ready(Some(Err(_))) => self.guard.pump.as_deref().and_then(PumpHandle::take_error),
            _ => None,
        };
        self.guard.finish();
        match (cause, polled) {
            (Some(cause), _) => Poll::Ready(Some(Err(cause))),
            (None, Poll::Ready(Some(Err(error)))) => Poll::Ready(Some(Err(meaning(error)))),
            (None, polled) => polled,
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}

/// What it means to a call that the body of its response broke off.
fn meaning(error: BodyError) -> BodyError {
    let source = std::error::Error::source(&error);
    let reset = match source.and_then(|source| source.downcast_ref::<::h2::Error>()) {
        Some(error) if error.is_reset() && error.is_remote() => error.reason(),
        Some(_) => None,
        None => source.is_some_and(|source| source.is::<Truncated>()).then_some(Reason::NO_ERROR),
    };
    match reset {
        Some(code) => error.because(MeshReason::of_reset(code.into())),
        None => error,
    }
}

/// Whether a response of this status has content (RFC 9110 §6.4.1).
pub(crate) const fn has_content(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
