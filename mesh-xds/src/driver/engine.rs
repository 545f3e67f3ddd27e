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
use crate::assemble::{Assembled, Assembler};
use crate::graph::{Graph, Swept};
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
    clients: BTreeMap<Arc<str>, Target<ClientSnapshot>>,
    servers: BTreeMap<std::net::SocketAddr, Target<ServerSnapshot>>,
    /// Version of the last snapshot.
    version: u64,
    stale: Stale,
}

/// What changed since the targets were last assembled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Stale {
    #[default]
    Nothing,
    /// Endpoints: nothing else is reached than before.
    Endpoints,
    Everything,
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
struct Target<S> {
    root: Root,
    cell: Arc<SnapshotCell<S>>,
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
            stale: Stale::Nothing,
        }
    }

    /// Takes over which targets are open.
    pub(crate) fn sync(&mut self, open: Open) {
        let Open { clients, servers } = open;
        sync(&mut self.clients, clients);
        sync(&mut self.servers, servers);
        self.stale = Stale::Everything;
    }

    /// Whether nothing is wanted of the control plane.
    pub(crate) fn is_idle(&self) -> bool {
        self.ads.is_idle()
    }

    /// How many resources of a kind are watched.
    pub(crate) fn watched(&self, kind: Kind) -> usize {
        self.ads.watched(kind)
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
        match std::mem::take(&mut self.stale) {
            Stale::Nothing => {}
            Stale::Endpoints => self.publish(Stale::Endpoints),
            Stale::Everything => {
                self.sweep();
                self.publish(Stale::Everything);
            }
        }
    }

    fn apply_updates(&mut self, down: Option<&Arc<str>>) {
        while let Some(update) = self.ads.poll_update() {
            let (kind, changed) = match update {
                Update::Changed { kind, name, version, value } => {
                    let Accepted { resource, unapplied } = value;
                    let changed = self.store.put(&name, resource);
                    tracing::debug!(%kind, name = &*name, version = &*version, changed, "resource received");
                    self.settings.unapplied.note(kind, &name, &unapplied);
                    (Some(kind), changed)
                }
                Update::Refused { kind, name, version, reason } => {
                    tracing::warn!(%kind, name = &*name, version = &*version, reason = &*reason, "resource refused");
                    if self.settings.on_data_error == OnDataError::Drop {
                        self.ads.forget_value(kind, &name);
                    }
                    (Some(kind), self.store.fail(kind, &name, ConfigProblem::Invalid(reason)))
                }
                Update::Deleted { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource deleted by the control plane");
                    (Some(kind), self.store.fail(kind, &name, ConfigProblem::DoesNotExist))
                }
                Update::Absent { kind, name } => {
                    tracing::warn!(%kind, name = &*name, "resource did not come in time");
                    (Some(kind), self.store.fail(kind, &name, self.settings.absent()))
                }
                Update::Unreachable => (None, down.is_some_and(|why| self.store.handle_down(why))),
            };
            if changed {
                let of_this =
                    if kind == Some(Kind::Endpoints) { Stale::Endpoints } else { Stale::Everything };
                self.stale = self.stale.max(of_this);
            }
        }
    }

    /// Subscribes to what is reached, forgets what is not.
    fn sweep(&mut self) {
        let clients = self.clients.values().map(|target| &target.root);
        let servers = self.servers.values().map(|target| &target.root);
        let roots = clients.chain(servers).filter_map(|root| root.as_ref().ok());
        let roots = roots.map(|name| (Kind::Listener, name.clone()));
        let Swept { added, removed } = self.graph.sweep(roots, &self.store);
        for (kind, name) in removed {
            self.ads.unwatch(kind, &name);
            self.store.forget(kind, &name);
            self.settings.unapplied.forget(kind, &name);
        }
        for (kind, name) in added {
            self.store.want(kind, &name);
            self.ads.watch(kind, &name);
        }
    }

    fn publish(&mut self, stale: Stale) {
        let Self { store, settings, version, clients, servers, .. } = self;
        let is_waiting = |error: Option<&ConfigError>| {
            // Nothing else is reached than before, so what was waited for then still holds everything up.
            stale == Stale::Endpoints
                && error.is_some_and(|e| e.problem == ConfigProblem::Pending && store.is_pending(e))
        };
        let on_data_error = settings.on_data_error;
        for target in clients.values_mut().filter(|target| !is_waiting(target.error.as_ref())) {
            let assembler = Assembler { store, node: &settings.node, version: *version + 1 };
            target.publish(version, on_data_error, |name, ready| assembler.client(name, ready));
        }
        for target in servers.values_mut().filter(|target| !is_waiting(target.error.as_ref())) {
            let assembler = Assembler { store, node: &settings.node, version: *version + 1 };
            target.publish(version, on_data_error, |name, ready| assembler.server(name, ready));
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

impl<S> Target<S> {
    fn new(Entry { root, cell, .. }: Entry<S>) -> Self {
        Self { root, cell, ready: None, error: None }
    }

    fn publish(
        &mut self,
        version: &mut u64,
        on_data_error: OnDataError,
        assemble: impl FnOnce(&Name, Option<&S>) -> Assembled<S>,
    ) {
        // A target without a root was told so when it was opened.
        let Ok(root) = &self.root else { return };
        let has_one = self.ready.is_some();
        match assemble(root, self.ready.as_deref()) {
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

fn sync<K: Ord, S>(targets: &mut BTreeMap<K, Target<S>>, open: BTreeMap<K, Entry<S>>) {
    targets.retain(|key, target| {
        // A target that was closed and opened again in between has another cell.
        open.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.cell, &target.cell))
    });
    for (key, entry) in open {
        targets.entry(key).or_insert_with(|| Target::new(entry));
    }
}
