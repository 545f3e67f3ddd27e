//! Refusals (NACK): their text, and how long the same one again is held back.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::types::{Kind, Name};
use crate::rows::cut;

/// How long the first repetition of a refusal waits; it doubles from there.
pub(super) const REPEAT_FIRST: Duration = Duration::from_millis(500);

/// The longest wait of a repeated refusal. It bounds how late a correction can come through.
const REPEAT_MAX: Duration = Duration::from_secs(5);

/// The text of a NACK, as it is gathered. Reasons are cut, names never.
pub(super) struct RefusalText {
    kind: Kind,
    total: usize,
    bad: usize,
    text: String,
}

/// Delays the same refusal again, because go-control-plane answers each NACK with the same resource at once.
#[derive(Debug, Default)]
pub(super) struct HoldBack {
    last: Option<(Arc<str>, u32)>,
}

// === impl RefusalText ===

impl RefusalText {
    pub(super) fn new(kind: Kind, total: usize) -> Self {
        Self { kind, total, bad: 0, text: String::new() }
    }

    pub(super) fn add(&mut self, name: &Name, reason: &str) {
        self.bad += 1;
        // writing to a String cannot fail
        _ = write!(self.text, "; {} {name:?}: {}", self.kind, cut(reason));
    }

    /// Returns what it adds.
    pub(super) fn add_nameless(&mut self, position: usize, reason: &str) -> Arc<str> {
        self.bad += 1;
        let text = format!("resources[{position}]: {}", cut(reason));
        _ = write!(self.text, "; {text}");
        text.into()
    }

    pub(super) fn finish(self) -> Option<Arc<str>> {
        let Self { kind: _, total, bad, text } = self;
        (bad > 0).then(|| format!("{bad} of {total} resources refused{text}").into())
    }
}

// === impl HoldBack ===

impl HoldBack {
    /// A refusal: when it may be sent.
    pub(super) fn refuse(&mut self, now: Instant, text: &Arc<str>) -> Instant {
        let repeats = match &self.last {
            Some((last, repeats)) if last == text => repeats.saturating_add(1),
            Some(_) | None => 0,
        };
        let wait = match repeats.checked_sub(1) {
            None => Duration::ZERO,
            Some(n) => REPEAT_FIRST.saturating_mul(1 << n.min(10)).min(REPEAT_MAX),
        };
        self.last = Some((text.clone(), repeats));
        now + wait
    }

    /// Something else came in between.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}
