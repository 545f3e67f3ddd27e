//! Everything between the protocol and the cells, without IO: protocol machine, store, graph, assembly, publication.
//!
//! One turn: events go in (`handle_*`, [`Engine::sync`]), then [`Engine::settle`] applies all that is new, subscribes to
//! what is reached by it, and publishes at most one snapshot per target. The loop never waits for a reader of a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::snapshot::{
    ClientSnapshot, ConfigError, ConfigProblem, Resolution, ServerSnapshot, SnapshotCell,
};

use super::targets::{Entry, Open};
use crate::ads::{Ads, Kind, Name, Protocol, Request, Response, Update};
use crate::assemble::{Assembled, Assembler, ClientAssembly, Dirty};
use crate::graph::{Graph, Key};
use crate::resolve::Root;
use crate::resource::Accepted;
use crate::store::{OnDataError, Store};
use crate::unapplied::Ledger;

/// The state of one source.
#[derive(Debug)]
pub(crate) struct Engine {
    ads: Ads<Accepted>,
    store: Store,
    graph: Graph,
    settings: Settings,
    clients: BTreeMap<Arc<str>, Target<ClientSnapshot, ClientAssembly>>,
    servers: BTreeMap<std::net::SocketAddr, Target<ServerSnapshot, ()>>,
    /// Version of the last snapshot.
    version: u64,
    /// What changed since the targets were last assembled, by the listener that they start from.
    dirty: BTreeMap<Name, Dirty>,
}

/// What the bootstrap says about the behaviour.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) node: Arc<str>,
    pub(crate) on_data_error: OnDataError,
    pub(crate) absent_after: std::time::Duration,
    /// A resource that does not come is a transient error (gRFC A88).
    pub(crate) absent_is_transient: bool,
    /// Where fields without effect are listed.
    pub(crate) unapplied: Ledger,
}

/// One open target, and what was last published to it.
#[derive(Debug)]
struct Target<S, A> {
    root: Root,
    cell: Arc<SnapshotCell<S>>,
    /// What is remembered from one assembly to the next.
    assembly: A,
    /// It was opened, and has not been assembled yet.
    is_new: bool,
    ready: Option<Arc<S>>,
    error: Option<ConfigError>,
}

/// What a target has before anything has come.
pub(super) fn first_resolution<S>(root: &Root, node: &Arc<str>) -> Resolution<S> {
    match root {
        Err(error) => Resolution::Failed(error.clone()),
        Ok(name) => Resolution::Pending(ConfigError {
            kind: Kind::Listener.noun(),
            name: name.clone(),
            problem: ConfigProblem::Pending,
            node: node.clone(),
        }),
    }
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(protocol: Protocol, settings: Settings) -> Self {
        Self {
            ads: Ads::new(protocol, settings.absent_after),
            store: Store::new(settings.on_data_error),
            graph: Graph::default(),
            settings,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            version: 0,
            dirty: BTreeMap::new(),
        }
    }

    /// Takes over which targets are open.
    pub(crate) fn sync(&mut self, open: Open) {
        let Open { clients, servers } = open;
        sync(&mut self.clients, clients);
        sync(&mut self.servers, servers);
        let clients = self.clients.values().map(|target| &target.root);
        let servers = self.servers.values().map(|target| &target.root);
        let roots = clients.chain(servers).filter_map(|root| root.as_ref().ok()).cloned();
        let added = self.graph.set_roots(roots);
        self.want(added);
    }

    /// Whether nothing is wanted of the control plane.
    pub(crate) fn is_idle(&self) -> bool {
        self.ads.is_idle()
    }

    /// How many resources of a kind are watched.
    pub(crate) fn watched(&self, kind: Kind) -> usize {
        self.ads.watched(kind).len()
    }

    pub(crate) fn is_watched(&self, kind: Kind, name: &str) -> bool {
        self.ads.is_watched(kind, name)
    }

    pub(crate) fn handle_connected(&mut self, now: Instant) {
        self.ads.handle_connected(now);
    }

    /// The connection failed or the stream ended; `why` names the control plane and the error.
    pub(crate) fn handle_disconnected(&mut self, now: Instant, why: &Arc<str>) {
        self.ads.handle_disconnected(now);
        self.apply_updates(Some(why));
    }

    pub(crate) fn handle_response(&mut self, now: Instant, response: Response<Accepted>) {
        self.store.handle_up();
        self.ads.handle_response(now, response);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.ads.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ads.poll_timeout()
    }

    pub(crate) fn wants_transmit(&self, now: Instant) -> bool {
        self.ads.wants_transmit(now)
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Request> {
        self.ads.poll_transmit(now)
    }

    /// Applies what is new, and publishes what comes of it.
    pub(crate) fn settle(&mut self) {
        self.apply_updates(None);
        self.sweep();
        self.publish();
    }

    fn apply_updates(&mut self, down: Option<&Arc<str>>) {
        while let Some(update) = self.ads.poll_update() {
            match update {
                Update::Changed { kind, name, version, value } => {
                    let Accepted { resource, unapplied } = value;
                    let changed = self.change((kind, name.clone()), |store| store.put(&name, resource));
                    tracing::debug!(%kind, name = &*name, version = &*version, changed, "resource received");
                    self.settings.unapplied.note(kind, &name, &unapplied);
                }
                Update::Refused { kind, name, version, reason } => {
                    tracing::warn!(%kind, name = &*name, version = &*version, reason = &*reason, "resource refused");
                    if self.settings.on_data_error == OnDataError::Drop {
                        self.ads.forget_value(kind, &name);
                    }
                    self.fail(kind, name, ConfigProblem::Invalid(reason));
                }
                Update::Deleted { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource deleted by the control plane");
                    self.fail(kind, name, ConfigProblem::DoesNotExist);
                }
                Update::Absent { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource did not come in time");
                    self.fail(kind, name, self.settings.absent());
                }
                Update::Unreachable => {
                    if down.is_some_and(|why| self.store.handle_down(why)) {
                        let all = self.graph.roots().map(|root| (root.clone(), Dirty::Everything));
                        self.dirty = all.collect();
                    }
                }
            }
        }
    }

    fn fail(&mut self, kind: Kind, name: Name, problem: ConfigProblem) {
        let key = (kind, name);
        self.change(key.clone(), |store| store.fail(kind, &key.1, problem));
    }

    /// Changes one resource, follows what it names now, and remembers the targets that it concerns.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Store) -> bool) -> bool {
        let before = self.store.references(&key);
        let changed = change(&mut self.store);
        if changed {
            let after = self.store.references(&key);
            let added = self.graph.relink(&key, &before, &after);
            self.want(added);
            for (root, cluster) in self.graph.concerned(&key) {
                self.dirty.entry(root).or_default().add(cluster);
            }
        }
        changed
    }

    /// Subscribes to what is reached.
    fn want(&mut self, added: Vec<Key>) {
        for (kind, name) in added {
            self.store.want(kind, &name);
            self.ads.watch(kind, &name);
        }
    }

    /// Forgets what is no longer reached.
    fn sweep(&mut self) {
        for (kind, name) in self.graph.sweep(&self.store) {
            self.ads.unwatch(kind, &name);
            self.store.forget(kind, &name);
            self.settings.unapplied.forget(kind, &name);
        }
    }

    fn publish(&mut self) {
        let Self { store, settings, version, clients, servers, dirty, .. } = self;
        let dirty = std::mem::take(dirty);
        let on_data_error = settings.on_data_error;
        for target in clients.values_mut() {
            let Some(dirty) = target.dirty(&dirty) else { continue };
            let assembler = Assembler { store, node: &settings.node, version: *version + 1 };
            target.publish(version, on_data_error, |assembly, name, ready| {
                assembly.update(assembler, name, dirty, ready)
            });
        }
        for target in servers.values_mut() {
            // A server has no clusters to send anything to.
            if target.dirty(&dirty).is_none_or(|dirty| !dirty.is_everything()) {
                continue;
            }
            let assembler = Assembler { store, node: &settings.node, version: *version + 1 };
            target.publish(version, on_data_error, |(), name, ready| assembler.server(name, ready));
        }
    }
}

// === impl Settings ===

impl Settings {
    fn absent(&self) -> ConfigProblem {
        if self.absent_is_transient {
            let why = format!("it did not answer within {} s", self.absent_after.as_secs());
            ConfigProblem::Unreachable(why.into())
        } else {
            ConfigProblem::DoesNotExist
        }
    }
}

// === impl Target ===

impl<S, A: Default> Target<S, A> {
    fn new(Entry { root, cell, .. }: Entry<S>) -> Self {
        Self { root, cell, assembly: A::default(), is_new: true, ready: None, error: None }
    }

    /// What concerns it of all that changed.
    fn dirty<'d>(&mut self, dirty: &'d BTreeMap<Name, Dirty>) -> Option<&'d Dirty> {
        if std::mem::take(&mut self.is_new) {
            return Some(&Dirty::Everything);
        }
        dirty.get(self.root.as_ref().ok()?)
    }

    fn publish(
        &mut self,
        version: &mut u64,
        on_data_error: OnDataError,
        assemble: impl FnOnce(&mut A, &Name, Option<&S>) -> Assembled<S>,
    ) {
        // A target without a root was told so when it was opened.
        let Ok(root) = &self.root else { return };
        let has_one = self.ready.is_some();
        match assemble(&mut self.assembly, root, self.ready.as_deref()) {
            Assembled::Same => {}
            Assembled::New(snapshot) => {
                *version += 1;
                tracing::debug!(listener = &**root, version = *version, "configuration published");
                let snapshot = Arc::new(snapshot);
                self.ready = Some(snapshot.clone());
                self.error = None;
                self.cell.publish(Resolution::Ready(snapshot));
            }
            // What serves goes on serving until there is something complete to replace it.
            Assembled::Waiting(error) if has_one => {
                tracing::debug!(%error, "the next configuration is not complete yet");
                self.error = Some(error);
            }
            Assembled::Failed(error) if has_one && on_data_error == OnDataError::Keep => {
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the last good configuration stays in use");
                    self.error = Some(error);
                }
            }
            Assembled::Waiting(error) => self.tell(error, Resolution::Pending),
            Assembled::Failed(error) => {
                self.ready = None;
                self.tell(error, Resolution::Failed);
            }
        }
    }

    fn tell(&mut self, error: ConfigError, resolution: impl FnOnce(ConfigError) -> Resolution<S>) {
        if self.error.as_ref() != Some(&error) {
            self.error = Some(error.clone());
            self.cell.publish(resolution(error));
        }
    }
}

fn sync<K: Ord, S, A: Default>(targets: &mut BTreeMap<K, Target<S, A>>, open: BTreeMap<K, Entry<S>>) {
    targets.retain(|key, target| {
        // A target that was closed and opened again in between has another cell.
        open.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.cell, &target.cell))
    });
    for (key, entry) in open {
        targets.entry(key).or_insert_with(|| Target::new(entry));
    }
}

#[cfg(test)]
impl Engine {
    /// What a rebuild of every client target from nothing would find that step by step was missed.
    pub(super) fn missed(&self) -> Vec<String> {
        let assembler =
            Assembler { store: &self.store, node: &self.settings.node, version: self.version + 1 };
        let missed = self.clients.values().filter_map(|target| {
            let found = assembler.client(target.root.as_ref().ok()?, target.ready.as_deref());
            match &found {
                Assembled::Same => None,
                // Nothing is published while a target that serves waits, so nothing can be missed.
                Assembled::Waiting(_) if target.ready.is_some() => None,
                Assembled::Waiting(error) | Assembled::Failed(error)
                    if target.error.as_ref() == Some(error) =>
                {
                    None
                }
                Assembled::Waiting(_) | Assembled::Failed(_) | Assembled::New(_) => {
                    Some(format!("{found:?}"))
                }
            }
        });
        missed.collect()
    }
}
