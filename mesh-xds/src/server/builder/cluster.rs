//! `envoy.config.cluster.v3.Cluster`.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::util::pack_any;

use super::endpoints::Endpoints;
use super::tls::UpstreamTls;
use super::{ads, duration, transport_socket, uint32};
use crate::ads::Kind;
use crate::server::resource::{Resource, Resources};

/// A cluster: where its endpoints come from, and how to talk to them.
#[derive(Debug, Clone)]
pub struct Cluster {
    pb: pb::Cluster,
    limits: pb::circuit_breakers::Thresholds,
    per_endpoint: pb::circuit_breakers::Thresholds,
    endpoints: Option<Endpoints>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lb {
    /// One after the other, by weight.
    RoundRobin,
    /// Any.
    Random,
    /// The least loaded of so many, drawn at random.
    LeastRequest(u32),
    /// By hash, on a ring.
    RingHash,
    /// By hash, on a Maglev table.
    Maglev,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster whose endpoints come by EDS, under its own name.
    #[must_use]
    pub fn eds(name: impl Into<String>) -> Self {
        let mut cluster = Self::new(name.into(), pb::cluster::DiscoveryType::Eds);
        cluster.pb.eds_cluster_config =
            Some(pb::cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() });
        cluster
    }

    /// A cluster that carries its endpoints.
    #[must_use]
    pub fn fixed(name: impl Into<String>, endpoints: Endpoints) -> Self {
        let name = name.into();
        let mut cluster = Self::new(name.clone(), pb::cluster::DiscoveryType::Static);
        cluster.pb.load_assignment = Some(endpoints.named(name).into_message());
        cluster
    }

    /// A cluster of one host name, resolved by the client.
    #[must_use]
    pub fn dns(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        let name = name.into();
        let mut cluster = Self::new(name.clone(), pb::cluster::DiscoveryType::LogicalDns);
        cluster.pb.load_assignment = Some(Endpoints::of_host(host, port).named(name).into_message());
        cluster
    }

    /// The endpoints, as an EDS resource that goes in together with the cluster.
    #[must_use]
    pub fn endpoints(mut self, endpoints: Endpoints) -> Self {
        self.endpoints = Some(endpoints);
        self
    }

    /// The EDS resource's name, where it is not the cluster's.
    #[must_use]
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.pb.eds_cluster_config =
            Some(pb::cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: name.into() });
        self
    }

    /// How an endpoint is chosen.
    #[must_use]
    pub fn lb(mut self, lb: Lb) -> Self {
        use pb::cluster::LbPolicy;
        let policy = match lb {
            Lb::RoundRobin => LbPolicy::RoundRobin,
            Lb::Random => LbPolicy::Random,
            Lb::LeastRequest(_) => LbPolicy::LeastRequest,
            Lb::RingHash => LbPolicy::RingHash,
            Lb::Maglev => LbPolicy::Maglev,
        };
        self.pb.lb_policy = policy.into();
        self.pb.lb_config = match lb {
            Lb::LeastRequest(choices) => {
                Some(pb::cluster::LbConfig::LeastRequestLbConfig(pb::cluster::LeastRequestLbConfig {
                    choice_count: Some(uint32(choices)),
                    ..Default::default()
                }))
            }
            Lb::RoundRobin | Lb::Random | Lb::RingHash | Lb::Maglev => None,
        };
        self
    }

    /// Locality weights count (`locality_weighted_lb_config`; gRPC clients always heed them).
    #[must_use]
    pub fn locality_weighted(mut self) -> Self {
        use pb::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
        self.common_lb().locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default()));
        self
    }

    /// Below this share of healthy endpoints, health is ignored.
    #[must_use]
    pub fn panic_threshold(mut self, percent: f64) -> Self {
        self.common_lb().healthy_panic_threshold = Some(Percent { value: percent });
        self
    }

    /// TLS to the endpoints.
    #[must_use]
    pub fn tls(mut self, tls: UpstreamTls) -> Self {
        self.pb.transport_socket = Some(transport_socket(tls.into_message()));
        self
    }

    /// HTTP/2 to the endpoints, whatever the request (gRPC needs no such word).
    #[must_use]
    pub fn http2(self) -> Self {
        use upstream::http_protocol_options::explicit_http_config::ProtocolConfig;
        self.protocol(ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()))
    }

    /// HTTP/1.1 to the endpoints.
    #[must_use]
    pub fn http1(self) -> Self {
        use upstream::http_protocol_options::explicit_http_config::ProtocolConfig;
        self.protocol(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default()))
    }

    /// How long a connect may take.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.pb.connect_timeout = Some(duration(limit));
        self
    }

    /// At most so many requests in flight.
    #[must_use]
    pub fn max_requests(mut self, limit: u32) -> Self {
        self.limits.max_requests = Some(uint32(limit));
        self
    }

    /// At most so many requests waiting for a connection.
    #[must_use]
    pub fn max_pending_requests(mut self, limit: u32) -> Self {
        self.limits.max_pending_requests = Some(uint32(limit));
        self
    }

    /// At most so many connections.
    #[must_use]
    pub fn max_connections(mut self, limit: u32) -> Self {
        self.limits.max_connections = Some(uint32(limit));
        self
    }

    /// At most so many connections to each endpoint.
    #[must_use]
    pub fn max_connections_per_endpoint(mut self, limit: u32) -> Self {
        self.per_endpoint.max_connections = Some(uint32(limit));
        self
    }

    /// At most so many retries in flight.
    #[must_use]
    pub fn max_retries(mut self, limit: u32) -> Self {
        self.limits.max_retries = Some(uint32(limit));
        self
    }

    fn new(name: String, discovery: pb::cluster::DiscoveryType) -> Self {
        let pb = pb::Cluster {
            name,
            cluster_discovery_type: Some(pb::cluster::ClusterDiscoveryType::Type(discovery.into())),
            ..Default::default()
        };
        let none = pb::circuit_breakers::Thresholds::default;
        Self { pb, limits: none(), per_endpoint: none(), endpoints: None }
    }

    fn common_lb(&mut self) -> &mut pb::cluster::CommonLbConfig {
        self.pb.common_lb_config.get_or_insert_default()
    }

    fn protocol(
        mut self,
        protocol: upstream::http_protocol_options::explicit_http_config::ProtocolConfig,
    ) -> Self {
        use upstream::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
        let options = upstream::HttpProtocolOptions {
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
                ExplicitHttpConfig { protocol_config: Some(protocol) },
            )),
            ..Default::default()
        };
        self.pb.typed_extension_protocol_options.insert(HTTP_PROTOCOL_OPTIONS.into(), pack_any(options));
        self
    }
}

impl Resources for Cluster {
    fn into_resources(self) -> Vec<Resource> {
        let Self { mut pb, limits, per_endpoint, endpoints } = self;
        let given = |limits| {
            let is_given = limits != pb::circuit_breakers::Thresholds::default();
            is_given.then_some(limits).into_iter().collect::<Vec<_>>()
        };
        let (thresholds, per_host_thresholds) = (given(limits), given(per_endpoint));
        if !thresholds.is_empty() || !per_host_thresholds.is_empty() {
            pb.circuit_breakers = Some(pb::CircuitBreakers { thresholds, per_host_thresholds });
        }
        let service = match &pb.eds_cluster_config {
            Some(eds) if !eds.service_name.is_empty() => eds.service_name.clone(),
            _ => pb.name.clone(),
        };
        let mut resources = vec![Resource::message(Kind::Cluster, pb.name.clone(), &pb)];
        if let Some(endpoints) = endpoints {
            resources.extend(endpoints.named(service).into_resources());
        }
        resources
    }
}

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
