//! What both directions of a connection know together.

use bytes::BytesMut;

use super::Role;
use super::frame::window_update;
use super::marks::Marks;
use super::meter::{Cost, Meter};
use super::window::{Granted, Windows};

/// The state of a guarded connection, but for where in a frame each direction is.
#[derive(Debug)]
pub(super) struct GuardState {
    pub(super) role: Role,
    pub(super) windows: Windows,
    pub(super) meter: Meter,
    /// The peer has sent SETTINGS or GOAWAY, which the codec may not have acted on yet.
    pub(super) has_news: bool,
    /// Bytes of DATA that the peer has sent.
    pub(super) received: u64,
    /// Frames of the guard's own, to be written between two of the codec's.
    pub(super) inject: BytesMut,
    /// Streams whose peer has ended its side.
    ended: Marks,
    /// Streams that have no reader any more: we have reset them, or what reads them has let go of them.
    unread: Marks,
}

// === impl GuardState ===

impl GuardState {
    pub(super) fn new(role: Role, windows: Windows) -> Self {
        let (meter, inject) = (Meter::default(), BytesMut::new());
        let (ended, unread) = (Marks::new(), Marks::new());
        Self { role, windows, meter, has_news: false, received: 0, inject, ended, unread }
    }

    /// A stream was opened, by whichever side does that; or trailers were sent on one.
    pub(super) fn opened(&mut self, stream: u32) {
        self.ended.open(stream);
        self.unread.open(stream);
    }

    /// The peer has ended its side of a stream.
    pub(super) fn ended(&mut self, stream: u32) {
        self.ended.set(stream);
        self.windows.ended(stream);
    }

    /// Whether the peer had ended its side of a stream.
    pub(super) fn has_ended(&self, stream: u32) -> bool {
        self.ended.has(stream)
    }

    /// We have reset a stream.
    pub(super) fn reset_by_us(&mut self, stream: u32) {
        self.unread.set(stream);
        let unseen = self.windows.remove(stream);
        self.refund_connection(unseen);
        self.meter.spend(Cost::Reset);
    }

    /// The peer has reset a stream.
    pub(super) fn reset_by_peer(&mut self, stream: u32) {
        let unseen = self.windows.take_joined(stream).map_or(0, |joined| joined.len());
        self.refund_connection(unseen);
        self.meter.spend(Cost::Reset);
    }

    /// Whether nobody reads a stream any more: the codec throws away what comes on it.
    pub(super) fn is_unread(&self, stream: u32) -> bool {
        self.unread.has(stream)
    }

    /// Keeps bytes for the reader of a stream, or gives them back where it is gone.
    pub(super) fn join(&mut self, stream: u32, bytes: &[u8]) {
        if !self.windows.join(stream, bytes) {
            self.refund_connection(bytes.len());
        }
    }

    /// Returns bytes to the connection that never reach the codec.
    fn refund_connection(&mut self, bytes: usize) {
        refund(&mut self.inject, bytes);
    }

    /// Returns bytes to the peer that never reach the codec.
    pub(super) fn refund(&mut self, stream: u32, bytes: u32) {
        self.refund_connection(bytes as usize);
        self.refund_stream(stream, bytes);
    }

    /// Returns bytes to a stream whose connection window is given back by the codec.
    pub(super) fn refund_stream(&mut self, stream: u32, bytes: u32) {
        if bytes > 0 && !self.is_unread(stream) {
            self.inject.extend_from_slice(&window_update(stream, bytes));
        }
    }

    /// Acts on what readers have reported. `release` gets what has waited for them.
    pub(super) fn settle(&mut self, release: impl FnMut(u32, &[u8])) {
        let Self { windows, inject, unread, .. } = self;
        windows.settle(&mut Settlement { inject, unread, release });
    }
}

fn refund(inject: &mut BytesMut, bytes: usize) {
    // Never more than a window.
    let bytes = u32::try_from(bytes).unwrap_or(0);
    if bytes > 0 {
        inject.extend_from_slice(&window_update(0, bytes));
    }
}

struct Settlement<'a, F> {
    inject: &'a mut BytesMut,
    unread: &'a mut Marks,
    release: F,
}

impl<F: FnMut(u32, &[u8])> Granted for Settlement<'_, F> {
    fn grant(&mut self, stream: u32, bytes: u32) {
        self.inject.extend_from_slice(&window_update(stream, bytes));
    }

    fn release(&mut self, stream: u32, bytes: &[u8]) {
        (self.release)(stream, bytes);
    }

    fn over(&mut self, stream: u32, unseen: usize) {
        self.unread.set(stream);
        refund(self.inject, unseen);
    }
}
