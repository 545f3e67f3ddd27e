//! Between the HTTP/2 codec and the socket, of clients and servers alike: windows by stream, and no counts that end a
//! connection.
//!
//! The codec of the `h2` crate bounds what a peer may do by counts over the life of a connection, and ends the connection
//! with all its calls where one is reached; and it has one window of the connection, which slow readers use up. So its
//! counts are off, its windows are as large as they can be, and the bounds are kept here, on the frames:
//!
//! | of | bound | at the bound |
//! |---|---|---|
//! | unread bytes | a window for each stream ([`window`]), [`UnreadLimits`] | the stream waits for its reader |
//! | small DATA frames that nobody reads | joined ([`window`]) | nothing |
//! | resets from either side, PING, SETTINGS, empty DATA, unknown frames | a rate ([`meter`]) | the connection is not read for a while |
//! | streams opened at once | [`inbound`] | others have a turn first |
//! | frames of the guard's own that the peer does not read | [`MOST_OWED`] | the connection is not read until it does |
//! | bytes beyond a window | what was granted | the connection ends: the peer breaks the protocol |
//!
//! One fact is passed to the codec's user as well: a client learns whether a response was complete when its stream was
//! reset ([`COMPLETE`]), which the codec forgets.

mod budget;
mod credit;
mod frame;
mod inbound;
mod marks;
mod meter;
mod outbound;
#[cfg(test)]
mod reported;
mod state;
#[cfg(test)]
mod tests;
mod wakeup;
mod window;

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

pub(crate) use self::budget::ReceiveBudget;
pub use self::budget::UnreadLimits;
pub(crate) use self::credit::{Credit, StreamCredit, Unfinished};
use self::inbound::Inbound;
use self::outbound::Outbound;
use self::state::GuardState;
use self::wakeup::Readable;
use self::window::Windows;
use crate::transport::io::{LINGER, LINGER_BYTES};

/// The code of a reset that came after the whole response. No peer sends it: it is written by the guard alone.
pub(super) const COMPLETE: u32 = 0x6d65_7368;

/// What a client says first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Read at a time where bytes cannot go straight into the codec's buffer.
const SCRATCH: usize = 8 * 1024;

/// Room that the codec's buffer must have for reading into it.
const LEAST_ROOM: usize = 64;

/// Bytes of the guard's own that wait to be written. Window updates of honest peers are far fewer.
const MOST_OWED: usize = 256 * 1024;

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What the peer may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuardSettings {
    pub(crate) role: Role,
    /// Streams that there may be at once.
    pub(crate) streams: u32,
    /// The window of a stream whose reader keeps up.
    pub(crate) stream_window: u32,
    /// Bytes of a header list.
    pub(crate) max_header_list_size: u32,
}

/// What our SETTINGS say in the place of what the codec has been told.
#[derive(Debug, Clone, Copy)]
struct Promises {
    window: u32,
    head: u32,
}

/// A byte stream whose frames are looked at.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    io: T,
    inbound: Inbound,
    outbound: Outbound,
    state: GuardState,
    readable: Readable,
    /// The task that is woken by the socket and by reports.
    waker: Option<Waker>,
    scratch: Vec<u8>,
    at_end: bool,
    /// Nothing is read until the peer has read.
    is_owing: bool,
    farewell: Option<Farewell>,
}

/// What a server still takes after it has said its last: a socket that is closed with bytes unread is reset, and the
/// client may lose what it has not read yet.
#[derive(Debug)]
struct Farewell {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

// === impl Guarded ===

impl<T> Guarded<T> {
    pub(crate) fn new(io: T, settings: GuardSettings, budget: Arc<ReceiveBudget>) -> Self {
        let role = settings.role;
        let windows = Windows::new(budget, &settings);
        let promises = Promises { window: windows.base(), head: settings.max_header_list_size };
        Self {
            io,
            inbound: Inbound::new(role),
            outbound: Outbound::new(role, promises),
            state: GuardState::new(role, windows),
            readable: Readable::new(),
            waker: None,
            scratch: Vec::new(),
            at_end: false,
            is_owing: false,
            farewell: None,
        }
    }

    /// What the readers of bodies report to.
    pub(crate) const fn credit(&self) -> &Arc<Credit> {
        self.state.windows.credit()
    }

    /// Whether so much waits to be written that nothing more is read meanwhile.
    fn owes_too_much(&mut self) -> bool {
        self.is_owing = self.outbound.own_len() + self.state.inject.len() > MOST_OWED;
        self.is_owing
    }

    /// Something was written, maybe.
    fn wrote(&mut self, cx: &Context<'_>) {
        if self.is_owing && !self.owes_too_much() {
            // It is this task that reads.
            cx.waker().wake_by_ref();
        }
    }

    fn register(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
            self.credit().register(cx.waker());
            self.readable.register(cx.waker());
        }
    }

    /// Acts on reports of readers.
    fn settle(&mut self) {
        if self.state.windows.has_reports() && self.inbound.is_between_frames() {
            let inbound = &mut self.inbound;
            self.state.settle(|stream, bytes| inbound.release(stream, bytes));
        }
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Reads into the codec's buffer. Ready with whether something was read, which may have gone to the queue.
    fn poll_direct(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let start = buf.filled().len();
        ready!(poll_socket(&mut self.io, &mut self.readable, buf))?;
        let fresh = buf.filled_mut().get_mut(start..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let scanned = self.inbound.scan(fresh, &mut self.state)?;
        let rest = fresh.get(scanned.rest..).unwrap_or_default();
        if !rest.is_empty() {
            self.inbound.process(rest, &mut self.state)?;
        }
        buf.set_filled(start + scanned.keep);
        Poll::Ready(Ok(true))
    }

    /// Reads into the queue. Ready with whether something was read.
    fn poll_indirect(&mut self) -> Poll<io::Result<bool>> {
        self.scratch.resize(SCRATCH, 0);
        let mut buf = ReadBuf::new(&mut self.scratch);
        ready!(poll_socket(&mut self.io, &mut self.readable, &mut buf))?;
        self.inbound.process(buf.filled(), &mut self.state)?;
        Poll::Ready(Ok(!buf.filled().is_empty()))
    }
}

/// Reads from the socket, which calls the waker of `readable` where it is empty.
fn poll_socket<T: AsyncRead + Unpin>(
    io: &mut T,
    readable: &mut Readable,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let read = Pin::new(io).poll_read(&mut Context::from_waker(readable.ask()), buf);
    if read.is_pending() {
        readable.sleep();
    }
    read
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.register(cx);
        let before = buf.filled().len();
        // The codec asks for more when it has acted on what it had.
        if this.state.has_news && this.inbound.is_delivered() {
            this.state.has_news = false;
            this.credit().set_news();
        }
        loop {
            this.settle();
            if this.inbound.deliver(buf) || this.at_end {
                return Poll::Ready(Ok(()));
            }
            if !this.readable.is_due() {
                return Poll::Pending;
            }
            if this.inbound.take_turn() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(this.state.meter.poll_ready(cx));
            if this.owes_too_much() {
                return Poll::Pending;
            }
            if !this.state.windows.may_read(cx.waker()) {
                return Poll::Pending;
            }
            let read = if this.inbound.is_direct() && buf.remaining() >= LEAST_ROOM {
                ready!(this.poll_direct(buf))?
            } else {
                ready!(this.poll_indirect())?
            };
            this.credit().set_progress(this.inbound.unfinished(), this.inbound.blocks());
            if !read {
                this.at_end = true;
                this.inbound.end(&mut this.state);
            } else if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.outbound.poll_write(&mut this.io, cx, bufs, &mut this.state);
        this.wrote(cx);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.outbound.poll_flush(&mut this.io, cx, &mut this.state);
        this.wrote(cx);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.farewell.is_none() {
            ready!(this.outbound.poll_flush(&mut this.io, cx, &mut this.state))?;
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if this.state.role == Role::Client || this.at_end {
                return Poll::Ready(Ok(()));
            }
        }
        let new = || Farewell { timer: Box::pin(sleep(LINGER)), left: LINGER_BYTES };
        let farewell = this.farewell.get_or_insert_with(new);
        this.scratch.resize(SCRATCH, 0);
        while farewell.left > 0 && farewell.timer.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut this.scratch);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    farewell.left = farewell.left.saturating_sub(buf.filled().len());
                }
                // An end, or an error: the client has nothing more to lose.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
