//! What is sent, and what is known of the client once it is.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Held, Sent, Subscription};
use crate::server::cache::{Entry, View};
use crate::server::status::ResourceState;
use crate::server::subscriber::Push;

// === impl Subscription ===

impl Subscription {
    /// What is new or changed.
    pub(in crate::server::subscriber) fn additions(&mut self, view: View<'_>) -> Option<Push> {
        if self.is_unanswered() || !self.has_additions() {
            return None;
        }
        if self.sends_full_sets() {
            // What is gone stays in the set for now: something that is on its way may replace a reference to it.
            let lingering = self.removals.iter().filter_map(|name| self.held.get(name)?.entry());
            let entries = self.visible(view).into_iter().chain(lingering.cloned()).collect();
            return Some(self.push(view, entries, Vec::new()));
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.upserts.iter().filter_map(|name| view.get(self.kind, name)) {
            bytes += entry.resource.any().len();
            if bytes > MAX_CHUNK && !entries.is_empty() {
                break;
            }
            entries.push(Arc::clone(entry));
        }
        let missing = self.missing.iter().take(MAX_REMOVALS).cloned().collect();
        Some(self.push(view, entries, missing))
    }

    /// What is gone, when nothing else is due.
    pub(in crate::server::subscriber) fn removals(&mut self, view: View<'_>) -> Option<Push> {
        if self.is_unanswered() || self.removals.is_empty() {
            return None;
        }
        if self.sends_full_sets() {
            for name in std::mem::take(&mut self.removals) {
                self.held.remove(&name);
            }
            let entries = self.visible(view);
            return Some(self.push(view, entries, Vec::new()));
        }
        let removed = self.removals.iter().take(MAX_REMOVALS).cloned().collect();
        Some(self.push(view, Vec::new(), removed))
    }

    /// What would expire at the client, again.
    pub(in crate::server::subscriber) fn heartbeat(&mut self, now: Instant, view: View<'_>) -> Option<Push> {
        if self.is_unanswered() || self.heartbeat.is_none_or(|at| at > now) {
            return None;
        }
        self.heartbeat = None;
        let living =
            self.held.values().filter_map(Held::entry).filter(|entry| entry.resource.ttl().is_some());
        let entries: Vec<_> = living.cloned().collect();
        if entries.is_empty() {
            return None;
        }
        // Without the complete set, the rest of it would be gone.
        let entries = if self.sends_full_sets() { self.visible(view) } else { entries };
        Some(Push { heartbeat: true, ..self.push(view, entries, Vec::new()) })
    }

    pub(in crate::server::subscriber) fn heartbeat_at(&self) -> Option<Instant> {
        self.heartbeat.filter(|_| !self.is_unanswered())
    }

    /// A response is on its way: from now on the client has it.
    pub(in crate::server::subscriber) fn sent(&mut self, push: &Push, now: Instant) {
        self.asked = false;
        for entry in push.entries.iter().filter(|_| !push.heartbeat) {
            let name = entry.resource.name();
            self.upserts.remove(name);
            let as_before =
                self.held.get(name).and_then(Held::entry).is_some_and(|has| Arc::ptr_eq(has, entry));
            if !as_before {
                self.held.insert(Arc::clone(name), Held::Has(Arc::clone(entry), ResourceState::Sent));
            }
        }
        for name in &push.removed {
            self.settle(name);
            // Without a name of its own it was there by the wildcard, and needs no mark.
            if self.names.contains(name) {
                self.held.insert(Arc::clone(name), Held::Absent);
            } else {
                self.held.remove(name);
            }
        }
        if push.tells_ttl {
            // Halfway, so that one lost response costs nothing.
            let shortest = push.entries.iter().filter_map(|entry| entry.resource.ttl()).min();
            let at = shortest.and_then(|ttl| now.checked_add(ttl / 2));
            self.heartbeat = [self.heartbeat, at].into_iter().flatten().min();
        }
        let names = push.entries.iter().map(|entry| Arc::clone(entry.resource.name())).collect();
        self.last = Some(Sent { nonce: push.nonce.clone(), version: push.version, names: Some(names) });
    }

    fn visible(&self, view: View<'_>) -> Vec<Arc<Entry>> {
        if self.wildcard {
            return view.all(self.kind).cloned().collect();
        }
        self.names.iter().filter_map(|name| view.get(self.kind, name)).cloned().collect()
    }

    fn push(&self, view: View<'_>, entries: Vec<Arc<Entry>>, removed: Vec<Arc<str>>) -> Push {
        let (kind, version) = (self.kind, view.version(self.kind));
        Push { kind, version, nonce: String::new(), entries, removed, heartbeat: false, tells_ttl: false }
    }
}

/// How many bytes of resources a response carries at most, unless it is one resource or a complete set: half of what
/// gRPC's implementations take by default.
const MAX_CHUNK: usize = 2 << 20;
/// How many names a response says are gone at most.
const MAX_REMOVALS: usize = 16_384;
