//! Sending a body: a request's, or a server's response's.
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

use super::Slot;
use crate::body::{Body, BodyError, BoxError};
use crate::transport::task::Task;

/// After this many frames in one poll the task yields, so that an always-ready body starves nobody.
const FRAMES_PER_POLL: u32 = 64;

/// A body on its way into a stream.
#[pin_project::pin_project]
pub(crate) struct Upload<B> {
    #[pin]
    body: B,
    current: Option<Bytes>,
    ahead: Ahead,
    /// What is still to come of the length that the head announces.
    announced: Option<u64>,
}

/// What follows the current frame.
enum Ahead {
    Unknown,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// How an upload ended.
pub(crate) enum Uploaded {
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

/// The body is not as long as its head says.
#[derive(Debug, thiserror::Error)]
#[error("the body is {0} than its content-length")]
struct WrongLength(&'static str);

// === impl Upload ===

impl<B> Upload<B> {
    /// A body whose head announces so many bytes, if it does.
    pub(crate) const fn new(body: B, announced: Option<u64>) -> Self {
        Self { body, current: None, ahead: Ahead::Unknown, announced }
    }

    /// The body itself, for what is asked of it while it cannot be sent.
    pub(crate) fn body(self: Pin<&mut Self>) -> Pin<&mut B> {
        self.project().body
    }

    /// Whether nothing is left to send. Before the first frame it means that HEADERS end the stream.
    pub(crate) const fn is_finished(&self) -> bool {
        self.current.is_none() && matches!(self.ahead, Ahead::End)
    }
}

impl<B> Upload<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Reads as far ahead as the body is ready.
    ///
    /// # Errors
    /// When the body fails, or is not as long as announced.
    pub(crate) fn fill(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let mut this = self.project();
        loop {
            if this.current.is_none()
                && let Ahead::Data(data) = this.ahead
            {
                *this.current = Some(std::mem::take(data));
                *this.ahead = Ahead::Unknown;
            }
            if !matches!(this.ahead, Ahead::Unknown) {
                return Ok(());
            }
            let frame = if this.body.is_end_stream() {
                None
            } else {
                match this.body.as_mut().poll_frame(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(frame) => frame.transpose().map_err(BodyError::of)?,
                }
            };
            let Some(frame) = frame else {
                end_of(*this.announced)?;
                *this.ahead = Ahead::End;
                return Ok(());
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(left) = this.announced {
                        *left = left.checked_sub(data.len() as u64).ok_or_else(|| too(LONGER))?;
                    }
                    if data.is_empty() {
                    } else if this.current.is_none() {
                        *this.current = Some(data);
                    } else {
                        *this.ahead = Ahead::Data(data);
                    }
                }
                Err(frame) => {
                    end_of(*this.announced)?;
                    *this.ahead = frame.into_trailers().map_or(Ahead::Unknown, Ahead::Trailers);
                }
            }
        }
    }

    /// Sends until the body is over. Pending while the body or the flow-control window is not ready.
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
    ) -> Poll<Uploaded> {
        for _ in 0..FRAMES_PER_POLL {
            if let Err(error) = self.as_mut().fill(cx) {
                return Poll::Ready(Uploaded::Failed(error));
            }
            let this = self.as_mut().project();
            let more = matches!(this.ahead, Ahead::Unknown | Ahead::Data(_));
            if more {
                if this.current.is_none() {
                    // Nothing to send: watch for a reset, so that the body is dropped soon after one.
                    let _ = ready!(stream.poll_reset(cx));
                    return Poll::Ready(Uploaded::PeerStopped);
                }
                if ready!(poll_send_current(this.current, cx, stream)).is_err() {
                    return Poll::Ready(Uploaded::PeerStopped);
                }
            } else {
                let data = this.current.take();
                let ahead = std::mem::replace(this.ahead, Ahead::End);
                return Poll::Ready(
                    send_last(data, ahead, stream).map_or(Uploaded::PeerStopped, |()| Uploaded::Done),
                );
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

const LONGER: &str = "longer";

fn too(how: &'static str) -> BodyError {
    BodyError::new(WrongLength(how))
}

/// The body is over, with so much of what its head announced still to come.
fn end_of(announced: Option<u64>) -> Result<(), BodyError> {
    match announced {
        None | Some(0) => Ok(()),
        Some(_) => Err(too("shorter")),
    }
}

/// Sends as much of the current frame as the window has room for.
fn poll_send_current(
    current: &mut Option<Bytes>,
    cx: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
) -> Poll<Result<(), ()>> {
    let Some(data) = current.as_mut() else { return Poll::Ready(Ok(())) };
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
        *current = None;
    }
    Poll::Ready(stream.send_data(piece, false).map_err(drop))
}

fn send_last(data: Option<Bytes>, ahead: Ahead, stream: &mut SendStream<Bytes>) -> Result<(), ::h2::Error> {
    match ahead {
        Ahead::Trailers(trailers) => {
            if let Some(data) = data {
                stream.send_data(data, false)?;
            }
            stream.send_trailers(trailers)
        }
        _ => stream.send_data(data.unwrap_or_default(), true),
    }
}

// === impl PumpHandle ===

impl PumpHandle {
    /// Continues `upload` in a task of its own.
    pub(super) fn spawn(slot: Slot, mut upload: Upload<Body>, mut stream: SendStream<Bytes>) -> Self {
        let runtime = slot.connection.runtime.clone();
        let shared = Arc::new(PumpShared { slot, error: Mutex::new(None) });
        let pump = shared.clone();
        let task = Task::spawn(&runtime, tracing::debug_span!("mesh.upload"), async move {
            let uploaded = std::future::poll_fn(|cx| Pin::new(&mut upload).poll(cx, &mut stream)).await;
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
