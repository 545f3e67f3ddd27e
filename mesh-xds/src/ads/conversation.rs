//! Either protocol's side of what is said about one resource type on one stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Entry;
use super::delta::Delta;
use super::sotw::Sotw;
use super::types::{Kind, Name, Protocol, Request};

#[derive(Debug)]
pub(super) enum Conversation {
    StateOfTheWorld(Sotw),
    Incremental(Delta),
}

// === impl Conversation ===

impl Conversation {
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::StateOfTheWorld => Self::StateOfTheWorld(Sotw::default()),
            Protocol::Incremental => Self::Incremental(Delta::default()),
        }
    }

    /// Whether a response holds every resource of the type that exists, so that one that is missing was deleted:
    /// in state of the world, listeners and clusters.
    pub(super) fn is_full_state(&self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::StateOfTheWorld(_), Kind::Listener | Kind::Cluster) => true,
            (Self::StateOfTheWorld(_), Kind::Route | Kind::Endpoints) | (Self::Incremental(_), _) => false,
        }
    }

    pub(super) fn restart(&mut self) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.restart(),
            Self::Incremental(delta) => delta.restart(),
        }
    }

    /// What was accepted is no longer what is in force.
    pub(super) fn forget_version(&mut self) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.forget_version(),
            // Each resource has its own.
            Self::Incremental(_) => {}
        }
    }

    pub(super) fn added(&mut self, name: &Name) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.added(),
            Self::Incremental(delta) => delta.added(name.clone()),
        }
    }

    pub(super) fn dropped(&mut self, name: Name) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.dropped(name),
            Self::Incremental(delta) => delta.dropped(name),
        }
    }

    /// The control plane believes that something is held which is not. It has to be told so, to send it again.
    pub(super) fn renew(&mut self, name: &Name) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.dropped(name.clone()),
            Self::Incremental(delta) => delta.renew(name),
        }
    }

    /// What came of a name that is watched was not kept.
    pub(super) fn thrown_away(&mut self, name: &Name) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.thrown_away(name),
            // A resource whose version is not told is not held.
            Self::Incremental(_) => {}
        }
    }

    /// It did not come in time. Whoever lost the subscription hears of it again.
    pub(super) fn ask_again(&mut self, now: Instant, name: Name) {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.tell_again(name),
            Self::Incremental(delta) => delta.removed(now, name),
        }
    }

    /// A resource came. One that nobody watches is not kept.
    pub(super) fn came(&mut self, now: Instant, name: &Name, is_watched: bool) {
        match self {
            Self::StateOfTheWorld(sotw) if is_watched => sotw.came(name),
            Self::StateOfTheWorld(sotw) => sotw.thrown_away(name),
            Self::Incremental(delta) => delta.came(now, name, is_watched),
        }
    }

    pub(super) fn removed(&mut self, now: Instant, name: Name) {
        match self {
            Self::StateOfTheWorld(_) => {}
            Self::Incremental(delta) => delta.removed(now, name),
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
        match self {
            Self::StateOfTheWorld(sotw) => sotw.answer(now, version, nonce, refusal),
            Self::Incremental(delta) => delta.answer(now, nonce, refusal),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.due(),
            Self::Incremental(delta) => delta.due(),
        }
    }

    pub(super) fn wants_transmit(&self, now: Instant, no_names: bool) -> bool {
        match self {
            Self::StateOfTheWorld(sotw) => sotw.wants_transmit(now, no_names),
            Self::Incremental(delta) => delta.wants_transmit(now, no_names),
        }
    }

    pub(super) fn request(
        &mut self,
        now: Instant,
        kind: Kind,
        entries: &BTreeMap<Name, Entry>,
    ) -> Option<Request> {
        match self {
            Self::StateOfTheWorld(sotw) => {
                let by_name = entries.iter().filter(|(_, entry)| entry.by_name);
                sotw.request(now, kind, by_name.map(|(name, _)| name))
            }
            Self::Incremental(delta) => delta.request(now, kind, entries),
        }
    }
}
