//! What each stream may send, and what waits unread.
//!
//! Every stream begins with a window of [`Windows::base`], few enough bytes that all streams of a connection together are
//! half of its bound. A stream whose reader reads gets back what was read, and a larger window out of the other half. So
//! the window of a stream is bounded by its own reader alone, and the window of the connection as a whole, which the codec
//! gives back without end, is never what a stream waits for.
//!
//! The codec keeps each DATA frame apart, at some 300 bytes a frame. Of small frames that nobody reads it gets
//! [`SMALL_FRAMES`] per stream; what follows is joined here, and handed over in large frames when the reader goes on.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;

use super::GuardSettings;
use super::budget::{NOTICED, ReceiveBudget};
use super::credit::{Credit, REPORT_FRAMES, Report};

/// Frames of fewer bytes than this are small.
const SMALL: u32 = 256;

/// Small frames of one stream that the codec may hold unread. Twice what a reader reads between two reports.
const SMALL_FRAMES: u32 = 2 * REPORT_FRAMES;

/// The window that RFC 9113 gives before SETTINGS say otherwise. A client may have used it before it has read ours.
const INITIAL: u32 = 65_535;

/// The receive windows of one connection. Only streams that have sent DATA without END_STREAM are in it.
#[derive(Debug)]
pub(super) struct Windows {
    /// The stream that was entered last: most end before another one comes.
    newest: Option<(u32, StreamWindow)>,
    others: HashMap<u32, StreamWindow, foldhash::fast::RandomState>,
    /// Streams of which small frames wait.
    joining: usize,
    credit: Arc<Credit>,
    budget: Arc<ReceiveBudget>,
    /// What every stream begins with.
    base: u32,
    /// What a stream may get.
    most: u32,
    /// Left of what streams may have beyond `base`, all together.
    extra_left: usize,
    /// A stream that holds unread bytes for which the budget of the mesh has no room.
    blocked: Option<u32>,
    reports: Vec<Report>,
}

/// One stream's window.
#[derive(Debug)]
struct StreamWindow {
    /// What the peer may still send.
    open: u32,
    /// What it may send unread: the base, and more if it got more.
    size: u32,
    received: u64,
    frames: u32,
    unread: u64,
    /// Small frames that the codec holds unread.
    small: u32,
    /// Small frames that were joined, and wait.
    joined: Option<Box<BytesMut>>,
    /// Bytes taken from the budget because of unread ones.
    charged: usize,
    /// The peer has ended its side.
    ended: bool,
}

/// What becomes of a DATA frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    /// Its bytes are joined to those that wait.
    Join,
}

/// What happens because of a report.
pub(super) trait Granted {
    /// The peer may send so much more on a stream.
    fn grant(&mut self, stream: u32, bytes: u32);
    /// These bytes of a stream have waited and go to the codec now.
    fn release(&mut self, stream: u32, bytes: &[u8]);
    /// Nobody reads the stream any more; so many of its bytes have waited for that.
    fn over(&mut self, stream: u32, unseen: usize);
}

// === impl Windows ===

impl Windows {
    pub(super) fn new(budget: Arc<ReceiveBudget>, settings: &GuardSettings) -> Self {
        let GuardSettings { role: _, streams, stream_window: most, max_header_list_size } = *settings;
        let half = budget.limits().per_connection / 2;
        let share = u32::try_from(half / (streams.max(1) as usize)).unwrap_or(u32::MAX);
        let base = share.clamp(1024, INITIAL).min(most.max(1024));
        Self {
            newest: None,
            others: HashMap::default(),
            joining: 0,
            credit: Credit::new((base / 4).min(16 * 1024), max_header_list_size),
            budget,
            base,
            most: most.max(base),
            extra_left: half,
            blocked: None,
            reports: Vec::new(),
        }
    }

    pub(super) const fn base(&self) -> u32 {
        self.base
    }

    pub(super) const fn credit(&self) -> &Arc<Credit> {
        &self.credit
    }

    /// Records a DATA frame of so many bytes, padding not counted: that is given back at once.
    ///
    /// # Errors
    /// When the peer sends more than it may.
    pub(super) fn data(&mut self, stream: u32, content: u32, end: bool) -> io::Result<Fate> {
        let base = self.base.max(INITIAL);
        if end {
            if let Some(window) = self.find(stream) {
                window.receive(stream, content)?;
                self.ended(stream);
            } else if content > base {
                return Err(over_window(stream));
            }
            return Ok(Fate::Pass);
        }
        if self.find(stream).is_none() {
            self.enter(stream, StreamWindow::new(base));
        }
        let Some(window) = self.find(stream) else { return Ok(Fate::Pass) };
        window.receive(stream, content)?;
        let fate = window.fate(content);
        if window.unread >= NOTICED && window.charged == 0 {
            self.charge(stream, base as usize);
        }
        Ok(fate)
    }
    /// Takes what a stream holds unread from the budget of the mesh, or stops the connection until it has room.
    fn charge(&mut self, stream: u32, bytes: usize) {
        let is_charged = self.budget.try_take(bytes);
        match self.find(stream) {
            Some(window) if is_charged => window.charged = bytes,
            _ => self.blocked = Some(stream),
        }
    }

    #[inline]
    fn find(&mut self, stream: u32) -> Option<&mut StreamWindow> {
        match &mut self.newest {
            Some((newest, window)) if *newest == stream => Some(window),
            _ if self.others.is_empty() => None,
            _ => self.others.get_mut(&stream),
        }
    }

    fn enter(&mut self, stream: u32, window: StreamWindow) {
        if let Some((stream, window)) = self.newest.replace((stream, window)) {
            self.others.insert(stream, window);
        }
    }

    /// Whether small frames of this stream wait.
    #[inline]
    pub(super) fn has_joined(&mut self, stream: u32) -> bool {
        self.joining > 0 && self.find(stream).is_some_and(|window| window.joined.is_some())
    }

    /// Joins bytes to those that wait. Returns whether there is a stream to wait for.
    pub(super) fn join(&mut self, stream: u32, bytes: &[u8]) -> bool {
        let Some(window) = self.find(stream) else { return false };
        let is_first = window.joined.is_none();
        window.joined.get_or_insert_default().extend_from_slice(bytes);
        self.joining += usize::from(is_first);
        true
    }

    /// Takes the bytes that wait, because what follows them goes to the codec.
    pub(super) fn take_joined(&mut self, stream: u32) -> Option<Box<BytesMut>> {
        if self.joining == 0 {
            return None;
        }
        let joined = self.find(stream)?.joined.take();
        self.joining -= usize::from(joined.is_some());
        joined
    }

    /// Streams with bytes that wait.
    pub(super) fn all_joined(&self) -> Vec<u32> {
        let newest = self.newest.iter().map(|(stream, window)| (stream, window));
        newest.chain(&self.others).filter(|(_, window)| window.joined.is_some()).map(|(id, _)| *id).collect()
    }

    /// The peer has ended its side of a stream.
    pub(super) fn ended(&mut self, stream: u32) {
        let report_bytes = u64::from(self.credit.report_bytes());
        let Some(window) = self.find(stream) else { return };
        window.ended = true;
        // Its reader reports the end if it has reported before or does not read to the end; this one is read.
        let is_small = window.received < report_bytes && window.frames < REPORT_FRAMES;
        if is_small && window.joined.is_none() {
            self.remove(stream);
        }
    }

    /// The stream is no more, whatever its reader has read. Returns how many of its bytes the codec has not seen.
    pub(super) fn remove(&mut self, stream: u32) -> usize {
        let window = match self.newest.take_if(|(newest, _)| *newest == stream) {
            Some((_, window)) => window,
            None if self.others.is_empty() => return 0,
            None => match self.others.remove(&stream) {
                Some(window) => window,
                None => return 0,
            },
        };
        self.joining -= usize::from(window.joined.is_some());
        self.give_back(&window);
        window.joined.map_or(0, |joined| joined.len())
    }

    fn give_back(&mut self, window: &StreamWindow) {
        let extra = window.size.saturating_sub(self.base.max(INITIAL)) as usize;
        if extra + window.charged > 0 {
            self.extra_left += extra;
            self.budget.give_back(extra + window.charged);
        }
    }

    /// Whether readers have reported since the last look.
    pub(super) fn has_reports(&self) -> bool {
        self.credit.has_reports()
    }

    /// Acts on what readers have reported.
    pub(super) fn settle(&mut self, granted: &mut impl Granted) {
        let mut reports = std::mem::take(&mut self.reports);
        self.credit.take(&mut reports);
        for report in reports.drain(..) {
            self.reported(report, granted);
        }
        self.reports = reports;
    }

    fn reported(&mut self, report: Report, granted: &mut impl Granted) {
        let Report { stream, bytes, frames, over } = report;
        if over {
            let unseen = self.remove(stream);
            granted.over(stream, unseen);
            return;
        }
        let (budget, most, extra_left) = (self.budget.clone(), self.most, self.extra_left);
        let Some(window) = self.find(stream) else { return };
        window.unread = window.unread.saturating_sub(u64::from(bytes));
        window.small = window.small.saturating_sub(frames);
        if window.unread < NOTICED / 2 && window.charged > 0 {
            budget.give_back(std::mem::take(&mut window.charged));
        }
        let joined = if window.small <= SMALL_FRAMES / 2 { window.joined.take() } else { None };
        window.small += u32::from(joined.is_some());
        if !window.ended {
            let extra = window.grow(most, extra_left, &budget);
            let increment = bytes.saturating_add(extra);
            window.open = window.open.saturating_add(increment);
            self.extra_left -= extra as usize;
            if increment > 0 {
                granted.grant(stream, increment);
            }
        }
        if let Some(joined) = joined {
            self.joining -= 1;
            granted.release(stream, &joined);
        }
    }

    /// Whether the connection may be read: not while a stream holds more than the budget of the mesh has room for.
    pub(super) fn may_read(&mut self, waker: &Waker) -> bool {
        let Some(stream) = self.blocked else { return true };
        let (base, budget) = (self.base.max(INITIAL) as usize, self.budget.clone());
        if let Some(window) =
            self.find(stream).filter(|window| window.unread >= NOTICED && window.charged == 0)
        {
            if !budget.take_or_wait(base, waker) {
                return false;
            }
            window.charged = base;
        }
        self.blocked = None;
        true
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        let (newest, others) = (self.newest.take(), std::mem::take(&mut self.others));
        for window in newest.iter().map(|(_, window)| window).chain(others.values()) {
            self.give_back(window);
        }
    }
}

// === impl StreamWindow ===

impl StreamWindow {
    fn new(base: u32) -> Self {
        Self {
            open: base,
            size: base,
            received: 0,
            frames: 0,
            unread: 0,
            small: 0,
            joined: None,
            charged: 0,
            ended: false,
        }
    }

    fn receive(&mut self, stream: u32, content: u32) -> io::Result<()> {
        self.open = self.open.checked_sub(content).ok_or_else(|| over_window(stream))?;
        self.received += u64::from(content);
        self.unread += u64::from(content);
        self.frames = self.frames.saturating_add(1);
        Ok(())
    }

    /// What becomes of a frame of so many bytes.
    fn fate(&mut self, content: u32) -> Fate {
        if content >= SMALL {
            return Fate::Pass;
        }
        if self.small >= SMALL_FRAMES {
            return Fate::Join;
        }
        self.small += 1;
        Fate::Pass
    }

    /// Lets the window grow, if there is room for it. Returns by how much.
    fn grow(&mut self, most: u32, left: usize, budget: &ReceiveBudget) -> u32 {
        let extra = (most.saturating_sub(self.size) as usize).min(left);
        if extra == 0 || !budget.try_take(extra) {
            return 0;
        }
        let extra = u32::try_from(extra).unwrap_or(0);
        self.size += extra;
        extra
    }
}

fn over_window(stream: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("stream {stream} sent more than its window"))
}
