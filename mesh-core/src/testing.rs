//! Builders of configuration values for tests (feature `testing`). They panic on values that make no sense.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::endpoints::{
    Address, DropOverload, EndpointConfig, EndpointsConfig, HealthStatus, LocalityConfig, LocalityId,
    PriorityConfig,
};
use crate::config::filter::FilterOverrides;
use crate::config::route::{ForwardAction, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost};
use crate::config::units::PerMillion;
use crate::identity::{CertificateNames, Peer, SpiffeId, TlsPeer};
use crate::matcher::domain::DomainPattern;
use crate::matcher::path::PathMatcher;
use crate::matcher::string::Text;
use crate::request::{RequestHead, RequestKind, Target};

/// A weight.
#[must_use]
pub fn weight(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a weight is not 0")
}

/// `127.0.0.1` with this port.
#[must_use]
pub fn loopback(port: u16) -> Address {
    Address::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Endpoints, priority by priority: begins with one priority and one locality of weight 1, both empty.
#[derive(Debug, Clone)]
pub struct EndpointsBuilder {
    config: EndpointsConfig,
}

/// Endpoints at these ports of loopback, all alike.
#[must_use]
pub fn endpoints(ports: impl IntoIterator<Item = u16>) -> EndpointsConfig {
    ports.into_iter().fold(EndpointsBuilder::new(), |b, port| b.endpoint(loopback(port))).build()
}

/// A plaintext round-robin cluster with these endpoints inline.
#[must_use]
pub fn cluster(name: &str, endpoints: EndpointsConfig) -> ClusterConfig {
    ClusterConfig::new(name, Discovery::Static(Arc::new(endpoints)))
}

/// A route of every path below a prefix to a cluster, with every default.
#[must_use]
pub fn route(prefix: &str, cluster: &str) -> Route {
    Route {
        name: Arc::from(""),
        matches: RouteMatch::path(PathMatcher::Prefix(Text::new(prefix, false))),
        action: RouteAction::Forward(ForwardAction::to(cluster)),
        overrides: FilterOverrides::default(),
    }
}

/// A virtual host of these domains, named after the first of them.
#[must_use]
pub fn virtual_host(domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: Arc::from(domains.first().copied().unwrap_or_default()),
        domains: domains.iter().map(|d| DomainPattern::parse(d).expect("a valid domain")).collect(),
        routes,
        overrides: FilterOverrides::default(),
    }
}

/// A route configuration.
#[must_use]
pub fn route_config(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfig {
    RouteConfig { name: Arc::from(name), virtual_hosts }
}

/// The owner of what a [`RequestHead`] borrows.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// `:method`.
    pub method: Method,
    /// `:authority`.
    pub authority: String,
    /// `:path`.
    pub path_and_query: String,
    /// Headers.
    pub headers: HeaderMap,
}

/// A peer of a mutual-TLS connection from 10.0.0.1:40000 to 10.0.0.2:443, whose certificate has this URI name.
#[must_use]
pub fn mtls_peer(uri: &str) -> Peer {
    let names =
        CertificateNames { uris: vec![uri.into()], spiffe: SpiffeId::parse(uri).ok(), ..Default::default() };
    let tls = TlsPeer { certificate: Some(names), server_name: None };
    Peer { tls: Some(Arc::new(tls)), ..plaintext_peer() }
}

/// A plaintext peer at 10.0.0.1:40000, connected to 10.0.0.2:443.
#[must_use]
pub fn plaintext_peer() -> Peer {
    Peer {
        remote: Some(SocketAddr::from(([10, 0, 0, 1], 40_000))),
        local: Some(SocketAddr::from(([10, 0, 0, 2], 443))),
        ..Peer::default()
    }
}

// === impl EndpointsBuilder ===

impl EndpointsBuilder {
    /// One priority, one locality, no endpoint.
    #[must_use]
    pub fn new() -> Self {
        Self { config: EndpointsConfig::empty("endpoints") }.priority()
    }

    /// Begins the next priority, with a locality of weight 1.
    #[must_use]
    pub fn priority(mut self) -> Self {
        self.config.priorities.push(PriorityConfig::default());
        self.locality("a", 1)
    }

    /// Begins the next locality. One that has no endpoint yet is replaced.
    #[must_use]
    pub fn locality(mut self, zone: &str, share: u32) -> Self {
        let id = LocalityId { zone: zone.into(), ..LocalityId::default() };
        let locality = LocalityConfig { id: Arc::new(id), weight: weight(share), endpoints: Vec::new() };
        let localities = &mut self.config.priorities.last_mut().expect("one priority").localities;
        if localities.last().is_some_and(|last| last.endpoints.is_empty()) {
            localities.pop();
        }
        localities.push(locality);
        self
    }

    /// An endpoint of weight 1 with unknown health.
    #[must_use]
    pub fn endpoint(self, address: Address) -> Self {
        self.push(EndpointConfig::new(address))
    }

    /// An endpoint of this weight.
    #[must_use]
    pub fn weighted(self, address: Address, value: u32) -> Self {
        self.push(EndpointConfig { weight: weight(value), ..EndpointConfig::new(address) })
    }

    /// An endpoint of this health.
    #[must_use]
    pub fn health(self, address: Address, health: HealthStatus) -> Self {
        self.push(EndpointConfig { health, ..EndpointConfig::new(address) })
    }

    /// Any endpoint.
    #[must_use]
    pub fn push(mut self, endpoint: EndpointConfig) -> Self {
        let priority = self.config.priorities.last_mut().expect("one priority");
        priority.localities.last_mut().expect("one locality").endpoints.push(endpoint);
        self
    }

    /// A share of requests that is dropped.
    #[must_use]
    pub fn drop_overload(mut self, category: &str, per_million: u32) -> Self {
        let share = PerMillion::new(per_million).expect("a share of at most a million");
        self.config.drops.push(DropOverload { category: category.into(), share });
        self
    }

    /// The endpoints.
    #[must_use]
    pub fn build(self) -> EndpointsConfig {
        self.config
    }
}

impl Default for EndpointsBuilder {
    fn default() -> Self {
        Self::new()
    }
}

// === impl TestRequest ===

impl TestRequest {
    /// A GET of this path at `test.example`.
    #[must_use]
    pub fn get(path_and_query: &str) -> Self {
        Self {
            method: Method::GET,
            authority: "test.example".into(),
            path_and_query: path_and_query.into(),
            headers: HeaderMap::new(),
        }
    }

    /// A gRPC call of this method.
    #[must_use]
    pub fn grpc(path: &str) -> Self {
        let call = Self { method: Method::POST, ..Self::get(path) };
        call.header("content-type", "application/grpc").header("te", "trailers")
    }

    /// One more header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a header name");
        self.headers.append(name, HeaderValue::try_from(value).expect("a header value"));
        self
    }

    /// Another authority.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = authority.into();
        self
    }

    /// Another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// What a decision sees.
    #[must_use]
    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            scheme: "http",
            authority: &self.authority,
            target: Target::new(&self.path_and_query),
            headers: &self.headers,
            kind: RequestKind::of(&self.headers),
            trusts_forwarded_for: false,
        }
    }
}
