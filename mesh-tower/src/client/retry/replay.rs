//! A request body that can be sent again, within a bound.
//!
//! ```text
//! Streaming ──all there at once──► Whole      repeated by reference count
//!     │ first attempt                │ larger than the bound
//!     ▼                              ▼
//!   Shared ──over the bound────►  Sent        committed: streams on, cannot be repeated
//! ```
//! Frames are kept by reference count, never copied, until the bound or the response head, whichever comes first.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};

/// Kept for transparent repetition, where no policy retries.
const TRANSPARENT_BOUND: usize = 64 * 1024;

/// Kept where a policy retries.
const POLICY_BOUND: usize = 256 * 1024;

/// The body of a call across its attempts.
pub(super) struct Replay {
    state: State,
    bound: usize,
}

enum State {
    /// Nothing was sent. What was read ahead comes first.
    Streaming { ahead: Option<Bytes>, body: Body },
    /// All of it.
    Whole(Bytes),
    /// Attempts read through what they share.
    Shared(Arc<Mutex<Shared>>),
    /// Given away.
    Sent,
}

/// What the attempts of a call share of its body.
struct Shared {
    source: Body,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    bound: usize,
    /// Bytes read from the source.
    read: Arc<AtomicU64>,
    /// Nothing is kept any more.
    committed: bool,
    end: Option<End>,
    /// The attempt that reads; an earlier one that still lives reads nothing.
    reader: u32,
}

#[derive(Clone)]
enum End {
    Clean(Option<HeaderMap>),
    Failed,
}

/// The body of one attempt.
struct Reader {
    shared: Arc<Mutex<Shared>>,
    number: u32,
    position: usize,
    finished: bool,
}

/// The body of an earlier attempt was read on.
#[derive(Debug, thiserror::Error)]
#[error("the attempt is over")]
struct Superseded;

// === impl Replay ===

impl Replay {
    pub(super) fn new(body: Body, retried: bool) -> Self {
        let bound = if retried { POLICY_BOUND } else { TRANSPARENT_BOUND };
        let state = if body.is_end_stream() {
            State::Whole(Bytes::new())
        } else {
            State::Streaming { ahead: None, body }
        };
        Self { state, bound }
    }

    /// Reads a body that is one piece and ready, as unary calls have. Always ready: what takes longer streams.
    pub(super) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Streaming { ahead, body } = &mut self.state else { return Poll::Ready(()) };
        // Twice, because many bodies know that they are over only when they are asked once more.
        for _ in 0..2 {
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame,
                Poll::Ready(None) => {
                    self.state = State::Whole(ahead.take().unwrap_or_default());
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Ready(()),
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if ahead.is_none() => *ahead = Some(data),
                other => {
                    let frame = other.map(|frame| frame.map_or_else(|trailers| trailers, Frame::data));
                    *body = Body::new(Prefixed { first: Some(frame), rest: std::mem::take(body) });
                    return Poll::Ready(());
                }
            }
            if body.is_end_stream() {
                self.state = State::Whole(ahead.take().unwrap_or_default());
                return Poll::Ready(());
            }
        }
        Poll::Ready(())
    }

    /// The body of the next attempt; none if it cannot be repeated.
    pub(super) fn next(&mut self) -> Option<Body> {
        match std::mem::replace(&mut self.state, State::Sent) {
            State::Whole(data) => {
                if data.len() <= self.bound {
                    self.state = State::Whole(data.clone());
                }
                Some(Body::full(data))
            }
            State::Streaming { ahead, body } => {
                let mut shared = Shared {
                    source: body,
                    kept: Vec::new(),
                    kept_bytes: 0,
                    bound: self.bound,
                    read: Arc::default(),
                    committed: false,
                    end: None,
                    reader: 0,
                };
                let first = ahead.and_then(|data| {
                    shared.count(&data);
                    shared.keep(data)
                });
                self.share(Arc::new(Mutex::new(shared)), first)
            }
            State::Shared(shared) => self.share(shared, None),
            State::Sent => None,
        }
    }

    /// The size of a body that is all there.
    pub(super) fn known_bytes(&self) -> u64 {
        match &self.state {
            State::Whole(data) => data.len() as u64,
            State::Streaming { .. } | State::Shared(_) | State::Sent => 0,
        }
    }

    /// The count of a body that streams.
    pub(super) fn streamed_bytes(&self) -> Option<Arc<AtomicU64>> {
        match &self.state {
            State::Shared(shared) => Some(lock(shared).read.clone()),
            State::Whole(_) | State::Streaming { .. } | State::Sent => None,
        }
    }

    /// Whether another attempt can have the same body.
    pub(super) fn can_repeat(&self) -> bool {
        match &self.state {
            State::Whole(_) | State::Streaming { .. } => true,
            State::Shared(shared) => {
                let shared = lock(shared);
                !shared.committed && !matches!(shared.end, Some(End::Failed))
            }
            State::Sent => false,
        }
    }

    /// No attempt will follow: lets go of what was kept.
    pub(super) fn commit(&mut self) {
        if let State::Shared(shared) = std::mem::replace(&mut self.state, State::Sent) {
            lock(&shared).commit();
        }
    }

    /// `first` is a piece that is over the bound on its own, and that this attempt alone gets.
    fn share(&mut self, shared: Arc<Mutex<Shared>>, first: Option<Bytes>) -> Option<Body> {
        let number = {
            let mut locked = lock(&shared);
            if locked.committed && first.is_none() {
                return None;
            }
            locked.reader += 1;
            locked.reader
        };
        self.state = State::Shared(shared.clone());
        let reader = Reader { shared, number, position: 0, finished: false };
        Some(match first {
            Some(first) => Body::new(Prefixed { first: Some(Ok(Frame::data(first))), rest: reader }),
            None => Body::new(reader),
        })
    }
}

// === impl Shared ===

impl Shared {
    /// Keeps a piece; hands it back where that would pass the bound, which commits.
    fn keep(&mut self, data: Bytes) -> Option<Bytes> {
        if self.committed || self.kept_bytes.saturating_add(data.len()) > self.bound {
            self.commit();
            return Some(data);
        }
        self.kept_bytes += data.len();
        self.kept.push(data);
        None
    }

    fn count(&self, data: &Bytes) {
        self.read.fetch_add(data.len() as u64, Ordering::Relaxed);
    }

    fn commit(&mut self) {
        self.committed = true;
        self.kept = Vec::new();
    }

    fn poll_new(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.source).poll_frame(cx));
        Poll::Ready(match frame {
            None => {
                self.end = Some(End::Clean(None));
                None
            }
            Some(Err(error)) => {
                self.end = Some(End::Failed);
                Some(Err(error))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.count(&data);
                    Some(Ok(data))
                }
                Err(frame) => {
                    self.end = Some(End::Clean(frame.into_trailers().ok()));
                    None
                }
            },
        })
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A body that panicked while it was polled is polled no further: its reader is gone with the panic.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Reader ===

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let mut shared = lock(&this.shared);
        if shared.reader != this.number {
            return Poll::Ready(Some(Err(BodyError::new(Superseded))));
        }
        if let Some(kept) = shared.kept.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        match ready!(shared.poll_new(cx)) {
            Some(Ok(data)) => {
                if shared.keep(data.clone()).is_none() {
                    this.position += 1;
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                this.finished = true;
                let trailers = match &shared.end {
                    Some(End::Clean(trailers)) => trailers.clone(),
                    Some(End::Failed) | None => None,
                };
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.finished {
            return true;
        }
        let shared = lock(&self.shared);
        let at_end = self.position >= shared.kept.len();
        at_end && (matches!(shared.end, Some(End::Clean(None))) || shared.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        if shared.committed || self.position > 0 || shared.kept_bytes > 0 {
            return SizeHint::default();
        }
        shared.source.size_hint()
    }
}

/// A frame that was read ahead, then the rest.
struct Prefixed<B> {
    first: Option<Result<Frame<Bytes>, BodyError>>,
    rest: B,
}

impl<B> http_body::Body for Prefixed<B>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}
