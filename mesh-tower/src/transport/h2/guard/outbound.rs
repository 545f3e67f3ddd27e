//! The codec's frames on their way to the peer, and the guard's own between them.
//!
//! Our SETTINGS promise what the guard grants, not what the codec has been told; window updates of streams are the guard's,
//! so the codec's are left out. The preface of a client leaves together with the SETTINGS that follow it at once
//! (RFC 9113 §3.4): a packet, a system call and a wake-up of the peer less for each connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite;

use super::frame::{FrameHead, HEAD, flag, kind};
use super::state::GuardState;
use super::{PREFACE, Promises, Role};

/// Slices that are passed on beside bytes of the guard's own; the rest is for the next write.
const SLICES: usize = 8;

/// The codec tells the peer of a stream's window when a third of the largest window was read: not before so many bytes were
/// received on the connection.
const UPDATES_FROM: u64 = 512 * 1024 * 1024;

const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// Where the writing of frames is.
#[derive(Debug)]
pub(super) struct Outbound {
    /// Goes before anything else.
    own: BytesMut,
    /// Bytes of the codec's frame that are still to be written.
    left: usize,
    preface_due: bool,
    /// Our SETTINGS have not been written yet.
    settings_due: bool,
    /// Something was written since the last flush.
    is_dirty: bool,
    promises: Promises,
}

/// What the next bytes of the codec are.
enum Next {
    /// So many may pass as they are.
    Pass(usize),
    /// So many are not for the peer, or not as they are.
    Taken(usize),
}

// === impl Outbound ===

impl Outbound {
    pub(super) fn new(role: Role, promises: Promises) -> Self {
        let preface_due = role == Role::Client;
        Self { own: BytesMut::new(), left: 0, preface_due, settings_due: true, is_dirty: true, promises }
    }

    /// How many of the guard's own bytes wait.
    pub(super) fn own_len(&self) -> usize {
        self.own.len()
    }

    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        state: &mut GuardState,
    ) -> Poll<io::Result<usize>> {
        self.take_injected(state);
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let pass = if self.settings_due || state.received >= UPDATES_FROM {
            match self.next(bufs) {
                Next::Pass(pass) => pass,
                Next::Taken(taken) => return Poll::Ready(Ok(taken)),
            }
        } else {
            total
        };
        self.is_dirty = true;
        loop {
            let written = if self.own.is_empty() && pass == total {
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, bufs))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let slices = limited(&mut slices, &self.own, bufs, pass);
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?
            };
            let own = written.min(self.own.len());
            self.own.advance(own);
            // The codec takes "nothing was written" for the end of the stream.
            if written > own || written == 0 {
                return Poll::Ready(Ok(self.advance(bufs, written - own, state)));
            }
        }
    }

    pub(super) fn poll_flush<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        state: &mut GuardState,
    ) -> Poll<io::Result<()>> {
        if !self.is_dirty && self.own.is_empty() && state.inject.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.take_injected(state);
        while !self.own.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.own))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.own.advance(written);
        }
        ready!(Pin::new(io).poll_flush(cx))?;
        self.is_dirty = false;
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn take_injected(&mut self, state: &mut GuardState) {
        if self.left == 0 && !self.preface_due && !state.inject.is_empty() {
            let inject = state.inject.split();
            self.own.extend_from_slice(&inject);
        }
    }

    /// Looks ahead to the first frame that does not pass as it is.
    fn next(&mut self, bufs: &[IoSlice<'_>]) -> Next {
        let mut pass = 0;
        let mut left = self.left;
        for buf in bufs {
            let mut rest: &[u8] = buf;
            if self.preface_due && pass == 0 && !rest.is_empty() {
                return self.take_preface(rest);
            }
            loop {
                let payload = left.min(rest.len());
                (left, pass) = (left - payload, pass + payload);
                rest = rest.get(payload..).unwrap_or_default();
                let Some(head) = FrameHead::parse(rest) else { break };
                let length = head.length as usize + HEAD;
                if self.is_special(&head) {
                    return match rest.get(..length).filter(|_| pass == 0) {
                        Some(frame) => self.take(&head, frame),
                        None => Next::Pass(pass),
                    };
                }
                left = length;
            }
            // The codec does not cut a head in two; where it lies in two slices all the same, it is passed on unseen.
            (left, pass) = (left.saturating_sub(rest.len()), pass + rest.len());
        }
        Next::Pass(pass)
    }

    fn take_preface(&mut self, bytes: &[u8]) -> Next {
        self.preface_due = false;
        if bytes.starts_with(PREFACE) {
            self.own.extend_from_slice(PREFACE);
            return Next::Taken(PREFACE.len());
        }
        Next::Pass(bytes.len())
    }

    fn is_special(&self, head: &FrameHead) -> bool {
        match head.kind {
            kind::SETTINGS => !head.has(flag::ACK) && head.length > 0,
            kind::WINDOW_UPDATE => head.stream != 0,
            _ => false,
        }
    }

    /// Writes SETTINGS as the guard promises them; leaves the window update of a stream out.
    fn take(&mut self, head: &FrameHead, frame: &[u8]) -> Next {
        if head.kind == kind::SETTINGS {
            self.settings_due = false;
            self.own.extend_from_slice(&head.encode());
            for setting in frame.get(HEAD..).unwrap_or_default().chunks(6) {
                let [a, b, value @ ..] = setting else { continue };
                let promised = match u16::from_be_bytes([*a, *b]) {
                    INITIAL_WINDOW_SIZE => Some(self.promises.window),
                    MAX_HEADER_LIST_SIZE => Some(self.promises.head),
                    _ => None,
                };
                self.own.extend_from_slice(&[*a, *b]);
                match promised {
                    Some(promised) => self.own.extend_from_slice(&promised.to_be_bytes()),
                    None => self.own.extend_from_slice(value),
                }
            }
        }
        Next::Taken(frame.len())
    }

    /// So many of the codec's bytes were written. Returns how many count as written: a head that was cut is finished from
    /// here.
    fn advance(&mut self, bufs: &[IoSlice<'_>], written: usize, state: &mut GuardState) -> usize {
        let mut todo = written;
        for buf in bufs {
            let mut rest: &[u8] = buf;
            loop {
                let payload = self.left.min(rest.len()).min(todo);
                (self.left, todo) = (self.left - payload, todo - payload);
                rest = rest.get(payload..).unwrap_or_default();
                if todo == 0 {
                    return written;
                }
                let (Some(head), Some(whole)) = (FrameHead::parse(rest), rest.get(..HEAD)) else { break };
                sent(&head, state);
                self.left = head.length as usize;
                rest = rest.get(HEAD..).unwrap_or_default();
                if todo < HEAD {
                    self.own.extend_from_slice(whole.get(todo..).unwrap_or_default());
                    return written + HEAD - todo;
                }
                todo -= HEAD;
            }
            todo = todo.saturating_sub(rest.len());
        }
        written
    }
}

/// Records a frame that is on its way.
fn sent(head: &FrameHead, state: &mut GuardState) {
    match head.kind {
        kind::HEADERS if state.role == Role::Client => state.opened(head.stream),
        kind::RST_STREAM => state.reset_by_us(head.stream),
        _ => {}
    }
}

/// The guard's own bytes and the first `pass` bytes of `bufs`, as far as there are slices for them.
fn limited<'a, 's>(
    slices: &'s mut [IoSlice<'a>; SLICES],
    own: &'a [u8],
    bufs: &'a [IoSlice<'a>],
    mut pass: usize,
) -> &'s [IoSlice<'a>] {
    let mut count = 0;
    let mut places = slices.iter_mut();
    if !own.is_empty()
        && let Some(place) = places.next()
    {
        *place = IoSlice::new(own);
        count += 1;
    }
    for (place, buf) in places.zip(bufs) {
        let part = buf.get(..pass.min(buf.len())).unwrap_or_default();
        *place = IoSlice::new(part);
        count += 1;
        pass -= part.len();
        if pass == 0 {
            break;
        }
    }
    slices.get(..count).unwrap_or_default()
}
