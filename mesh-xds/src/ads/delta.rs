//! The conversation about one resource type on one stream, incremental (xDS protocol, "Incremental xDS").
//!
//! A request tells what changed of the names, or answers one response by its nonce. The first request of a type on a
//! stream carries all names, and which versions of which resources are held: what did not change is not sent again.
//!
//! * An answer and a change of names are never one request: istiod drops a whole request whose nonce is no longer the
//!   latest, and the whole of a NACK, names and all.
//! * Every response is answered, in their order, up to [`ANSWERS_MAX`] that wait for room; above it the oldest answers
//!   are left out. Control planes look at the latest nonce alone.
//! * A name that was dropped and is wanted again is told as dropped first (two requests): what was known of it is
//!   forgotten, and a control plane that never saw it go may not send it again.
//! * So is one that came before it was wanted, and was not kept ([`Thrown`]).
//! * A name that the control plane removed, or that did not come in time, is subscribed to again after a while, because
//!   istiod forgets a subscription with the removal. The wait doubles from [`REPEAT_FIRST`] to [`AGAIN_MAX`] while nothing else comes, and starts over
//!   with every response that brings a resource: a control plane that pushes may have it again.
//! * The same refusal again is held back for a while, as in state of the world. Another response ends the wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Entry;
use super::refusal::{HoldBack, REPEAT_FIRST};
use super::thrown::Thrown;
use super::types::{Ask, Kind, Name, Request};

/// How many answers wait for room on the stream.
const ANSWERS_MAX: usize = 64;

/// The longest wait before a removed name is subscribed to again. It bounds how late its return is seen at a control
/// plane that forgot the subscription and pushes nothing else.
const AGAIN_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Delta {
    /// Whether anything was asked for on this stream. From then on the control plane knows all names that are watched,
    /// but for those in `subscribe`.
    asked: bool,
    subscribe: BTreeSet<Name>,
    unsubscribe: BTreeSet<Name>,
    answers: VecDeque<Answer>,
    hold_back: HoldBack,
    removed: Removed,
    /// What came on this stream before it was wanted.
    thrown: Thrown,
}

/// The answer to one response, until it is sent.
#[derive(Debug)]
struct Answer {
    nonce: Arc<str>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    text: Arc<str>,
    due: Instant,
}

/// Names that are watched, and that the control plane says are gone.
#[derive(Debug)]
struct Removed {
    names: BTreeSet<Name>,
    /// When to subscribe to them again.
    due: Option<Instant>,
    wait: Duration,
}

// === impl Delta ===

impl Delta {
    /// A new stream: the control plane knows nothing of this client.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    pub(super) fn added(&mut self, name: Name) {
        if self.asked {
            if self.thrown.contains(&name) {
                self.thrown.remove(&name);
                self.unsubscribe.insert(name.clone());
            }
            self.subscribe.insert(name);
        }
    }

    pub(super) fn dropped(&mut self, name: Name) {
        self.removed.names.remove(&name);
        // What was not told yet needs no taking back.
        if self.asked && !self.subscribe.remove(&name) {
            self.unsubscribe.insert(name);
        }
    }

    /// What the control plane believes to be held is not: it has to be sent again.
    pub(super) fn renew(&mut self, name: &Name) {
        if self.asked && !self.subscribe.contains(name) {
            self.unsubscribe.insert(name.clone());
            self.subscribe.insert(name.clone());
        }
    }

    /// A resource came. One that nobody watches is not kept.
    pub(super) fn came(&mut self, now: Instant, name: &Name, is_watched: bool) {
        if !is_watched {
            self.thrown.insert(name);
        }
        self.removed.names.remove(name);
        self.removed.wait = REPEAT_FIRST;
        self.removed.due = self.removed.due.map(|due| due.min(now + REPEAT_FIRST));
    }

    /// The control plane says that a watched name is gone.
    pub(super) fn removed(&mut self, now: Instant, name: Name) {
        if self.removed.names.is_empty() {
            self.removed.due = Some(now + self.removed.wait);
        }
        self.removed.names.insert(name);
    }

    /// A response was valid, or part of it was not.
    pub(super) fn answer(&mut self, now: Instant, nonce: Arc<str>, refusal: Option<Arc<str>>) {
        if !self.asked {
            return; // nothing was asked for on this stream, so no answer is owed
        }
        let refusal = match refusal {
            None => {
                self.hold_back.reset();
                None
            }
            Some(text) => {
                self.answers.retain(|answer| answer.refusal.as_ref().is_none_or(|old| old.text != text));
                Some(Refusal { due: self.hold_back.refuse(now, &text), text })
            }
        };
        self.answers.push_back(Answer { nonce, refusal });
        if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
    }

    /// When a refusal that is held back is due, or a subscription to what was removed.
    pub(super) fn due(&self) -> Option<Instant> {
        let answer = self.answers.front().and_then(|answer| answer.refusal.as_ref());
        [answer.map(|refusal| refusal.due), self.again()].into_iter().flatten().min()
    }

    /// Whether [`Delta::request`] will give something.
    pub(super) fn wants_transmit(&self, now: Instant, no_names: bool) -> bool {
        if !self.asked {
            return !no_names;
        }
        let is_changed = !self.subscribe.is_empty() || !self.unsubscribe.is_empty();
        is_changed || self.may_answer(now) || self.again().is_some_and(|due| due <= now)
    }

    /// The next request, if one is due.
    pub(super) fn request(
        &mut self,
        now: Instant,
        kind: Kind,
        entries: &BTreeMap<Name, Entry>,
    ) -> Option<Request> {
        if !self.asked {
            return self.first_request(kind, entries);
        }
        if self.may_answer(now) {
            let Answer { nonce, refusal } = self.answers.pop_front()?;
            let ask = Ask::Changes { subscribe: Vec::new(), unsubscribe: Vec::new(), held: Vec::new() };
            let refusal = refusal.map(|refusal| refusal.text);
            return Some(Request { kind, nonce, refusal, first: false, ask });
        }
        let unsubscribe = std::mem::take(&mut self.unsubscribe);
        let (again, mut subscribe): (BTreeSet<Name>, BTreeSet<Name>) =
            std::mem::take(&mut self.subscribe).into_iter().partition(|name| unsubscribe.contains(name));
        self.subscribe = again;
        if self.again().is_some_and(|due| due <= now) {
            // One that is told as dropped comes with the next request.
            subscribe.extend(self.removed.take().into_iter().filter(|name| !unsubscribe.contains(name)));
        }
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        let ask = Ask::Changes {
            subscribe: subscribe.into_iter().collect(),
            unsubscribe: unsubscribe.into_iter().collect(),
            held: Vec::new(),
        };
        Some(Request { kind, nonce: Arc::from(""), refusal: None, first: false, ask })
    }

    fn first_request(&mut self, kind: Kind, entries: &BTreeMap<Name, Entry>) -> Option<Request> {
        let names = entries.iter().filter(|(_, entry)| entry.by_name).map(|(name, _)| name.clone());
        let subscribe: Vec<Name> = names.collect();
        if subscribe.is_empty() {
            return None; // a first request without names would ask for everything
        }
        self.asked = true;
        let held = entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.version.clone()?)));
        let ask = Ask::Changes { subscribe, unsubscribe: Vec::new(), held: held.collect() };
        Some(Request { kind, nonce: Arc::from(""), refusal: None, first: false, ask })
    }

    /// Whether an answer may be sent: the only one that waits may be a refusal that is held back.
    fn may_answer(&self, now: Instant) -> bool {
        match self.answers.front() {
            None => false,
            Some(Answer { refusal, .. }) => {
                self.answers.len() > 1 || refusal.as_ref().is_none_or(|refusal| refusal.due <= now)
            }
        }
    }

    fn again(&self) -> Option<Instant> {
        self.removed.due.filter(|_| !self.removed.names.is_empty())
    }
}

// === impl Removed ===

impl Removed {
    /// The names, to subscribe to them again.
    fn take(&mut self) -> BTreeSet<Name> {
        self.due = None;
        self.wait = self.wait.saturating_mul(2).min(AGAIN_MAX);
        std::mem::take(&mut self.names)
    }
}

impl Default for Removed {
    fn default() -> Self {
        Self { names: BTreeSet::new(), due: None, wait: REPEAT_FIRST }
    }
}
