//! What the file ought to hold: everything in use, and for a while what an earlier run used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::KEPT_UNUSED;
use super::file::{Entry, LastGoodFile, Owner};
use crate::ads::{Kind, Name};
use crate::resource::Accepted;

/// How many resources that nobody uses are kept, the latest ones.
const MAX_UNUSED: usize = 4096;

/// What was read from the file, validated.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    values: BTreeMap<(Kind, Name), Accepted>,
}

/// What is in use, shared by the engine, which tells, and the keeper, which writes.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    owner: Owner,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: BTreeMap<(Kind, Name), Bytes>,
    unused: BTreeMap<(Kind, Name), Unused>,
    is_dirty: bool,
}

#[derive(Debug)]
struct Unused {
    bytes: Bytes,
    /// In seconds since 1970; none where it came out of use since the last writing.
    used_at: Option<u64>,
}

// === impl Restored ===

impl Restored {
    pub(super) fn new(values: BTreeMap<(Kind, Name), Accepted>) -> Self {
        Self { values }
    }

    /// The value of a resource in the last run.
    pub(crate) fn get(&self, kind: Kind, name: &Name) -> Option<&Accepted> {
        self.values.get(&(kind, name.clone()))
    }
}

// === impl Record ===

impl Record {
    /// A record that goes on where a file ended.
    pub(super) fn new(owner: Owner, entries: Vec<Entry>) -> Self {
        let unused =
            |Entry { kind, name, bytes, used_at }| ((kind, name), Unused { bytes, used_at: Some(used_at) });
        let state = State { unused: entries.into_iter().map(unused).collect(), ..State::default() };
        Self { shared: Arc::new(Shared { owner, state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A resource is in use with this value.
    pub(crate) fn put(&self, kind: Kind, name: &Name, bytes: &Bytes) {
        let key = (kind, name.clone());
        let mut state = self.lock();
        if state.used.get(&key) == Some(bytes) {
            return;
        }
        state.unused.remove(&key);
        state.used.insert(key, bytes.clone());
        self.touch(state);
    }

    /// A resource is no longer in use. It stays in the file for a while: a target that is closed may be opened again,
    /// and a process that ends closes all of them.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        let key = (kind, name.clone());
        let mut state = self.lock();
        if let Some(bytes) = state.used.remove(&key) {
            state.unused.insert(key, Unused { bytes, used_at: None });
            self.touch(state);
        }
    }

    /// Waits until there is something to write. Cancel safe.
    pub(super) async fn changed(&self) {
        while !self.lock().is_dirty {
            self.shared.changed.notified().await;
        }
    }

    /// What is to be written now, in seconds since 1970; none where the file is up to date.
    pub(super) fn take(&self, now: u64) -> Option<LastGoodFile> {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.is_dirty, false) {
            return None;
        }
        state.expire(now);
        let used = state.used.iter().map(|(key, bytes)| entry(key, bytes, now));
        let unused =
            state.unused.iter().map(|(key, unused)| entry(key, &unused.bytes, unused.used_at.unwrap_or(now)));
        Some(LastGoodFile { owner: self.shared.owner.clone(), entries: used.chain(unused).collect() })
    }

    /// What was taken could not be written.
    pub(super) fn put_back(&self) {
        self.lock().is_dirty = true;
    }

    fn touch(&self, mut state: MutexGuard<'_, State>) {
        state.is_dirty = true;
        drop(state);
        self.shared.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries move whole from map to map.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Drops what has been unused for too long, and the oldest of what is too much.
    fn expire(&mut self, now: u64) {
        let oldest = now.saturating_sub(KEPT_UNUSED.as_secs());
        self.unused.retain(|_, unused| *unused.used_at.get_or_insert(now) >= oldest);
        let excess = self.unused.len().saturating_sub(MAX_UNUSED);
        if excess > 0 {
            let mut by_age: Vec<_> =
                self.unused.iter().map(|(key, unused)| (unused.used_at, key.clone())).collect();
            by_age.sort_unstable();
            for (_, key) in by_age.drain(..excess) {
                self.unused.remove(&key);
            }
        }
    }
}

fn entry((kind, name): &(Kind, Name), bytes: &Bytes, used_at: u64) -> Entry {
    Entry { kind: *kind, name: name.clone(), bytes: bytes.clone(), used_at }
}
