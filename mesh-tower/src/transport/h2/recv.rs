//! The response body of an HTTP/2 call: flow-control window is released as data is handed out.

use std::task::{Context, Poll, ready};

use ::h2::{Reason, RecvStream};
use http_body::Frame;

use super::Guard;
use super::upload::PumpHandle;
use crate::body::{BodyError, PollFrame};

/// Dropping it before its end resets the stream with CANCEL.
pub(crate) struct RecvBody {
    recv: RecvStream,
    guard: Guard,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Done,
}

// === impl RecvBody ===

impl RecvBody {
    pub(super) fn new(recv: RecvStream, guard: Guard) -> Self {
        Self { recv, guard, state: State::Data }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        if self.state == State::Data {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only where the stream is gone, which the next poll reports.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A server may end a stream that it has answered in full (RFC 9113, 8.1).
                Some(Err(e)) if e.is_reset() && e.reason() == Some(Reason::NO_ERROR) => self.finish(),
                Some(Err(error)) => return Poll::Ready(Some(Err(self.fail(error)))),
                None => self.state = State::Trailers,
            }
        }
        if self.state == State::Trailers {
            let trailers = ready!(self.recv.poll_trailers(cx));
            match trailers {
                Ok(Some(trailers)) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(None) => self.finish(),
                Err(e) if e.is_reset() && e.reason() == Some(Reason::NO_ERROR) => self.finish(),
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
        }
        Poll::Ready(None)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.state == State::Done || self.recv.is_end_stream()
    }

    fn fail(&mut self, error: ::h2::Error) -> BodyError {
        let cause = self.guard.pump.as_deref().and_then(PumpHandle::take_error);
        let error = cause.unwrap_or_else(|| BodyError::new(error));
        self.finish();
        error
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.guard.finish();
    }
}
