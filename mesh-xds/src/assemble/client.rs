//! The snapshot of one client target, kept up to date change by change.
//!
//! An assembly remembers every cluster as it was last resolved and which of them still hold the target up, so that one
//! resource that changes costs one cluster, whatever their number. From nothing it makes what it would have made
//! step by step: both are the same code, and a property test holds them to each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::chunked::Chunked;
use mesh_core::config::listener::ListenerConfig;
use mesh_core::route::RouteTable;
use mesh_core::snapshot::{ClientSnapshot, ClusterEntry, ConfigProblem};

use super::{Assembled, Assembler, Stop, stop};
use crate::ads::{Kind, Name};

/// What is known of one client target.
#[derive(Debug, Default)]
pub(crate) struct ClientAssembly {
    /// None while there is no listener with routes.
    base: Option<Base>,
    /// One entry for each cluster of the routes.
    clusters: Chunked<ClusterEntry>,
    /// Positions of what has not come.
    pending: BTreeSet<usize>,
    /// Positions of what the control plane could not be reached for.
    unreachable: BTreeSet<usize>,
}

/// What concerns a target of all that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dirty {
    /// These clusters: themselves or their endpoints.
    Clusters(BTreeSet<Name>),
    Everything,
}

/// Listener and routes.
#[derive(Debug)]
struct Base {
    listener: Arc<ListenerConfig>,
    routes: Arc<RouteTable>,
}

/// What holds a target up at one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Nothing,
    Pending,
    Unreachable,
}

// === impl ClientAssembly ===

impl ClientAssembly {
    /// An assembly of which nothing is known but what it should share.
    pub(super) fn after(published: Option<&ClientSnapshot>) -> Self {
        let clusters = published.map(|snapshot| snapshot.clusters.clone()).unwrap_or_default();
        Self { clusters, ..Self::default() }
    }

    /// Takes what is dirty, and says what the target has now, compared with what is published.
    pub(crate) fn update(
        &mut self,
        assembler: Assembler<'_>,
        listener: &Name,
        dirty: &Dirty,
        published: Option<&ClientSnapshot>,
    ) -> Assembled<ClientSnapshot> {
        match dirty {
            Dirty::Clusters(names) if self.base.is_some() => {
                for name in names {
                    self.refresh(assembler, name);
                }
            }
            Dirty::Clusters(_) | Dirty::Everything => {
                let base = assembler.base(listener, published.is_some());
                match base {
                    Ok((listener, routes)) => self.rebuild(assembler, listener, routes),
                    Err(stop) => {
                        self.base = None;
                        return stop.into();
                    }
                }
            }
        }
        let Some(base) = &self.base else { return Assembled::Same };
        self.finish(assembler, base, published)
    }

    fn rebuild(&mut self, assembler: Assembler<'_>, listener: Arc<ListenerConfig>, routes: Arc<RouteTable>) {
        let (mut pending, mut unreachable) = (BTreeSet::new(), BTreeSet::new());
        let entries = (0..).zip(routes.clusters()).map(|(position, name)| {
            let (entry, hold) = assembler.cluster(name);
            match hold {
                Hold::Nothing => {}
                Hold::Pending => _ = pending.insert(position),
                Hold::Unreachable => _ = unreachable.insert(position),
            }
            entry
        });
        self.clusters = Chunked::sharing(&self.clusters, entries, ClusterEntry::is_same);
        (self.pending, self.unreachable) = (pending, unreachable);
        self.base = Some(Base { listener, routes });
    }

    fn refresh(&mut self, assembler: Assembler<'_>, name: &Name) {
        let Some((position, name)) = self.base.as_ref().and_then(|base| base.position(name)) else { return };
        let (entry, hold) = assembler.cluster(name);
        for (set, which) in [(&mut self.pending, Hold::Pending), (&mut self.unreachable, Hold::Unreachable)] {
            if hold == which {
                set.insert(position);
            } else if !set.is_empty() {
                set.remove(&position);
            }
        }
        let is_new = self.clusters.get(position).is_none_or(|before| !before.is_same(&entry));
        if is_new {
            self.clusters.set(position, entry);
        }
    }

    fn finish(
        &self,
        assembler: Assembler<'_>,
        base: &Base,
        published: Option<&ClientSnapshot>,
    ) -> Assembled<ClientSnapshot> {
        // What cannot be reached is waited for by a target that has something to serve meanwhile.
        let unreachable = published.and_then(|_| self.unreachable.last());
        // From the end: resources tend to come in order, so this is what is waited for longest.
        if let Some(position) = self.pending.last().max(unreachable)
            && let Some(error) = base.error(assembler, *position)
        {
            return Assembled::Waiting(error);
        }
        let snapshot = ClientSnapshot {
            version: assembler.version,
            listener: base.listener.clone(),
            routes: base.routes.clone(),
            clusters: self.clusters.clone(),
        };
        let is_same = published.is_some_and(|before| before.is_same(&snapshot));
        if is_same { Assembled::Same } else { Assembled::New(snapshot) }
    }
}

// === impl Base ===

impl Base {
    fn position(&self, name: &Name) -> Option<(usize, &Name)> {
        let position = self.routes.position(name)?.get();
        Some((position, self.routes.clusters().get(position)?))
    }

    fn error(&self, assembler: Assembler<'_>, position: usize) -> Option<mesh_core::snapshot::ConfigError> {
        let (entry, _) = assembler.cluster(self.routes.clusters().get(position)?);
        match entry.cluster {
            Ok(cluster) => cluster.note.map(|note| *note),
            Err(error) => Some(*error),
        }
    }
}

// === impl Dirty ===

impl Dirty {
    /// One more change: that of a cluster, or of everything.
    pub(crate) fn add(&mut self, cluster: Option<Name>) {
        match (&mut *self, cluster) {
            (Self::Everything, _) => {}
            (_, None) => *self = Self::Everything,
            (Self::Clusters(names), Some(name)) => _ = names.insert(name),
        }
    }

    /// Whether anything but clusters changed.
    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::Everything
    }
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Clusters(BTreeSet::new())
    }
}

// === impl Hold ===

impl Hold {
    pub(super) fn of(problem: &ConfigProblem) -> Self {
        match problem {
            ConfigProblem::Pending => Self::Pending,
            ConfigProblem::Unreachable(_) | ConfigProblem::Unresolved(_) => Self::Unreachable,
            ConfigProblem::DoesNotExist
            | ConfigProblem::Invalid(_)
            | ConfigProblem::ReceivedError(_)
            | ConfigProblem::Empty => Self::Nothing,
        }
    }
}

impl Assembler<'_> {
    /// What serves while its successor is not complete, with its clusters and endpoints as they are now. None where they
    /// are as they were.
    pub(crate) fn meanwhile(self, serving: &ClientSnapshot) -> Option<ClientSnapshot> {
        let mut is_new = false;
        let entries = serving.clusters.iter().map(|before| {
            let entry = self.refreshed(before);
            is_new |= !before.is_same(&entry);
            entry
        });
        let clusters = Chunked::sharing(&serving.clusters, entries, ClusterEntry::is_same);
        let ClientSnapshot { listener, routes, .. } = serving.clone();
        is_new.then_some(ClientSnapshot { version: self.version, listener, routes, clusters })
    }

    /// A cluster as it is now, and where that is not complete as it was before, with endpoints as they are now.
    fn refreshed(self, before: &ClusterEntry) -> ClusterEntry {
        let (entry, hold) = self.cluster(&before.name);
        if hold == Hold::Nothing && entry.cluster.is_ok() {
            return entry;
        }
        let mut entry = before.clone();
        if let Ok(cluster) = &mut entry.cluster
            && let Some(service) = cluster.config.eds_service()
            && let Ok(endpoints) = self.store.endpoints(service)
        {
            (cluster.endpoints, cluster.note) = self.with_note(endpoints);
        }
        entry
    }

    /// The listener of a client target and its routes.
    fn base(self, name: &Name, has_one: bool) -> Result<(Arc<ListenerConfig>, Arc<RouteTable>), Stop> {
        let listener = self.listener(name, has_one)?;
        match (&*listener.config, listener.routes.as_slice()) {
            (ListenerConfig::Client(_), [routes]) => {
                let routes = self.routes(routes).map_err(|error| stop(error, has_one))?;
                Ok((listener.config.clone(), routes))
            }
            (ListenerConfig::Client(_) | ListenerConfig::Server(_), _) => {
                let why = "it has no api_listener, so it serves servers and not clients";
                Err(Stop::Failed(self.error(Kind::Listener, name, ConfigProblem::Invalid(why.into()))))
            }
        }
    }
}
