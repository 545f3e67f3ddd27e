//! `envoy.config.listener.v3.Listener`: what a client target or a server address starts from.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::endpoints::Address;
use super::filter::HttpFilter;
use super::route::RouteConfig;
use super::security::DownstreamTls;
use crate::rbac::RbacConfig;

/// A listener, by which side it serves.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerConfig {
    /// `api_listener`: a client target (gRFC A27).
    Client(HttpConfig),
    /// A listening address of a server (gRFC A36).
    Server(ServerListener),
}

/// `HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Where its routes come from.
    pub routes: RouteSource,
    /// Filters in order, the router last.
    pub filters: Vec<HttpFilter>,
    /// `common_http_protocol_options.max_stream_duration` (gRFC A31).
    pub max_stream_duration: Option<Duration>,
    /// `common_http_protocol_options.idle_timeout`: a connection without streams is closed after this.
    pub idle_timeout: Option<Duration>,
    /// `request_headers_timeout`: how long a client may take to send its headers.
    pub headers_timeout: Option<Duration>,
    /// `http2_protocol_options.max_concurrent_streams`.
    pub max_concurrent_streams: Option<u32>,
    /// `max_request_headers_kb`, in bytes.
    pub max_header_bytes: Option<u32>,
    /// What only a server looks at.
    pub serving: ServingConfig,
}

/// What a server grants a request or a connection, where it is configured (no default of Envoy's applies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServingConfig {
    /// `stream_idle_timeout`: a request ends when neither it nor its response has gone on for this long.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_timeout`: how long a client may take to send all of its request.
    pub request_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`: a connection is sent away after this.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_headers_count`, of a request.
    pub max_headers_count: Option<u32>,
    /// Not `use_remote_address`: rules about `remote_ip` believe the last entry of `x-forwarded-for`.
    pub trusts_forwarded_for: bool,
}

/// Where routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// By name, over RDS.
    Rds(Arc<str>),
    /// Within the listener.
    Inline(Arc<RouteConfig>),
}

/// A listening address of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerListener {
    /// The address that the configuration names.
    pub address: Address,
    /// Chains in order; the most specific match wins, not the first (gRFC A36).
    pub chains: Vec<FilterChain>,
    /// The chain of connections that match no other; none closes them.
    pub default_chain: Option<FilterChain>,
}

/// What a server does with connections that match.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Its name, for logs.
    pub name: Arc<str>,
    /// Which connections.
    pub matches: ChainMatch,
    /// None is plaintext.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Network RBAC filters in order: decided on the connection alone, before any byte of HTTP.
    pub network_rbac: Vec<Arc<RbacConfig>>,
    /// HTTP on top.
    pub http: HttpConfig,
}

/// `FilterChainMatch`, the parts that gRFC A36 honours. Empty lists match everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainMatch {
    /// Destination addresses.
    pub destination: Vec<IpNet>,
    /// Where connections come from.
    pub source_type: SourceType,
    /// Source addresses.
    pub source: Vec<IpNet>,
    /// Source ports.
    pub source_ports: Vec<u16>,
    /// Whether `transport_protocol: raw_buffer` was set: preferred over a chain that leaves it unset.
    pub raw_buffer: bool,
}

/// `FilterChainMatch.ConnectionSourceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// The same address, or loopback.
    SameIpOrLoopback,
    /// Anywhere else.
    External,
}

// === impl ListenerConfig ===

impl ListenerConfig {
    /// Every HTTP connection manager of the listener.
    pub fn http(&self) -> impl Iterator<Item = &HttpConfig> {
        let (client, server) = match self {
            Self::Client(http) => (Some(http), None),
            Self::Server(server) => (None, Some(server)),
        };
        let chains = server.into_iter().flat_map(|s| s.chains.iter().chain(&s.default_chain));
        client.into_iter().chain(chains.map(|chain| &chain.http))
    }
}

// === impl HttpConfig ===

impl HttpConfig {
    /// Routes and a router, nothing else.
    #[must_use]
    pub fn new(routes: RouteSource) -> Self {
        let router = HttpFilter {
            name: Arc::from("router"),
            config: super::filter::FilterConfig::Router,
            disabled: false,
        };
        Self {
            routes,
            filters: vec![router],
            max_stream_duration: None,
            idle_timeout: None,
            headers_timeout: None,
            max_concurrent_streams: None,
            max_header_bytes: None,
            serving: ServingConfig::default(),
        }
    }
}
