//! The conversation about one resource type on one stream, state of the world (xDS protocol, gRFC A27).
//!
//! Every request carries all names. A response is answered by its nonce: with its version where all of it was valid,
//! with the last accepted version and a text where not.
//!
//! * Changes of names and an answer that is due are told in one request, however many there were.
//! * A type is never asked for with an empty list first: for listeners and clusters that would ask for everything.
//! * A refusal is told apart from a change of names (two requests): istiod does not look at the names of a NACK.
//! * A name that was dropped and is wanted again is told as dropped first (two requests): what was known of it is
//!   forgotten, and a server that never saw it go would not send it again.
//! * The same refusal again is held back for a while, because go-control-plane answers each NACK with the same
//!   resource at once. A change of names or another response ends the wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::types::{Kind, Name, Request};

/// How long the first repetition of a refusal waits; it doubles from there.
const REPEAT_FIRST: Duration = Duration::from_millis(500);

/// The longest wait of a repeated refusal. It bounds how late a correction can come through.
const REPEAT_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Sotw {
    /// Last accepted version; kept from stream to stream.
    version: Arc<str>,
    /// Nonce of the last response on this stream.
    nonce: Arc<str>,
    /// Names as last sent on this stream; none before the first request of the type.
    sent: Option<Vec<Name>>,
    names_changed: bool,
    /// Names that were dropped since the last request.
    dropped: BTreeSet<Name>,
    answer: Answer,
    last_refusal: Option<Refusal>,
}

/// The answer to the last response, until it is sent.
#[derive(Debug)]
enum Answer {
    None,
    Accept,
    Refuse { text: Arc<str>, due: Instant },
}

#[derive(Debug)]
struct Refusal {
    text: Arc<str>,
    repeats: u32,
}

/// Whether a response holds every resource that exists, so that one that is missing was deleted: listeners and
/// clusters only.
pub(super) fn is_full_state(kind: Kind) -> bool {
    match kind {
        Kind::Listener | Kind::Cluster => true,
        Kind::Route | Kind::Endpoints => false,
    }
}

// === impl Sotw ===

impl Sotw {
    /// A new stream: nonces and sent names belong to the old one.
    pub(super) fn restart(&mut self) {
        self.nonce = Arc::from("");
        self.sent = None;
        self.names_changed = true;
        self.dropped.clear();
        self.answer = Answer::None;
        self.last_refusal = None;
    }

    pub(super) fn added(&mut self) {
        self.names_changed = true;
    }

    pub(super) fn dropped(&mut self, name: Name) {
        self.names_changed = true;
        if self.sent.as_ref().is_some_and(|sent| sent.binary_search(&name).is_ok()) {
            self.dropped.insert(name);
        }
    }

    /// The whole response was valid.
    pub(super) fn accept(&mut self, version: Arc<str>, nonce: Arc<str>) {
        self.version = version;
        self.nonce = nonce;
        self.answer = if self.sent.is_some() { Answer::Accept } else { Answer::None };
        self.last_refusal = None;
    }

    /// Part of the response was not valid.
    pub(super) fn refuse(&mut self, now: Instant, nonce: Arc<str>, text: Arc<str>) {
        self.nonce = nonce;
        if self.sent.is_none() {
            return; // nothing was asked for on this stream, so no answer is owed
        }
        let repeats = match &self.last_refusal {
            Some(last) if last.text == text => last.repeats.saturating_add(1),
            Some(_) | None => 0,
        };
        let wait = match repeats.checked_sub(1) {
            None => Duration::ZERO,
            Some(n) => REPEAT_FIRST.saturating_mul(1 << n.min(10)).min(REPEAT_MAX),
        };
        self.answer = Answer::Refuse { text: text.clone(), due: now + wait };
        self.last_refusal = Some(Refusal { text, repeats });
    }

    /// When a refusal that is held back is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.answer {
            Answer::Refuse { due, .. } => Some(*due),
            Answer::None | Answer::Accept => None,
        }
    }

    /// Whether [`Sotw::request`] may give something; it may still find that the names are as they were.
    pub(super) fn wants_transmit(&self, now: Instant, no_names: bool) -> bool {
        let asked = self.sent.is_some() || !no_names;
        let answer = match &self.answer {
            Answer::None => false,
            Answer::Accept => true,
            Answer::Refuse { due, .. } => *due <= now,
        };
        asked && (self.names_changed || answer)
    }

    /// The next request, if one is due. `names` are sorted.
    pub(super) fn request<'a>(
        &mut self,
        now: Instant,
        kind: Kind,
        names: impl Iterator<Item = &'a Name> + Clone,
    ) -> Option<Request> {
        let renewed = names.clone().any(|name| self.dropped.contains(name));
        if self.names_changed
            && !renewed
            && self.sent.as_ref().is_some_and(|sent| sent.iter().eq(names.clone()))
        {
            self.names_changed = false;
        }
        if self.sent.is_none() && names.clone().next().is_none() {
            // Nothing was ever asked for: an empty list would ask for everything.
            self.names_changed = false;
            return None;
        }
        let answer = std::mem::replace(&mut self.answer, Answer::None);
        let refusal = match answer {
            Answer::Refuse { text, due } if self.names_changed || due <= now => Some(text),
            held @ Answer::Refuse { .. } => {
                self.answer = held;
                return None;
            }
            Answer::None if !self.names_changed => return None,
            Answer::None | Answer::Accept => None,
        };
        let names = match (&refusal, &self.sent) {
            (Some(_), Some(sent)) => sent.clone(),
            (_, _) => {
                let dropped = std::mem::take(&mut self.dropped);
                self.names_changed = renewed;
                names.filter(|name| !dropped.contains(*name)).cloned().collect()
            }
        };
        self.sent = Some(names.clone());
        Some(Request {
            kind,
            version: self.version.clone(),
            nonce: self.nonce.clone(),
            names,
            refusal,
            first: false,
        })
    }
}

impl Default for Sotw {
    fn default() -> Self {
        Self {
            version: Arc::from(""),
            nonce: Arc::from(""),
            sent: None,
            names_changed: false,
            dropped: BTreeSet::new(),
            answer: Answer::None,
            last_refusal: None,
        }
    }
}
