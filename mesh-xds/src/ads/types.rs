//! What the ADS machine takes and gives: plain values, no protobuf.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Name of a resource.
pub type Name = Arc<str>;

/// The name by which everything of a kind is watched.
pub const WILDCARD: &str = "*";

/// The resource types that the mesh asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Route,
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
}

/// One value for each [`Kind`].
#[derive(Debug, Clone, Default)]
pub(crate) struct PerKind<T> {
    listener: T,
    route: T,
    cluster: T,
    endpoints: T,
}

/// How a control plane is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// `StreamAggregatedResources`: every request carries all names, every response of listeners or clusters all of them.
    #[default]
    StateOfTheWorld,
    /// `DeltaAggregatedResources`: requests carry what changed of the names, responses what changed of the resources.
    Incremental,
}

/// A request to the control plane (`DiscoveryRequest`, `DeltaDiscoveryRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which type.
    pub kind: Kind,
    /// The nonce of the response that this answers; empty where it answers none.
    pub nonce: Arc<str>,
    /// Set where this refuses a response (a NACK): one text that names every bad resource.
    pub refusal: Option<Arc<str>>,
    /// The first request of its stream carries the node.
    pub first: bool,
    /// What is asked for.
    pub ask: Ask,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// State of the world.
    All {
        /// The last accepted version of the type; empty where there is none.
        version: Arc<str>,
        /// All names of the type that are wanted, sorted.
        names: Vec<Name>,
    },
    /// Incremental.
    Changes {
        /// Names that are wanted from now on, sorted.
        subscribe: Vec<Name>,
        /// Names that are no longer wanted, sorted.
        unsubscribe: Vec<Name>,
        /// On the first request of the type: which versions of which resources are held, so that they are not sent again.
        held: Vec<(Name, Arc<str>)>,
    },
}

/// A response of the control plane, decoded and validated (`DiscoveryResponse`, `DeltaDiscoveryResponse`).
#[derive(Debug, Clone)]
pub struct Response<R> {
    /// Which type.
    pub kind: Kind,
    /// Version of the whole response.
    pub version: Arc<str>,
    /// Nonce of the response.
    pub nonce: Arc<str>,
    /// The resources in their order.
    pub resources: Vec<Received<R>>,
    /// Resources that stay as they are, and exist for a while longer.
    pub heartbeats: Vec<Heartbeat>,
    /// Names that the control plane says are gone. State of the world has none: there, absence says it.
    pub removed: Vec<Name>,
    /// What the control plane has an error for, instead of a value (`resource_errors`, xDS TP3).
    pub errors: Vec<ResourceError>,
}

/// One resource of a response.
#[derive(Debug, Clone)]
pub struct Received<R> {
    /// Its name; none where it could not be decoded far enough to know.
    pub name: Option<Name>,
    /// Its own version; none in state of the world, where a response has one for all.
    pub version: Option<Arc<str>>,
    /// How long it exists, unless the control plane says so again.
    pub ttl: Option<Duration>,
    /// The valid value, or what is wrong with it: a field path and a reason.
    pub verdict: Result<R, Arc<str>>,
}

/// A resource that is only said to exist still: a `Resource` wrapper with a time to live and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub name: Name,
    /// How long it exists from now on.
    pub ttl: Duration,
}

/// Why the control plane cannot give a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceError {
    /// Its name.
    pub name: Name,
    /// The error is about the resource itself (NOT_FOUND, PERMISSION_DENIED), and not for a while (gRFC A88).
    pub is_data_error: bool,
    /// The control plane's own code and text.
    pub reason: Arc<str>,
}

/// What became of something that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<R> {
    /// A valid value came. It may be equal to the last one.
    Changed {
        /// Which type.
        kind: Kind,
        /// Which resource.
        name: Name,
        /// Its version, or that of the response that brought it.
        version: Arc<str>,
        /// The value.
        value: R,
    },
    /// A value came and was refused. What was cached stays (a *data error* of gRFC A88).
    Refused {
        /// Which type.
        kind: Kind,
        /// Which resource.
        name: Name,
        /// Its version, or that of the response that brought it.
        version: Arc<str>,
        /// Field path and reason.
        reason: Arc<str>,
    },
    /// A value came of which not even the name can be read. Which resource it was to replace is not known.
    Nameless {
        /// Which type.
        kind: Kind,
        /// The version of the response.
        version: Arc<str>,
        /// Its position, and the reason.
        reason: Arc<str>,
    },
    /// The control plane has an error instead of it. What was cached stays (gRFC A88).
    Failed {
        /// Which type.
        kind: Kind,
        /// Which resource, and why.
        error: ResourceError,
    },
    /// The control plane no longer has it, or it outlived its time to live. What was cached stays (a *data error* of
    /// gRFC A88).
    Deleted {
        /// Which type.
        kind: Kind,
        /// Which resource.
        name: Name,
    },
    /// It was asked for, and did not come in time, or the control plane says that there is none.
    Absent {
        /// Which type.
        kind: Kind,
        /// Which resource.
        name: Name,
    },
    /// The stream ended before any response, or there was no connection (a *transient error* of gRFC A88):
    /// concerns everything that is watched.
    Unreachable,
}

// === impl Kind ===

impl Kind {
    /// Every kind, in the order in which one leads to the next.
    pub const ALL: [Self; 4] = [Self::Listener, Self::Route, Self::Cluster, Self::Endpoints];

    /// The type URL of its resources.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    /// The kind of a type URL, if it is one that is asked for here.
    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// What messages call it.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

// === impl Protocol ===

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StateOfTheWorld => "state of the world",
            Self::Incremental => "incremental",
        })
    }
}

// === impl Request ===

impl Request {
    /// The names that it asks for: all that are wanted in state of the world, the new ones in incremental.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        match &self.ask {
            Ask::All { names, .. } => names,
            Ask::Changes { subscribe, .. } => subscribe,
        }
    }
}

// === impl PerKind ===

impl<T> PerKind<T> {
    pub(crate) fn each(make: impl Fn() -> T) -> Self {
        Self { listener: make(), route: make(), cluster: make(), endpoints: make() }
    }

    pub(crate) fn get(&self, kind: Kind) -> &T {
        match kind {
            Kind::Listener => &self.listener,
            Kind::Route => &self.route,
            Kind::Cluster => &self.cluster,
            Kind::Endpoints => &self.endpoints,
        }
    }

    pub(crate) fn get_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Listener => &mut self.listener,
            Kind::Route => &mut self.route,
            Kind::Cluster => &mut self.cluster,
            Kind::Endpoints => &mut self.endpoints,
        }
    }
}
