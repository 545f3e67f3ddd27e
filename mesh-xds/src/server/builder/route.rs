//! `envoy.config.route.v3.RouteConfiguration`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use pb::header_matcher::HeaderMatchSpecifier;

use super::retry::Retry;
use super::{duration, exactly, per_million, prefixed, regex, uint32};
use crate::ads::Kind;
use crate::server::resource::{Resource, Resources};

/// A route table.
#[derive(Debug, Clone)]
pub struct RouteConfig {
    pb: pb::RouteConfiguration,
}

/// The routes of some hosts.
#[derive(Debug, Clone)]
pub struct VirtualHost {
    pb: pb::VirtualHost,
}

/// What to match, and what to do.
#[derive(Debug, Clone)]
pub struct Route {
    matches: pb::RouteMatch,
    action: Action,
}

/// A condition on one header.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    pb: pb::HeaderMatcher,
}

#[derive(Debug, Clone)]
enum Action {
    Forward(Box<pb::RouteAction>),
    NonForwarding,
    Redirect(String),
    Direct(u32, String),
}

// === impl RouteConfig ===

impl RouteConfig {
    /// A table without hosts. Inside a listener the name does not matter.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { pb: pb::RouteConfiguration { name: name.into(), ..Default::default() } }
    }

    /// Everything to one cluster.
    #[must_use]
    pub fn to(name: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self::new(name).host(VirtualHost::any().route(Route::prefix("/").cluster(cluster)))
    }

    /// The table of a server that only receives: everything goes to the application.
    #[must_use]
    pub fn non_forwarding(name: impl Into<String>) -> Self {
        Self::new(name).host(VirtualHost::any().route(Route::prefix("/").non_forwarding()))
    }

    /// Adds a virtual host.
    #[must_use]
    pub fn host(mut self, mut host: VirtualHost) -> Self {
        if host.pb.name.is_empty() {
            host.pb.name = format!("host{}", self.pb.virtual_hosts.len());
        }
        self.pb.virtual_hosts.push(host.pb);
        self
    }

    pub(super) fn into_message(self) -> pb::RouteConfiguration {
        self.pb
    }
}

impl Resources for RouteConfig {
    fn into_resources(self) -> Vec<Resource> {
        vec![Resource::message(Kind::Route, self.pb.name.clone(), &self.pb)]
    }
}

// === impl VirtualHost ===

impl VirtualHost {
    /// For every host.
    #[must_use]
    pub fn any() -> Self {
        Self::new(["*"])
    }

    /// For the hosts that match one of these domains.
    #[must_use]
    pub fn new<T: Into<String>>(domains: impl IntoIterator<Item = T>) -> Self {
        let domains = domains.into_iter().map(Into::into).collect();
        Self { pb: pb::VirtualHost { domains, ..Default::default() } }
    }

    /// Adds a route; the first that matches decides.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.pb.routes.push(route.into_message());
        self
    }

    /// The retry policy of routes that have none.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.pb.retry_policy = Some(retry.into_message());
        self
    }
}

// === impl Route ===

impl Route {
    /// Paths that begin with this.
    #[must_use]
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::new(pb::route_match::PathSpecifier::Prefix(prefix.into()))
    }

    /// Exactly this path.
    #[must_use]
    pub fn path(path: impl Into<String>) -> Self {
        Self::new(pb::route_match::PathSpecifier::Path(path.into()))
    }

    /// Paths that match the expression as a whole.
    #[must_use]
    pub fn regex(expression: impl Into<String>) -> Self {
        Self::new(pb::route_match::PathSpecifier::SafeRegex(regex(expression)))
    }

    /// Upper and lower case of the path are the same.
    #[must_use]
    pub fn ignore_case(mut self) -> Self {
        self.matches.case_sensitive = Some(super::boolean(false));
        self
    }

    /// Only if a header says so.
    #[must_use]
    pub fn header(mut self, header: HeaderMatch) -> Self {
        self.matches.headers.push(header.pb);
        self
    }

    /// Only for one method.
    #[must_use]
    pub fn method(self, method: impl Into<String>) -> Self {
        self.header(HeaderMatch::exact(":method", method))
    }

    /// Only if a query parameter has this value.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        use pb::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch;
        self.matches.query_parameters.push(pb::QueryParameterMatcher {
            name: name.into(),
            query_parameter_match_specifier: Some(StringMatch(exactly(value))),
        });
        self
    }

    /// Only so many requests of a million.
    #[must_use]
    pub fn fraction(mut self, share: u32) -> Self {
        self.matches.runtime_fraction = Some(core::RuntimeFractionalPercent {
            default_value: Some(per_million(share)),
            runtime_key: String::new(),
        });
        self
    }

    /// Forward to one cluster.
    #[must_use]
    pub fn cluster(self, cluster: impl Into<String>) -> Self {
        self.forward(|action| {
            action.cluster_specifier = Some(pb::route_action::ClusterSpecifier::Cluster(cluster.into()));
        })
    }

    /// Forward to several clusters by weight.
    #[must_use]
    pub fn weighted<T: Into<String>>(self, clusters: impl IntoIterator<Item = (T, u32)>) -> Self {
        let clusters = clusters
            .into_iter()
            .map(|(name, weight)| pb::weighted_cluster::ClusterWeight {
                name: name.into(),
                weight: Some(uint32(weight)),
                ..Default::default()
            })
            .collect();
        self.forward(|action| {
            let clusters = pb::WeightedCluster { clusters, ..Default::default() };
            action.cluster_specifier = Some(pb::route_action::ClusterSpecifier::WeightedClusters(clusters));
        })
    }

    /// Forward to the cluster that a header names.
    #[must_use]
    pub fn cluster_header(self, header: impl Into<String>) -> Self {
        self.forward(|action| {
            action.cluster_specifier = Some(pb::route_action::ClusterSpecifier::ClusterHeader(header.into()));
        })
    }

    /// The whole exchange ends after this long; zero is no limit.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.forward(|action| action.timeout = Some(duration(limit)))
    }

    /// The stream ends after this long (what gRPC's clients heed).
    #[must_use]
    pub fn max_stream_duration(self, limit: Duration) -> Self {
        self.forward(|action| {
            action.max_stream_duration.get_or_insert_default().max_stream_duration = Some(duration(limit));
        })
    }

    /// The largest `grpc-timeout` that is believed.
    #[must_use]
    pub fn grpc_timeout_max(self, limit: Duration) -> Self {
        self.forward(|action| {
            action.max_stream_duration.get_or_insert_default().grpc_timeout_header_max =
                Some(duration(limit));
        })
    }

    /// Try again.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        self.forward(|action| action.retry_policy = Some(retry.into_message()))
    }

    /// Hash a request header for the policies that choose by hash.
    #[must_use]
    pub fn hash_header(self, name: impl Into<String>) -> Self {
        use pb::route_action::hash_policy::{Header, PolicySpecifier};
        self.forward(|action| {
            action.hash_policy.push(pb::route_action::HashPolicy {
                terminal: false,
                policy_specifier: Some(PolicySpecifier::Header(Header {
                    header_name: name.into(),
                    regex_rewrite: None,
                })),
            });
        })
    }

    /// Another authority for the upstream.
    #[must_use]
    pub fn host_rewrite(self, host: impl Into<String>) -> Self {
        self.forward(|action| {
            action.host_rewrite_specifier =
                Some(pb::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.into()));
        })
    }

    /// Another beginning for the path.
    #[must_use]
    pub fn prefix_rewrite(self, prefix: impl Into<String>) -> Self {
        self.forward(|action| action.prefix_rewrite = prefix.into())
    }

    /// Hand the request to the application: a server's route.
    #[must_use]
    pub fn non_forwarding(mut self) -> Self {
        self.action = Action::NonForwarding;
        self
    }

    /// Answer with a redirect to another host.
    #[must_use]
    pub fn redirect_to(mut self, host: impl Into<String>) -> Self {
        self.action = Action::Redirect(host.into());
        self
    }

    /// Answer at once.
    #[must_use]
    pub fn direct_response(mut self, status: u32, body: impl Into<String>) -> Self {
        self.action = Action::Direct(status, body.into());
        self
    }

    fn new(path: pb::route_match::PathSpecifier) -> Self {
        let matches = pb::RouteMatch { path_specifier: Some(path), ..Default::default() };
        Self { matches, action: Action::Forward(Box::default()) }
    }

    fn forward(mut self, change: impl FnOnce(&mut pb::RouteAction)) -> Self {
        let mut action = match self.action {
            Action::Forward(action) => action,
            Action::NonForwarding | Action::Redirect(_) | Action::Direct(..) => Box::default(),
        };
        change(&mut action);
        self.action = Action::Forward(action);
        self
    }

    fn into_message(self) -> pb::Route {
        use pb::route::Action as PbAction;
        let action = match self.action {
            Action::Forward(action) => PbAction::Route(*action),
            Action::NonForwarding => PbAction::NonForwardingAction(pb::NonForwardingAction::default()),
            Action::Redirect(host) => {
                PbAction::Redirect(pb::RedirectAction { host_redirect: host, ..Default::default() })
            }
            Action::Direct(status, body) => PbAction::DirectResponse(pb::DirectResponseAction {
                status,
                body: Some(core::DataSource {
                    specifier: Some(core::data_source::Specifier::InlineString(body)),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        };
        pb::Route { r#match: Some(self.matches), action: Some(action), ..Default::default() }
    }
}

// === impl HeaderMatch ===

impl HeaderMatch {
    /// The header has this value.
    #[must_use]
    pub fn exact(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::string(name, exactly(value))
    }

    /// The header's value begins with this.
    #[must_use]
    pub fn prefix(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::string(name, prefixed(value))
    }

    /// The header is there, or is not.
    #[must_use]
    pub fn present(name: impl Into<String>, present: bool) -> Self {
        Self::new(name, HeaderMatchSpecifier::PresentMatch(present))
    }

    /// The header's value is a number in `start..end`.
    #[must_use]
    pub fn range(name: impl Into<String>, start: i64, end: i64) -> Self {
        let range = envoy_types::pb::envoy::r#type::v3::Int64Range { start, end };
        Self::new(name, HeaderMatchSpecifier::RangeMatch(range))
    }

    /// The opposite.
    #[must_use]
    pub fn invert(mut self) -> Self {
        self.pb.invert_match = !self.pb.invert_match;
        self
    }

    pub(super) fn into_message(self) -> pb::HeaderMatcher {
        self.pb
    }

    fn string(name: impl Into<String>, value: StringMatcher) -> Self {
        Self::new(name, HeaderMatchSpecifier::StringMatch(value))
    }

    fn new(name: impl Into<String>, specifier: HeaderMatchSpecifier) -> Self {
        Self {
            pb: pb::HeaderMatcher {
                name: name.into(),
                header_match_specifier: Some(specifier),
                ..Default::default()
            },
        }
    }
}
