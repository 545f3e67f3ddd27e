//! What one client wants of one kind, what it has, and what is due to it.
//!
//! The cost of a change is the number of names that it touched: [`Subscription::catch_up`] looks those up in the log and
//! sorts the ones that are wanted into `upserts`, `missing` and `removals`; nothing else is ever compared. Only a complete
//! set (listeners and clusters in the state of the world) is as long as it is.

mod requests;
mod responses;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use crate::ads::Kind;
use crate::ads::Protocol;
use crate::server::cache::{Entry, View};
use crate::server::status::{KindStatus, Nack, ResourceState, ResourceStatus};

/// The state of one kind. Bounded by the limit of names: a client only makes us remember what it named, and what exists.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: Kind,
    protocol: Protocol,
    wildcard: bool,
    /// A name, or `*`, was given on this stream: an empty list no longer means everything.
    ever_named: bool,
    /// The first request of this kind was taken.
    begun: bool,
    names: BTreeSet<Arc<str>>,
    name_bytes: usize,
    held: HashMap<Arc<str>, Held>,
    /// Every change up to here is accounted for.
    seen: u64,
    /// Everything has to be looked at.
    rescan: bool,
    /// Names that have to be looked at.
    fresh: BTreeSet<Arc<str>>,
    /// Asked for something since the last response: one is due even if it says nothing new.
    asked: bool,
    /// Exists, and the client has it not or otherwise.
    upserts: BTreeSet<Arc<str>>,
    /// Does not exist, and the client waits to hear of it.
    missing: BTreeSet<Arc<str>>,
    /// Does not exist any more, and the client has it.
    removals: BTreeSet<Arc<str>>,
    last: Option<Sent>,
    acked: Option<u64>,
    nack: Option<Nack>,
    heartbeat: Option<Instant>,
}

/// What a client has under a name, as far as we know.
#[derive(Debug)]
enum Held {
    /// This, and what became of it.
    Has(Arc<Entry>, ResourceState),
    /// What it says itself: a version, or an empty one where it has to be told again.
    Claims(Box<str>),
    /// The knowledge that there is nothing.
    Absent,
}

#[derive(Debug)]
struct Sent {
    nonce: String,
    version: u64,
    /// What it carried; taken when it is answered.
    names: Option<Vec<Arc<str>>>,
}

// === impl Subscription ===

impl Subscription {
    pub(super) fn new(kind: Kind, protocol: Protocol) -> Self {
        Self {
            kind,
            protocol,
            wildcard: false,
            ever_named: false,
            begun: false,
            names: BTreeSet::new(),
            name_bytes: 0,
            held: HashMap::new(),
            seen: 0,
            rescan: true,
            fresh: BTreeSet::new(),
            asked: false,
            upserts: BTreeSet::new(),
            missing: BTreeSet::new(),
            removals: BTreeSet::new(),
            last: None,
            acked: None,
            nack: None,
            heartbeat: None,
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Absence is told: by omission from a complete set, or in so many words.
    fn tells_removals(&self) -> bool {
        self.protocol == Protocol::Incremental || is_full_set(self.kind)
    }

    /// A response is the complete set, so absence from it means removal.
    fn sends_full_sets(&self) -> bool {
        self.protocol == Protocol::StateOfTheWorld && is_full_set(self.kind)
    }

    /// Takes notice of every change since the last time.
    pub(super) fn catch_up(&mut self, view: View<'_>) {
        let version = view.version(self.kind);
        let fresh = std::mem::take(&mut self.fresh);
        if version == self.seen && !self.rescan {
            for name in fresh {
                self.judge(&name, view);
            }
            return;
        }
        match view.since(self.kind, self.seen).filter(|_| !self.rescan) {
            Some(changed) => {
                for name in changed {
                    self.judge(name, view);
                }
                for name in fresh {
                    self.judge(&name, view);
                }
            }
            None => {
                let all: BTreeSet<Arc<str>> = self.names.iter().chain(self.held.keys()).cloned().collect();
                for name in &all {
                    self.judge(name, view);
                }
                if self.wildcard {
                    for entry in view.all(self.kind) {
                        self.judge(entry.resource.name(), view);
                    }
                }
            }
        }
        self.rescan = false;
        self.seen = version;
    }

    /// Compares what exists under a name with what the client has.
    fn judge(&mut self, name: &Arc<str>, view: View<'_>) {
        if !self.wants(name) {
            return;
        }
        self.settle(name);
        let tells_removals = self.tells_removals();
        match (view.get(self.kind, name), self.held.get_mut(name)) {
            (Some(entry), Some(Held::Has(has, _))) if has.digest == entry.digest => {}
            (Some(entry), Some(held)) if held.claims(entry) => {
                *held = Held::Has(Arc::clone(entry), ResourceState::Acked);
            }
            (Some(_), _) => {
                self.upserts.insert(Arc::clone(name));
            }
            (None, Some(Held::Has(..) | Held::Claims(_))) if tells_removals => {
                self.removals.insert(Arc::clone(name));
            }
            (None, Some(Held::Has(..) | Held::Claims(_))) => {
                self.held.remove(name);
            }
            (None, None) if self.protocol == Protocol::Incremental && self.names.contains(name) => {
                self.missing.insert(Arc::clone(name));
            }
            (None, Some(Held::Absent) | None) => {}
        }
    }

    /// Nothing is due under a name.
    fn settle(&mut self, name: &str) {
        self.upserts.remove(name);
        self.missing.remove(name);
        self.removals.remove(name);
    }

    fn is_unanswered(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.names.is_some())
    }

    /// Something is to be sent that the client should have before it is told what is gone.
    pub(super) fn has_additions(&self) -> bool {
        let asked = self.asked && (self.sends_full_sets() || self.wildcard);
        asked || !self.upserts.is_empty() || !self.missing.is_empty()
    }

    /// Nothing that it should have before a removal is on its way. A kind without names cannot hold up others.
    pub(super) fn is_quiet(&self) -> bool {
        let idle = !self.wildcard && self.names.is_empty();
        idle || !(self.is_unanswered() || self.has_additions())
    }

    pub(super) fn is_settled(&mut self, view: View<'_>) -> bool {
        self.catch_up(view);
        !self.is_unanswered() && !self.has_additions() && self.removals.is_empty()
    }
}

// === impl Subscription: status ===

impl Subscription {
    pub(super) fn status(&mut self, view: View<'_>) -> KindStatus {
        let settled = self.is_settled(view);
        KindStatus {
            kind: self.kind,
            wildcard: self.wildcard,
            names: self.names.iter().cloned().collect(),
            sent: self.last.as_ref().map(|last| last.version),
            acked: self.acked,
            nack: self.nack.clone(),
            settled,
        }
    }

    pub(super) fn resource_status(&self) -> Vec<ResourceStatus> {
        let status = |(name, held): (&Arc<str>, &Held)| {
            let (version, state) = match held {
                Held::Has(entry, state) => (entry.version(), *state),
                Held::Claims(version) => (version.to_string(), ResourceState::Claimed),
                Held::Absent => (String::new(), ResourceState::Absent),
            };
            ResourceStatus { name: Arc::clone(name), version, state }
        };
        let mut all: Vec<_> = self.held.iter().map(status).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

// === impl Held ===

impl Held {
    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Has(entry, _) => Some(entry),
            Self::Claims(_) | Self::Absent => None,
        }
    }

    fn claims(&self, entry: &Entry) -> bool {
        // One with a time to live is sent again: that starts the time anew.
        entry.resource.ttl().is_none()
            && matches!(self, Self::Claims(version) if **version == *entry.version())
    }
}

/// Listeners and clusters: kinds that are complete sets in the state of the world, and may be asked for without names.
fn is_full_set(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::Cluster)
}
