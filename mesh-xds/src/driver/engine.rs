//! Everything between the protocol and the cells, without IO: protocol machine, store, graph, assembly, publication.
//!
//! One turn: events go in (`handle_*`, [`Engine::sync`]), then [`Engine::settle`] applies all that is new, subscribes to
//! what is reached by it, and publishes at most one snapshot per target. The loop never waits for a reader of a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{
    ClientSnapshot, ConfigError, ConfigProblem, Resolution, ServerSnapshot, SnapshotCell,
};
use mesh_core::status::{Origin, ResourceState};

use super::federation::Federation;
use super::judged::{JudgedRoutes, refusal};
use super::reports::Reports;
use super::targets::{Entry, Open};
use super::used::Uses;
use crate::ads::{Kind, Name, Request, ResourceError, Response, Update};
use crate::assemble::{Assembled, Assembler, ClientAssembly, Dirty};
use crate::authority::{Authorities, AuthorityIx, ServerIx};
use crate::graph::{Graph, Key, Role};
use crate::outage::Outage;
use crate::resolve::Root;
use crate::resource::Accepted;
use crate::rows::Rows;
use crate::store::{OnDataError, Store};

/// The state of one source.
#[derive(Debug)]
pub(crate) struct Engine {
    federation: Federation,
    store: Store,
    graph: Graph,
    /// Our node id, for errors.
    node: Arc<str>,
    /// What is said of the configuration beside serving it.
    reports: Reports,
    /// Routes of which their listeners have something to judge.
    routes: JudgedRoutes,
    /// A control plane has answered since the start.
    heard: bool,
    clients: BTreeMap<Arc<str>, Target<ClientSnapshot, ClientAssembly>>,
    servers: BTreeMap<Address, Target<ServerSnapshot, ()>>,
    /// Version of the last snapshot.
    version: u64,
    /// What changed since the targets were last assembled, by the listener that they start from.
    dirty: BTreeMap<Name, Dirty>,
    /// Endpoints that came for clusters that are deleted and kept, and were not taken.
    unheard: BTreeSet<Name>,
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
    /// What is published goes on until its successor is complete, and with it all that it uses.
    is_behind: bool,
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
    pub(crate) fn new(authorities: Authorities, node: Arc<str>, reports: Reports) -> Self {
        Self {
            federation: Federation::new(authorities),
            store: Store::default(),
            graph: Graph::default(),
            node,
            reports,
            routes: JudgedRoutes::default(),
            heard: false,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            version: 0,
            dirty: BTreeMap::new(),
            unheard: BTreeSet::new(),
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
        let added = self.graph.set_roots(&self.store, roots);
        self.reports.rows.retain_targets(|target| {
            let is_server = || self.servers.keys().any(|address| address.to_string() == target);
            self.clients.contains_key(target) || is_server()
        });
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
        self.reports.rows.forget_nameless(server, response.kind);
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
        self.judge();
        self.reports.rows.tell();
        self.sweep();
        self.fall_back();
        self.publish();
        // What has a successor now uses nothing any more.
        self.sweep();
    }

    fn apply_updates(&mut self) {
        while let Some((server, update)) = self.federation.poll_update() {
            match update {
                Update::Changed { kind: Kind::Endpoints, name, .. } if self.is_deaf(&name) => {
                    tracing::info!(name = &*name, "endpoints of clusters that are deleted are not taken");
                    self.federation.forget_value(server, Kind::Endpoints, &name);
                    self.unheard.insert(name);
                }
                Update::Changed { kind, name, version, value } => {
                    match refusal(&self.graph, &name, &value.deferred)
                        .map(|invalid| invalid.to_string().into())
                    {
                        Some(reason) => {
                            // It was told to be accepted: whether it is could not be seen from itself.
                            self.federation.forget_value(server, kind, &name);
                            self.refuse(server, kind, &name, &version, &reason);
                        }
                        None => self.accept(kind, &name, &version, value),
                    }
                }
                Update::Refused { kind, name, version, reason } => {
                    self.refuse(server, kind, &name, &version, &reason);
                }
                Update::Nameless { kind, version, reason } => {
                    tracing::warn!(%kind, version = &*version, reason = &*reason, "resource without a name refused");
                    let is_whole = self.store.is_whole(kind);
                    self.reports.rows.refuse_nameless(server, kind, &version, &reason, is_whole);
                }
                Update::Failed { kind, error: ResourceError { name, is_data_error, reason } } => {
                    tracing::warn!(%kind, name = &*name, reason = &*reason, "error instead of a resource");
                    let rule =
                        if is_data_error { self.federation.on_data_error(server) } else { OnDataError::Keep };
                    if rule == OnDataError::Drop {
                        self.federation.forget_value(server, kind, &name);
                    }
                    let told = format!("the control plane has an error instead: {reason}");
                    self.fail(kind, &name, ConfigProblem::ReceivedError(reason), rule);
                    self.list_refused((kind, &name), ResourceState::ReceivedError, &Arc::from(""), &told);
                }
                Update::Deleted { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource deleted by the control plane");
                    let rule = self.federation.on_data_error(server);
                    self.fail(kind, &name, ConfigProblem::DoesNotExist, rule);
                }
                Update::Absent { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource did not come in time");
                    // A control plane that has said nothing at all is as good as none.
                    if self.heard || !self.restore(kind, &name) {
                        // What another one sent stays: a timer says nothing about that (gRFC A88).
                        self.fail(kind, &name, self.federation.absent(server), OnDataError::Keep);
                    }
                }
                // The federation keeps this to itself, until there is nobody else to ask.
                Update::Unreachable => {}
            }
        }
    }

    fn accept(&mut self, kind: Kind, name: &Name, version: &Arc<str>, value: Accepted) {
        self.reports.last_good.put(kind, name, &value);
        if self.store.is_deleted(kind, name) {
            tracing::info!(%kind, name = &**name, "resource that was deleted is there again");
        }
        let changed = self.put(kind, name, version, value, Origin::ControlPlane);
        tracing::debug!(%kind, name = &**name, version = &**version, changed, "resource received");
    }

    fn put(&mut self, kind: Kind, name: &Name, version: &Arc<str>, value: Accepted, origin: Origin) -> bool {
        let Accepted { resource, unapplied, deferred, bytes: _ } = value;
        self.reports.rows.accept(kind, name, version, &unapplied, origin);
        if kind == Kind::Route {
            self.routes.put(name, &deferred);
        }
        self.change(kind, name, |store| store.put(name, resource))
    }

    fn refuse(&mut self, server: ServerIx, kind: Kind, name: &Name, version: &Arc<str>, reason: &Arc<str>) {
        let on_data_error = self.federation.on_data_error(server);
        if on_data_error == OnDataError::Drop {
            self.federation.forget_value(server, kind, name);
        }
        self.fail(kind, name, ConfigProblem::Invalid(reason.clone()), on_data_error);
        if self.list_refused((kind, name), ResourceState::Refused, version, reason) {
            tracing::warn!(%kind, name = &**name, version = &**version, reason = &**reason, "resource refused");
        }
    }

    fn list_refused(
        &self,
        (kind, name): (Kind, &Name),
        state: ResourceState,
        version: &Arc<str>,
        reason: &str,
    ) -> bool {
        let is_serving = self.store.is_cached(kind, name);
        self.reports.rows.refuse((kind, name), state, version, reason, is_serving)
    }

    /// Judges the routes whose listeners have changed. What was taken for a client, and a server comes to share, is gone
    /// for both: which of its values a server could use is not known.
    fn judge(&mut self) {
        let Self { routes, store, graph, reports, .. } = self;
        for (name, invalid) in routes.judge(store, graph, &reports.rows) {
            let reason: Arc<str> = invalid.to_string().into();
            tracing::warn!(kind = %Kind::Route, name = &*name, reason = &*reason, "a server refuses the resource");
            self.fail(Kind::Route, &name, ConfigProblem::Invalid(reason.clone()), OnDataError::Drop);
            self.list_refused((Kind::Route, &name), ResourceState::Refused, &Arc::from(""), &reason);
        }
    }

    fn fail(&mut self, kind: Kind, name: &Name, problem: ConfigProblem, on_data_error: OnDataError) {
        let is_missing = problem == ConfigProblem::DoesNotExist;
        self.change(kind, name, |store| store.fail(kind, name, problem, on_data_error));
        if is_missing {
            self.reports.rows.miss(kind, name, self.store.is_cached(kind, name));
        }
    }

    /// Changes one resource, follows what it names now, and remembers the targets that it concerns.
    fn change(&mut self, kind: Kind, name: &Name, change: impl FnOnce(&mut Store) -> bool) -> bool {
        let keys = Role::of(kind).iter().map(|role| (*role, name.clone()));
        let before: Vec<(Key, Vec<Key>)> =
            keys.map(|key| (key.clone(), self.store.references(&key))).collect();
        let was_deleted = self.store.is_deleted(kind, name);
        let changed = change(&mut self.store);
        if changed {
            for (key, before) in before {
                self.follow(&key, &before);
                if kind == Kind::Listener {
                    self.routes.judge_again(&before);
                    self.routes.judge_again(&self.store.references(&key));
                }
            }
        }
        if kind == Kind::Cluster && was_deleted && !self.store.is_deleted(kind, name) {
            self.hear_again(name);
        }
        changed
    }

    fn follow(&mut self, key: &Key, before: &[Key]) {
        let after = self.store.references(key);
        let added = self.graph.relink(&self.store, key, before, &after);
        self.want(added);
        for (root, cluster) in self.graph.concerned(key) {
            self.dirty.entry(root).or_default().add(cluster);
        }
        if self.graph.is_kept(key) {
            // One of them uses it, and they are few.
            for target in self.clients.values().filter(|target| target.is_behind) {
                target.root.iter().for_each(|root| _ = self.dirty.entry(root.clone()).or_default());
            }
        }
    }

    /// Whether nobody names these endpoints but clusters that are deleted and kept. Such a cluster keeps its endpoints: a
    /// control plane may answer with those of another (istiod does for a subset that it does not know).
    fn is_deaf(&self, name: &Name) -> bool {
        let key = (Role::Endpoints, name.clone());
        let mut clusters = self.graph.referrers(&key).peekable();
        clusters.peek().is_some() && clusters.all(|(_, name)| self.store.is_deleted(Kind::Cluster, name))
    }

    /// A cluster is not deleted any more: what came meanwhile is asked for.
    fn hear_again(&mut self, cluster: &Name) {
        for (_, name) in self.store.references(&(Role::Cluster, cluster.clone())) {
            if self.unheard.remove(&name) {
                self.federation.renew(Kind::Endpoints, &name);
            }
        }
    }

    /// Subscribes to what is reached.
    fn want(&mut self, added: Vec<(Kind, Name)>) {
        for (kind, name) in added {
            self.store.want(kind, &name);
            self.reports.rows.want(kind, &name);
            if let Err(why) = self.federation.watch(kind, &name) {
                self.store.fail(kind, &name, ConfigProblem::Invalid(why), OnDataError::Keep);
            }
        }
    }

    /// Forgets what is neither reached any more nor used by what is published.
    fn sweep(&mut self) {
        let Self { graph, store, clients, servers, dirty, .. } = self;
        let used = || [used(clients, dirty), used(servers, dirty)].concat();
        for (kind, name) in graph.sweep(store, used) {
            self.federation.unwatch(kind, &name);
            self.store.forget(kind, &name);
            self.reports.forget(kind, &name);
            match kind {
                Kind::Route => self.routes.forget(&name),
                Kind::Endpoints => _ = self.unheard.remove(&name),
                Kind::Listener | Kind::Cluster => {}
            }
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
        if self.reports.last_good.is_on() {
            for (authority, _) in down {
                for (kind, name) in self.federation.names(*authority) {
                    restored |= !self.store.is_cached(kind, &name) && self.restore(kind, &name);
                }
            }
        }
        restored
    }

    fn restore(&mut self, kind: Kind, name: &Name) -> bool {
        let Some(value) = self.reports.last_good.restore(kind, name) else { return false };
        self.put(kind, name, &Arc::from(""), value, Origin::LastRun)
    }

    fn publish(&mut self) {
        let Self { federation, store, graph, node, version, clients, servers, dirty, reports, .. } = self;
        let dirty = std::mem::take(dirty);
        let rule = |error: &ConfigError| federation.on_data_error_of(error.kind, &error.name);
        for (key, target) in clients.iter_mut() {
            let Some(dirty) = target.dirty(&dirty) else { continue };
            let assembler = Assembler { store, node, version: *version + 1 };
            let assemble = |assembly: &mut ClientAssembly, name: &Name, ready: Option<&ClientSnapshot>| {
                assembly.update(assembler, name, dirty, ready)
            };
            target.publish(version, rule, assemble, |serving| assembler.meanwhile(serving));
            target.report(key, &reports.rows);
        }
        for (key, target) in servers.iter_mut() {
            // A server has no clusters to send anything to.
            if target.dirty(&dirty).is_none_or(|dirty| !dirty.is_everything()) {
                continue;
            }
            let assembler = Assembler { store, node, version: *version + 1 };
            let assemble =
                |(): &mut (), name: &Name, ready: Option<&ServerSnapshot>| assembler.server(name, key, ready);
            target.publish(version, rule, assemble, |_| None);
            target.report(&key.to_string(), &reports.rows);
        }
        if !dirty.is_empty() {
            graph.release();
        }
    }
}

/// What is used by what is published to targets that have a successor for it or wait for one.
fn used<K, S: Uses, A>(targets: &BTreeMap<K, Target<S, A>>, dirty: &BTreeMap<Name, Dirty>) -> Vec<Key> {
    let is_dirty = |target: &Target<S, A>| target.root.as_ref().is_ok_and(|root| dirty.contains_key(root));
    let targets = targets.values().filter(|target| target.is_behind || is_dirty(target));
    targets.filter_map(|target| target.ready.as_deref()).flat_map(S::uses).collect()
}

// === impl Target ===

impl<S, A: Default> Target<S, A> {
    fn new(Entry { root, cell, .. }: Entry<S>) -> Self {
        Self { root, cell, assembly: A::default(), is_new: true, ready: None, error: None, is_behind: false }
    }

    /// What concerns it of all that changed.
    fn dirty<'d>(&mut self, dirty: &'d BTreeMap<Name, Dirty>) -> Option<&'d Dirty> {
        if std::mem::take(&mut self.is_new) {
            return Some(&Dirty::Everything);
        }
        dirty.get(self.root.as_ref().ok()?)
    }

    /// Publishes what comes of `assemble`; what serves while that is not complete is kept up to date by `meanwhile`.
    fn publish(
        &mut self,
        version: &mut u64,
        rule: impl Fn(&ConfigError) -> OnDataError,
        assemble: impl FnOnce(&mut A, &Name, Option<&S>) -> Assembled<S>,
        meanwhile: impl FnOnce(&S) -> Option<S>,
    ) {
        // A target without a root was told so when it was opened.
        let Ok(root) = self.root.clone() else { return };
        let has_one = self.ready.is_some();
        self.is_behind = false;
        match assemble(&mut self.assembly, &root, self.ready.as_deref()) {
            Assembled::Same => {}
            Assembled::New(snapshot) => {
                self.error = None;
                self.serve(version, snapshot);
            }
            // What serves goes on serving until there is something complete to replace it.
            Assembled::Waiting(error) if has_one => {
                tracing::debug!(%error, "the next configuration is not complete yet");
                self.error = Some(error);
                self.go_on(version, meanwhile);
            }
            Assembled::Failed(error) if has_one && rule(&error) == OnDataError::Keep => {
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the last good configuration stays in use");
                    self.error = Some(error);
                }
                self.go_on(version, meanwhile);
            }
            Assembled::Waiting(error) => self.tell(error, Resolution::Pending),
            Assembled::Failed(error) => {
                self.ready = None;
                self.tell(error, Resolution::Failed);
            }
        }
    }

    /// Says what keeps it from its next configuration, while it has one.
    fn report(&self, key: &str, rows: &Rows) {
        rows.set_target(key, self.error.as_ref().filter(|_| self.is_behind));
    }

    fn go_on(&mut self, version: &mut u64, meanwhile: impl FnOnce(&S) -> Option<S>) {
        self.is_behind = true;
        if let Some(snapshot) = self.ready.as_deref().and_then(meanwhile) {
            self.serve(version, snapshot);
        }
    }

    fn serve(&mut self, version: &mut u64, snapshot: S) {
        *version += 1;
        let root = self.root.as_deref().unwrap_or_default();
        tracing::debug!(listener = root, version = *version, "configuration published");
        let snapshot = Arc::new(snapshot);
        self.ready = Some(snapshot.clone());
        self.cell.publish(Resolution::Ready(snapshot));
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
    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// What a rebuild of every client target from nothing would find that step by step was missed.
    pub(super) fn missed(&self) -> Vec<String> {
        let assembler = Assembler { store: &self.store, node: &self.node, version: self.version + 1 };
        let missed = self.clients.values().filter_map(|target| {
            let found = assembler.client(target.root.as_ref().ok()?, target.ready.as_deref());
            match &found {
                Assembled::Same => None,
                // While a target that serves waits, what serves is kept up to date.
                Assembled::Waiting(_) if target.ready.is_some() => {
                    let missed = assembler.meanwhile(target.ready.as_deref()?);
                    missed.map(|missed| format!("{missed:?}"))
                }
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
