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

use super::federation::Federation;
use super::targets::{Entry, Open};
use crate::ads::{Kind, Name, Request, ResourceError, Response, Update};
use crate::assemble::{Assembled, Assembler, ClientAssembly, Dirty};
use crate::authority::{Authorities, AuthorityIx, ServerIx};
use crate::graph::{Graph, Key};
use crate::last_good::LastGood;
use crate::outage::Outage;
use crate::resolve::Root;
use crate::resource::Accepted;
use crate::store::{OnDataError, Store};
use crate::unapplied::Ledger;

/// The state of one source.
#[derive(Debug)]
pub(crate) struct Engine {
    federation: Federation,
    store: Store,
    graph: Graph,
    /// Our node id, for errors.
    node: Arc<str>,
    /// Where fields without effect are listed.
    unapplied: Ledger,
    /// What an earlier run used, and who writes down what this one uses.
    last_good: LastGood,
    /// A control plane has answered since the start.
    heard: bool,
    clients: BTreeMap<Arc<str>, Target<ClientSnapshot, ClientAssembly>>,
    servers: BTreeMap<std::net::SocketAddr, Target<ServerSnapshot, ()>>,
    /// Version of the last snapshot.
    version: u64,
    /// What changed since the targets were last assembled, by the listener that they start from.
    dirty: BTreeMap<Name, Dirty>,
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
    pub(crate) fn new(
        authorities: Authorities,
        node: Arc<str>,
        unapplied: Ledger,
        last_good: LastGood,
    ) -> Self {
        Self {
            federation: Federation::new(authorities),
            store: Store::default(),
            graph: Graph::default(),
            node,
            unapplied,
            last_good,
            heard: false,
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

    /// Whether nothing is wanted of a control plane.
    pub(crate) fn is_idle(&self, server: ServerIx) -> bool {
        self.federation.is_idle(server)
    }

    /// Whether a control plane is used at all: one that is not is closed at once (gRFC A71).
    pub(crate) fn is_in_use(&self, server: ServerIx) -> bool {
        self.federation.is_in_use(server)
    }

    /// How many resources of a kind are watched.
    pub(crate) fn watched(&self, kind: Kind) -> usize {
        self.federation.watched(kind)
    }

    pub(crate) fn is_watched(&self, kind: Kind, name: &str) -> bool {
        self.federation.is_watched(kind, name)
    }

    pub(crate) fn handle_connected(&mut self, server: ServerIx, now: Instant) {
        let Self { federation, store, .. } = self;
        federation.handle_connected(server, now, |kind, name| store.is_cached(kind, name));
    }

    /// The connection failed or the stream ended; `why` names the control plane and the error.
    pub(crate) fn handle_disconnected(&mut self, server: ServerIx, now: Instant, why: &Outage) {
        self.federation.handle_disconnected(server, now, why);
    }

    /// A control plane is not connected to, and will not be before something is wanted of it.
    pub(crate) fn handle_idle(&mut self, server: ServerIx) {
        self.federation.handle_idle(server);
    }

    pub(crate) fn handle_response(&mut self, server: ServerIx, now: Instant, response: Response<Accepted>) {
        self.heard = true;
        self.federation.handle_response(server, now, response);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.federation.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.federation.poll_timeout(now)
    }

    pub(crate) fn wants_transmit(&self, server: ServerIx, now: Instant) -> bool {
        self.federation.wants_transmit(server, now)
    }

    pub(crate) fn poll_transmit(&mut self, server: ServerIx, now: Instant) -> Option<Request> {
        self.federation.poll_transmit(server, now)
    }

    /// Applies what is new, and publishes what comes of it.
    pub(crate) fn settle(&mut self) {
        self.apply_updates();
        self.unapplied.tell();
        self.sweep();
        self.fall_back();
        self.publish();
    }

    fn apply_updates(&mut self) {
        while let Some((server, update)) = self.federation.poll_update() {
            let on_data_error = self.federation.on_data_error(server);
            match update {
                Update::Changed { kind, name, version, value } => {
                    self.last_good.put(kind, &name, &value);
                    let Accepted { resource, unapplied, bytes: _ } = value;
                    if self.store.is_deleted(kind, &name) {
                        tracing::info!(%kind, name = &*name, "resource that was deleted is there again");
                    }
                    let changed = self.change(&(kind, name.clone()), |store| store.put(&name, resource));
                    tracing::debug!(%kind, name = &*name, version = &*version, changed, "resource received");
                    self.unapplied.note(kind, &name, &unapplied);
                }
                Update::Refused { kind, name, version, reason } => {
                    tracing::warn!(%kind, name = &*name, version = &*version, reason = &*reason, "resource refused");
                    if on_data_error == OnDataError::Drop {
                        self.federation.forget_value(server, kind, &name);
                    }
                    self.fail(kind, name, ConfigProblem::Invalid(reason), on_data_error);
                }
                Update::Failed { kind, error: ResourceError { name, is_data_error, reason } } => {
                    tracing::warn!(%kind, name = &*name, reason = &*reason, "error instead of a resource");
                    let rule = if is_data_error { on_data_error } else { OnDataError::Keep };
                    if rule == OnDataError::Drop {
                        self.federation.forget_value(server, kind, &name);
                    }
                    self.fail(kind, name, ConfigProblem::ReceivedError(reason), rule);
                }
                Update::Deleted { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource deleted by the control plane");
                    self.fail(kind, name, ConfigProblem::DoesNotExist, on_data_error);
                }
                Update::Absent { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource did not come in time");
                    // A control plane that has said nothing at all is as good as none.
                    if self.heard || !self.restore(kind, &name) {
                        // What another one sent stays: a timer says nothing about that (gRFC A88).
                        self.fail(kind, name, self.federation.absent(server), OnDataError::Keep);
                    }
                }
                // The federation keeps this to itself, until there is nobody else to ask.
                Update::Unreachable => {}
            }
        }
    }

    fn fail(&mut self, kind: Kind, name: Name, problem: ConfigProblem, on_data_error: OnDataError) {
        let key = (kind, name);
        self.change(&key, |store| store.fail(kind, &key.1, problem, on_data_error));
    }

    /// Changes one resource, follows what it names now, and remembers the targets that it concerns.
    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Store) -> bool) -> bool {
        let before = self.store.references(key);
        let changed = change(&mut self.store);
        if changed {
            let after = self.store.references(key);
            let added = self.graph.relink(key, &before, &after);
            self.want(added);
            for (root, cluster) in self.graph.concerned(key) {
                self.dirty.entry(root).or_default().add(cluster);
            }
        }
        changed
    }

    /// Subscribes to what is reached.
    fn want(&mut self, added: Vec<Key>) {
        for (kind, name) in added {
            self.store.want(kind, &name);
            if let Err(why) = self.federation.watch(kind, &name) {
                self.store.fail(kind, &name, ConfigProblem::Invalid(why), OnDataError::Keep);
            }
        }
    }

    /// Forgets what is no longer reached.
    fn sweep(&mut self) {
        for (kind, name) in self.graph.sweep(&self.store) {
            self.federation.unwatch(kind, &name);
            self.store.forget(kind, &name);
            self.unapplied.forget(kind, &name);
            self.last_good.forget(kind, &name);
        }
    }

    /// Goes to other control planes where that is due (gRFC A71); what nobody can be asked for any more is told so.
    fn fall_back(&mut self) {
        let Self { federation, store, .. } = self;
        let down = federation
            .poll_down(|kind, name| store.is_cached(kind, name), |kind, name| store.is_known(kind, name));
        // What is restored names more to be restored.
        while self.restore_all(&down) {}
        let Self { federation, store, .. } = self;
        let mut changed = false;
        for (authority, why) in down {
            changed |= store.handle_down(&why, |kind, name| federation.is_of(authority, kind, name));
        }
        if changed {
            let all = self.graph.roots().map(|root| (root.clone(), Dirty::Everything));
            self.dirty = all.collect();
        }
    }

    /// Restores what the last run had of these authorities, and what is not cached. True where there was any.
    fn restore_all(&mut self, down: &[(AuthorityIx, Outage)]) -> bool {
        let mut restored = false;
        if self.last_good.is_on() {
            for (authority, _) in down {
                for (kind, name) in self.federation.names(*authority) {
                    restored |= !self.store.is_cached(kind, &name) && self.restore(kind, &name);
                }
            }
        }
        restored
    }

    fn restore(&mut self, kind: Kind, name: &Name) -> bool {
        let Some(Accepted { resource, unapplied, bytes: _ }) = self.last_good.restore(kind, name) else {
            return false;
        };
        self.unapplied.note(kind, name, &unapplied);
        self.change(&(kind, name.clone()), |store| store.put(name, resource))
    }

    fn publish(&mut self) {
        let Self { federation, store, node, version, clients, servers, dirty, .. } = self;
        let dirty = std::mem::take(dirty);
        let rule = |error: &ConfigError| federation.on_data_error_of(error.kind, &error.name);
        for target in clients.values_mut() {
            let Some(dirty) = target.dirty(&dirty) else { continue };
            let assembler = Assembler { store, node, version: *version + 1 };
            target.publish(version, rule, |assembly, name, ready| {
                assembly.update(assembler, name, dirty, ready)
            });
        }
        for target in servers.values_mut() {
            // A server has no clusters to send anything to.
            if target.dirty(&dirty).is_none_or(|dirty| !dirty.is_everything()) {
                continue;
            }
            let assembler = Assembler { store, node, version: *version + 1 };
            target.publish(version, rule, |(), name, ready| assembler.server(name, ready));
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
        rule: impl Fn(&ConfigError) -> OnDataError,
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
            Assembled::Failed(error) if has_one && rule(&error) == OnDataError::Keep => {
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
        let assembler = Assembler { store: &self.store, node: &self.node, version: self.version + 1 };
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
