//! What a request changes: names, what the client says it has, and its answer to the last response.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::{Held, Subscription, is_full_set};
use crate::server::status::{Nack, ResourceState};
use crate::server::subscriber::Received;

// === impl Subscription ===

impl Subscription {
    /// Notes an answer to the last response, if it is one.
    pub(in crate::server::subscriber) fn answered(
        &mut self,
        nonce: &str,
        refusal: Option<String>,
        now: Instant,
    ) -> Received {
        let kind = self.kind;
        let Some(last) = self.last.as_mut().filter(|_| !nonce.is_empty()) else {
            return Received::Subscribed(kind);
        };
        if last.nonce != nonce {
            return Received::Stale(kind);
        }
        let Some(names) = last.names.take() else { return Received::Subscribed(kind) };
        let version = last.version;
        let outcome = if refusal.is_some() { ResourceState::Refused } else { ResourceState::Acked };
        for name in names {
            if let Some(Held::Has(_, state)) = self.held.get_mut(&name) {
                *state = outcome;
            }
        }
        let Some(message) = refusal else {
            self.acked = Some(version);
            self.nack = None;
            return Received::Acked(kind, version);
        };
        let nack = Nack { version, message, at: now };
        self.nack = Some(nack.clone());
        Received::Nacked(kind, nack)
    }

    /// State of the world: these are all the names.
    pub(in crate::server::subscriber) fn want(&mut self, names: Vec<String>) {
        let known = |name: String| self.names.get(name.as_str()).cloned().unwrap_or_else(|| name.into());
        let mut wanted: BTreeSet<Arc<str>> = names.into_iter().map(known).collect();
        let star = wanted.remove(WILDCARD);
        self.ever_named |= star || !wanted.is_empty();
        // The legacy wildcard: an empty list, as long as no name was ever given on this stream.
        let wildcard = star || (is_full_set(self.kind) && wanted.is_empty() && !self.ever_named);
        let added: Vec<Arc<str>> = wanted.difference(&self.names).cloned().collect();
        self.asked |= !self.begun || (wildcard && !self.wildcard) || !added.is_empty();
        self.rescan |= wildcard && !self.wildcard;
        self.begun = true;
        // A name that is dropped and asked for again has to be sent again, even if it did not change in between.
        let shrinks = (self.wildcard && !wildcard) || wanted.len() < self.names.len() + added.len();
        self.wildcard = wildcard;
        self.name_bytes = wanted.iter().map(|name| name.len()).sum();
        self.names = wanted;
        self.fresh.extend(added);
        if shrinks {
            self.forget_unwanted();
        }
    }

    /// Incremental: these names come and go.
    pub(in crate::server::subscriber) fn change(
        &mut self,
        subscribe: Vec<String>,
        unsubscribe: &[String],
        has: HashMap<String, String>,
    ) {
        let first = !std::mem::replace(&mut self.begun, true);
        // The legacy wildcard: a first request that names nothing. It lasts until `*` is unsubscribed.
        let legacy = first && is_full_set(self.kind) && subscribe.is_empty() && unsubscribe.is_empty();
        let star = legacy || subscribe.iter().any(|name| name == WILDCARD);
        for name in unsubscribe {
            self.unsubscribe(name);
        }
        if star && !self.wildcard {
            self.wildcard = true;
            self.rescan = true;
            self.asked = true;
        }
        for name in subscribe.into_iter().filter(|name| name != WILDCARD) {
            let name: Arc<str> = name.into();
            // It is sent even if the client seems to have it: it may have dropped it a moment ago.
            self.doubt(&name);
            if self.names.insert(Arc::clone(&name)) {
                self.name_bytes += name.len();
            }
            self.fresh.insert(name);
        }
        // Only the first request can continue an earlier stream.
        for (name, version) in has.into_iter().filter(|_| first) {
            if self.wants(&name) {
                let name: Arc<str> = name.into();
                self.held.insert(Arc::clone(&name), Held::Claims(version.into()));
                self.fresh.insert(name);
            }
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            self.forget_unwanted();
            return;
        }
        let Some(name) = self.names.take(name) else { return };
        self.name_bytes -= name.len();
        if self.wildcard {
            // The client cannot know whether everything includes it: if it had it, it is told again that it exists, or
            // that it does not.
            self.doubt(&name);
            self.fresh.insert(name);
        } else {
            self.fresh.remove(&name);
            self.settle(&name);
            self.held.remove(&name);
        }
    }

    /// Whatever the client has under a name, it is told again.
    fn doubt(&mut self, name: &Arc<str>) {
        if let Some(Held::Has(..) | Held::Claims(_)) = self.held.remove(name) {
            self.held.insert(Arc::clone(name), Held::Claims("".into()));
        }
    }

    fn forget_unwanted(&mut self) {
        if self.wildcard {
            return;
        }
        let names = &self.names;
        self.held.retain(|name, _| names.contains(name));
        for set in [&mut self.fresh, &mut self.upserts, &mut self.missing, &mut self.removals] {
            set.retain(|name| names.contains(name));
        }
    }

    /// How many names it makes us remember, and their bytes.
    pub(in crate::server::subscriber) fn size(&self) -> (usize, usize) {
        (self.names.len(), self.name_bytes)
    }
}

/// The name that asks for everything.
const WILDCARD: &str = "*";
