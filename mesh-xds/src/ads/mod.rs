//! The ADS client as a **sans-IO** machine: it is told what happened and when, and says what to send and what is new.
//!
//! Reference: xDS protocol, both of its variants and resource TTL; gRFC A27 (stream, ACK/NACK), A40 (states), A46 (valid
//! resources of a refused response are used), A57 (does-not-exist timers), A88 (data errors). What is said on the
//! stream is the matter of `sotw` and `delta`; everything else is one for both.
//!
//! ```text
//! Down ──handle_connected──► Up, silent ──handle_response──► Up, answered
//!  ▲                            │ handle_disconnected            │ handle_disconnected
//!  └────── Unreachable ─────────┘                                │ (no error: servers recycle streams)
//!  └─────────────────────────────────────────────────────────────┘
//!
//! of one name:  Wanted ──timer, or gone──► Absent    the timer runs from the request that names it until the stream
//!                 │  └──refused, or an error─► Refused ──gone──► Absent   ends, and again on the next stream
//!                 └─────value───► Held ─────gone──► Deleted
//!
//! gone: missing from a full response, removed by a response, or past its time to live
//! ```
//! From every state a valid value leads to Held. A refused value never leaves Held: the last good one stays, and so does
//! its version, which is what a new incremental stream says to be held.
//!
//! Under the name [`WILDCARD`] everything of a kind is watched: what comes under other names is then watched as well, until
//! it is deleted.
//!
//! Deviations: a response for a name that is not watched is tolerated and not kept, as A27 has it, but counts in the
//! answer; a response to a type of which nothing was ever asked on the stream gets no answer, because the answer
//! would be an empty list and ask for everything. A heartbeat counts whatever version it names: it says that the resource
//! exists. One for a resource that is not held any more, because the heartbeat was late, makes it be asked for again.

mod conversation;
mod delta;
mod refusal;
mod sotw;
#[cfg(test)]
mod tests;
mod thrown;
mod timers;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::types::PerKind;

pub use self::timers::Reconnect;
pub(crate) use self::timers::{ABSENT_AFTER, ABSENT_AFTER_TRANSIENT};
pub use self::types::{
    Ask, Heartbeat, Kind, Name, Protocol, Received, Request, ResourceError, Response, Update, WILDCARD,
};

use self::conversation::Conversation;
use self::refusal::RefusalText;
use self::timers::Deadlines;

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
    /// Ends of times to live. They go on while there is no stream.
    expiries: Deadlines,
    /// The time of the last [`Ads::handle_timeout`].
    served: Option<Instant>,
    updates: VecDeque<Update<R>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    Up { first_request: bool, answered: bool },
}

/// Everything about one type.
#[derive(Debug)]
struct Watched {
    entries: BTreeMap<Name, Entry>,
    conversation: Conversation,
}

/// One name that is watched.
#[derive(Debug)]
struct Entry {
    /// Watched by its name, not only because everything is.
    by_name: bool,
    state: State,
    /// Version of the value that is held, where it has one of its own.
    version: Option<Arc<str>>,
    /// What was last reported, so that it is reported once.
    refusal: Option<Box<Refusal>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    version: Arc<str>,
    reason: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Of [`WILDCARD`] alone.
    Everything,
    Wanted {
        deadline: Option<Instant>,
    },
    Absent,
    Refused,
    Held {
        expires: Option<Instant>,
    },
    Deleted,
}

// === impl Ads ===

impl<R> Ads<R> {
    /// A machine that watches nothing and is not connected. A resource counts as absent `absent_after` the request
    /// that names it: 15 s unless the bootstrap says otherwise.
    #[must_use]
    pub fn new(protocol: Protocol, absent_after: Duration) -> Self {
        let watched = || Watched { entries: BTreeMap::new(), conversation: Conversation::new(protocol) };
        Self {
            absent_after,
            link: Link::Down,
            kinds: PerKind::each(watched),
            deadlines: Deadlines::default(),
            expiries: Deadlines::default(),
            served: None,
            updates: VecDeque::new(),
        }
    }

    /// Begins to watch a resource, or all of the kind ([`WILDCARD`]). Watching what is watched changes nothing.
    pub fn watch(&mut self, kind: Kind, name: impl Into<Name>) {
        let Watched { entries, conversation } = self.kinds.get_mut(kind);
        let name = name.into();
        if entries.get(&name).is_some_and(|entry| entry.by_name) {
            return;
        }
        let state = if &*name == WILDCARD { State::Everything } else { State::Wanted { deadline: None } };
        conversation.added(&name);
        entries.entry(name).or_insert_with(|| Entry::new(state)).by_name = true;
    }

    /// Ends the watch of a resource, and forgets it. The server is told, also of the last one.
    pub fn unwatch(&mut self, kind: Kind, name: &str) {
        let Watched { entries, conversation } = self.kinds.get_mut(kind);
        // What came by the wildcard ends with the wildcard.
        let everything = entries.contains_key(WILDCARD) && name != WILDCARD;
        let Some(entry) = entries.get_mut(name).filter(|entry| entry.by_name) else { return };
        if everything && matches!(entry.state, State::Held { .. } | State::Refused) {
            // It is still wanted, and the control plane need not send it again.
            entry.by_name = false;
            conversation.dropped(Arc::from(name));
            return;
        }
        let Some((name, entry)) = entries.remove_entry(name) else { return };
        conversation.dropped(name.clone());
        let mut forgotten = vec![(name, entry.state)];
        if entry.state == State::Everything {
            let unnamed = entries.iter().filter(|(_, entry)| !entry.by_name);
            forgotten.extend(unnamed.map(|(name, entry)| (name.clone(), entry.state)));
            entries.retain(|_, entry| entry.by_name);
        }
        for (name, state) in forgotten {
            self.stop_timer(kind, name, state);
        }
    }

    /// The value of a resource is not kept, although it is watched: its version is not held any more.
    pub fn forget_value(&mut self, kind: Kind, name: &Name) {
        let Watched { entries, conversation } = self.kinds.get_mut(kind);
        if let Some(entry) = entries.get_mut(name) {
            entry.version = None;
            conversation.thrown_away(name);
        }
    }

    /// The value of a resource is to be sent again, because the one that came was not kept.
    pub fn renew(&mut self, kind: Kind, name: &Name) {
        let Watched { entries, conversation } = self.kinds.get_mut(kind);
        if let Some(entry) = entries.get_mut(name) {
            entry.version = None;
            conversation.renew(name);
        }
    }

    /// Whether anything is watched.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.kinds.get(kind).entries.is_empty())
    }

    /// Whether a response came on this stream.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        matches!(self.link, Link::Up { answered: true, .. })
    }

    /// Every name of a kind that is watched.
    pub fn watched(&self, kind: Kind) -> impl ExactSizeIterator<Item = &Name> {
        self.kinds.get(kind).entries.keys()
    }

    /// Whether a resource is watched.
    #[must_use]
    pub fn is_watched(&self, kind: Kind, name: &str) -> bool {
        self.kinds.get(kind).entries.contains_key(name)
    }

    /// Another control plane takes the place of this one for a while: on the next stream everything is to be sent again,
    /// and times to live that this one gave are over.
    pub fn forget_versions(&mut self) {
        self.expiries.clear();
        for kind in Kind::ALL {
            let Watched { entries, conversation } = self.kinds.get_mut(kind);
            conversation.forget_version();
            for entry in entries.values_mut() {
                entry.version = None;
                if let State::Held { expires } = &mut entry.state {
                    *expires = None;
                }
            }
        }
    }

    /// What another control plane sent counts as cached: no timer runs for it, and it can be deleted.
    pub fn adopt(&mut self, is_cached: impl Fn(Kind, &str) -> bool) {
        let Self { kinds, deadlines, .. } = self;
        for kind in Kind::ALL {
            for (name, entry) in &mut kinds.get_mut(kind).entries {
                match entry.state {
                    State::Everything | State::Held { .. } => continue,
                    _ if !is_cached(kind, name) => continue,
                    State::Wanted { deadline: Some(at) } => deadlines.stop(at, kind, name.clone()),
                    State::Wanted { deadline: None } | State::Absent | State::Refused | State::Deleted => {}
                }
                entry.state = State::Held { expires: None };
            }
        }
    }

    /// A stream was opened: nonces start over, versions stay, everything is asked for again.
    pub fn handle_connected(&mut self, _now: Instant) {
        self.stop_deadlines();
        self.link = Link::Up { first_request: true, answered: false };
        for kind in Kind::ALL {
            let Watched { entries, conversation } = self.kinds.get_mut(kind);
            conversation.restart();
            // Nobody would say that what came by the wildcard, and is not held, is gone: it cannot be told to be there.
            let unheld = entries.iter().filter(|(_, entry)| !entry.by_name && entry.state == State::Refused);
            let unheld: Vec<Name> = unheld.map(|(name, _)| name.clone()).collect();
            unheld.iter().for_each(|name| self.handle_deleted(kind, name));
        }
    }

    /// The stream ended, or could not be opened. Nothing counts as absent until the next one; times to live go on.
    pub fn handle_disconnected(&mut self, _now: Instant) {
        let answered = matches!(self.link, Link::Up { answered: true, .. });
        self.link = Link::Down;
        self.stop_deadlines();
        if !answered && !self.is_idle() {
            self.updates.push_back(Update::Unreachable);
        }
    }

    /// A response came: its valid resources are used, and the whole is accepted or refused.
    pub fn handle_response(&mut self, now: Instant, response: Response<R>) {
        let Link::Up { answered, .. } = &mut self.link else { return };
        *answered = true;
        let Response { kind, version, nonce, resources, heartbeats, removed, errors } = response;
        let mut seen = BTreeSet::new();
        let mut nameless = false;
        let mut refusal = RefusalText::new(kind, resources.len() + heartbeats.len());
        for (position, Received { name, version: own, ttl, verdict }) in resources.into_iter().enumerate() {
            let Some(name) = name else {
                let reason =
                    refusal.add_nameless(position, verdict.err().as_deref().unwrap_or("has no name"));
                if !std::mem::replace(&mut nameless, true) {
                    self.updates.push_back(Update::Nameless { kind, version: version.clone(), reason });
                }
                continue;
            };
            if !seen.insert(name.clone()) {
                refusal.add(&name, TWICE);
                continue;
            }
            let shown = own.as_ref().unwrap_or(&version);
            match verdict {
                Ok(value) => {
                    let expires = ttl.and_then(|ttl| now.checked_add(ttl));
                    self.handle_value(kind, &name, shown, value, expires);
                    self.hold_version(now, kind, &name, own);
                }
                Err(reason) => {
                    refusal.add(&name, &reason);
                    self.handle_refused(now, kind, name, Refusal { version: shown.clone(), reason });
                }
            }
        }
        for Heartbeat { name, ttl } in heartbeats {
            if seen.insert(name.clone()) {
                self.handle_heartbeat(now, kind, &name, ttl);
            } else {
                refusal.add(&name, TWICE);
            }
        }
        for name in removed {
            if seen.contains(&name) {
                refusal.add(&name, "is in the response and removed by it");
            } else {
                self.handle_removed(now, kind, &name);
            }
        }
        for error in errors {
            if seen.insert(error.name.clone()) {
                self.handle_error(now, kind, error);
            } else {
                refusal.add(&error.name, "is in the response, and an error beside it");
            }
        }
        let conversation = &mut self.kinds.get_mut(kind).conversation;
        conversation.answer(now, version, nonce, refusal.finish());
        // What has no name could be any of those that seem to be missing, so none of them counts as deleted.
        if conversation.is_full_state(kind) && !nameless {
            self.handle_missing(kind, &seen);
        }
    }

    /// Time has passed: see [`Ads::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.served = Some(now);
        while let Some((kind, name)) = self.deadlines.pop(now) {
            let Watched { entries, conversation } = self.kinds.get_mut(kind);
            if let Some(entry) = entries.get_mut(&name) {
                entry.state = State::Absent;
                conversation.ask_again(now, name.clone());
                self.updates.push_back(Update::Absent { kind, name });
            }
        }
        while let Some((kind, name)) = self.expiries.pop(now) {
            self.handle_deleted(kind, &name);
        }
    }

    /// When to call [`Ads::handle_timeout`], and [`Ads::poll_transmit`] after it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = match self.link {
            Link::Down => None,
            Link::Up { .. } => {
                let due = Kind::ALL.into_iter().filter_map(|kind| self.kinds.get(kind).conversation.due());
                // What was due before waits for room on the stream, and must not hide what comes after it.
                due.filter(|due| self.served.is_none_or(|served| served < *due)).min()
            }
        };
        [self.deadlines.next(), self.expiries.next(), held].into_iter().flatten().min()
    }

    /// The next request to send, at the moment when the stream can take it. It counts as sent: the timers of the
    /// names that it asks for begin.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Request> {
        let Link::Up { first_request, .. } = &mut self.link else { return None };
        for kind in Kind::ALL {
            let Watched { entries, conversation } = self.kinds.get_mut(kind);
            if let Some(mut request) = conversation.request(now, kind, entries) {
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
                let Watched { entries, conversation } = self.kinds.get(kind);
                conversation.wants_transmit(now, entries.is_empty())
            })
    }

    /// The next thing that is new.
    pub fn poll_update(&mut self) -> Option<Update<R>> {
        let update = self.updates.pop_front();
        if update.is_none() {
            // A large response leaves room for as many again.
            self.updates = VecDeque::new();
        }
        update
    }

    fn handle_value(
        &mut self,
        kind: Kind,
        name: &Name,
        version: &Arc<str>,
        value: R,
        expires: Option<Instant>,
    ) {
        let Some(entry) = self.kinds.get_mut(kind).watched(name) else { return };
        let before = std::mem::replace(&mut entry.state, State::Held { expires });
        entry.refusal = None;
        self.updates.push_back(Update::Changed { kind, name: name.clone(), version: version.clone(), value });
        self.stop_timer(kind, name.clone(), before);
        if let Some(at) = expires {
            self.expiries.start(at, kind, name.clone());
        }
    }

    /// A valid value is held from now on, in a version of its own where there are such.
    fn hold_version(&mut self, now: Instant, kind: Kind, name: &Name, version: Option<Arc<str>>) {
        let watched = self.kinds.get_mut(kind);
        watched.came(now, name);
        if let Some(entry) = watched.watched(name) {
            // istiod has none for what it makes itself; to hold no version in particular cannot be said
            entry.version = version.filter(|version| !version.is_empty());
        }
    }

    fn handle_refused(&mut self, now: Instant, kind: Kind, name: Name, refusal: Refusal) {
        let watched = self.kinds.get_mut(kind);
        watched.came(now, &name);
        let Some(entry) = watched.watched(&name) else { return };
        let before = entry.state;
        // It exists, however bad it is, so a deletion is over; and the last good value stays.
        entry.state = match before {
            State::Held { .. } => before,
            State::Deleted => State::Held { expires: None },
            State::Everything | State::Wanted { .. } | State::Absent | State::Refused => State::Refused,
        };
        if entry.refusal.as_deref() != Some(&refusal) {
            entry.refusal = Some(Box::new(refusal.clone()));
            let Refusal { version, reason } = refusal;
            self.updates.push_back(Update::Refused { kind, name: name.clone(), version, reason });
        }
        if matches!(before, State::Wanted { .. }) {
            self.stop_timer(kind, name, before);
        }
    }

    /// The control plane has an error instead of a value: nothing is refused, and what is held stays (xDS TP3).
    fn handle_error(&mut self, now: Instant, kind: Kind, error: ResourceError) {
        let watched = self.kinds.get_mut(kind);
        watched.came(now, &error.name);
        let Some(entry) = watched.entries.get_mut(&error.name) else { return };
        let before = entry.state;
        match before {
            State::Everything => return,
            State::Held { .. } | State::Deleted => {}
            State::Wanted { .. } | State::Absent | State::Refused => entry.state = State::Refused,
        }
        let refusal = Refusal { version: Arc::from(""), reason: error.reason.clone() };
        if entry.refusal.as_deref() != Some(&refusal) {
            entry.refusal = Some(Box::new(refusal));
            self.updates.push_back(Update::Failed { kind, error: error.clone() });
        }
        if matches!(before, State::Wanted { .. }) {
            self.stop_timer(kind, error.name, before);
        }
    }

    fn handle_heartbeat(&mut self, now: Instant, kind: Kind, name: &Name, ttl: Duration) {
        let Watched { entries, conversation } = self.kinds.get_mut(kind);
        let Some(entry) = entries.get_mut(name) else { return };
        match entry.state {
            State::Held { .. } => {
                let expires = now.checked_add(ttl);
                let before = std::mem::replace(&mut entry.state, State::Held { expires });
                self.stop_timer(kind, name.clone(), before);
                if let Some(at) = expires {
                    self.expiries.start(at, kind, name.clone());
                }
            }
            State::Wanted { .. } | State::Absent | State::Deleted => conversation.renew(name),
            // a refused one is not held either, but the next one of it would be refused as well
            State::Everything | State::Refused => {}
        }
    }

    fn handle_missing(&mut self, kind: Kind, seen: &BTreeSet<Name>) {
        let entries = &self.kinds.get(kind).entries;
        let is_missing = |(name, entry): &(&Name, &Entry)| {
            matches!(entry.state, State::Held { .. } | State::Refused) && !seen.contains(*name)
        };
        let missing: Vec<Name> = entries.iter().filter(is_missing).map(|(name, _)| name.clone()).collect();
        for name in missing {
            self.handle_deleted(kind, &name);
        }
    }

    /// The control plane says that there is no such resource.
    fn handle_removed(&mut self, now: Instant, kind: Kind, name: &Name) {
        let Watched { entries, conversation } = self.kinds.get_mut(kind);
        if entries.get(name).is_some_and(|entry| entry.by_name && entry.state != State::Everything) {
            conversation.removed(now, name.clone());
        }
        self.handle_deleted(kind, name);
    }

    fn handle_deleted(&mut self, kind: Kind, name: &Name) {
        let entries = &mut self.kinds.get_mut(kind).entries;
        let Some(entry) = entries.get_mut(name) else { return };
        let before = entry.state;
        let (after, update) = match before {
            State::Everything | State::Deleted | State::Absent => return,
            State::Held { .. } => (State::Deleted, Update::Deleted { kind, name: name.clone() }),
            State::Wanted { .. } | State::Refused => {
                (State::Absent, Update::Absent { kind, name: name.clone() })
            }
        };
        entry.state = after;
        entry.refusal = None;
        entry.version = None;
        if !entry.by_name {
            entries.remove(name);
        }
        self.updates.push_back(update);
        self.stop_timer(kind, name.clone(), before);
    }

    fn start_timers(&mut self, now: Instant, request: &Request) {
        let at = now + self.absent_after;
        let entries = &mut self.kinds.get_mut(request.kind).entries;
        for name in request.names() {
            if let Some(Entry { state: State::Wanted { deadline: deadline @ None }, .. }) =
                entries.get_mut(name)
            {
                *deadline = Some(at);
                self.deadlines.start(at, request.kind, name.clone());
            }
        }
    }

    fn stop_timer(&mut self, kind: Kind, name: Name, state: State) {
        match state {
            State::Wanted { deadline: Some(at) } => self.deadlines.stop(at, kind, name),
            State::Held { expires: Some(at) } => self.expiries.stop(at, kind, name),
            State::Everything
            | State::Wanted { deadline: None }
            | State::Absent
            | State::Refused
            | State::Held { expires: None }
            | State::Deleted => {}
        }
    }

    fn stop_deadlines(&mut self) {
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

// === impl Watched ===

impl Watched {
    fn came(&mut self, now: Instant, name: &Name) {
        let is_watched = self.entries.contains_key(name) || self.entries.contains_key(WILDCARD);
        self.conversation.came(now, name, is_watched);
    }

    /// The entry of a resource that came. Where everything is watched, it is made.
    fn watched(&mut self, name: &Name) -> Option<&mut Entry> {
        if **name == *WILDCARD {
            return None;
        }
        if !self.entries.contains_key(name) && self.entries.contains_key(WILDCARD) {
            self.entries.insert(name.clone(), Entry::new(State::Wanted { deadline: None }));
        }
        self.entries.get_mut(name)
    }
}

// === impl Entry ===

impl Entry {
    fn new(state: State) -> Self {
        Self { by_name: false, state, version: None, refusal: None }
    }
}

/// What is wrong with the second resource of a name.
const TWICE: &str = "is in the response more than once";
