//! What readers of bodies tell the guard of their connection.
//!
//! A reader reports what it has read in portions, and the end of a body that it has reported of or that it did not read
//! to the end. A small body that is read to its end costs no report.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The size of the codec's HPACK table, which is that of RFC 9113.
const HPACK_TABLE: usize = 4096;

/// Frames after which a reader reports, however small they were.
pub(super) const REPORT_FRAMES: u32 = 32;

/// Between the readers of one connection and its guard.
#[derive(Debug)]
pub(crate) struct Credit {
    queue: Mutex<Queue>,
    /// There are reports.
    reported: AtomicBool,
    /// What of the peer has begun and is not complete.
    unfinished: AtomicU8,
    /// How often something was read.
    reads: AtomicU32,
    /// How many header blocks have begun.
    blocks: AtomicU32,
    /// Bytes after which a reader reports.
    report_bytes: u32,
    /// Bytes of a head or of trailers that are accepted.
    max_header_list_size: u32,
    /// The peer has reset a stream.
    has_resets: AtomicBool,
    /// The codec has acted on SETTINGS or GOAWAY of the peer since the last look.
    has_news: AtomicBool,
    /// The largest header block of the peer so far, as it was on the wire.
    largest_block: AtomicU32,
}

/// At most one report of each portion that a window allows, so the windows bound it.
#[derive(Debug, Default)]
struct Queue {
    reports: Vec<Report>,
    /// The task of the connection.
    waker: Option<Waker>,
}

/// What of the peer has begun and is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    Nothing,
    Frame,
    HeaderBlock,
}

/// What a reader has done with the body of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) stream: u32,
    pub(super) bytes: u32,
    pub(super) frames: u32,
    /// Nothing of the body will be read any more.
    pub(super) over: bool,
}

/// One body's side. Dropping it before the body was read to its end reports that nobody will.
#[derive(Debug)]
pub(crate) struct StreamCredit {
    credit: Arc<Credit>,
    stream: u32,
    bytes: u32,
    frames: u32,
    state: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Nothing was reported.
    Silent,
    Reported,
    Over,
}

// === impl Credit ===

impl Credit {
    pub(super) fn new(report_bytes: u32, max_header_list_size: u32) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            reported: AtomicBool::new(false),
            unfinished: AtomicU8::new(Unfinished::Nothing as u8),
            reads: AtomicU32::new(0),
            blocks: AtomicU32::new(0),
            report_bytes,
            max_header_list_size,
            has_resets: AtomicBool::new(false),
            has_news: AtomicBool::new(true),
            largest_block: AtomicU32::new(0),
        })
    }

    /// Records that the codec has acted on SETTINGS or GOAWAY of the peer.
    pub(super) fn set_news(&self) {
        self.has_news.store(true, Ordering::Relaxed);
    }

    /// Whether the codec has acted on SETTINGS or GOAWAY of the peer since the last look. Only the task of the connection asks, which also
    /// reads its frames.
    pub(crate) fn take_news(&self) -> bool {
        let has_news = self.has_news.load(Ordering::Relaxed);
        if has_news {
            self.has_news.store(false, Ordering::Relaxed);
        }
        has_news
    }

    /// Records that the peer has reset a stream.
    pub(super) fn set_resets(&self) {
        self.has_resets.store(true, Ordering::Relaxed);
    }

    /// Whether the peer has ever reset a stream.
    pub(crate) fn has_resets(&self) -> bool {
        self.has_resets.load(Ordering::Relaxed)
    }

    /// Records how large a header block was.
    pub(super) fn saw_block(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > self.largest_block.load(Ordering::Relaxed) {
            self.largest_block.store(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) const fn max_header_list_size(&self) -> u32 {
        self.max_header_list_size
    }

    pub(super) const fn report_bytes(&self) -> u32 {
        self.report_bytes
    }

    /// What the peer has begun and not completed, how often something was read of it so far, and how many header blocks
    /// have begun.
    pub(crate) fn progress(&self) -> (Unfinished, u32, u32) {
        let unfinished = match self.unfinished.load(Ordering::Relaxed) {
            0 => Unfinished::Nothing,
            1 => Unfinished::Frame,
            _ => Unfinished::HeaderBlock,
        };
        (unfinished, self.reads.load(Ordering::Relaxed), self.blocks.load(Ordering::Relaxed))
    }

    /// Only the task of the connection writes it, so a load and a store are enough.
    pub(super) fn set_progress(&self, unfinished: Unfinished, blocks: u32) {
        self.unfinished.store(unfinished as u8, Ordering::Relaxed);
        self.reads.store(self.reads.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.blocks.store(blocks, Ordering::Relaxed);
    }

    /// Which task to wake when there are reports.
    pub(super) fn register(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
    }

    pub(super) fn has_reports(&self) -> bool {
        self.reported.load(Ordering::Acquire)
    }

    /// Moves the reports to `into`.
    pub(super) fn take(&self, into: &mut Vec<Report>) {
        let mut queue = self.lock();
        self.reported.store(false, Ordering::Release);
        into.append(&mut queue.reports);
    }

    fn report(&self, report: Report) {
        let mut queue = self.lock();
        queue.reports.push(report);
        let first = !self.reported.swap(true, Ordering::AcqRel);
        let waker = if first { queue.waker.clone() } else { None };
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A list of reports is never half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl StreamCredit ===

impl StreamCredit {
    pub(crate) const fn new(credit: Arc<Credit>, stream: u32) -> Self {
        Self { credit, stream, bytes: 0, frames: 0, state: Reading::Silent }
    }

    /// Bytes of a head or of trailers that are accepted.
    pub(crate) fn max_header_list_size(&self) -> u32 {
        self.credit.max_header_list_size()
    }

    /// The size of a header list (RFC 9113 §6.5.2), if it is larger than what is accepted.
    pub(crate) fn is_too_large(&self, headers: &HeaderMap) -> Option<usize> {
        // A field is not larger than the decoder's table, or takes its place on the wire: most need no counting.
        let literal = 2 * self.credit.largest_block.load(Ordering::Relaxed) as usize;
        let most = headers.len() * HPACK_TABLE + literal;
        let limit = self.credit.max_header_list_size as usize;
        if most <= limit {
            return None;
        }
        let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
        Some(headers.iter().map(field).sum()).filter(|size| *size > limit)
    }

    /// Records that a DATA frame of `bytes` was read. Returns how much was read since the last report, if this is one.
    pub(crate) fn read(&mut self, bytes: usize) -> Option<usize> {
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.frames += 1;
        if self.bytes < self.credit.report_bytes && self.frames < REPORT_FRAMES {
            return None;
        }
        let (bytes, frames) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.frames));
        self.state = Reading::Reported;
        self.credit.report(Report { stream: self.stream, bytes, frames, over: false });
        Some(bytes as usize)
    }

    /// Records that the body was read to its end.
    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.state, Reading::Over) == Reading::Reported {
            self.report_over();
        }
    }

    fn report_over(&self) {
        self.credit.report(Report { stream: self.stream, bytes: 0, frames: 0, over: true });
    }
}

impl Drop for StreamCredit {
    fn drop(&mut self) {
        if self.state != Reading::Over {
            self.report_over();
        }
    }
}
