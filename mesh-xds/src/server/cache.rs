//! The resources by view, kind and name, and a log of what changed when.
//!
//! Every effective change takes the next number of one counter, and leaves the names that it touched in the log of their
//! kind: who has seen everything up to a number finds what is new without looking at what is not. The log is bounded; a
//! reader that has fallen behind its beginning looks at everything once.
//! A resource is told apart by a digest of its content, so a change that is taken back is no change, and a client that
//! comes back, even to another process with the same resources, is told nothing that it knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::resource::Resource;
use crate::ads::{Kind, PerKind};

/// The resources of a control plane.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) version: u64,
    common: Layer,
    /// By the name of the view. A view is never dropped: streams may have chosen it.
    views: BTreeMap<Arc<str>, Layer>,
}

/// The resources of one view.
pub(super) type Layer = PerKind<KindCache>;

/// The resources of one kind.
#[derive(Debug, Default)]
pub(super) struct KindCache {
    version: u64,
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Names by the change that touched them, oldest first.
    log: VecDeque<(u64, Arc<str>)>,
    /// The newest change that is no longer in the log.
    floor: u64,
}

/// A resource and the digest of its content.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) digest: u64,
    pub(super) resource: Resource,
}

/// What one client sees: the resources of its view above those of everybody.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    common: &'a Layer,
    own: Option<&'a Layer>,
}

// === impl Cache ===

impl Cache {
    pub(super) fn view(&self, name: Option<&str>) -> View<'_> {
        View { common: &self.common, own: name.and_then(|name| self.views.get(name)) }
    }

    pub(super) fn layer_mut(&mut self, view: Option<&Arc<str>>) -> &mut Layer {
        match view {
            None => &mut self.common,
            Some(name) => self.views.entry(Arc::clone(name)).or_default(),
        }
    }
}

// === impl KindCache ===

impl KindCache {
    /// Whether it changes anything.
    pub(super) fn set(&mut self, version: u64, resource: Resource) -> bool {
        let name = Arc::clone(resource.name());
        if self.entries.get(&name).is_some_and(|entry| entry.resource == resource) {
            return false;
        }
        self.entries.insert(Arc::clone(&name), Arc::new(Entry::new(resource)));
        self.changed(version, name);
        true
    }

    /// Whether it changes anything.
    pub(super) fn remove(&mut self, version: u64, name: &str) -> bool {
        let Some((name, _)) = self.entries.remove_entry(name) else { return false };
        self.changed(version, name);
        true
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    fn changed(&mut self, version: u64, name: Arc<str>) {
        self.version = version;
        self.log.push_back((version, name));
        while self.log.len() > MIN_LOG.max(2 * self.entries.len()) {
            let Some((dropped, _)) = self.log.pop_front() else { break };
            self.floor = dropped;
        }
    }

    /// The names touched after a change, or `None` if that is no longer known.
    fn since(&self, seen: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        let start = self.log.partition_point(|(version, _)| *version <= seen);
        (seen >= self.floor).then(|| self.log.range(start..).map(|(_, name)| name))
    }
}

// === impl Entry ===

impl Entry {
    fn new(resource: Resource) -> Self {
        // Which function it is may differ between builds: then a client is sent once what it has already.
        let mut hasher = DefaultHasher::new();
        resource.any().hash(&mut hasher);
        resource.ttl().hash(&mut hasher);
        Self { digest: hasher.finish(), resource }
    }

    /// The version of the resource as clients of the incremental protocol see it.
    pub(super) fn version(&self) -> String {
        format!("{:016x}", self.digest)
    }
}

// === impl View ===

impl<'a> View<'a> {
    /// The number of the last change to what is seen.
    pub(super) fn version(&self, kind: Kind) -> u64 {
        let own = self.own.map_or(0, |own| own.get(kind).version);
        own.max(self.common.get(kind).version)
    }

    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<&'a Arc<Entry>> {
        let own = self.own.and_then(|own| own.get(kind).entries.get(name));
        own.or_else(|| self.common.get(kind).entries.get(name))
    }

    /// Everything of a kind.
    pub(super) fn all(self, kind: Kind) -> impl Iterator<Item = &'a Arc<Entry>> {
        let own = self.own.map(|own| &own.get(kind).entries);
        let hidden = move |name: &Arc<str>| own.is_some_and(|own| own.contains_key(name));
        let common = self.common.get(kind).entries.iter().filter(move |(name, _)| !hidden(name));
        common.chain(own.into_iter().flatten()).map(|(_, entry)| entry)
    }

    /// The names touched after a change, or `None` if that is no longer known.
    pub(super) fn since(&self, kind: Kind, seen: u64) -> Option<BTreeSet<&'a Arc<str>>> {
        let mut names: BTreeSet<_> = self.common.get(kind).since(seen)?.collect();
        if let Some(own) = self.own {
            names.extend(own.get(kind).since(seen)?);
        }
        Some(names)
    }
}

/// How many changes of a kind are remembered at least; beyond that, twice as many as there are resources.
const MIN_LOG: usize = 4096;
