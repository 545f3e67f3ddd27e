//! Frames from the peer, before the codec sees them.
//!
//! What passes unchanged is looked at where it lies, in the codec's own buffer ([`Inbound::scan`]). From the first frame on
//! that is changed, the rest of what was read goes through [`Inbound::process`], which writes what the codec shall see into
//! a queue.

use std::io;

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::credit::Unfinished;
use super::frame::{FrameHead, HEAD, flag, kind};
use super::meter::Cost;
use super::state::GuardState;
use super::window::Fate;
use super::{COMPLETE, PREFACE, Role};

/// Streams that the peer may open before the owner of the codec gets to take them.
const STREAMS_PER_TURN: u32 = 128;

/// The largest frame that is made of joined bytes.
const JOINED_FRAME: usize = 16 * 1024;

/// INTERNAL_ERROR of RFC 9113 §7.
const INTERNAL_ERROR: u32 = 2;

/// Where the reading of frames is.
#[derive(Debug)]
pub(super) struct Inbound {
    part: Part,
    /// The beginning of a frame of which too little is there to decide on it.
    partial: BytesMut,
    /// For the codec, before anything that is read from now on.
    queue: BytesMut,
    /// A header block has begun and has not ended.
    in_block: bool,
    /// Bytes of the header block that began last.
    block_bytes: usize,
    /// Streams that the peer has opened since the owner of the codec had a turn.
    opened: u32,
    /// The last stream that the peer has opened.
    newest: u32,
    blocks: u32,
}

/// What of a scan goes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// So many bytes are the codec's.
    pub(super) keep: usize,
    /// From here on they have to be processed.
    pub(super) rest: usize,
}

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// One of so many of the payload; after them so many of padding are left out.
    Payload {
        left: usize,
        padding: usize,
        to: Target,
    },
}

/// Where a payload goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Codec,
    /// To what is joined for a stream.
    Joined(u32),
    Nowhere,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Pass,
    /// Pass it as a frame of a type that the codec ignores.
    Ignore,
    /// Pass it with this code: whether the response was complete before it is the guard's to say.
    Recode(u32),
    /// Pass it behind what waits for its stream.
    PassBehind,
    /// Join the payload to what waits for the stream, without padding.
    Join {
        padding: usize,
    },
    /// Leave it out.
    Drop,
}

// === impl Inbound ===

impl Inbound {
    pub(super) fn new(role: Role) -> Self {
        let part = match role {
            Role::Client => Part::Head,
            Role::Server => payload(PREFACE.len(), 0, Target::Codec),
        };
        let (partial, queue) = (BytesMut::new(), BytesMut::new());
        Self { part, partial, queue, in_block: false, block_bytes: 0, opened: 0, newest: 0, blocks: 0 }
    }

    /// Hands over what waits in the queue. Returns whether there was anything.
    #[inline]
    pub(super) fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let n = self.queue.len().min(buf.remaining());
        if n > 0 {
            buf.put_slice(&self.queue.split_to(n));
        }
        n > 0
    }

    /// Whether the codec has everything that was read for it.
    pub(super) fn is_delivered(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether bytes may be read straight into the codec's buffer.
    pub(super) fn is_direct(&self) -> bool {
        self.partial.is_empty()
    }

    /// How many header blocks have begun.
    pub(super) const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// What has begun and is not complete.
    pub(super) fn unfinished(&self) -> Unfinished {
        if self.in_block {
            Unfinished::HeaderBlock
        } else if self.partial.is_empty() && self.part == Part::Head {
            Unfinished::Nothing
        } else {
            Unfinished::Frame
        }
    }

    /// Whether the owner of the codec must have a turn before more is read, which begins with this.
    #[inline]
    pub(super) fn take_turn(&mut self) -> bool {
        let due = self.opened >= STREAMS_PER_TURN;
        if due {
            self.opened = 0;
        }
        due
    }

    /// Looks at what was read.
    ///
    /// # Errors
    /// When the peer breaks a rule that the codec does not know of.
    pub(super) fn scan(&mut self, bytes: &mut [u8], state: &mut GuardState) -> io::Result<Scanned> {
        let mut at = 0;
        loop {
            if let Part::Payload { left, padding, to } = self.part {
                if to != Target::Codec || padding > 0 {
                    return Ok(Scanned { keep: at, rest: at });
                }
                let passed = left.min(bytes.len() - at);
                at += passed;
                self.part = payload(left - passed, 0, Target::Codec);
            }
            let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) else {
                return Ok(Scanned { keep: at, rest: at });
            };
            let Some(head) = FrameHead::parse(rest) else { return Ok(Scanned { keep: at, rest: at }) };
            let needed = HEAD + beside(&head);
            let Some(start) = rest.get_mut(..needed) else {
                return Ok(Scanned { keep: at, rest: at });
            };
            let action = self.decide(&head, start, state)?;
            if !edit(action, start) {
                self.apply(action, &head, start, state);
                return Ok(Scanned { keep: at, rest: at + needed });
            }
            at += HEAD;
            self.part = payload(head.length as usize, 0, Target::Codec);
        }
    }

    /// Takes bytes that cannot stay where they are.
    ///
    /// # Errors
    /// As [`Inbound::scan`].
    pub(super) fn process(&mut self, mut bytes: &[u8], state: &mut GuardState) -> io::Result<()> {
        while !bytes.is_empty() {
            if let Part::Payload { left, padding, to } = self.part {
                let (now, later) = bytes.split_at(left.min(bytes.len()));
                match to {
                    Target::Codec => self.queue.extend_from_slice(now),
                    Target::Joined(stream) => state.join(stream, now),
                    Target::Nowhere => {}
                }
                self.part = payload(left - now.len(), padding, to);
                bytes = later;
                continue;
            }
            let missing = needed(&self.partial).saturating_sub(self.partial.len());
            if missing > 0 {
                let (now, later) = bytes.split_at(missing.min(bytes.len()));
                self.partial.extend_from_slice(now);
                bytes = later;
            }
            // More may be needed now that its kind is known.
            if needed(&self.partial) == self.partial.len() {
                self.begin_frame(state)?;
            }
        }
        Ok(())
    }

    /// Decides on the frame whose beginning is in `partial`.
    fn begin_frame(&mut self, state: &mut GuardState) -> io::Result<()> {
        let mut start = std::mem::take(&mut self.partial);
        let Some(head) = FrameHead::parse(&start) else { return Ok(()) };
        let action = self.decide(&head, &start, state)?;
        if edit(action, &mut start) {
            self.queue.extend_from_slice(&start);
            self.part = payload(head.length as usize + HEAD - start.len(), 0, Target::Codec);
        } else {
            self.apply(action, &head, &start, state);
        }
        start.clear();
        self.partial = start;
        Ok(())
    }

    /// The peer says no more: hands over what has waited for more of it.
    pub(super) fn end(&mut self, state: &mut GuardState) {
        for stream in state.windows.all_joined() {
            if let Some(joined) = state.windows.take_joined(stream) {
                self.release(stream, &joined);
            }
        }
        let partial = std::mem::take(&mut self.partial);
        self.queue.extend_from_slice(&partial);
    }

    /// Hands joined bytes of a stream to the codec.
    pub(super) fn release(&mut self, stream: u32, bytes: &[u8]) {
        for chunk in bytes.chunks(JOINED_FRAME) {
            let length = u32::try_from(chunk.len()).unwrap_or(0);
            let head = FrameHead { length, kind: kind::DATA, flags: 0, stream };
            self.queue.extend_from_slice(&head.encode());
            self.queue.extend_from_slice(chunk);
        }
    }

    /// Whether joined bytes can be handed over now: not within another frame.
    #[inline]
    pub(super) fn is_between_frames(&self) -> bool {
        self.part == Part::Head && !self.in_block
    }

    /// Records a frame, and says what becomes of it.
    fn decide(&mut self, head: &FrameHead, start: &[u8], state: &mut GuardState) -> io::Result<Action> {
        match head.kind {
            kind::DATA => return data(head, start, state),
            kind::HEADERS => {
                self.in_block = !head.has(flag::END_HEADERS);
                self.block_bytes = head.length as usize;
                state.windows.credit().saw_block(self.block_bytes);
                self.blocks = self.blocks.wrapping_add(1);
                if state.role == Role::Server && head.stream > self.newest {
                    self.newest = head.stream;
                    self.opened += 1;
                    state.opened(head.stream);
                }
                let behind = state.windows.has_joined(head.stream);
                if head.has(flag::END_STREAM) {
                    state.ended(head.stream);
                }
                if behind {
                    return Ok(Action::PassBehind);
                }
            }
            kind::CONTINUATION => {
                self.in_block = !head.has(flag::END_HEADERS);
                self.block_bytes += head.length as usize;
                state.windows.credit().saw_block(self.block_bytes);
            }
            kind::RST_STREAM => {
                state.windows.credit().set_resets();
                state.reset_by_peer(head.stream);
                return Ok(reset(head, start, state));
            }
            kind::WINDOW_UPDATE => state.meter.spend(Cost::Update),
            kind::GOAWAY => state.has_news = true,
            kind::SETTINGS => {
                state.has_news = true;
                state.meter.spend(Cost::Noise);
            }
            _ => state.meter.spend(Cost::Noise),
        }
        Ok(Action::Pass)
    }

    /// Does with a frame what is neither passing it nor changing it in its place.
    fn apply(&mut self, action: Action, head: &FrameHead, start: &[u8], state: &mut GuardState) {
        let left = (head.length as usize + HEAD).saturating_sub(start.len());
        self.part = match action {
            Action::Join { padding } => {
                payload(left.saturating_sub(padding), padding, Target::Joined(head.stream))
            }
            Action::Drop => payload(left, 0, Target::Nowhere),
            Action::PassBehind | Action::Pass | Action::Ignore | Action::Recode(_) => {
                if let Some(joined) = state.windows.take_joined(head.stream) {
                    self.release(head.stream, &joined);
                }
                self.queue.extend_from_slice(start);
                payload(left, 0, Target::Codec)
            }
        };
    }
}

/// What becomes of a reset by the peer.
fn reset(head: &FrameHead, start: &[u8], state: &GuardState) -> Action {
    if state.role == Role::Client && state.has_ended(head.stream) {
        return Action::Recode(COMPLETE);
    }
    match start.get(HEAD..) {
        Some(code) if code == COMPLETE.to_be_bytes() => Action::Recode(INTERNAL_ERROR),
        _ => Action::Pass,
    }
}

/// What becomes of a DATA frame.
fn data(head: &FrameHead, start: &[u8], state: &mut GuardState) -> io::Result<Action> {
    let end = head.has(flag::END_STREAM);
    let padding = match start.get(HEAD) {
        Some(padding) if head.has(flag::PADDED) => u32::from(*padding) + 1,
        _ => 0,
    };
    let Some(content) = head.length.checked_sub(padding) else {
        return Ok(Action::Pass); // more padding than frame: the codec ends the connection
    };
    if !end && content == 0 {
        // Says nothing, and the codec counts such frames over the life of a connection.
        state.meter.spend(Cost::Noise);
        state.refund(head.stream, padding);
        return Ok(if padding == 0 { Action::Ignore } else { Action::Drop });
    }
    if state.is_unread(head.stream) {
        return Ok(Action::Pass);
    }
    state.received += u64::from(content);
    let behind = state.windows.has_joined(head.stream);
    let fate = state.windows.data(head.stream, content, end)?;
    if end {
        state.ended(head.stream);
    }
    match fate {
        Fate::Join => {
            state.refund(head.stream, padding);
            Ok(Action::Join { padding: padding.saturating_sub(1) as usize })
        }
        Fate::Pass => {
            if !end {
                // The codec gives the padding back to the connection.
                state.refund_stream(head.stream, padding);
            }
            Ok(if behind { Action::PassBehind } else { Action::Pass })
        }
    }
}

/// Changes the beginning of a frame in its place. Returns whether the frame passes there.
fn edit(action: Action, start: &mut [u8]) -> bool {
    match action {
        Action::Pass => true,
        Action::Ignore => {
            if let Some(kind) = start.get_mut(3) {
                *kind = kind::NOTHING;
            }
            true
        }
        Action::Recode(code) => {
            if let Some(place) = start.get_mut(HEAD..HEAD + 4) {
                place.copy_from_slice(&code.to_be_bytes());
            }
            true
        }
        Action::PassBehind | Action::Join { .. } | Action::Drop => false,
    }
}

/// How many bytes of a frame it takes to decide on it: the head, and what its kind needs beside it.
fn needed(start: &[u8]) -> usize {
    HEAD + FrameHead::parse(start).map_or(0, |head| beside(&head))
}

/// How many bytes beside its head.
#[inline]
fn beside(head: &FrameHead) -> usize {
    let beside = match head.kind {
        kind::DATA if head.has(flag::PADDED) => 1,
        kind::RST_STREAM => 4,
        _ => return 0,
    };
    beside.min(head.length as usize)
}

const fn payload(left: usize, padding: usize, to: Target) -> Part {
    match (left, padding, to) {
        (0, 0, _) => Part::Head,
        (0, padding, _) => Part::Payload { left: padding, padding: 0, to: Target::Nowhere },
        (left, padding, to) => Part::Payload { left, padding, to },
    }
}
