//! The typed builder: xDS resources without protobuf in sight.
//!
//! It covers what this mesh and gRPC's clients understand, and writes each field where Envoy and gRPC both look for it.
//! It does not check: whatever is built is served, so that a test can also build what a client has to refuse. For fields
//! that it lacks there are resource files, and [`Resource::decode`](super::Resource::decode).

mod cluster;
mod endpoints;
mod listener;
mod rbac;
mod retry;
mod route;
mod tls;

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3 as percent;
use envoy_types::pb::google::protobuf as wkt;
use envoy_types::util::pack_any;
use mesh_core::config::endpoints::Address;
use prost::{Message, Name};

pub use self::cluster::{Cluster, Lb};
pub use self::endpoints::{Endpoints, Locality};
pub use self::listener::Listener;
pub use self::rbac::{Permission, Policy, Principal, Rbac};
pub use self::retry::Retry;
pub use self::route::{HeaderMatch, Route, RouteConfig, VirtualHost};
pub use self::tls::{DownstreamTls, UpstreamTls};

/// "From the same ADS stream", with the resources of version 3.
fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..Default::default()
    }
}

fn duration(value: Duration) -> wkt::Duration {
    wkt::Duration {
        // 292 billion years: saturating is as good as right.
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

fn uint32(value: u32) -> wkt::UInt32Value {
    wkt::UInt32Value { value }
}

fn boolean(value: bool) -> wkt::BoolValue {
    wkt::BoolValue { value }
}

fn per_million(numerator: u32) -> percent::FractionalPercent {
    percent::FractionalPercent {
        numerator,
        denominator: percent::fractional_percent::DenominatorType::Million.into(),
    }
}

fn address(at: impl Into<Address>) -> core::Address {
    match at.into() {
        Address::Socket(at) => socket_address(at.ip().to_string(), at.port()),
        Address::Unix(path) => {
            let path = path.to_string_lossy().into_owned();
            core::Address { address: Some(core::address::Address::Pipe(core::Pipe { path, mode: 0 })) }
        }
    }
}

fn socket_address(host: String, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: host,
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

fn exactly(text: impl Into<String>) -> matcher::StringMatcher {
    string(matcher::string_matcher::MatchPattern::Exact(text.into()))
}

fn prefixed(text: impl Into<String>) -> matcher::StringMatcher {
    string(matcher::string_matcher::MatchPattern::Prefix(text.into()))
}

fn string(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) }
}

fn regex(regex: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: regex.into(), engine_type: None }
}

fn transport_socket<M: Message + Name>(context: M) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack_any(context))),
    }
}
