//! From the store to one complete snapshot per target.
//!
//! Reference: gRFC A74. A snapshot is complete when each resource that the target reaches is there *or has failed*; a
//! cluster that failed is an error of that cluster alone, and a missing assignment leaves the cluster usable without
//! endpoints. A listener or its routes that failed are an error of the whole target (of one chain, on a server: A36). So
//! is a listener for another address than that of the server's socket (A36: not serving).
//!
//! Deviation, "discovery fails static": once a target has a snapshot, a control plane that cannot be reached is
//! something to wait for, not an error that could replace a part of what serves.

mod client;

use std::sync::Arc;

use mesh_core::config::cluster::Discovery;
use mesh_core::config::endpoints::{Address, EndpointsConfig};
use mesh_core::config::listener::ListenerConfig;
use mesh_core::snapshot::{
    ChainRoutes, ClientSnapshot, ClusterEntry, ConfigError, ConfigProblem, ResolvedCluster, ServerSnapshot,
};

pub(crate) use self::client::{ClientAssembly, Dirty};

use self::client::Hold;
use crate::ads::{Kind, Name};
use crate::store::{ListenerRoutes, Store, StoredListener};

/// What the store makes of one target.
#[derive(Debug)]
pub(crate) enum Assembled<S> {
    /// Something has not come yet; the error says what.
    Waiting(ConfigError),
    /// Nothing that could be served.
    Failed(ConfigError),
    /// Equal to the snapshot that is published.
    Same,
    /// A new snapshot.
    New(S),
}

/// Assembles the targets of one source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assembler<'a> {
    pub(crate) store: &'a Store,
    /// Our node id, for errors.
    pub(crate) node: &'a Arc<str>,
    /// The version of a snapshot that turns out to be new.
    pub(crate) version: u64,
}

/// Why a target has no new snapshot now.
enum Stop {
    Waiting(ConfigError),
    Failed(ConfigError),
}

// === impl Assembler ===

impl Assembler<'_> {
    /// The snapshot of a client target, from nothing but what is published.
    pub(crate) fn client(
        self,
        listener: &Name,
        published: Option<&ClientSnapshot>,
    ) -> Assembled<ClientSnapshot> {
        ClientAssembly::after(published).update(self, listener, &Dirty::Everything, published)
    }

    /// The snapshot of a server target, whose socket has this address.
    pub(crate) fn server(
        self,
        listener: &Name,
        address: &Address,
        published: Option<&ServerSnapshot>,
    ) -> Assembled<ServerSnapshot> {
        self.try_server(listener, address, published).unwrap_or_else(Stop::into)
    }

    fn try_server(
        self,
        name: &Name,
        address: &Address,
        published: Option<&ServerSnapshot>,
    ) -> Result<Assembled<ServerSnapshot>, Stop> {
        let has_one = published.is_some();
        let listener = self.listener(name, has_one)?;
        let unfit = match &*listener.config {
            ListenerConfig::Client(_) => {
                Some("it is an api_listener, which serves clients and not servers".to_owned())
            }
            ListenerConfig::Server(server) => (!is_for(&server.address, address)).then(|| {
                format!(
                    "its address is {}, and the socket is bound to {address}: \
                     bind the socket to that address, or give the listener this one",
                    server.address
                )
            }),
        };
        if let Some(why) = unfit {
            return Err(Stop::Failed(self.error(Kind::Listener, name, ConfigProblem::Invalid(why.into()))));
        }
        let chain = |routes| match self.routes(routes) {
            Ok(table) => Ok(Ok(table)),
            Err(error) => match stop(error, has_one) {
                Stop::Failed(error) => Ok(Err(error)),
                waiting @ Stop::Waiting(_) => Err(waiting),
            },
        };
        let routes = listener.routes.iter().map(chain).collect::<Result<Vec<ChainRoutes>, Stop>>()?;
        let snapshot = ServerSnapshot { version: self.version, listener: listener.config.clone(), routes };
        let is_same = published.is_some_and(|before| same_server(before, &snapshot));
        Ok(if is_same { Assembled::Same } else { Assembled::New(snapshot) })
    }

    fn listener(&self, name: &Name, has_one: bool) -> Result<&StoredListener, Stop> {
        let listener = self.store.listener(name);
        listener.map(|l| &**l).map_err(|problem| stop(self.error(Kind::Listener, name, problem), has_one))
    }

    fn routes(self, routes: &ListenerRoutes) -> ChainRoutes {
        match routes {
            ListenerRoutes::Inline(table) => Ok(table.clone()),
            ListenerRoutes::Named(name) => {
                self.store.route(name).cloned().map_err(|problem| self.error(Kind::Route, name, problem))
            }
        }
    }

    /// A cluster as it is now, and what it waits for, which the error within names.
    fn cluster(self, name: &Name) -> (ClusterEntry, Hold) {
        let config = match self.store.cluster(name) {
            Ok(config) => config.clone(),
            Err(problem) => {
                let hold = Hold::of(&problem);
                let error = self.error(Kind::Cluster, name, problem);
                return (ClusterEntry { name: name.clone(), cluster: Err(error.into()) }, hold);
            }
        };
        let ((endpoints, note), hold) = match &config.discovery {
            Discovery::Static(endpoints) => (self.with_note(endpoints), Hold::Nothing),
            Discovery::Eds { service } => match self.store.endpoints(service) {
                Ok(endpoints) => (self.with_note(endpoints), Hold::Nothing),
                Err(problem) => {
                    let hold = Hold::of(&problem);
                    let error = self.error(Kind::Endpoints, service, problem);
                    ((Arc::new(EndpointsConfig::empty(service.clone())), Some(error.into())), hold)
                }
            },
        };
        let cluster = Ok(ResolvedCluster { config, endpoints, note });
        (ClusterEntry { name: name.clone(), cluster }, hold)
    }

    fn with_note(self, endpoints: &Arc<EndpointsConfig>) -> Assignment {
        let is_empty = endpoints.iter().next().is_none();
        let note =
            is_empty.then(|| Box::new(self.error(Kind::Endpoints, &endpoints.name, ConfigProblem::Empty)));
        (endpoints.clone(), note)
    }

    fn error(self, kind: Kind, name: &Name, problem: ConfigProblem) -> ConfigError {
        ConfigError { kind: kind.noun(), name: name.clone(), problem, node: self.node.clone() }
    }
}

type Assignment = (Arc<EndpointsConfig>, Option<Box<ConfigError>>);

impl<S> From<Stop> for Assembled<S> {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Waiting(error) => Self::Waiting(error),
            Stop::Failed(error) => Self::Failed(error),
        }
    }
}

/// Whether a listener of this address is that of a socket (gRFC A36): it has the same, or that of every interface.
fn is_for(listener: &Address, socket: &Address) -> bool {
    match (listener, socket) {
        (Address::Socket(listener), Address::Socket(socket)) => {
            let (ip, bound) = (listener.ip().to_canonical(), socket.ip().to_canonical());
            listener.port() == socket.port() && (ip == bound || ip.is_unspecified())
        }
        (Address::Unix(_), Address::Unix(_)) => listener == socket,
        (Address::Socket(_), Address::Unix(_)) | (Address::Unix(_), Address::Socket(_)) => false,
    }
}

/// Whether an error is waited out or final, for a target that has (or has not) something to serve meanwhile.
fn stop(error: ConfigError, has_one: bool) -> Stop {
    match error.problem {
        ConfigProblem::Pending => Stop::Waiting(error),
        ConfigProblem::Unreachable(_) | ConfigProblem::Unresolved(_) if has_one => Stop::Waiting(error),
        ConfigProblem::Unreachable(_)
        | ConfigProblem::Unresolved(_)
        | ConfigProblem::DoesNotExist
        | ConfigProblem::Invalid(_)
        | ConfigProblem::ReceivedError(_)
        | ConfigProblem::Empty => Stop::Failed(error),
    }
}

fn same_server(before: &ServerSnapshot, after: &ServerSnapshot) -> bool {
    let ServerSnapshot { version: _, listener, routes } = after;
    Arc::ptr_eq(&before.listener, listener)
        && before.routes.len() == routes.len()
        && before.routes.iter().zip(routes).all(|(before, after)| match (before, after) {
            (Ok(before), Ok(after)) => Arc::ptr_eq(before, after),
            (Err(before), Err(after)) => before == after,
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        })
}
