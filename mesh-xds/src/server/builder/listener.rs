//! `envoy.config.listener.v3.Listener`, for clients (`api_listener`, gRFC A27) and for servers (gRFC A36).

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use hcm::http_connection_manager::RouteSpecifier;
use mesh_core::config::endpoints::Address;

use super::rbac::Rbac;
use super::route::RouteConfig;
use super::tls::DownstreamTls;
use super::{address, ads, duration, transport_socket};
use crate::ads::Kind;
use crate::server::resource::{Resource, Resources};

/// A listener: what a client's target name, or a server's address, resolves to.
#[derive(Debug, Clone)]
pub struct Listener {
    name: String,
    manager: hcm::HttpConnectionManager,
    side: Side,
}

#[derive(Debug, Clone)]
enum Side {
    Client,
    Server { at: Address, tls: Option<DownstreamTls> },
}

// === impl Listener ===

impl Listener {
    /// A client's listener; the name is the target without its scheme. Without routes of its own it asks for the route
    /// table of the same name.
    #[must_use]
    pub fn client(target: impl Into<String>) -> Self {
        let name = target.into();
        Self::new(name.clone(), Side::Client).rds(name)
    }

    /// A server's listener, under the name that the usual bootstrap template
    /// (`grpc/server?xds.resource.listening_address=%s`) gives it. Without routes of its own everything goes to the
    /// application. An address is a `SocketAddr` or the path of a unix-domain socket.
    #[must_use]
    pub fn server(at: impl Into<Address>) -> Self {
        let at = at.into();
        let name = format!("grpc/server?xds.resource.listening_address={at}");
        Self::new(name, Side::Server { at, tls: None }).routes(RouteConfig::non_forwarding("inbound"))
    }

    /// Another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Routes by RDS.
    #[must_use]
    pub fn rds(mut self, name: impl Into<String>) -> Self {
        self.manager.route_specifier = Some(RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(ads()),
            route_config_name: name.into(),
        }));
        self
    }

    /// Routes in the listener itself.
    #[must_use]
    pub fn routes(mut self, routes: RouteConfig) -> Self {
        self.manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes.into_message()));
        self
    }

    /// TLS of incoming connections. For a client's listener it means nothing.
    #[must_use]
    pub fn tls(mut self, tls: DownstreamTls) -> Self {
        if let Side::Server { tls: context, .. } = &mut self.side {
            *context = Some(tls);
        }
        self
    }

    /// Adds an authorization filter, after those that are there.
    #[must_use]
    pub fn rbac(self, rbac: Rbac) -> Self {
        let name = format!("rbac{}", self.manager.http_filters.len());
        let config = pack_any(rbac.into_message());
        self.push_filter(name, config, false)
    }

    /// Adds an HTTP filter by its type and encoded configuration.
    #[must_use]
    pub fn http_filter(self, name: impl Into<String>, type_url: &str, config: Vec<u8>) -> Self {
        self.push_filter(name.into(), Any { type_url: type_url.into(), value: config }, false)
    }

    /// Adds an HTTP filter that a client may ignore if it does not know it.
    #[must_use]
    pub fn optional_http_filter(self, name: impl Into<String>, type_url: &str, config: Vec<u8>) -> Self {
        self.push_filter(name.into(), Any { type_url: type_url.into(), value: config }, true)
    }

    /// Streams end after this long, unless a route says otherwise.
    #[must_use]
    pub fn max_stream_duration(mut self, limit: Duration) -> Self {
        self.manager.common_http_protocol_options.get_or_insert_default().max_stream_duration =
            Some(duration(limit));
        self
    }

    /// Connections without a request end after this long.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.manager.common_http_protocol_options.get_or_insert_default().idle_timeout =
            Some(duration(limit));
        self
    }

    /// A request's headers have to arrive within this.
    #[must_use]
    pub fn request_headers_timeout(mut self, limit: Duration) -> Self {
        self.manager.request_headers_timeout = Some(duration(limit));
        self
    }

    /// A server ends a request when neither it nor its response has gone on for this long.
    #[must_use]
    pub fn stream_idle_timeout(mut self, limit: Duration) -> Self {
        self.manager.stream_idle_timeout = Some(duration(limit));
        self
    }

    /// A server gives a client this long to send all of its request.
    #[must_use]
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.manager.request_timeout = Some(duration(limit));
        self
    }

    /// A server sends a connection away after this long.
    #[must_use]
    pub fn max_connection_duration(mut self, limit: Duration) -> Self {
        self.manager.common_http_protocol_options.get_or_insert_default().max_connection_duration =
            Some(duration(limit));
        self
    }

    /// A server refuses requests of more headers than this.
    #[must_use]
    pub fn max_headers_count(mut self, limit: u32) -> Self {
        self.manager.common_http_protocol_options.get_or_insert_default().max_headers_count =
            Some(super::uint32(limit));
        self
    }

    /// At most so many streams on one connection.
    #[must_use]
    pub fn max_concurrent_streams(mut self, limit: u32) -> Self {
        self.manager.http2_protocol_options.get_or_insert_default().max_concurrent_streams =
            Some(super::uint32(limit));
        self
    }

    fn new(name: String, side: Side) -> Self {
        let manager = hcm::HttpConnectionManager { stat_prefix: name.clone(), ..Default::default() };
        Self { name, manager, side }
    }

    fn push_filter(mut self, name: String, config: Any, is_optional: bool) -> Self {
        self.manager.http_filters.push(filter(name, config, is_optional));
        self
    }
}

impl Resources for Listener {
    fn into_resources(self) -> Vec<Resource> {
        let Self { name, mut manager, side } = self;
        manager.http_filters.push(filter("router".into(), pack_any(Router::default()), false));
        let listener = match side {
            Side::Client => pb::Listener {
                name: name.clone(),
                api_listener: Some(pb::ApiListener { api_listener: Some(pack_any(manager)) }),
                ..Default::default()
            },
            Side::Server { at, tls } => pb::Listener {
                name: name.clone(),
                address: Some(address(at)),
                filter_chains: vec![pb::FilterChain {
                    name: "inbound".into(),
                    filters: vec![pb::Filter {
                        name: "http".into(),
                        config_type: Some(pb::filter::ConfigType::TypedConfig(pack_any(manager))),
                    }],
                    transport_socket: tls.map(|tls| transport_socket(tls.into_message())),
                    ..Default::default()
                }],
                ..Default::default()
            },
        };
        vec![Resource::message(Kind::Listener, name, &listener)]
    }
}

fn filter(name: String, config: Any, is_optional: bool) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name,
        is_optional,
        disabled: false,
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
    }
}
