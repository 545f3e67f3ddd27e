//! The compiled route table.

use std::sync::Arc;

use super::{ClusterIx, Decision, NoRoute, RouteEntry};
use crate::config::route::{ClusterSpecifier, RouteAction, RouteConfig};
use crate::matcher::domain::DomainPattern;
use crate::request::{RequestHead, RequestKind};
use crate::rng::Rng;

/// A route configuration, compiled for lookup.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteConfig>,
    clusters: Vec<Arc<str>>,
    entries: Vec<Vec<Arc<RouteEntry>>>,
}

// === impl RouteTable ===

impl RouteTable {
    /// Compiles a configuration.
    #[must_use]
    pub fn compile(config: Arc<RouteConfig>) -> Self {
        let mut clusters: Vec<Arc<str>> = Vec::new();
        let mut entries = Vec::new();
        for host in &config.virtual_hosts {
            let mut of_host = Vec::new();
            for route in &host.routes {
                if let RouteAction::Forward(forward) = &route.action {
                    for name in forward.cluster.names() {
                        if !clusters.contains(name) {
                            clusters.push(name.clone());
                        }
                    }
                }
                let mut overrides = host.overrides.clone();
                overrides.0.extend(route.overrides.0.clone());
                of_host.push(Arc::new(RouteEntry {
                    virtual_host: host.name.clone(),
                    name: route.name.clone(),
                    action: route.action.clone(),
                    overrides: Arc::new(overrides),
                }));
            }
            entries.push(of_host);
        }
        Self { config, clusters, entries }
    }

    /// The configuration it was compiled from.
    #[must_use]
    pub fn config(&self) -> &Arc<RouteConfig> {
        &self.config
    }

    /// Every cluster that a route names, once each; [`ClusterIx`] is a position in it.
    #[must_use]
    pub fn clusters(&self) -> &[Arc<str>] {
        &self.clusters
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// When no virtual host or no route matches.
    pub fn decide(&self, head: &RequestHead<'_>, rng: &mut impl Rng) -> Result<Decision, NoRoute> {
        let authority = head.authority.to_ascii_lowercase();
        let rank = |d: &DomainPattern| match d {
            DomainPattern::Exact(_) => (3, 0),
            DomainPattern::Suffix(s) => (2, s.len()),
            DomainPattern::Prefix(s) => (1, s.len()),
            DomainPattern::Any => (0, 0),
        };
        let hosts = self.config.virtual_hosts.iter().enumerate();
        let (_, host) = hosts
            .flat_map(|(ix, host)| host.domains.iter().map(move |d| (d, ix)))
            .filter(|(d, _)| d.is_match(&authority))
            .max_by_key(|(d, _)| rank(d))
            .ok_or(NoRoute::VirtualHost)?;
        let routes = self.config.virtual_hosts.get(host).into_iter().flat_map(|h| &h.routes);
        for (entry, route) in self.entries.get(host).into_iter().flatten().zip(routes) {
            let m = &route.matches;
            let matched = m.path.is_match(head.path())
                && (!m.grpc || head.kind == RequestKind::Grpc)
                && m.headers.iter().all(|h| h.is_match(head))
                && m.query.iter().all(|q| q.is_match(head.query()))
                && m.fraction.is_none_or(|f| f.hit(rng));
            if matched {
                return Ok(self.choose(entry, rng));
            }
        }
        Err(NoRoute::Route)
    }

    fn choose(&self, entry: &Arc<RouteEntry>, rng: &mut impl Rng) -> Decision {
        let position =
            |name: &Arc<str>| self.clusters.iter().position(|c| c == name).map(|i| ClusterIx::new(i as u32));
        let mut decision = Decision { route: entry.clone(), cluster: None, cluster_overrides: None };
        if let RouteAction::Forward(forward) = &entry.action {
            decision.cluster = match &forward.cluster {
                ClusterSpecifier::Single(name) => position(name),
                ClusterSpecifier::Weighted(clusters) => {
                    let total: u64 = clusters.iter().map(|c| u64::from(c.weight.get())).sum();
                    let mut draw = rng.below(total);
                    let chosen = clusters.iter().find(|c| {
                        let weight = u64::from(c.weight.get());
                        let hit = draw < weight;
                        draw = draw.saturating_sub(weight);
                        hit
                    });
                    chosen.and_then(|c| position(&c.name))
                }
            };
        }
        decision
    }
}
