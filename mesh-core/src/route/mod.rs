//! Where a request goes: virtual host, route, cluster. The first route that matches wins (gRFC A28, Envoy).
//!
//! A configuration is compiled once into an index ([`RouteTable`]), so that a decision costs the same with ten routes
//! and with ten thousand. The index only finds candidates; which of them wins is decided by their order in the
//! configuration, and a property test holds the table to what a linear search decides.

mod hosts;
mod paths;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::config::filter::FilterOverrides;
use crate::config::route::RouteAction;

pub use table::RouteTable;

/// Index of a cluster within one route table, and within the snapshot that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterIx(u32);

/// A route, compiled: what the data path keeps of a decision for the life of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteEntry {
    /// Name of the virtual host.
    pub virtual_host: Arc<str>,
    /// Name of the route; may be empty.
    pub name: Arc<str>,
    /// What happens.
    pub action: RouteAction,
    /// How many bytes of a matching path `prefix_rewrite` replaces; none replaces the whole path.
    pub prefix_len: Option<usize>,
    /// Filter overrides, the virtual host's merged below the route's.
    pub overrides: Arc<FilterOverrides>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The route that matched.
    pub route: Arc<RouteEntry>,
    /// The cluster, for [`RouteAction::Forward`]: chosen once per request.
    pub cluster: Option<ClusterIx>,
    /// Overrides of the weighted cluster that was chosen, more specific than the route's; none if it has none.
    pub cluster_overrides: Option<Arc<FilterOverrides>>,
}

/// Why no route was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No virtual host has a domain for the authority.
    #[error("no virtual host matches")]
    VirtualHost,
    /// No route of the virtual host matches.
    #[error("no route matches")]
    Route,
}

// === impl ClusterIx ===

impl ClusterIx {
    /// An index.
    #[must_use]
    pub fn new(index: u32) -> Self {
        Self(index)
    }

    /// The position.
    #[must_use]
    pub fn get(self) -> usize {
        self.0 as usize
    }
}
