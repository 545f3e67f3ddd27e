//! What the ADS machine takes and gives: plain values, no protobuf.

use std::fmt;
use std::sync::Arc;

/// Name of a resource.
pub type Name = Arc<str>;

/// The resource types that the mesh asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// A request to the control plane (`DiscoveryRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which type.
    pub kind: Kind,
    /// The last accepted version of the type; empty where there is none.
    pub version: Arc<str>,
    /// The nonce of the response that this answers; empty where none came on this stream.
    pub nonce: Arc<str>,
    /// All names of the type that are wanted, sorted.
    pub names: Vec<Name>,
    /// Set where this refuses a response (a NACK): one text that names every bad resource.
    pub refusal: Option<Arc<str>>,
    /// The first request of its stream carries the node.
    pub first: bool,
}

/// A response of the control plane, decoded and validated (`DiscoveryResponse`).
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
    /// Names that the control plane says are gone. State of the world has none: there, absence says it.
    pub removed: Vec<Name>,
}

/// One resource of a response.
#[derive(Debug, Clone)]
pub struct Received<R> {
    /// Its name; none where it could not be decoded far enough to know.
    pub name: Option<Name>,
    /// The valid value, or what is wrong with it: a field path and a reason.
    pub verdict: Result<R, Arc<str>>,
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
        /// Version of the response that brought it.
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
        /// Version of the response that brought it.
        version: Arc<str>,
        /// Field path and reason.
        reason: Arc<str>,
    },
    /// The control plane no longer has it. What was cached stays (a *data error* of gRFC A88).
    Deleted {
        /// Which type.
        kind: Kind,
        /// Which resource.
        name: Name,
    },
    /// It was asked for, and did not come in time.
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

// === impl PerKind ===

impl<T> PerKind<T> {
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
