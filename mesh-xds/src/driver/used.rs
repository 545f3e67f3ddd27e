//! What a published snapshot uses of what is subscribed to.

use mesh_core::config::listener::{ListenerConfig, RouteSource};
use mesh_core::snapshot::{ClientSnapshot, ServerSnapshot};

use crate::graph::{Key, Role};

pub(super) trait Uses {
    /// Its routes, clusters and endpoints. Its listener is what a target starts from.
    fn uses(&self) -> Vec<Key>;
}

impl Uses for ClientSnapshot {
    fn uses(&self) -> Vec<Key> {
        let clusters = self.clusters.iter().map(|entry| (Role::Cluster, entry.name.clone()));
        let usable = self.clusters.iter().filter_map(|entry| entry.cluster.as_ref().ok());
        let endpoints = usable
            .filter_map(|cluster| cluster.config.eds_service().map(|name| (Role::Endpoints, name.clone())));
        routes(&self.listener, Role::Route).chain(clusters).chain(endpoints).collect()
    }
}

impl Uses for ServerSnapshot {
    fn uses(&self) -> Vec<Key> {
        routes(&self.listener, Role::ServerRoute).collect()
    }
}

fn routes(listener: &ListenerConfig, role: Role) -> impl Iterator<Item = Key> {
    listener.http().filter_map(move |http| match &http.routes {
        RouteSource::Rds(name) => Some((role, name.clone())),
        RouteSource::Inline(_) => None,
    })
}
