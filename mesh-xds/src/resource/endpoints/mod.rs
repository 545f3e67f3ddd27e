//! `ClusterLoadAssignment` (gRFC A27, A61, A81).
//!
//! Over EDS gRPC's rules hold: a locality has an id, and one of weight 0 or without a weight is left out (and listed).
//! Inline in a cluster Envoy's hold, since such configuration is written by hand: the id may be empty, and so may the
//! weight; where localities are weighted, one without a weight is left out as well.
#![expect(deprecated, reason = "deprecated fields must be decided as well")]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{
    Address as PbAddress, HealthStatus as PbHealthStatus, Locality, Metadata,
};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload as PbDropOverload;
use envoy_types::pb::envoy::config::endpoint::v3::endpoint::AdditionalAddress;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::locality_lb_endpoints::LbConfig;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::google::protobuf::UInt32Value;
use mesh_core::config::endpoints::{
    Address, DropOverload, EndpointConfig, EndpointExtra, EndpointsConfig, HealthStatus, LocalityConfig,
    LocalityId, PriorityConfig,
};
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::config::units::{NonZeroWeight, OutOfRange};

use super::common;
use super::range::{self, ranged};
use crate::invalid::{Invalid, Place, Reason, fields};
use crate::xdstp::canonical;

pub(super) type Proto = ClusterLoadAssignment;

/// Where an assignment came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// EDS: gRPC's rules.
    Eds,
    /// `load_assignment` of a cluster: Envoy's rules.
    Inline {
        /// The cluster weighs its localities.
        locality_weighted: bool,
    },
}

/// Whether any locality has a weight.
pub(super) fn has_weights(pb: &ClusterLoadAssignment) -> bool {
    let of_locality =
        |locality: &LocalityLbEndpoints| locality.load_balancing_weight.is_some_and(|w| w.value > 0);
    pb.endpoints.iter().any(of_locality)
}

/// The endpoints of a cluster, over EDS.
pub(super) fn validate(pb: ClusterLoadAssignment, at: &Place<'_>) -> Result<EndpointsConfig, Invalid> {
    assignment(pb, Origin::Eds, at)
}

/// The endpoints of a cluster.
pub(super) fn assignment(
    pb: ClusterLoadAssignment,
    origin: Origin,
    at: &Place<'_>,
) -> Result<EndpointsConfig, Invalid> {
    let ClusterLoadAssignment { cluster_name, endpoints, named_endpoints, policy } = pb;
    at.unapplied_if(fields![named_endpoints]);
    let drops = policy.map_or_else(|| Ok(Vec::new()), |pb| drop_policy(pb, &at.at("policy")))?;
    let at = at.at("endpoints");
    let mut seen = Seen::default();
    let mut priorities: BTreeMap<u32, Priority> = BTreeMap::new();
    for (i, pb) in endpoints.into_iter().enumerate() {
        let at = at.index(i);
        let level = pb.priority;
        let Some(locality) = locality(pb, origin, &mut seen, &at)? else { continue };
        let priority = priorities.entry(level).or_default();
        priority.weight += u64::from(locality.weight.get());
        if priority.weight > u64::from(u32::MAX) {
            return at.at("load_balancing_weight").fail(Reason::WeightSum(priority.weight));
        }
        priority.localities.push(locality);
    }
    if let Some(gap) = (0..).zip(priorities.keys()).find(|(wanted, found)| wanted != *found) {
        return at.fail(Reason::PriorityGap(gap.0));
    }
    let mut all = Vec::with_capacity(priorities.len());
    for Priority { mut localities, weight: _ } in priorities.into_values() {
        localities.shrink_to_fit();
        all.push(PriorityConfig { localities });
    }
    Ok(EndpointsConfig { name: canonical(&cluster_name), priorities: all, drops })
}

/// What may be there once.
#[derive(Default)]
struct Seen {
    addresses: HashSet<Address>,
    localities: HashSet<(LocalityId, u32)>,
}

impl Seen {
    /// An address that no other endpoint of the cluster has (gRFC A61).
    fn address(&mut self, pb: Option<PbAddress>, at: &Place<'_>) -> Result<Address, Invalid> {
        let address = common::address(at.required(pb)?, at)?;
        if !self.addresses.insert(address.clone()) {
            return at.fail(Reason::Duplicate(address.to_string()));
        }
        Ok(address)
    }
}

#[derive(Default)]
struct Priority {
    localities: Vec<LocalityConfig>,
    weight: u64,
}

fn drop_policy(pb: Policy, at: &Place<'_>) -> Result<Vec<DropOverload>, Invalid> {
    let Policy { drop_overloads, overprovisioning_factor, endpoint_stale_after, weighted_priority_health } =
        pb;
    at.unapplied_if(fields![overprovisioning_factor, endpoint_stale_after, weighted_priority_health]);
    range::check(ranged![endpoint_stale_after], at)?;
    if let Some(UInt32Value { value }) = overprovisioning_factor {
        range::within(value, 1, u32::MAX, &at.at("overprovisioning_factor"))?;
    }
    let at = at.at("drop_overloads");
    let one = |(i, pb): (usize, PbDropOverload)| {
        let at = at.index(i);
        let PbDropOverload { category, drop_percentage } = pb;
        if category.is_empty() {
            return at.at("category").fail(Reason::Empty);
        }
        let share_at = at.at("drop_percentage");
        let share = common::fraction(share_at.required(drop_percentage)?, &share_at)?;
        Ok(DropOverload { category: Arc::from(category), share })
    };
    drop_overloads.into_iter().enumerate().map(one).collect()
}

/// None for a locality that is left out.
fn locality(
    pb: LocalityLbEndpoints,
    origin: Origin,
    seen: &mut Seen,
    at: &Place<'_>,
) -> Result<Option<LocalityConfig>, Invalid> {
    let LocalityLbEndpoints {
        locality,
        metadata: _,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = pb;
    at.unapplied_if(fields![proximity]);
    let weight = match (load_balancing_weight, origin) {
        (Some(UInt32Value { value: 1.. }), Origin::Inline { locality_weighted: false }) => {
            at.at("load_balancing_weight").unapplied();
            1
        }
        (None, Origin::Inline { locality_weighted: false }) => 1,
        (Some(UInt32Value { value }), _) => value,
        (None, Origin::Inline { locality_weighted: true } | Origin::Eds) => 0,
    };
    // Before any other check, as in gRPC: what takes no traffic cannot be wrong.
    let Some(weight) = NonZeroWeight::new(weight) else {
        at.at("load_balancing_weight").unapplied();
        return Ok(None);
    };
    let id_at = at.at("locality");
    let id = match (locality, origin) {
        (Some(Locality { region, zone, sub_zone }), _) => {
            LocalityId { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() }
        }
        (None, Origin::Inline { .. }) => LocalityId::default(),
        (None, Origin::Eds) => return id_at.fail(Reason::Missing),
    };
    if origin == Origin::Eds && !seen.localities.insert((id.clone(), priority)) {
        let name = format!("{}/{}/{}", id.region, id.zone, id.sub_zone);
        return id_at.fail(Reason::Duplicate(name));
    }
    let (list, list_at) = match lb_config {
        None => (lb_endpoints, at.at("lb_endpoints")),
        Some(LbConfig::LoadBalancerEndpoints(inner)) => {
            (inner.lb_endpoints, at.at("load_balancer_endpoints"))
        }
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            return at.at("leds_cluster_locality_config").fail(Reason::Unsupported);
        }
    };
    let mut sum = 0_u64;
    let mut endpoints = Vec::with_capacity(list.len());
    for (i, pb) in list.into_iter().enumerate() {
        let at = list_at.index(i);
        let endpoint = lb_endpoint(pb, seen, &at)?;
        sum += u64::from(endpoint.weight.get());
        if sum > u64::from(u32::MAX) {
            return at.at("load_balancing_weight").fail(Reason::WeightSum(sum));
        }
        endpoints.push(endpoint);
    }
    Ok(Some(LocalityConfig { id: Arc::new(id), weight, endpoints }))
}

fn lb_endpoint(pb: LbEndpoint, seen: &mut Seen, at: &Place<'_>) -> Result<EndpointConfig, Invalid> {
    let LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = pb;
    let weight_at = at.at("load_balancing_weight");
    let weight = match load_balancing_weight {
        None => NonZeroWeight::MIN,
        Some(UInt32Value { value }) => {
            let out = OutOfRange { value: value.into(), min: 1, max: u32::MAX.into() };
            weight_at.check(NonZeroWeight::new(value).ok_or(out))?
        }
    };
    let health = match PbHealthStatus::try_from(health_status) {
        Ok(PbHealthStatus::Unknown) => HealthStatus::Unknown,
        Ok(PbHealthStatus::Healthy) => HealthStatus::Healthy,
        Ok(PbHealthStatus::Degraded) => HealthStatus::Degraded,
        Ok(PbHealthStatus::Draining) => HealthStatus::Draining,
        Ok(PbHealthStatus::Unhealthy | PbHealthStatus::Timeout) => HealthStatus::Unhealthy,
        Err(_) => return at.at("health_status").fail(Reason::UnknownEnum(health_status)),
    };
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => return at.at("endpoint_name").fail(Reason::Unsupported),
        None => return at.at("endpoint").fail(Reason::Missing),
    };
    let at = at.at("endpoint");
    let Endpoint { address, health_check_config, hostname, additional_addresses, observability_name: _ } =
        endpoint;
    // The name would be that of a host rewrite (gRFC A81), which is listed as well.
    at.unapplied_if(fields![health_check_config, additional_addresses, hostname]);
    let address = seen.address(address, &at.at("address"))?;
    for (i, AdditionalAddress { address }) in additional_addresses.into_iter().enumerate() {
        seen.address(address, &at.at("additional_addresses").index(i).at("address"))?;
    }
    let extra = EndpointExtra {
        hostname: (!hostname.is_empty()).then(|| Arc::from(hostname)),
        workload: metadata.as_ref().and_then(workload).map(Arc::new),
    };
    let extra = (extra != EndpointExtra::default()).then(|| Arc::new(extra));
    Ok(EndpointConfig { address, weight, health, extra })
}

/// Istio's `workload;namespace;canonical-service;canonical-revision;cluster`; an empty part is unknown.
fn workload(pb: &Metadata) -> Option<WorkloadLabels> {
    let Metadata { filter_metadata, typed_filter_metadata: _ } = pb;
    let text = super::cluster::string_value(filter_metadata.get("istio")?.fields.get("workload")?)?;
    let mut parts = text.split(';').map(|part| if part.is_empty() { "unknown" } else { part });
    let mut next = || Arc::from(parts.next().unwrap_or("unknown"));
    Some(WorkloadLabels {
        workload: next(),
        namespace: next(),
        canonical_service: next(),
        canonical_revision: next(),
        cluster: next(),
    })
}

#[cfg(test)]
mod tests;
