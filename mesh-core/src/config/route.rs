//! `envoy.config.route.v3.RouteConfiguration`: virtual hosts, routes, and what a route does.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::filter::FilterOverrides;
use super::retry::RetryPolicy;
use super::units::PerMillion;
use crate::matcher::domain::DomainPattern;
use crate::matcher::header::HeaderMatcher;
use crate::matcher::path::PathMatcher;
use crate::matcher::query::QueryMatcher;
use crate::request::RequestKind;

/// A route configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Virtual hosts; each domain belongs to one of them.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// Which authorities it serves.
    pub domains: Vec<DomainPattern>,
    /// Routes; the first match wins.
    pub routes: Vec<Route>,
    /// Filter overrides of every route here.
    pub overrides: FilterOverrides,
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, for logs; may be empty.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What happens to them.
    pub action: RouteAction,
    /// Filter overrides of this route, the virtual host's own merged below them at compile time.
    pub overrides: FilterOverrides,
}

/// Which requests a route takes: every part must match.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathMatcher,
    /// Headers, pseudo-headers such as `:method` among them.
    pub headers: Vec<HeaderMatcher>,
    /// Query parameters.
    pub query: Vec<QueryMatcher>,
    /// The share of matching requests that the route takes (`runtime_fraction`); none is all.
    pub fraction: Option<PerMillion>,
    /// Which kinds of requests.
    pub requests: RequestKinds,
}

/// Which kinds of requests a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestKinds {
    /// Every request.
    #[default]
    All,
    /// gRPC requests alone (`grpc: {}`).
    Grpc,
    /// All but gRPC requests, which skip the route (gRFC A28).
    NotGrpc,
}

/// What a route does with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    /// Send it to a cluster.
    Forward(ForwardAction),
    /// Let the local application serve it (servers).
    NonForwarding,
    /// Answer it here.
    DirectResponse {
        /// Status of the answer.
        status: StatusCode,
        /// Body of the answer.
        body: Arc<[u8]>,
    },
    /// An action that is not implemented, by the name of its field: the route is kept, its requests fail (gRFC A28).
    Unsupported(&'static str),
}

/// `RouteAction` with a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardAction {
    /// Which cluster.
    pub cluster: ClusterSpecifier,
    /// Envoy's route timeout; none is the implicit 15 s, for requests that are not gRPC. Zero is no timeout.
    pub timeout: Option<Duration>,
    /// `max_stream_duration` (gRFC A31): `grpc_timeout_header_max` where set, for gRPC requests.
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// When to try again; the virtual host's policy is already filled in where the route has none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Replaces the matched prefix, or the whole path under a regex.
    pub prefix_rewrite: Option<Arc<str>>,
    /// Replaces the authority.
    pub host_rewrite: Option<Arc<str>>,
}

/// `RouteAction.MaxStreamDuration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// The bound for every request; zero or none is no bound.
    pub max_stream_duration: Option<Duration>,
    /// The bound for a gRPC request instead; zero is the application's own deadline only.
    pub grpc_timeout_header_max: Option<Duration>,
}

/// Which cluster a request goes to.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterSpecifier {
    /// This one.
    Single(Arc<str>),
    /// One of these, by weight; not empty, no weight of 0, the sum within `u32`.
    Weighted(Vec<WeightedCluster>),
}

/// One entry of `weighted_clusters`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Arc<str>,
    /// Its weight.
    pub weight: super::units::NonZeroWeight,
    /// Filter overrides of requests that go there.
    pub overrides: FilterOverrides,
}

// === impl ForwardAction ===

impl ForwardAction {
    /// Envoy's implicit route timeout. It never applies to gRPC requests.
    pub(crate) const IMPLICIT_TIMEOUT: Duration = Duration::from_secs(15);

    /// To one cluster, with every default.
    #[must_use]
    pub fn to(cluster: impl Into<Arc<str>>) -> Self {
        Self {
            cluster: ClusterSpecifier::Single(cluster.into()),
            timeout: None,
            max_stream_duration: None,
            retry: None,
            prefix_rewrite: None,
            host_rewrite: None,
        }
    }
}

// === impl ClusterSpecifier ===

impl ClusterSpecifier {
    /// Every cluster that a request may go to.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let (single, weighted) = match self {
            Self::Single(name) => (Some(name), None),
            Self::Weighted(clusters) => (None, Some(clusters)),
        };
        single.into_iter().chain(weighted.into_iter().flatten().map(|c| &c.name))
    }
}

// === impl RequestKinds ===

impl RequestKinds {
    /// Whether a request of this kind is one of them.
    #[must_use]
    pub fn has(self, kind: RequestKind) -> bool {
        match self {
            Self::All => true,
            Self::Grpc => kind == RequestKind::Grpc,
            Self::NotGrpc => kind != RequestKind::Grpc,
        }
    }
}

// === impl RouteMatch ===

impl RouteMatch {
    /// A path alone.
    #[must_use]
    pub fn path(path: PathMatcher) -> Self {
        Self { path, headers: Vec::new(), query: Vec::new(), fraction: None, requests: RequestKinds::All }
    }
}
