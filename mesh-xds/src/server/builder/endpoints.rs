//! `envoy.config.endpoint.v3.ClusterLoadAssignment`.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use mesh_core::config::endpoints::Address;

use super::{address, per_million, socket_address, uint32};
use crate::ads::Kind;
use crate::server::resource::{Resource, Resources};

/// The endpoints of one EDS service.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    pb: pb::ClusterLoadAssignment,
}

/// The endpoints of one locality, at one priority.
#[derive(Debug, Clone)]
pub struct Locality {
    pb: pb::LocalityLbEndpoints,
}

// === impl Endpoints ===

impl Endpoints {
    /// No endpoints yet, under a name. Inside [`Cluster::endpoints`](super::Cluster::endpoints) the cluster gives the name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { pb: pb::ClusterLoadAssignment { cluster_name: name.into(), ..Default::default() } }
    }

    /// Endpoints of equal weight in one locality.
    #[must_use]
    pub fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::new("").locality(Locality::new("").endpoints(addresses))
    }

    pub(super) fn of_host(host: impl Into<String>, port: u16) -> Self {
        let mut locality = Locality::new("");
        locality.push(socket_address(host.into(), port), 1, core::HealthStatus::Unknown);
        Self::new("").locality(locality)
    }

    /// Gives the resource its name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.pb.cluster_name = name.into();
        self
    }

    /// Adds a locality.
    #[must_use]
    pub fn locality(mut self, locality: Locality) -> Self {
        self.pb.endpoints.push(locality.pb);
        self
    }

    /// Drops so many requests of a million, for a reason.
    #[must_use]
    pub fn drop_overload(mut self, category: impl Into<String>, share: u32) -> Self {
        let drop = pb::cluster_load_assignment::policy::DropOverload {
            category: category.into(),
            drop_percentage: Some(per_million(share)),
        };
        self.pb.policy.get_or_insert_default().drop_overloads.push(drop);
        self
    }

    pub(super) fn into_message(self) -> pb::ClusterLoadAssignment {
        self.pb
    }
}

impl Resources for Endpoints {
    fn into_resources(self) -> Vec<Resource> {
        vec![Resource::message(Kind::Endpoints, self.pb.cluster_name.clone(), &self.pb)]
    }
}

// === impl Locality ===

impl Locality {
    /// A locality by its zone, with weight 1, at priority 0.
    #[must_use]
    pub fn new(zone: impl Into<String>) -> Self {
        let locality = core::Locality { region: String::new(), zone: zone.into(), sub_zone: String::new() };
        Self {
            pb: pb::LocalityLbEndpoints {
                locality: Some(locality),
                load_balancing_weight: Some(uint32(1)),
                ..Default::default()
            },
        }
    }

    /// Its weight among the localities of its priority.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.pb.load_balancing_weight = Some(uint32(weight));
        self
    }

    /// Its priority; 0 is served first.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.pb.priority = priority;
        self
    }

    /// Adds endpoints of weight 1.
    #[must_use]
    pub fn endpoints(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        for at in addresses {
            self.push(address(at), 1, core::HealthStatus::Unknown);
        }
        self
    }

    /// Adds an endpoint of weight 1: a `SocketAddr`, or the path of a unix-domain socket.
    #[must_use]
    pub fn endpoint(mut self, at: impl Into<Address>) -> Self {
        self.push(address(at), 1, core::HealthStatus::Unknown);
        self
    }

    /// Adds an endpoint with a weight.
    #[must_use]
    pub fn weighted(mut self, at: SocketAddr, weight: u32) -> Self {
        self.push(address(at), weight, core::HealthStatus::Unknown);
        self
    }

    /// Adds an endpoint that the control plane calls unhealthy.
    #[must_use]
    pub fn unhealthy(mut self, at: SocketAddr) -> Self {
        self.push(address(at), 1, core::HealthStatus::Unhealthy);
        self
    }

    /// Adds an endpoint that is leaving: it gets no new requests.
    #[must_use]
    pub fn draining(mut self, at: SocketAddr) -> Self {
        self.push(address(at), 1, core::HealthStatus::Draining);
        self
    }

    fn push(&mut self, address: core::Address, weight: u32, health: core::HealthStatus) {
        self.pb.lb_endpoints.push(pb::LbEndpoint {
            health_status: health.into(),
            metadata: None,
            load_balancing_weight: Some(uint32(weight)),
            host_identifier: Some(pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint {
                address: Some(address),
                ..Default::default()
            })),
        });
    }
}
