//! What the open targets reach: listener → routes → clusters → endpoints; and what published snapshots still use.
//!
//! Reference: gRFC A74 (one watcher of everything that a target needs; the old configuration goes on until the new one is
//! complete). What is neither reached nor used is no longer subscribed to, and forgotten. A resource that is not there
//! reaches nothing, and what a server reaches ends at its routes: it sends nothing to their clusters.
//!
//! Edges are kept in the direction in which a change travels, from a resource to those that name it, so that a change
//! finds the targets that it concerns without a walk over everything else. What a new edge reaches is known at once;
//! whether the loss of one leaves something unreached is found by mark and sweep, once per turn.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ads::{Kind, Name};
use crate::store::Store;

/// One resource, and as what it is reached.
pub(crate) type Key = (Role, Name);

/// As what a resource is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Listener,
    /// Routes of a client.
    Route,
    /// Routes of a server.
    ServerRoute,
    Cluster,
    Endpoints,
}

/// The resources that are subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    live: HashMap<Key, Referrers>,
    /// Listeners that targets start from.
    roots: BTreeSet<Name>,
    /// What is not reached, and used by a snapshot whose successor is not complete.
    kept: HashSet<Key>,
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

// === impl Role ===

impl Role {
    /// Every role in which a resource of a kind can be reached.
    pub(crate) fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Listener => &[Self::Listener],
            Kind::Route => &[Self::Route, Self::ServerRoute],
            Kind::Cluster => &[Self::Cluster],
            Kind::Endpoints => &[Self::Endpoints],
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Listener => Kind::Listener,
            Self::Route | Self::ServerRoute => Kind::Route,
            Self::Cluster => Kind::Cluster,
            Self::Endpoints => Kind::Endpoints,
        }
    }
}

// === impl Graph ===

impl Graph {
    /// Takes the listeners that targets start from. Returns what has to be subscribed to now and had not before.
    pub(crate) fn set_roots(
        &mut self,
        store: &Store,
        roots: impl Iterator<Item = Name>,
    ) -> Vec<(Kind, Name)> {
        let roots: BTreeSet<Name> = roots.collect();
        self.loosened |= !self.roots.is_subset(&roots);
        let added: Vec<Key> =
            roots.difference(&self.roots).map(|name| (Role::Listener, name.clone())).collect();
        self.roots = roots;
        let mut wanted = Vec::new();
        for key in added {
            self.reach(store, &key, None, &mut wanted);
        }
        wanted
    }

    /// The listeners that targets start from.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Name> {
        self.roots.iter()
    }

    /// Takes what a resource names now, in the place of what it named before. Returns what has to be subscribed to now and
    /// had not before.
    pub(crate) fn relink(
        &mut self,
        store: &Store,
        from: &Key,
        before: &[Key],
        after: &[Key],
    ) -> Vec<(Kind, Name)> {
        let mut wanted = Vec::new();
        if before == after || !self.live.contains_key(from) {
            return wanted;
        }
        for key in after {
            self.reach(store, key, Some(from), &mut wanted);
        }
        let kept: BTreeSet<&Key> = after.iter().collect();
        for key in before.iter().filter(|key| !kept.contains(key)) {
            self.unlink(from, key);
        }
        wanted
    }

    /// Follows an edge. What was reached in another role already may name more at once.
    fn reach(&mut self, store: &Store, key: &Key, from: Option<&Key>, wanted: &mut Vec<(Kind, Name)>) {
        if let Some(referrers) = self.live.get_mut(key) {
            from.into_iter().for_each(|from| referrers.insert(from));
            return;
        }
        if !self.is_subscribed(key) {
            wanted.push((key.0.kind(), key.1.clone()));
        }
        self.live.insert(key.clone(), from.map_or(Referrers::None, |from| Referrers::One(from.clone())));
        for named in store.references(key) {
            self.reach(store, &named, Some(key), wanted);
        }
    }

    /// Whether a resource is reached in any role.
    fn is_subscribed(&self, (role, name): &Key) -> bool {
        Role::of(role.kind()).iter().any(|role| self.live.contains_key(&(*role, name.clone())))
    }

    /// Something that snapshots used may be used no more.
    pub(crate) fn release(&mut self) {
        self.loosened |= !self.kept.is_empty();
    }

    /// Marks what the roots reach, and what is `used` by snapshots that have no successor yet, and takes out the rest.
    /// Returns what need not be subscribed to any more. Nothing to do unless something was let go.
    pub(crate) fn sweep(&mut self, store: &Store, used: impl FnOnce() -> Vec<Key>) -> Vec<(Kind, Name)> {
        if !std::mem::take(&mut self.loosened) {
            return Vec::new();
        }
        let roots = self.roots.iter().map(|name| (Role::Listener, name.clone())).collect();
        let mut marked = HashSet::new();
        mark(store, &mut marked, roots);
        self.kept.clear();
        if marked.len() < self.live.len() {
            let used = used().into_iter().filter(|key| self.live.contains_key(key) && !marked.contains(key));
            mark(store, &mut self.kept, used.collect());
            self.kept.retain(|key| !marked.contains(key));
        }
        let is_unused = |key: &&Key| !marked.contains(*key) && !self.kept.contains(*key);
        let removed: Vec<Key> = self.live.keys().filter(is_unused).cloned().collect();
        for key in &removed {
            self.live.remove(key);
            for named in store.references(key) {
                self.unlink(key, &named);
            }
        }
        self.loosened = false;
        let unwanted: BTreeSet<(Kind, Name)> = removed
            .into_iter()
            .filter(|key| !self.is_subscribed(key))
            .map(|(role, name)| (role.kind(), name))
            .collect();
        unwanted.into_iter().collect()
    }

    /// Whether a resource is not reached, and used all the same.
    pub(crate) fn is_kept(&self, key: &Key) -> bool {
        self.kept.contains(key)
    }

    /// Who names a resource.
    pub(crate) fn referrers<'a>(&'a self, key: &Key) -> impl Iterator<Item = &'a Key> + use<'a> {
        self.live.get(key).into_iter().flat_map(Referrers::iter)
    }

    /// The listeners through which a resource reaches targets, each with the cluster by which it does.
    pub(crate) fn concerned(&self, changed: &Key) -> Vec<(Name, Option<Name>)> {
        let mut found = Vec::new();
        let mut open = vec![(changed, None)];
        while let Some((key, via)) = open.pop() {
            let (role, name) = key;
            let via = if *role == Role::Cluster { Some(name) } else { via };
            if *role == Role::Listener && self.roots.contains(name) {
                found.push((name.clone(), via.cloned()));
            }
            open.extend(self.referrers(key).map(|referrer| (referrer, via)));
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

/// Marks these, and what they reach.
fn mark(store: &Store, marked: &mut HashSet<Key>, mut open: Vec<Key>) {
    while let Some(key) = open.pop() {
        if !marked.contains(&key) {
            open.extend(store.references(&key));
            marked.insert(key);
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
