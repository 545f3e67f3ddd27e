//! What the open targets reach: listener → routes → clusters → endpoints.
//!
//! Reference: gRFC A74 (one watcher of everything that a target needs). What is no longer reached is no longer
//! subscribed to, and forgotten. A resource that is not there reaches nothing.
//!
//! Edges are kept in the direction in which a change travels, from a resource to those that name it, so that a change
//! finds the targets that it concerns without a walk over everything else. What a new edge reaches is known at once;
//! whether the loss of one leaves something unreached is found by mark and sweep, once per turn.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ads::{Kind, Name};
use crate::store::Store;

/// One resource.
pub(crate) type Key = (Kind, Name);

/// The resources that are subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    live: HashMap<Key, Referrers>,
    /// Listeners that targets start from.
    roots: BTreeSet<Name>,
    /// An edge or a root is gone since the last sweep.
    loosened: bool,
}

/// Who names a resource. Nearly all are named once.
#[derive(Debug, Default)]
enum Referrers {
    #[default]
    None,
    One(Key),
    Many(BTreeSet<Key>),
}

// === impl Graph ===

impl Graph {
    /// Takes the listeners that targets start from. Returns what is reached now and was not before.
    pub(crate) fn set_roots(&mut self, roots: impl Iterator<Item = Name>) -> Vec<Key> {
        let roots: BTreeSet<Name> = roots.collect();
        self.loosened |= !self.roots.is_subset(&roots);
        let added: Vec<Key> = roots
            .difference(&self.roots)
            .map(|name| (Kind::Listener, name.clone()))
            .filter(|key| !self.live.contains_key(key))
            .collect();
        for key in &added {
            self.live.insert(key.clone(), Referrers::None);
        }
        self.roots = roots;
        added
    }

    /// The listeners that targets start from.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Name> {
        self.roots.iter()
    }

    /// Takes what a resource names now, in the place of what it named before. Returns what is reached now and was not
    /// before.
    pub(crate) fn relink(&mut self, from: &Key, before: &[Key], after: &[Key]) -> Vec<Key> {
        let mut added = Vec::new();
        if before == after || !self.live.contains_key(from) {
            return added;
        }
        for key in after {
            match self.live.get_mut(key) {
                Some(referrers) => referrers.insert(from),
                None => {
                    self.live.insert(key.clone(), Referrers::One(from.clone()));
                    added.push(key.clone());
                }
            }
        }
        let kept: BTreeSet<&Key> = after.iter().collect();
        for key in before.iter().filter(|key| !kept.contains(key)) {
            self.unlink(from, key);
        }
        added
    }

    /// Marks what the roots reach, and takes out the rest, which it returns. Nothing to do unless something was let go.
    pub(crate) fn sweep(&mut self, store: &Store) -> Vec<Key> {
        if !std::mem::take(&mut self.loosened) {
            return Vec::new();
        }
        let mut marked = HashSet::new();
        let mut open: Vec<Key> = self.roots.iter().map(|name| (Kind::Listener, name.clone())).collect();
        while let Some(key) = open.pop() {
            if !marked.contains(&key) {
                open.extend(store.references(&key));
                marked.insert(key);
            }
        }
        let removed: Vec<Key> = self.live.keys().filter(|key| !marked.contains(*key)).cloned().collect();
        for key in &removed {
            self.live.remove(key);
            for named in store.references(key) {
                self.unlink(key, &named);
            }
        }
        self.loosened = false;
        removed
    }

    /// The listeners through which a resource reaches targets, each with the cluster by which it does.
    pub(crate) fn concerned(&self, changed: &Key) -> Vec<(Name, Option<Name>)> {
        let mut found = Vec::new();
        let mut open = vec![(changed, None)];
        while let Some((key, via)) = open.pop() {
            let (kind, name) = key;
            let via = if *kind == Kind::Cluster { Some(name) } else { via };
            if *kind == Kind::Listener && self.roots.contains(name) {
                found.push((name.clone(), via.cloned()));
            }
            let referrers = self.live.get(key).into_iter().flat_map(Referrers::iter);
            open.extend(referrers.map(|referrer| (referrer, via)));
        }
        found
    }

    fn unlink(&mut self, from: &Key, to: &Key) {
        if let Some(referrers) = self.live.get_mut(to) {
            referrers.remove(from);
            self.loosened = true;
        }
    }
}

// === impl Referrers ===

impl Referrers {
    fn insert(&mut self, key: &Key) {
        match self {
            Self::None => *self = Self::One(key.clone()),
            Self::One(known) if known == key => {}
            Self::One(known) => *self = Self::Many([known.clone(), key.clone()].into()),
            Self::Many(known) => _ = known.insert(key.clone()),
        }
    }

    fn remove(&mut self, key: &Key) {
        match self {
            Self::One(known) if known == key => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(known) => _ = known.remove(key),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Key> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(key) => (Some(key), None),
            Self::Many(keys) => (None, Some(keys)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|keys| keys.iter()))
    }
}
