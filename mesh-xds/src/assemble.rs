//! From the store to one complete snapshot per target.
//!
//! Reference: gRFC A74. A snapshot is complete when each resource that the target reaches is there *or has failed*; a
//! cluster that failed is an error of that cluster alone, and a missing assignment leaves the cluster usable without
//! endpoints. A listener or its routes that failed are an error of the whole target (of one chain, on a server: A36).
//!
//! Deviation, "discovery fails static": once a target has a snapshot, a control plane that cannot be reached is
//! something to wait for, not an error that could replace a part of what serves.

use std::sync::Arc;

use mesh_core::config::cluster::Discovery;
use mesh_core::config::endpoints::EndpointsConfig;
use mesh_core::config::listener::ListenerConfig;
use mesh_core::snapshot::{
    ChainRoutes, ClientSnapshot, ClusterEntry, ConfigError, ConfigProblem, ResolvedCluster, ServerSnapshot,
};

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
    /// The snapshot of a client target.
    pub(crate) fn client(
        self,
        listener: &Name,
        published: Option<&ClientSnapshot>,
    ) -> Assembled<ClientSnapshot> {
        self.try_client(listener, published).unwrap_or_else(Stop::into)
    }

    /// The snapshot of a server target.
    pub(crate) fn server(
        self,
        listener: &Name,
        published: Option<&ServerSnapshot>,
    ) -> Assembled<ServerSnapshot> {
        self.try_server(listener, published).unwrap_or_else(Stop::into)
    }

    fn try_client(
        self,
        name: &Name,
        published: Option<&ClientSnapshot>,
    ) -> Result<Assembled<ClientSnapshot>, Stop> {
        let has_one = published.is_some();
        let listener = self.listener(name, has_one)?;
        let routes = match (&*listener.config, listener.routes.as_slice()) {
            (ListenerConfig::Client(_), [routes]) => self.routes(routes).map_err(|e| stop(e, has_one))?,
            (ListenerConfig::Client(_) | ListenerConfig::Server(_), _) => {
                let why = "it has no api_listener, so it serves servers and not clients";
                return Err(Stop::Failed(self.error(
                    Kind::Listener,
                    name,
                    ConfigProblem::Invalid(why.into()),
                )));
            }
        };
        // From the end: resources tend to come in order, and what stops here first then stops here again.
        let clusters = routes.clusters().iter().rev().map(|name| self.cluster(name, has_one));
        let mut clusters = clusters.collect::<Result<Vec<_>, Stop>>()?;
        clusters.reverse();
        let snapshot =
            ClientSnapshot { version: self.version, listener: listener.config.clone(), routes, clusters };
        let is_same = published.is_some_and(|before| same_client(before, &snapshot));
        Ok(if is_same { Assembled::Same } else { Assembled::New(snapshot) })
    }

    fn try_server(
        self,
        name: &Name,
        published: Option<&ServerSnapshot>,
    ) -> Result<Assembled<ServerSnapshot>, Stop> {
        let has_one = published.is_some();
        let listener = self.listener(name, has_one)?;
        if let ListenerConfig::Client(_) = &*listener.config {
            let why = "it is an api_listener, which serves clients and not servers";
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

    fn cluster(self, name: &Name, has_one: bool) -> Result<ClusterEntry, Stop> {
        let failed = |problem| stop(self.error(Kind::Cluster, name, problem), has_one);
        let config = match self.store.cluster(name).cloned().map_err(failed) {
            Ok(config) => config,
            Err(Stop::Failed(error)) => return Ok(ClusterEntry { name: name.clone(), cluster: Err(error) }),
            Err(waiting @ Stop::Waiting(_)) => return Err(waiting),
        };
        let (endpoints, note) = match &config.discovery {
            Discovery::Static(endpoints) => self.with_note(endpoints),
            Discovery::Dns { .. } => (Arc::new(EndpointsConfig::empty(name.clone())), None),
            Discovery::Eds { service } => self.assignment(service, has_one)?,
        };
        Ok(ClusterEntry { name: name.clone(), cluster: Ok(ResolvedCluster { config, endpoints, note }) })
    }

    fn assignment(self, service: &Name, has_one: bool) -> Result<Assignment, Stop> {
        match self.store.endpoints(service) {
            Ok(endpoints) => Ok(self.with_note(endpoints)),
            Err(problem) => match stop(self.error(Kind::Endpoints, service, problem), has_one) {
                Stop::Failed(error) => Ok((Arc::new(EndpointsConfig::empty(service.clone())), Some(error))),
                waiting @ Stop::Waiting(_) => Err(waiting),
            },
        }
    }

    fn with_note(self, endpoints: &Arc<EndpointsConfig>) -> Assignment {
        let is_empty = endpoints.iter().next().is_none();
        let note = is_empty.then(|| self.error(Kind::Endpoints, &endpoints.name, ConfigProblem::Empty));
        (endpoints.clone(), note)
    }

    fn error(self, kind: Kind, name: &Name, problem: ConfigProblem) -> ConfigError {
        ConfigError { kind: kind.noun(), name: name.clone(), problem, node: self.node.clone() }
    }
}

type Assignment = (Arc<EndpointsConfig>, Option<ConfigError>);

impl<S> From<Stop> for Assembled<S> {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Waiting(error) => Self::Waiting(error),
            Stop::Failed(error) => Self::Failed(error),
        }
    }
}

/// Whether an error is waited out or final, for a target that has (or has not) something to serve meanwhile.
fn stop(error: ConfigError, has_one: bool) -> Stop {
    match error.problem {
        ConfigProblem::Pending => Stop::Waiting(error),
        ConfigProblem::Unreachable(_) if has_one => Stop::Waiting(error),
        ConfigProblem::Unreachable(_)
        | ConfigProblem::DoesNotExist
        | ConfigProblem::Invalid(_)
        | ConfigProblem::Empty => Stop::Failed(error),
    }
}

fn same_client(before: &ClientSnapshot, after: &ClientSnapshot) -> bool {
    let ClientSnapshot { version: _, listener, routes, clusters } = after;
    Arc::ptr_eq(&before.listener, listener)
        && Arc::ptr_eq(&before.routes, routes)
        && before.clusters.len() == clusters.len()
        && before.clusters.iter().zip(clusters).all(|(before, after)| same_entry(before, after))
}

fn same_entry(before: &ClusterEntry, after: &ClusterEntry) -> bool {
    before.name == after.name
        && match (&before.cluster, &after.cluster) {
            (Ok(before), Ok(after)) => {
                let ResolvedCluster { config, endpoints, note } = after;
                same(&before.config, config) && same(&before.endpoints, endpoints) && before.note == *note
            }
            (Err(before), Err(after)) => before == after,
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
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

/// The store keeps what did not change, so the pointers nearly always decide.
fn same<T: PartialEq>(before: &Arc<T>, after: &Arc<T>) -> bool {
    Arc::ptr_eq(before, after) || before == after
}
