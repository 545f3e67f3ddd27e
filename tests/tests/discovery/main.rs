//! From the control plane's wire to a snapshot: conversations, outages, scale, and what is left behind.

#![expect(clippy::unwrap_used, reason = "what a test needs to begin is there, or the test fails")]

mod conversation;
mod credentials;
mod fallback;
mod federation;
mod incremental;
mod last_good;
mod log;
mod outage;
mod scale;
mod shared;
mod switching;
mod ten_minutes;

use mesh_core::snapshot::{ClientSnapshot, ResolvedCluster};
use mesh_xds::server::{Cluster, Endpoints, Listener, Resource, Resources as _, RouteConfig};

/// Listener, routes, cluster and one endpoint for a target of one cluster.
fn shop(port: u16) -> Vec<Resource> {
    (
        Listener::client("shop").rds("shop-routes"),
        RouteConfig::to("shop-routes", "shop-v1"),
        Cluster::eds("shop-v1").endpoints(Endpoints::of([([127, 0, 0, 1], port).into()])),
    )
        .into_resources()
}

/// The ports of the endpoints of a snapshot's only cluster.
fn ports(snapshot: &ClientSnapshot) -> Vec<u16> {
    let cluster = snapshot.clusters.get(0).and_then(|entry| entry.cluster.as_ref().ok());
    cluster.map(ports_of).unwrap_or_default()
}

fn ports_of(cluster: &ResolvedCluster) -> Vec<u16> {
    use mesh_core::config::endpoints::Address;
    cluster
        .endpoints
        .iter()
        .filter_map(|endpoint| match &endpoint.address {
            Address::Socket(address) => Some(address.port()),
            _ => None,
        })
        .collect()
}
