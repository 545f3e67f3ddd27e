//! `dns:///host:port`: a direct dial past the mesh's configuration, still through the whole stack.
//!
//! One cluster, every path, plaintext: HTTP/2 for gRPC and HTTP/1.1 for the rest. The name is resolved when the
//! target is opened and every [`REFRESH`] after that; a failed look-up keeps the last addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use mesh_core::config::cluster::{ClusterConfig, Discovery};
use mesh_core::config::endpoints::{
    EndpointConfig, EndpointsConfig, LocalityConfig, LocalityId, PriorityConfig,
};
use mesh_core::config::filter::FilterOverrides;
use mesh_core::config::listener::{HttpConfig, ListenerConfig, RouteSource};
use mesh_core::config::route::{ForwardAction, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost};
use mesh_core::config::units::NonZeroWeight;
use mesh_core::matcher::domain::DomainPattern;
use mesh_core::matcher::path::PathMatcher;
use mesh_core::matcher::string::Text;
use mesh_core::route::RouteTable;
use mesh_core::snapshot::{
    ClientSnapshot, ClusterEntry, ConfigError, ConfigProblem, Resolution, ResolvedCluster, SnapshotCell,
    Subscription,
};
use tokio::runtime::Handle;

use crate::transport::task::Task;

/// How often a name is resolved anew.
const REFRESH: Duration = Duration::from_secs(30);

/// How soon after a failed look-up.
const RETRY: Duration = Duration::from_secs(2);

/// Opens a direct target.
pub(crate) fn open(authority: &Authority, runtime: &Handle) -> Subscription<ClientSnapshot> {
    let name: Arc<str> = authority.as_str().into();
    let cell = SnapshotCell::new(Resolution::Pending(error(&name, ConfigProblem::Pending)));
    let span = tracing::debug_span!(parent: None, "mesh.dns", target = %name);
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(80);
    let task = Task::spawn(runtime, span, resolve(host, port, name, cell.clone()));
    Subscription::new(cell, task)
}

async fn resolve(host: String, port: u16, name: Arc<str>, cell: Arc<SnapshotCell<ClientSnapshot>>) {
    let routes = Arc::new(RouteTable::compile(Arc::new(routes(&name))));
    let mut known: Vec<SocketAddr> = Vec::new();
    let mut version = 0;
    loop {
        match tokio::net::lookup_host((host.as_str(), port)).await {
            Ok(addresses) => {
                let mut addresses: Vec<_> = addresses.collect();
                addresses.sort_unstable();
                addresses.dedup();
                if known != addresses {
                    known = addresses;
                    version += 1;
                    cell.publish(Resolution::Ready(Arc::new(snapshot(&name, &routes, &known, version))));
                }
                tokio::time::sleep(REFRESH).await;
            }
            Err(failure) => {
                tracing::warn!(%failure, "the name cannot be resolved");
                if known.is_empty() {
                    let why = ConfigProblem::Unresolved(format!("it cannot be resolved: {failure}").into());
                    cell.publish(Resolution::Failed(error(&name, why)));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn snapshot(
    name: &Arc<str>,
    routes: &Arc<RouteTable>,
    addresses: &[SocketAddr],
    version: u64,
) -> ClientSnapshot {
    let endpoints = addresses.iter().map(|address| EndpointConfig::new((*address).into())).collect();
    let locality =
        LocalityConfig { id: Arc::new(LocalityId::default()), weight: NonZeroWeight::MIN, endpoints };
    let endpoints = Arc::new(EndpointsConfig {
        name: name.clone(),
        priorities: vec![PriorityConfig { localities: vec![locality] }],
        drops: Vec::new(),
    });
    let config = Arc::new(ClusterConfig::new(cluster_name(name), Discovery::Static(endpoints.clone())));
    let name = config.name.clone();
    let cluster = Ok(ResolvedCluster { config, endpoints, note: None });
    ClientSnapshot {
        version,
        listener: Arc::new(ListenerConfig::Client(HttpConfig::new(RouteSource::Inline(
            routes.config().clone(),
        )))),
        routes: routes.clone(),
        clusters: std::iter::once(ClusterEntry { name, cluster }).collect(),
    }
}

/// Everything goes to the one cluster, without the timeout that Envoy would add.
fn routes(name: &Arc<str>) -> RouteConfig {
    let forward = ForwardAction { timeout: Some(Duration::ZERO), ..ForwardAction::to(cluster_name(name)) };
    let route = Route {
        name: Arc::from(""),
        matches: RouteMatch::path(PathMatcher::Prefix(Text::new("", false))),
        action: RouteAction::Forward(forward),
        overrides: FilterOverrides::default(),
    };
    let host = VirtualHost {
        name: name.clone(),
        domains: vec![DomainPattern::Any],
        routes: vec![route],
        overrides: FilterOverrides::default(),
    };
    RouteConfig { name: name.clone(), virtual_hosts: vec![host] }
}

/// Never the name of a cluster of the configuration.
fn cluster_name(name: &str) -> Arc<str> {
    format!("dns:///{name}").into()
}

fn error(name: &Arc<str>, problem: ConfigProblem) -> ConfigError {
    ConfigError { kind: "address", name: name.clone(), problem, node: Arc::from("") }
}
