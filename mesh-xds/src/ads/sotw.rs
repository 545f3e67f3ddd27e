//! The conversation about one resource type on one stream, state of the world (xDS protocol, gRFC A27).
//!
//! Every request carries all names. A response is answered by its nonce: with its version where all of it was valid,
//! with the last accepted version and a text where not.
//!
//! * An answer carries the names as they were when the response came, and a change of names follows in a request of its
//!   own, however many changes there were. In one request the version would be claimed for names that the response was not
//!   asked for; and istiod does not look at the names of a NACK.
//! * A type is never asked for with an empty list first: for listeners and clusters that would ask for everything.
//! * What came and was not kept ([`Thrown`]) is not claimed to be held: the request that asks for it names no version,
//!   so that a control plane which goes by versions sends it again.
//! * A name that was dropped and is wanted again is told as dropped first (two requests): what was known of it is
//!   forgotten, and a server that never saw it go would not send it again.
//!   Where a response was under way meanwhile, both had an old nonce and were ignored, so it is told again after it, a few
//!   times at most: that the resource does not come may as well mean that there is none. A name whose time is over is
//!   asked for again in the same way.
//! * Names that changed before a response which is refused are told again after the refusal, a few times at most.
//! * The same refusal again is held back for a while, because go-control-plane answers each NACK with the same
//!   resource at once. A change of names or another response ends the wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::refusal::HoldBack;
use super::thrown::Thrown;
use super::types::{Ask, Kind, Name, Request};

/// How often at most a name is told again as dropped.
const REPEATS: u32 = 4;

#[derive(Debug)]
pub(super) struct Sotw {
    /// Last accepted version; kept from stream to stream.
    version: Arc<str>,
    /// Nonce of the last response on this stream.
    nonce: Arc<str>,
    /// Names as last sent on this stream; none before the first request of the type.
    sent: Option<Vec<Name>>,
    names_changed: bool,
    /// Names that are to be told as dropped, and how often again.
    dropped: BTreeMap<Name, u32>,
    /// Names that were told as dropped with the nonce in force.
    told: BTreeMap<Name, u32>,
    /// Kept from stream to stream, as the version is.
    thrown: Thrown,
    /// How often names that changed are told again after a refusal: the response may have crossed them, so that they were
    /// not looked at, and istiod does not look at those of the refusal either.
    unsure: u32,
    /// They are to be told although they are as they were.
    again: bool,
    answer: Answer,
    hold_back: HoldBack,
}

/// The answer to the last response, until it is sent.
#[derive(Debug)]
enum Answer {
    None,
    Accept,
    Refuse { text: Arc<str>, due: Instant },
}

// === impl Sotw ===

impl Sotw {
    /// A new stream: nonces and sent names belong to the old one.
    pub(super) fn restart(&mut self) {
        self.nonce = Arc::from("");
        self.sent = None;
        self.names_changed = true;
        self.dropped.clear();
        self.told.clear();
        (self.unsure, self.again) = (0, false);
        self.answer = Answer::None;
        self.hold_back.reset();
    }

    /// What was accepted is no longer what is in force.
    pub(super) fn forget_version(&mut self) {
        self.version = Arc::from("");
    }

    pub(super) fn added(&mut self) {
        self.names_changed = true;
    }

    /// A resource that is watched came: what is believed of its subscription is right.
    pub(super) fn came(&mut self, name: &Name) {
        self.dropped.remove(name);
        self.told.remove(name);
        self.thrown.remove(name);
    }

    /// A resource came and is not kept.
    pub(super) fn thrown_away(&mut self, name: &Name) {
        self.thrown.insert(name);
    }

    /// A name is not wanted any more, and its value is thrown away.
    pub(super) fn dropped(&mut self, name: Name) {
        self.thrown.insert(&name);
        self.tell_again(name);
    }

    /// A name is told as dropped, and again where it is still wanted.
    pub(super) fn tell_again(&mut self, name: Name) {
        self.names_changed = true;
        if self.sent.as_ref().is_some_and(|sent| sent.binary_search(&name).is_ok()) {
            self.dropped.insert(name, REPEATS);
        }
    }

    /// A response was valid, or part of it was not.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        version: Arc<str>,
        nonce: Arc<str>,
        refusal: Option<Arc<str>>,
    ) {
        self.nonce = nonce;
        for (name, times) in std::mem::take(&mut self.told) {
            if let Some(times) = times.checked_sub(1) {
                self.dropped.entry(name).or_insert(times);
            }
        }
        self.names_changed |= !self.dropped.is_empty();
        if refusal.is_none() {
            self.version = version;
            self.hold_back.reset();
            self.unsure = 0;
        } else if let Some(unsure) = self.unsure.checked_sub(1) {
            (self.unsure, self.again, self.names_changed) = (unsure, true, true);
        }
        // Where nothing was asked for on this stream, no answer is owed.
        if self.sent.is_some() {
            self.answer = match refusal {
                None => Answer::Accept,
                Some(text) => Answer::Refuse { due: self.hold_back.refuse(now, &text), text },
            };
        }
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
        let renewed = names.clone().any(|name| self.dropped.contains_key(name));
        if self.names_changed
            && !renewed
            && !self.again
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
            Answer::Accept => None,
            Answer::None if self.names_changed => return Some(self.ask(kind, names, renewed)),
            Answer::None => return None,
        };
        let names = self.sent.clone().unwrap_or_default();
        Some(self.say(kind, refusal, self.version.clone(), names))
    }

    /// Tells all names, or in the first of two requests those that are not to be told as dropped.
    fn ask<'a>(&mut self, kind: Kind, names: impl Iterator<Item = &'a Name>, renewed: bool) -> Request {
        let dropped = std::mem::take(&mut self.dropped);
        let (told, mut names): (Vec<Name>, Vec<Name>) =
            names.cloned().partition(|name| dropped.contains_key(name));
        self.told.extend(dropped);
        self.names_changed = renewed;
        let mut version = self.version.clone();
        let is_thrown = |name: &Name| self.thrown.contains(name);
        let is_everything = matches!(kind, Kind::Listener | Kind::Cluster);
        if names.is_empty() && is_everything && renewed && !told.iter().any(is_thrown) {
            // None of them ever came, and an empty list could ask for everything.
            (names, version, self.names_changed) = (told, Arc::from(""), false);
        }
        self.again = false;
        let sent = self.sent.replace(names.clone());
        if sent.as_ref().is_some_and(|sent| *sent != names) {
            self.unsure = REPEATS;
        }
        let is_new = |name: &&Name| sent.as_ref().is_none_or(|sent| sent.binary_search(name).is_err());
        for name in names.iter().filter(is_new).filter(|name| self.thrown.contains(name)) {
            version = Arc::from("");
            if sent.is_some() {
                // A response may be under way, and make that this request is not looked at.
                self.told.entry(name.clone()).or_insert(REPEATS);
            }
        }
        self.say(kind, None, version, names)
    }

    fn say(&self, kind: Kind, refusal: Option<Arc<str>>, version: Arc<str>, names: Vec<Name>) -> Request {
        Request { kind, nonce: self.nonce.clone(), refusal, first: false, ask: Ask::All { version, names } }
    }
}

impl Default for Sotw {
    fn default() -> Self {
        Self {
            version: Arc::from(""),
            nonce: Arc::from(""),
            sent: None,
            names_changed: false,
            dropped: BTreeMap::new(),
            told: BTreeMap::new(),
            thrown: Thrown::default(),
            unsure: 0,
            again: false,
            answer: Answer::None,
            hold_back: HoldBack::default(),
        }
    }
}
