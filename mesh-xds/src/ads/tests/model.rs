//! Two small control planes, one for each protocol, as the xDS protocol has them: every message of theirs can be held up
//! or lost, and they know nothing of a client but what it says on the stream.

use std::collections::VecDeque;

use super::*;

/// A resource of the test is a number, or is refused with a text.
pub(super) type Value = Result<u64, Arc<str>>;

/// What exists, and of which version it is.
#[derive(Debug, Default)]
pub(super) struct World {
    resources: BTreeMap<(Kind, Name), (u64, Value)>,
    version: u64,
}

/// One stream's end at the control plane.
#[derive(Debug)]
pub(super) enum Server {
    StateOfTheWorld(BTreeMap<Kind, All>, Outbox),
    Incremental(BTreeMap<Kind, Changes>, Outbox),
}

/// What was said, and is under way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    responses: VecDeque<Response<u64>>,
    nonce: u64,
}

/// One type on a state-of-the-world stream.
#[derive(Debug, Default)]
pub(super) struct All {
    names: Option<Vec<Name>>,
    nonce: Arc<str>,
}

/// One type on an incremental stream.
#[derive(Debug, Default)]
pub(super) struct Changes {
    asked: bool,
    names: BTreeSet<Name>,
    /// What the client has, as far as the control plane knows.
    returned: BTreeMap<Name, Arc<str>>,
}

// === impl World ===

impl World {
    pub(super) fn set(&mut self, kind: Kind, name: &str, value: Value) {
        self.version += 1;
        self.resources.insert((kind, name.into()), (self.version, value));
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &str) {
        self.version += 1;
        self.resources.remove(&(kind, name.into()));
    }

    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.resources.get(&(kind, name.into())).map(|(_, value)| value)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Name, Arc<str>, &Value)> {
        let of_kind = self.resources.iter().filter(move |((of, _), _)| *of == kind);
        of_kind.map(|((_, name), (version, value))| (name, version.to_string().into(), value))
    }
}

// === impl Server ===

impl Server {
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            SotW => Self::StateOfTheWorld(BTreeMap::new(), Outbox::default()),
            Incremental => Self::Incremental(BTreeMap::new(), Outbox::default()),
        }
    }

    pub(super) fn handle_request(&mut self, world: &World, request: Request) {
        let Request { kind, nonce, ask, .. } = request;
        match (self, ask) {
            (Self::StateOfTheWorld(kinds, outbox), Ask::All { names, .. }) => {
                let all = kinds.entry(kind).or_default();
                let is_stale = nonce != all.nonce;
                if !is_stale && all.names.as_ref() != Some(&names) {
                    all.names = Some(names);
                    all.send(world, kind, None, outbox);
                }
            }
            (Self::Incremental(kinds, outbox), Ask::Changes { subscribe, unsubscribe, held }) => {
                let changes = kinds.entry(kind).or_default();
                changes.handle(subscribe.clone(), unsubscribe, held);
                changes.send(world, kind, &subscribe, outbox);
            }
            (server, ask) => panic!("{ask:?} to {server:?}"),
        }
    }

    /// Something of this name changed, came or went.
    pub(super) fn handle_change(&mut self, world: &World, kind: Kind, name: &str) {
        match self {
            Self::StateOfTheWorld(kinds, outbox) => {
                if let Some(all) = kinds.get_mut(&kind).filter(|all| all.wants(name)) {
                    let part = matches!(kind, Kind::Route | Kind::Endpoints).then_some(name);
                    all.send(world, kind, part, outbox);
                }
            }
            Self::Incremental(kinds, outbox) => {
                if let Some(changes) = kinds.get_mut(&kind) {
                    changes.send(world, kind, &[], outbox);
                }
            }
        }
    }

    /// The next message, if one is under way.
    pub(super) fn poll_response(&mut self) -> Option<Response<u64>> {
        let (Self::StateOfTheWorld(_, outbox) | Self::Incremental(_, outbox)) = self;
        outbox.responses.pop_front()
    }
}

// === impl All ===

impl All {
    fn wants(&self, name: &str) -> bool {
        self.names.iter().flatten().any(|wanted| **wanted == *name || **wanted == *WILDCARD)
    }

    /// Sends everything that is asked for, or of it this alone.
    fn send(&mut self, world: &World, kind: Kind, part: Option<&str>, outbox: &mut Outbox) {
        let found = world.of_kind(kind).filter(|(name, ..)| self.wants(name));
        let found = found.filter(|(name, ..)| part.is_none_or(|part| ***name == *part));
        let received = found.map(|(name, _, value)| received(name, None, value)).collect();
        let version = world.version.to_string();
        self.nonce = outbox.send(kind, &version, received, Vec::new());
    }
}

// === impl Changes ===

impl Changes {
    fn handle(&mut self, subscribe: Vec<Name>, unsubscribe: Vec<Name>, held: Vec<(Name, Arc<str>)>) {
        let Self { asked, names, returned } = self;
        if *asked {
            // Whatever is subscribed to again is sent again.
            subscribe.iter().for_each(|name| _ = returned.remove(name));
        } else {
            *returned = held.into_iter().collect();
        }
        *asked = true;
        names.extend(subscribe);
        for name in unsubscribe {
            names.remove(&name);
            returned.remove(&name);
        }
        let everything = names.contains(WILDCARD);
        returned.retain(|name, _| everything || names.contains(name));
    }

    /// Sends what the client does not have, and what it has and does not exist, or asks for and does not exist.
    fn send(&mut self, world: &World, kind: Kind, asked: &[Name], outbox: &mut Outbox) {
        let everything = self.names.contains(WILDCARD);
        let mut found = Vec::new();
        for (name, version, value) in world.of_kind(kind) {
            let is_wanted = everything || self.names.contains(name);
            if is_wanted && self.returned.get(name) != Some(&version) {
                found.push(received(name, Some(version.clone()), value));
                self.returned.insert(name.clone(), version);
            }
        }
        let candidates: BTreeSet<Name> = self.returned.keys().chain(asked).cloned().collect();
        let is_gone = |name: &Name| **name != *WILDCARD && world.get(kind, name).is_none();
        let removed: Vec<Name> = candidates.into_iter().filter(is_gone).collect();
        removed.iter().for_each(|name| _ = self.returned.remove(name));
        if !found.is_empty() || !removed.is_empty() {
            outbox.send(kind, "", found, removed);
        }
    }
}

// === impl Outbox ===

impl Outbox {
    fn send(
        &mut self,
        kind: Kind,
        version: &str,
        resources: Vec<Received<u64>>,
        removed: Vec<Name>,
    ) -> Arc<str> {
        self.nonce += 1;
        let nonce: Arc<str> = self.nonce.to_string().into();
        let heartbeats = Vec::new();
        let version = version.into();
        self.responses.push_back(Response {
            kind,
            version,
            nonce: nonce.clone(),
            resources,
            heartbeats,
            removed,
            errors: Vec::new(),
        });
        nonce
    }
}

fn received(name: &Name, version: Option<Arc<str>>, value: &Value) -> Received<u64> {
    Received { name: Some(name.clone()), version, ttl: None, verdict: value.clone() }
}
