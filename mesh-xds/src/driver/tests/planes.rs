//! Control planes of several habits, as their clients see them: every message can be held up or lost, and they know
//! nothing of a client but what it says on the stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::ads::{Ask, Kind, Name, PerKind, Protocol, Received, Request, Response};
use crate::resource::{Accepted, Checked};

/// How a control plane goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// State of the world: answers each change of names, with all of it for listeners and clusters.
    Plain,
    /// State of the world, as go-control-plane's snapshot cache: one answer for each request, by version, and by what it
    /// has sent of the names that the last request had. An empty list gets everything.
    GoControlPlane,
    /// The same up to its version 0.13, where a name that was dropped still counts as sent.
    OldGoControlPlane,
    /// State of the world, as istiod: looks at the names of no refusal, takes an empty list of listeners or clusters for a
    /// wish for all of them, and pushes what did not change.
    Istiod,
    /// Incremental.
    Incremental,
    /// Incremental, as istiod: a subscription ends with the removal of the resource.
    Forgetful,
}

/// A valid resource, or why it is refused.
pub(super) type Value = Result<Checked, Arc<str>>;

/// A control plane, and at most one stream of a client.
#[derive(Debug)]
pub(super) struct Plane {
    habit: Habit,
    /// What the next pushes make known.
    pub(super) truth: BTreeMap<(Kind, Name), Value>,
    known: PerKind<Known>,
    stream: Option<Stream>,
}

/// What was pushed of a type.
#[derive(Debug, Default)]
struct Known {
    version: u64,
    resources: BTreeMap<Name, (u64, Value)>,
}

#[derive(Debug)]
struct Stream {
    inbox: VecDeque<Request>,
    outbox: VecDeque<Response<Accepted>>,
    types: PerKind<Subscription>,
    nonce: u64,
    protocol: Protocol,
}

/// What a client said of a type on a stream.
#[derive(Debug, Default)]
struct Subscription {
    names: Option<BTreeSet<Name>>,
    nonce: Arc<str>,
    /// What was sent of these names, in its version.
    returned: BTreeMap<Name, u64>,
    /// The version of a request that waits for something new.
    waiting: Option<Arc<str>>,
}

// === impl Habit ===

impl Habit {
    pub(super) const ALL: [Self; 6] = [
        Self::Plain,
        Self::GoControlPlane,
        Self::OldGoControlPlane,
        Self::Istiod,
        Self::Incremental,
        Self::Forgetful,
    ];

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Plain | Self::GoControlPlane | Self::OldGoControlPlane | Self::Istiod => {
                Protocol::StateOfTheWorld
            }
            Self::Incremental | Self::Forgetful => Protocol::Incremental,
        }
    }
}

// === impl Plane ===

impl Plane {
    pub(super) fn new(habit: Habit) -> Self {
        Self { habit, truth: BTreeMap::new(), known: PerKind::each(Known::default), stream: None }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.habit.protocol()
    }

    pub(super) fn connect(&mut self) {
        self.stream = Some(Stream {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            types: PerKind::each(Subscription::default),
            nonce: 0,
            protocol: self.habit.protocol(),
        });
    }

    /// What was under way is lost.
    pub(super) fn disconnect(&mut self) {
        self.stream = None;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// A request arrives, and is looked at later.
    pub(super) fn take(&mut self, request: Request) {
        if let Some(stream) = &mut self.stream {
            stream.inbox.push_back(request);
        }
    }

    /// The next message for the client.
    pub(super) fn poll_response(&mut self) -> Option<Response<Accepted>> {
        self.stream.as_mut()?.outbox.pop_front()
    }

    /// Looks at the next request. False where there is none.
    pub(super) fn serve(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let Some(request) = stream.inbox.pop_front() else { return false };
        let known = self.known.get(request.kind);
        match self.habit {
            Habit::Incremental | Habit::Forgetful => {
                stream.handle_changes(request, known, self.habit == Habit::Forgetful);
            }
            habit => stream.handle_all(request, known, habit),
        }
        true
    }

    /// Makes known what is true of a type.
    pub(super) fn push(&mut self, kind: Kind) {
        let known = self.known.get_mut(kind);
        known.version += 1;
        let version = known.version;
        let truth: BTreeMap<&Name, &Value> = self
            .truth
            .iter()
            .filter(|((of, _), _)| *of == kind)
            .map(|((_, name), value)| (name, value))
            .collect();
        let mut changed = BTreeSet::new();
        known.resources.retain(|name, _| {
            let stays = truth.contains_key(name);
            if !stays {
                changed.insert(name.clone());
            }
            stays
        });
        for (name, value) in truth {
            if known.resources.get(name).is_none_or(|(_, before)| before != value) {
                changed.insert(name.clone());
                known.resources.insert(name.clone(), (version, value.clone()));
            }
        }
        let (known, Some(stream)) = (self.known.get(kind), &mut self.stream) else { return };
        let all = stream.types.get(kind).names.clone().unwrap_or_default();
        match self.habit {
            Habit::Plain if is_full(kind) && !changed.is_disjoint(&all) => {
                stream.send(kind, known, &all, &[])
            }
            Habit::Plain => {
                let some: BTreeSet<Name> = all.intersection(&changed).cloned().collect();
                if some.iter().any(|name| known.resources.contains_key(name)) {
                    stream.send(kind, known, &some, &[]);
                }
            }
            Habit::GoControlPlane | Habit::OldGoControlPlane => stream.respond_to_watch(kind, known),
            Habit::Istiod if !all.is_empty() => stream.send(kind, known, &all, &[]),
            Habit::Istiod => {}
            Habit::Incremental | Habit::Forgetful => {
                stream.send_changes(kind, known, &[], self.habit == Habit::Forgetful);
            }
        }
    }
}

fn is_full(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::Cluster)
}

// === impl Stream ===

impl Stream {
    fn handle_all(&mut self, request: Request, known: &Known, habit: Habit) {
        let Request { kind, nonce, refusal, ask, .. } = request;
        let Ask::All { version, names } = ask else { panic!("an incremental request") };
        let subscription = self.types.get_mut(kind);
        if !subscription.nonce.is_empty() && subscription.nonce != nonce {
            return; // stale
        }
        let names: BTreeSet<Name> = names.into_iter().collect();
        if matches!(habit, Habit::GoControlPlane | Habit::OldGoControlPlane) {
            if habit == Habit::GoControlPlane {
                subscription.returned.retain(|name, _| names.contains(name));
            }
            subscription.names = Some(names);
            subscription.waiting = Some(version);
            self.respond_to_watch(kind, known);
            return;
        }
        if habit == Habit::Istiod && refusal.is_some() {
            return;
        }
        let before = subscription.names.replace(names.clone());
        let added: BTreeSet<Name> =
            names.iter().filter(|name| before.as_ref().is_none_or(|b| !b.contains(*name))).cloned().collect();
        let is_changed = before.as_ref() != Some(&names);
        if !is_changed || refusal.is_some() && habit == Habit::Istiod {
            return;
        }
        if habit == Habit::Istiod && names.is_empty() && is_full(kind) {
            let all = known.resources.keys().cloned().collect();
            self.send(kind, known, &all, &[]);
        } else if is_full(kind) {
            self.send(kind, known, &names, &[]);
        } else if !added.is_empty() {
            self.send(kind, known, &added, &[]);
        }
    }

    fn respond_to_watch(&mut self, kind: Kind, known: &Known) {
        let Subscription { names: Some(names), returned, waiting, .. } = self.types.get_mut(kind) else {
            return;
        };
        let Some(version) = waiting.clone() else { return };
        let is_new = |name: &Name| known.resources.contains_key(name) && !returned.contains_key(name);
        if *version == *known.version.to_string() && !names.iter().any(is_new) || known.version == 0 {
            return;
        }
        let everything = || known.resources.keys().cloned().collect();
        let names = if names.is_empty() { everything() } else { names.clone() };
        *waiting = None;
        *returned = names
            .iter()
            .filter(|name| known.resources.contains_key(*name))
            .map(|name| (name.clone(), known.version))
            .collect();
        self.send(kind, known, &names, &[]);
    }

    fn handle_changes(&mut self, request: Request, known: &Known, forgets: bool) {
        let Request { kind, ask, .. } = request;
        let Ask::Changes { subscribe, unsubscribe, held } = ask else { panic!("a request for all") };
        let subscription = self.types.get_mut(kind);
        if subscription.names.is_none() {
            let held = held.into_iter().filter_map(|(name, version)| Some((name, version.parse().ok()?)));
            subscription.returned = held.collect();
        }
        let names = subscription.names.get_or_insert_default();
        for name in &unsubscribe {
            names.remove(name);
            subscription.returned.remove(name);
        }
        names.extend(subscribe.iter().cloned());
        self.send_changes(kind, known, &subscribe, forgets);
    }

    /// Sends what the client does not have, and what it has, or asks for, and does not exist.
    fn send_changes(&mut self, kind: Kind, known: &Known, asked: &[Name], forgets: bool) {
        let Subscription { names: Some(names), returned, .. } = self.types.get_mut(kind) else { return };
        let is_new = |name: &&Name| {
            known.resources.get(*name).is_some_and(|(version, _)| returned.get(*name) != Some(version))
        };
        let found: BTreeSet<Name> = names.iter().filter(is_new).cloned().collect();
        let candidates: BTreeSet<&Name> = returned.keys().chain(asked).collect();
        let is_gone = |name: &&Name| !known.resources.contains_key(*name);
        let removed: Vec<Name> = candidates.into_iter().filter(is_gone).cloned().collect();
        for name in &found {
            returned.insert(name.clone(), known.resources[name].0);
        }
        for name in &removed {
            returned.remove(name);
            if forgets {
                names.remove(name);
            }
        }
        if !found.is_empty() || !removed.is_empty() {
            self.send(kind, known, &found, &removed);
        }
    }

    fn send(&mut self, kind: Kind, known: &Known, names: &BTreeSet<Name>, removed: &[Name]) {
        self.nonce += 1;
        let nonce: Arc<str> = self.nonce.to_string().into();
        self.types.get_mut(kind).nonce = nonce.clone();
        let found = names.iter().filter_map(|name| Some((name, known.resources.get(name)?)));
        let has_own = self.protocol == Protocol::Incremental;
        let received = |(name, (version, value)): (&Name, &(u64, Value))| Received {
            name: Some(name.clone()),
            version: has_own.then(|| version.to_string().into()),
            ttl: None,
            verdict: value.clone().map(|resource| Accepted {
                resource,
                unapplied: Arc::default(),
                deferred: Arc::default(),
                bytes: None,
            }),
        };
        self.outbox.push_back(Response {
            kind,
            version: known.version.to_string().into(),
            nonce,
            resources: found.map(received).collect(),
            heartbeats: Vec::new(),
            removed: removed.to_vec(),
            errors: Vec::new(),
        });
    }
}
