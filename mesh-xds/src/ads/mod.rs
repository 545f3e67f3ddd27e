//! The ADS client as a **sans-IO** machine: it is told what happened and when, and says what to send and what is new.
//!
//! Reference: xDS protocol; gRFC A27 (stream, ACK/NACK), A40 (states), A46 (valid resources of a refused response are
//! used), A57 (does-not-exist timers), A88 (data errors). State of the world today; the surface fits incremental
//! xDS, whose conversation would stand beside `sotw`.
//!
//! ```text
//! Down ──handle_connected──► Up, silent ──handle_response──► Up, answered
//!  ▲                            │ handle_disconnected            │ handle_disconnected
//!  └────── Unreachable ─────────┘                                │ (no error: servers recycle streams)
//!  └─────────────────────────────────────────────────────────────┘
//!
//! of one name:  Wanted ──timer──► Absent          Wanted: the timer runs from the request that names it until the
//!                 │  └──refused─► Refused                 stream ends, and again on the next stream
//!                 └─────value───► Present ──missing from a full response──► Present, deleted
//! ```
//! From every state a valid value leads to Present. A refused value never leaves Present: the last good one stays.
//!
//! Deviations: a response for a name that is not watched is tolerated and not kept, as A27 has it, but counts in the
//! answer; a response to a type of which nothing was ever asked on the stream gets no answer, because the answer
//! would be an empty list and ask for everything.

mod sotw;
#[cfg(test)]
mod tests;
mod timers;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::types::PerKind;

pub use self::timers::{ABSENT_AFTER, ABSENT_AFTER_TRANSIENT, Reconnect};
pub use self::types::{Kind, Name, Received, Request, Response, Update};

use self::sotw::Sotw;
use self::timers::Deadlines;

/// Longest text of one refused resource within a NACK. Names are never cut.
const REASON_MAX: usize = 1024;

/// The client's side of one ADS stream, over all its reconnections. `R` is a validated resource.
///
/// After any `handle_*`, `watch` or `unwatch`: take every [`Ads::poll_update`], send what [`Ads::poll_transmit`]
/// gives as far as the stream takes it, and come back at [`Ads::poll_timeout`].
#[derive(Debug)]
pub struct Ads<R> {
    absent_after: Duration,
    link: Link,
    kinds: PerKind<Watched>,
    deadlines: Deadlines,
    updates: VecDeque<Update<R>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    Up { first_request: bool, answered: bool },
}

/// Everything about one type.
#[derive(Debug, Default)]
struct Watched {
    entries: BTreeMap<Name, Entry>,
    sotw: Sotw,
}

/// One name that is watched.
#[derive(Debug)]
struct Entry {
    state: State,
    /// What was last reported, so that it is reported once.
    refusal: Option<Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    version: Arc<str>,
    reason: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Wanted { deadline: Option<Instant> },
    Absent,
    Refused,
    Present { deleted: bool },
}

// === impl Ads ===

impl<R> Ads<R> {
    /// A machine that watches nothing and is not connected. A resource counts as absent `absent_after` the request
    /// that names it: [`ABSENT_AFTER`] unless the bootstrap says otherwise.
    #[must_use]
    pub fn new(absent_after: Duration) -> Self {
        Self {
            absent_after,
            link: Link::Down,
            kinds: PerKind::default(),
            deadlines: Deadlines::default(),
            updates: VecDeque::new(),
        }
    }

    /// Begins to watch a resource. Watching what is watched changes nothing.
    pub fn watch(&mut self, kind: Kind, name: &str) {
        let watched = self.kinds.get_mut(kind);
        if !watched.entries.contains_key(name) {
            let entry = Entry { state: State::Wanted { deadline: None }, refusal: None };
            watched.entries.insert(Arc::from(name), entry);
            watched.sotw.added();
        }
    }

    /// Ends the watch of a resource, and forgets it. The server is told, also of the last one.
    pub fn unwatch(&mut self, kind: Kind, name: &str) {
        let watched = self.kinds.get_mut(kind);
        if let Some((name, entry)) = watched.entries.remove_entry(name) {
            watched.sotw.dropped(name.clone());
            self.stop_timer(kind, name, entry.state);
        }
    }

    /// Whether anything is watched.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.kinds.get(kind).entries.is_empty())
    }

    /// A stream was opened: nonces start over, versions stay, everything is asked for again.
    pub fn handle_connected(&mut self, _now: Instant) {
        self.stop_all_timers();
        self.link = Link::Up { first_request: true, answered: false };
        for kind in Kind::ALL {
            self.kinds.get_mut(kind).sotw.restart();
        }
    }

    /// The stream ended, or could not be opened. No timer runs until the next one.
    pub fn handle_disconnected(&mut self, _now: Instant) {
        let answered = matches!(self.link, Link::Up { answered: true, .. });
        self.link = Link::Down;
        self.stop_all_timers();
        if !answered && !self.is_idle() {
            self.updates.push_back(Update::Unreachable);
        }
    }

    /// A response came: its valid resources are used, and the whole is accepted or refused.
    pub fn handle_response(&mut self, now: Instant, response: Response<R>) {
        let Link::Up { answered, .. } = &mut self.link else { return };
        *answered = true;
        let Response { kind, version, nonce, resources, removed } = response;
        let mut seen = BTreeSet::new();
        let mut nameless = false;
        let mut refusal = RefusalText::new(kind, resources.len());
        for (position, Received { name, verdict }) in resources.into_iter().enumerate() {
            let Some(name) = name else {
                nameless = true;
                refusal.add(None, position, verdict.err().as_deref().unwrap_or("has no name"));
                continue;
            };
            if !seen.insert(name.clone()) {
                refusal.add(Some(&name), position, "is in the response more than once");
                continue;
            }
            if let Err(reason) = &verdict {
                refusal.add(Some(&name), position, reason);
            }
            self.handle_resource(kind, name, &version, verdict);
        }
        for name in removed {
            self.handle_deleted(kind, &name);
        }
        // What has no name could be any of those that seem to be missing, so none of them counts as deleted.
        if sotw::is_full_state(kind) && !nameless {
            self.handle_missing(kind, &seen);
        }
        let sotw = &mut self.kinds.get_mut(kind).sotw;
        match refusal.finish() {
            None => sotw.accept(version, nonce),
            Some(text) => sotw.refuse(now, nonce, text),
        }
    }

    /// Time has passed: see [`Ads::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((kind, name)) = self.deadlines.pop(now) {
            if let Some(entry) = self.kinds.get_mut(kind).entries.get_mut(&name) {
                entry.state = State::Absent;
                self.updates.push_back(Update::Absent { kind, name });
            }
        }
    }

    /// When to call [`Ads::handle_timeout`], and [`Ads::poll_transmit`] after it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = match self.link {
            Link::Down => None,
            Link::Up { .. } => Kind::ALL.into_iter().filter_map(|kind| self.kinds.get(kind).sotw.due()).min(),
        };
        [self.deadlines.next(), held].into_iter().flatten().min()
    }

    /// The next request to send, at the moment when the stream can take it. It counts as sent: the timers of the
    /// names that it asks for begin.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Request> {
        let Link::Up { first_request, .. } = &mut self.link else { return None };
        for kind in Kind::ALL {
            let Watched { entries, sotw } = self.kinds.get_mut(kind);
            if let Some(mut request) = sotw.request(now, kind, entries.keys()) {
                request.first = std::mem::replace(first_request, false);
                self.start_timers(now, &request);
                return Some(request);
            }
        }
        None
    }

    /// Whether [`Ads::poll_transmit`] may have something, so that a caller can ask for room on the stream first.
    #[must_use]
    pub fn wants_transmit(&self, now: Instant) -> bool {
        self.link != Link::Down
            && Kind::ALL.into_iter().any(|kind| {
                let Watched { entries, sotw } = self.kinds.get(kind);
                sotw.wants_transmit(now, entries.is_empty())
            })
    }

    /// The next thing that is new.
    pub fn poll_update(&mut self) -> Option<Update<R>> {
        self.updates.pop_front()
    }

    fn handle_resource(&mut self, kind: Kind, name: Name, version: &Arc<str>, verdict: Result<R, Arc<str>>) {
        let Some(entry) = self.kinds.get_mut(kind).entries.get_mut(&name) else { return };
        let before = entry.state;
        let version = version.clone();
        match verdict {
            Ok(value) => {
                entry.state = State::Present { deleted: false };
                entry.refusal = None;
                self.updates.push_back(Update::Changed { kind, name: name.clone(), version, value });
            }
            Err(reason) => {
                // It exists, however bad it is, so a deletion is over; and the last good value stays.
                entry.state = match before {
                    State::Present { .. } => State::Present { deleted: false },
                    State::Wanted { .. } | State::Absent | State::Refused => State::Refused,
                };
                let refusal = Refusal { version: version.clone(), reason: reason.clone() };
                if entry.refusal.as_ref() != Some(&refusal) {
                    entry.refusal = Some(refusal);
                    self.updates.push_back(Update::Refused { kind, name: name.clone(), version, reason });
                }
            }
        }
        self.stop_timer(kind, name, before);
    }

    fn handle_missing(&mut self, kind: Kind, seen: &BTreeSet<Name>) {
        let entries = &self.kinds.get(kind).entries;
        let is_missing = |(name, entry): &(&Name, &Entry)| {
            entry.state == State::Present { deleted: false } && !seen.contains(*name)
        };
        let missing: Vec<Name> = entries.iter().filter(is_missing).map(|(name, _)| name.clone()).collect();
        for name in missing {
            self.handle_deleted(kind, &name);
        }
    }

    fn handle_deleted(&mut self, kind: Kind, name: &Name) {
        let Some(entry) = self.kinds.get_mut(kind).entries.get_mut(name) else { return };
        let before = entry.state;
        let (after, update) = match before {
            State::Present { deleted: true } | State::Absent => return,
            State::Present { deleted: false } => {
                (State::Present { deleted: true }, Update::Deleted { kind, name: name.clone() })
            }
            State::Wanted { .. } | State::Refused => {
                (State::Absent, Update::Absent { kind, name: name.clone() })
            }
        };
        entry.state = after;
        entry.refusal = None;
        self.updates.push_back(update);
        self.stop_timer(kind, name.clone(), before);
    }

    fn start_timers(&mut self, now: Instant, request: &Request) {
        let at = now + self.absent_after;
        let entries = &mut self.kinds.get_mut(request.kind).entries;
        for name in &request.names {
            if let Some(Entry { state: State::Wanted { deadline: deadline @ None }, .. }) =
                entries.get_mut(name)
            {
                *deadline = Some(at);
                self.deadlines.start(at, request.kind, name.clone());
            }
        }
    }

    fn stop_timer(&mut self, kind: Kind, name: Name, state: State) {
        if let State::Wanted { deadline: Some(at) } = state {
            self.deadlines.stop(at, kind, name);
        }
    }

    fn stop_all_timers(&mut self) {
        self.deadlines.clear();
        for kind in Kind::ALL {
            for entry in self.kinds.get_mut(kind).entries.values_mut() {
                if let State::Wanted { deadline } = &mut entry.state {
                    *deadline = None;
                }
            }
        }
    }
}

/// The text of a NACK, as it is gathered.
struct RefusalText {
    kind: Kind,
    total: usize,
    bad: usize,
    text: String,
}

// === impl RefusalText ===

impl RefusalText {
    fn new(kind: Kind, total: usize) -> Self {
        Self { kind, total, bad: 0, text: String::new() }
    }

    fn add(&mut self, name: Option<&Name>, position: usize, reason: &str) {
        self.bad += 1;
        let reason = cut(reason);
        // writing to a String cannot fail
        _ = match name {
            Some(name) => write!(self.text, "; {} {name:?}: {reason}", self.kind),
            None => write!(self.text, "; resources[{position}]: {reason}"),
        };
    }

    fn finish(self) -> Option<Arc<str>> {
        let Self { kind: _, total, bad, text } = self;
        (bad > 0).then(|| format!("{bad} of {total} resources refused{text}").into())
    }
}

fn cut(reason: &str) -> &str {
    let end = (0..=REASON_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).unwrap_or_default()
}
