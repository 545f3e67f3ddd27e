//! Sending a request body.
//!
//! One frame of look-ahead tells whether a DATA frame is the last one, so that it can carry END_STREAM. The last
//! frame is handed to the codec as it is (it is one buffer that exists already); every earlier frame waits for
//! flow-control capacity, so that an endless body never buffers more than the codec's send buffer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::Slot;
use crate::body::{Body, BodyError};
use crate::transport::task::Task;

/// After this many frames in one poll the task yields, so that an always-ready body starves nobody.
const FRAMES_PER_POLL: u32 = 64;

/// A request body on its way into a stream.
pub(super) struct Upload {
    body: Body,
    current: Option<Bytes>,
    ahead: Ahead,
}

/// What follows the current frame.
enum Ahead {
    Unknown,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// How an upload ended.
pub(super) enum Uploaded {
    /// The last frame is with the codec.
    Done,
    /// The stream was reset or the connection ended; the response future knows why.
    PeerStopped,
    /// The body itself failed.
    Failed(BodyError),
}

/// The call's side of an upload that runs in a task. Dropping it ends the task.
pub(super) struct PumpHandle {
    shared: Arc<PumpShared>,
    _task: Task,
}

struct PumpShared {
    slot: Slot,
    /// Set once, by the task, before it resets the stream.
    error: Mutex<Option<BodyError>>,
}

// === impl Upload ===

impl Upload {
    pub(super) const fn new(body: Body) -> Self {
        Self { body, current: None, ahead: Ahead::Unknown }
    }

    /// Whether nothing is left to send. Before the first frame it means that HEADERS end the stream.
    pub(super) const fn is_finished(&self) -> bool {
        self.current.is_none() && matches!(self.ahead, Ahead::End)
    }

    /// Reads as far ahead as the body is ready.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            if self.current.is_none()
                && let Ahead::Data(data) = &mut self.ahead
            {
                self.current = Some(std::mem::take(data));
                self.ahead = Ahead::Unknown;
            }
            if !matches!(self.ahead, Ahead::Unknown) {
                return Ok(());
            }
            if self.body.is_end_stream() {
                self.ahead = Ahead::End;
                return Ok(());
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => {
                    self.ahead = Ahead::End;
                    return Ok(());
                }
                Poll::Ready(Some(frame)) => frame?,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) if self.current.is_none() => self.current = Some(data),
                Ok(data) => self.ahead = Ahead::Data(data),
                Err(frame) => {
                    self.ahead = frame.into_trailers().map_or(Ahead::Unknown, Ahead::Trailers);
                }
            }
        }
    }

    /// Sends until the body is over. Pending while the body or the flow-control window is not ready.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Bytes>) -> Poll<Uploaded> {
        for _ in 0..FRAMES_PER_POLL {
            if let Err(error) = self.fill(cx) {
                return Poll::Ready(Uploaded::Failed(error));
            }
            let more = matches!(self.ahead, Ahead::Unknown | Ahead::Data(_));
            if more {
                if self.current.is_none() {
                    // Nothing to send: watch for a reset, so that the body is dropped soon after one.
                    let _ = ready!(stream.poll_reset(cx));
                    return Poll::Ready(Uploaded::PeerStopped);
                }
                if ready!(self.poll_send_current(cx, stream)).is_err() {
                    return Poll::Ready(Uploaded::PeerStopped);
                }
            } else {
                return Poll::Ready(
                    self.send_last(stream).map_or(Uploaded::PeerStopped, |()| Uploaded::Done),
                );
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends as much of the current frame as the window has room for.
    fn poll_send_current(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), ()>> {
        let Some(data) = self.current.as_mut() else { return Poll::Ready(Ok(())) };
        stream.reserve_capacity(data.len());
        let mut room = stream.capacity();
        while room == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(granted)) => room = granted,
                Some(Err(_)) | None => return Poll::Ready(Err(())),
            }
        }
        let piece = if room < data.len() { data.split_to(room) } else { std::mem::take(data) };
        if data.is_empty() {
            self.current = None;
        }
        Poll::Ready(stream.send_data(piece, false).map_err(drop))
    }

    fn send_last(&mut self, stream: &mut SendStream<Bytes>) -> Result<(), ::h2::Error> {
        let data = self.current.take();
        match std::mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Trailers(trailers) => {
                if let Some(data) = data {
                    stream.send_data(data, false)?;
                }
                stream.send_trailers(trailers)
            }
            _ => stream.send_data(data.unwrap_or_default(), true),
        }
    }
}

// === impl PumpHandle ===

impl PumpHandle {
    /// Continues `upload` in a task of its own.
    pub(super) fn spawn(slot: Slot, mut upload: Upload, mut stream: SendStream<Bytes>) -> Self {
        let runtime = slot.connection.runtime.clone();
        let shared = Arc::new(PumpShared { slot, error: Mutex::new(None) });
        let pump = shared.clone();
        let task = Task::spawn(&runtime, tracing::debug_span!("mesh.upload"), async move {
            let uploaded = std::future::poll_fn(|cx| upload.poll(cx, &mut stream)).await;
            if let Uploaded::Failed(error) = uploaded {
                *pump.lock_error() = Some(error);
                stream.send_reset(Reason::CANCEL);
            }
        });
        Self { shared, _task: task }
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.shared.slot
    }

    /// The error of the request body, if that is what ended the stream.
    pub(super) fn take_error(&self) -> Option<BodyError> {
        self.shared.lock_error().take()
    }
}

impl PumpShared {
    fn lock_error(&self) -> std::sync::MutexGuard<'_, Option<BodyError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
