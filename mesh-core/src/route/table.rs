//! The compiled route table: an index over a route configuration, and the decision.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::hosts::HostIndex;
use super::paths::{PathIndex, PathKnown, RouteIx};
use super::{ClusterIx, Decision, NoRoute, RouteEntry};
use crate::config::filter::FilterOverrides;
use crate::config::route::{
    ClusterSpecifier, RequestKinds, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost,
};
use crate::config::units::PerMillion;
use crate::matcher::header::{HeaderCondition, HeaderLookup, HeaderSlots};
use crate::request::RequestHead;
use crate::rng::{Rng, Xoshiro};

/// A route configuration, compiled for lookup.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteConfig>,
    clusters: Interner,
    index: HostIndex,
    hosts: Vec<HostTable>,
}

/// The routes of one virtual host.
#[derive(Debug)]
struct HostTable {
    paths: PathIndex,
    routes: Vec<CompiledRoute>,
}

/// What a decision needs of a route: what a candidate is asked, and what follows once it has won.
#[derive(Debug)]
struct CompiledRoute {
    headers: Box<[HeaderCondition]>,
    /// There is more to ask than headers: see [`more_matches`].
    has_more: bool,
    entry: Arc<RouteEntry>,
    target: Target,
}

/// The cluster of a route, by position.
#[derive(Debug)]
enum Target {
    None,
    Single(ClusterIx),
    Weighted { choices: Vec<Choice>, total: u64 },
}

/// One weighted cluster: taken for draws below `until` that no earlier one takes.
#[derive(Debug)]
struct Choice {
    until: u64,
    cluster: ClusterIx,
    overrides: Option<Arc<FilterOverrides>>,
}

/// The draws of one decision: one seed for all routes, so that the order in which candidates are tried is of no
/// consequence, while the draws of two routes stay independent.
pub(super) struct Draws<'r, R> {
    rng: &'r mut R,
    seed: Option<u64>,
}

/// Gives each cluster name its position, in the order of first mention.
#[derive(Debug, Default)]
struct Interner {
    names: Vec<Arc<str>>,
    positions: HashMap<Arc<str>, ClusterIx, FixedState>,
}

// === impl RouteTable ===

impl RouteTable {
    /// Compiles a configuration. Linear in its size.
    #[must_use]
    pub fn compile(config: Arc<RouteConfig>) -> Self {
        let mut clusters = Interner::default();
        let index = HostIndex::new(&config.virtual_hosts);
        let hosts = config.virtual_hosts.iter().map(|host| HostTable::compile(host, &mut clusters)).collect();
        clusters.names.shrink_to_fit();
        clusters.positions.shrink_to_fit();
        Self { clusters, index, hosts, config }
    }

    /// The configuration it was compiled from.
    #[must_use]
    pub fn config(&self) -> &Arc<RouteConfig> {
        &self.config
    }

    /// Every cluster that a route names, once each; [`ClusterIx`] is a position in it.
    #[must_use]
    pub fn clusters(&self) -> &[Arc<str>] {
        &self.clusters.names
    }

    /// Where a cluster is in [`RouteTable::clusters`]; none if no route names it.
    #[must_use]
    pub fn position(&self, cluster: &str) -> Option<ClusterIx> {
        self.clusters.positions.get(cluster).copied()
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// When no virtual host or no route matches.
    pub fn decide(&self, head: &RequestHead<'_>, rng: &mut impl Rng) -> Result<Decision, NoRoute> {
        let host = self.index.find(head.authority).ok_or(NoRoute::VirtualHost)? as usize;
        let (Some(table), Some(config)) = (self.hosts.get(host), self.config.virtual_hosts.get(host)) else {
            return Err(NoRoute::VirtualHost);
        };
        let mut draws = Draws::new(rng);
        let first = table.first_match(&config.routes, head, &mut draws).ok_or(NoRoute::Route)?;
        let route = table.routes.get(first as usize).ok_or(NoRoute::Route)?;
        Ok(route.decide(draws.rng))
    }
}

// === impl HostTable ===

impl HostTable {
    fn compile(host: &VirtualHost, clusters: &mut Interner) -> Self {
        let inherited = Arc::new(host.overrides.clone());
        let mut slots = HeaderSlots::default();
        let compile = |route| CompiledRoute::new(host, route, &inherited, clusters, &mut slots);
        Self { paths: PathIndex::new(&host.routes), routes: host.routes.iter().map(compile).collect() }
    }

    /// The lowest position among the routes that match; `config` are the routes as configured.
    fn first_match<R: Rng>(
        &self,
        config: &[Route],
        head: &RequestHead<'_>,
        draws: &mut Draws<'_, R>,
    ) -> Option<RouteIx> {
        let path = head.path();
        let mut best = None;
        let mut headers = HeaderLookup::new(head);
        self.paths.candidates(path, |candidates, known| {
            for ix in candidates {
                if best.is_some_and(|b| *ix >= b) {
                    return;
                }
                let Some(route) = self.routes.get(*ix as usize) else { return };
                let asks_more = route.has_more || known == PathKnown::Unknown;
                let more = |route: &Route, draws: &mut Draws<'_, R>| {
                    let by_path = known == PathKnown::Matches || route.matches.path.is_match(path);
                    by_path && more_matches(&route.matches, head, *ix, draws)
                };
                let matches = headers.satisfies(&route.headers)
                    && (!asks_more || config.get(*ix as usize).is_some_and(|route| more(route, draws)));
                if matches {
                    best = Some(*ix);
                    return;
                }
            }
        });
        best
    }
}

/// Everything about a match but path and headers.
pub(super) fn more_matches<R: Rng>(
    rule: &RouteMatch,
    head: &RequestHead<'_>,
    ix: RouteIx,
    draws: &mut Draws<'_, R>,
) -> bool {
    rule.requests.has(head.kind)
        && (rule.query.is_empty() || rule.query.iter().all(|query| query.is_match(head.query())))
        && rule.fraction.is_none_or(|share| draws.hit(ix, share))
}

// === impl CompiledRoute ===

impl CompiledRoute {
    fn new(
        host: &VirtualHost,
        route: &Route,
        inherited: &Arc<FilterOverrides>,
        clusters: &mut Interner,
        slots: &mut HeaderSlots,
    ) -> Self {
        let overrides = if route.overrides.is_empty() {
            inherited.clone()
        } else {
            let mut merged = host.overrides.clone();
            merged.0.extend(route.overrides.0.iter().map(|(name, o)| (name.clone(), o.clone())));
            Arc::new(merged)
        };
        let entry = RouteEntry {
            virtual_host: host.name.clone(),
            name: route.name.clone(),
            action: route.action.clone(),
            prefix_len: route.matches.path.text_len(),
            overrides,
        };
        let RouteMatch { path: _, headers, query, fraction, requests } = &route.matches;
        Self {
            headers: headers.iter().map(|header| slots.condition(header)).collect(),
            has_more: *requests != RequestKinds::All || !query.is_empty() || fraction.is_some(),
            entry: Arc::new(entry),
            target: Target::new(&route.action, clusters),
        }
    }

    fn decide(&self, rng: &mut impl Rng) -> Decision {
        let (cluster, cluster_overrides) = match &self.target {
            Target::None => (None, None),
            Target::Single(cluster) => (Some(*cluster), None),
            Target::Weighted { choices, total } => {
                let draw = rng.below(*total);
                let chosen = choices.get(choices.partition_point(|choice| choice.until <= draw));
                (chosen.map(|c| c.cluster), chosen.and_then(|c| c.overrides.clone()))
            }
        };
        Decision { route: self.entry.clone(), cluster, cluster_overrides }
    }
}

// === impl Target ===

impl Target {
    fn new(action: &RouteAction, clusters: &mut Interner) -> Self {
        let RouteAction::Forward(forward) = action else { return Self::None };
        match &forward.cluster {
            ClusterSpecifier::Single(name) => Self::Single(clusters.position(name)),
            ClusterSpecifier::Weighted(weighted) => {
                let mut total = 0;
                let choices = weighted.iter().map(|w| {
                    total += u64::from(w.weight.get());
                    let overrides = (!w.overrides.is_empty()).then(|| Arc::new(w.overrides.clone()));
                    Choice { until: total, cluster: clusters.position(&w.name), overrides }
                });
                Self::Weighted { choices: choices.collect(), total }
            }
        }
    }
}

// === impl Interner ===

impl Interner {
    fn position(&mut self, name: &Arc<str>) -> ClusterIx {
        *self.positions.entry(name.clone()).or_insert_with(|| {
            self.names.push(name.clone());
            ClusterIx::new(self.names.len() as u32 - 1)
        })
    }
}

// === impl Draws ===

impl<'r, R: Rng> Draws<'r, R> {
    pub(super) fn new(rng: &'r mut R) -> Self {
        Self { rng, seed: None }
    }

    /// The draw of one route.
    fn hit(&mut self, ix: RouteIx, share: PerMillion) -> bool {
        let seed = *self.seed.get_or_insert_with(|| self.rng.next_u64());
        share.hit(&mut Xoshiro::seeded(seed.wrapping_add(ix.into())))
    }
}
