//! What a static source holds: the store, and the targets that are open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{
    ClientSnapshot, ConfigError, ConfigProblem, Resolution, ServerSnapshot, SnapshotCell,
};
use mesh_core::status::{Origin, Refusal, ResourceState, ResourceStatus};

use super::load::{InvalidFile, Loaded};
use crate::ads::{Kind, Name};
use crate::assemble::{Assembled, Assembler};
use crate::resource::Accepted;
use crate::rows::{Rows, cut};
use crate::store::{OnDataError, Store};

/// How many listeners an error names.
const SHOWN: usize = 4;

/// Resources and open targets.
pub(super) struct State {
    /// Stands in for the node id in errors: where the configuration comes from.
    origin: Arc<str>,
    store: Store,
    /// Every name that the store has a place for.
    known: BTreeSet<(Kind, Name)>,
    rows: Rows,
    /// Sections of the file without effect.
    without_effect: Vec<String>,
    addresses: BTreeMap<Address, Name>,
    version: u64,
    clients: BTreeMap<Arc<str>, OpenTarget<ClientSnapshot>>,
    servers: BTreeMap<Address, OpenTarget<ServerSnapshot>>,
    /// When the resources were replaced last.
    accepted_at: Option<SystemTime>,
    /// Why the file as it is now is not in use, and since when.
    error: Option<(InvalidFile, SystemTime)>,
}

/// An open target.
pub(super) struct OpenTarget<S> {
    cell: Arc<SnapshotCell<S>>,
    users: usize,
}

/// What a target is opened by.
pub(super) trait Key: Ord + Clone + Send + Sync + 'static {
    /// What it sees.
    type Snapshot: Send + Sync + 'static;

    /// The table of such targets.
    fn table(state: &mut State) -> &mut BTreeMap<Self, OpenTarget<Self::Snapshot>>;

    /// What it has now.
    fn assemble(&self, state: &State, published: Option<&Self::Snapshot>) -> Assembled<Self::Snapshot>;
}

// === impl State ===

impl State {
    pub(super) fn new(origin: Arc<str>) -> Self {
        Self {
            origin,
            store: Store::default(),
            known: BTreeSet::new(),
            rows: Rows::default(),
            without_effect: Vec::new(),
            addresses: BTreeMap::new(),
            version: 0,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            accepted_at: None,
            error: None,
        }
    }

    /// Replaces every resource, and publishes what changes for the open targets.
    pub(super) fn apply(&mut self, loaded: Loaded) {
        let (mut overrides, unversioned) = (loaded.overrides_without_effect(), Arc::from(""));
        let Loaded { resources, without_effect, addresses, places: _ } = loaded;
        self.addresses = addresses;
        if !without_effect.is_empty() && without_effect != self.without_effect {
            tracing::warn!(file = &*self.origin, sections = ?without_effect, "the sections have no effect here");
        }
        self.without_effect = without_effect;
        let named = resources.values().flat_map(|accepted| accepted.resource.references());
        let known: BTreeSet<_> = named.chain(resources.keys().cloned()).collect();
        // What is not in this file is gone, not kept from the last one.
        for key in self.known.iter().filter(|key| !resources.contains_key(key)) {
            self.store.forget(key.0, &key.1);
            self.rows.forget(key.0, &key.1);
        }
        for (kind, name) in &known {
            self.store.want(*kind, name);
            self.rows.want(*kind, name);
            if !resources.contains_key(&(*kind, name.clone())) {
                self.store.fail(*kind, name, ConfigProblem::DoesNotExist, OnDataError::Keep);
                self.rows.miss(*kind, name, false);
            }
        }
        for ((kind, name), Accepted { resource, unapplied, deferred: _, bytes: _ }) in resources {
            self.store.put(&name, resource);
            self.rows.accept(kind, &name, &unversioned, &unapplied, Origin::File);
            self.rows.note_overrides(&name, overrides.remove(&name).unwrap_or_default());
        }
        self.rows.tell();
        self.known = known;
        self.error = None;
        self.accepted_at = Some(self.rows.now());
        self.publish::<Arc<str>>();
        self.publish::<Address>();
    }

    /// The file as it is now is not used. True where that is news.
    pub(super) fn refuse(&mut self, error: InvalidFile) -> bool {
        let is_news = self.error.as_ref().is_none_or(|(before, _)| *before != error);
        if is_news {
            self.error = Some((error, self.rows.now()));
        }
        is_news
    }

    pub(super) fn last_error(&self) -> Option<InvalidFile> {
        self.error.as_ref().map(|(error, _)| error.clone())
    }

    /// The file as a whole, then each resource of it.
    pub(super) fn status(&self) -> Vec<ResourceStatus> {
        let mut of_file = ResourceStatus::new("file", self.origin.clone());
        of_file.state = ResourceState::Accepted;
        (of_file.accepted_at, of_file.origin) = (self.accepted_at, Origin::File);
        (of_file.unapplied_total, of_file.unapplied) =
            (self.without_effect.len(), self.without_effect.clone());
        if let Some((error, at)) = &self.error {
            let reason = cut(&error.to_string()).into();
            of_file.state = ResourceState::Refused;
            of_file.refused = Some(Refusal { version: Arc::from(""), reason, at: *at, is_serving: true });
        }
        [of_file].into_iter().chain(self.rows.status()).collect()
    }

    /// Opens a target; it has what the configuration has for it at once.
    pub(super) fn open<K: Key>(&mut self, key: &K) -> Arc<SnapshotCell<K::Snapshot>> {
        if let Some(open) = K::table(self).get_mut(key) {
            open.users += 1;
            return open.cell.clone();
        }
        let resolution = match key.assemble(self, None) {
            Assembled::New(snapshot) => {
                self.version += 1;
                Resolution::Ready(Arc::new(snapshot))
            }
            Assembled::Failed(error) | Assembled::Waiting(error) => Resolution::Failed(error),
            // There is nothing yet that it could be equal to.
            Assembled::Same => Resolution::Pending(self.missing(Kind::Listener, "")),
        };
        let cell = SnapshotCell::new(resolution);
        K::table(self).insert(key.clone(), OpenTarget { cell: cell.clone(), users: 1 });
        cell
    }

    /// One holder of a target less.
    pub(super) fn close<K: Key>(&mut self, key: &K) {
        let table = K::table(self);
        if let Some(open) = table.get_mut(key) {
            open.users -= 1;
            if open.users == 0 {
                table.remove(key);
            }
        }
    }

    fn publish<K: Key>(&mut self) {
        let targets: Vec<_> =
            K::table(self).iter().map(|(key, open)| (key.clone(), open.cell.clone())).collect();
        for (key, cell) in targets {
            let latest = cell.load();
            let published = match &*latest {
                Resolution::Ready(snapshot) => Some(&**snapshot),
                Resolution::Pending(_) | Resolution::Failed(_) => None,
            };
            match key.assemble(self, published) {
                Assembled::Same => {}
                Assembled::New(snapshot) => {
                    self.version += 1;
                    cell.publish(Resolution::Ready(Arc::new(snapshot)));
                }
                Assembled::Failed(error) | Assembled::Waiting(error) => {
                    let is_news = !matches!(&*latest, Resolution::Failed(before) if *before == error);
                    if is_news {
                        cell.publish(Resolution::Failed(error));
                    }
                }
            }
        }
    }

    fn assembler(&self) -> Assembler<'_> {
        Assembler { store: &self.store, node: &self.origin, version: self.version + 1 }
    }

    /// Names the listeners that another address, or another configuration, would make serve.
    fn no_listener_for(&self, address: &Address) -> ConfigError {
        let missing = self.missing(Kind::Listener, &address.to_string());
        let is_near = |other: &&Address| match (other, address) {
            (Address::Socket(other), Address::Socket(address)) => other.port() == address.port(),
            (Address::Unix(_), Address::Unix(_)) => true,
            (Address::Socket(_), Address::Unix(_)) | (Address::Unix(_), Address::Socket(_)) => false,
        };
        let mut others: Vec<_> = self.addresses.keys().filter(is_near).collect();
        if others.is_empty() {
            others.extend(self.addresses.keys());
        }
        let shown: Vec<_> = others.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = others.len().checked_sub(SHOWN + 1).map_or("", |_| ", …");
        match shown.as_slice() {
            [] => missing,
            _ => {
                let why = format!(
                    "no listener has the address {address}; there is one for {}{more}: \
                     bind the socket to that address, or give the listener this one",
                    shown.join(", ")
                );
                ConfigError { problem: ConfigProblem::Invalid(why.into()), ..missing }
            }
        }
    }

    fn missing(&self, kind: Kind, name: &str) -> ConfigError {
        let problem = ConfigProblem::DoesNotExist;
        ConfigError { kind: kind.noun(), name: name.into(), problem, node: self.origin.clone() }
    }
}

// === impl Key ===

impl Key for Arc<str> {
    type Snapshot = ClientSnapshot;

    fn table(state: &mut State) -> &mut BTreeMap<Self, OpenTarget<ClientSnapshot>> {
        &mut state.clients
    }

    fn assemble(&self, state: &State, published: Option<&ClientSnapshot>) -> Assembled<ClientSnapshot> {
        let bare = self.strip_prefix("xds:///").or_else(|| self.strip_prefix("xds:")).unwrap_or(self);
        let name: Self = bare.into();
        if !state.known.contains(&(Kind::Listener, name.clone())) {
            return Assembled::Failed(state.missing(Kind::Listener, bare));
        }
        state.assembler().client(&name, published)
    }
}

impl Key for Address {
    type Snapshot = ServerSnapshot;

    fn table(state: &mut State) -> &mut BTreeMap<Self, OpenTarget<ServerSnapshot>> {
        &mut state.servers
    }

    /// The listener of exactly this address, else of the same port on every address.
    fn assemble(&self, state: &State, published: Option<&ServerSnapshot>) -> Assembled<ServerSnapshot> {
        let everywhere = match self {
            Self::Socket(SocketAddr::V4(v4)) => Some((Ipv4Addr::UNSPECIFIED, v4.port()).into()),
            Self::Socket(SocketAddr::V6(v6)) => Some((Ipv6Addr::UNSPECIFIED, v6.port()).into()),
            Self::Unix(_) => None,
        };
        let everywhere = || state.addresses.get(&Self::Socket(everywhere?));
        match state.addresses.get(self).or_else(everywhere) {
            Some(name) => state.assembler().server(name, self, published),
            None => Assembled::Failed(state.no_listener_for(self)),
        }
    }
}

#[cfg(test)]
impl State {
    pub(super) fn open_targets(&self) -> usize {
        self.clients.len() + self.servers.len()
    }
}
