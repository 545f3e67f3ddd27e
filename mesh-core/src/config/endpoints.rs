//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the endpoints of a cluster by priority and locality.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::telemetry::WorkloadLabels;
use super::units::{NonZeroWeight, PerMillion};

/// The endpoints of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointsConfig {
    /// Name of the assignment.
    pub name: Arc<str>,
    /// Index 0 is preferred. A priority may be empty; there are no gaps.
    pub priorities: Vec<PriorityConfig>,
    /// Drops by category, drawn independently and in order.
    pub drops: Vec<DropOverload>,
}

/// One priority level.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PriorityConfig {
    /// Its localities, none of weight 0.
    pub localities: Vec<LocalityConfig>,
}

/// One locality.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityConfig {
    /// Where it is.
    pub id: Arc<LocalityId>,
    /// Its share of the load where localities are weighted.
    pub weight: NonZeroWeight,
    /// Its endpoints.
    pub endpoints: Vec<EndpointConfig>,
}

/// Region, zone, sub-zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LocalityId {
    /// Region.
    pub region: Arc<str>,
    /// Zone within the region.
    pub zone: Arc<str>,
    /// Sub-zone within the zone.
    pub sub_zone: Arc<str>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// Where to connect.
    pub address: Address,
    /// Its share within the locality.
    pub weight: NonZeroWeight,
    /// What the control plane says of it.
    pub health: HealthStatus,
    /// What only some endpoints have.
    pub extra: Option<Arc<EndpointExtra>>,
}

/// What only some endpoints have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointExtra {
    /// Host name of the endpoint (gRFC A81).
    pub hostname: Option<Arc<str>>,
    /// Workload labels (`filter_metadata["istio"].workload`).
    pub workload: Option<Arc<WorkloadLabels>>,
}

/// The address of a socket, to connect to or to listen on (`core.v3.Address`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IP and port.
    Socket(SocketAddr),
    /// A unix-domain socket: its path or, after an `@`, its name in Linux's abstract namespace (`core.v3.Pipe`).
    Unix(Arc<Path>),
}

/// `core.v3.HealthStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// Not known; used.
    Unknown,
    /// Used.
    Healthy,
    /// Used only where nothing better is (Envoy's `DEGRADED`).
    Degraded,
    /// Kept for session affinity only.
    Draining,
    /// Not used (`UNHEALTHY`, `TIMEOUT`).
    Unhealthy,
}

/// One category of `drop_overloads`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropOverload {
    /// Name for load reports.
    pub category: Arc<str>,
    /// Share of requests dropped.
    pub share: PerMillion,
}

// === impl EndpointsConfig ===

impl EndpointsConfig {
    /// No endpoints.
    #[must_use]
    pub fn empty(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), priorities: Vec::new(), drops: Vec::new() }
    }

    /// Every endpoint, in order of priority, locality and position.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &EndpointConfig> {
        self.priorities.iter().flat_map(|p| &p.localities).flat_map(|l| &l.endpoints)
    }
}

// === impl EndpointConfig ===

impl EndpointConfig {
    /// An endpoint of weight 1 with unknown health.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, weight: NonZeroWeight::MIN, health: HealthStatus::Unknown, extra: None }
    }
}

// === impl HealthStatus ===

impl HealthStatus {
    /// May take new requests (gRFC A27: `UNKNOWN` and `HEALTHY`; Envoy adds `DEGRADED` as a last resort).
    #[must_use]
    pub(crate) fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy)
    }
}

// === impl Address ===

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Socket(addr)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}
