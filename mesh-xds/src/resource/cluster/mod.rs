//! `Cluster` (gRFC A27, A32, A37, A42, A48, A52, A105).
//!
//! Endpoints come from EDS or from the cluster itself; every other kind of discovery is refused.
//!
//! Deviations: `lb_policy` is not looked at where `load_balancing_policy` overrides it; a policy that is not implemented
//! is refused rather than replaced; `use_downstream_protocol_config` means the version that ALPN chooses, since there is
//! no downstream connection whose version could be copied.
#![expect(deprecated, reason = "deprecated fields must be decided as well")]

mod http;
mod lb;
mod limits;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::google::protobuf::{Value, value::Kind};
use mesh_core::config::cluster::{ClusterConfig, Discovery, ServiceLabels};
use mesh_core::config::units::Percent;

use super::common::{ads_source, duration, percent};
use super::range::{self, Ranged as _, ranged};
use super::{Rules, endpoints, tls};
use crate::invalid::{Invalid, Place, Reason, fields};
use crate::xdstp::{canonical, is_xdstp};

pub(super) type Proto = Cluster;

const STATIC: i32 = DiscoveryType::Static as i32;

/// A cluster.
#[expect(clippy::too_many_lines, reason = "one list of the fields of one message, each with its decision")]
pub(super) fn validate(pb: Cluster, rules: &Rules, at: &Place<'_>) -> Result<ClusterConfig, Invalid> {
    let Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name: _,
        stats_matcher: _,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options: _, // HTTP/1.1, which is the default
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init: _, // a snapshot is complete or not published
        outlier_detection,
        cleanup_interval, // of `ORIGINAL_DST`
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection: _, // replaced by `http_protocol_options` of `typed_extension_protocol_options`
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets: _,
        upstream_config,
        track_cluster_stats: _,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = pb;
    at.refuse_if(fields![transport_socket_matches, transport_socket_matcher, filters, upstream_config])?;
    at.unapplied_if(fields![
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        health_checks,
        max_requests_per_connection,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        outlier_detection,
        upstream_bind_config,
        lb_subset_config,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        lrs_server,
        lrs_report_endpoint_metrics,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
    ]);
    range::check(
        ranged![
            per_connection_buffer_high_watermark_timeout,
            health_checks,
            dns_refresh_rate,
            dns_jitter,
            dns_failure_refresh_rate,
            outlier_detection,
            cleanup_interval,
        ],
        at,
    )?;
    let name = canonical(&name);
    let common_lb = common_lb(common_lb_config, &at.at("common_lb_config"))?;
    let (lb, by_name) = match load_balancing_policy {
        Some(pb) => (lb::policy(pb, 0, &at.at("load_balancing_policy"))?, false),
        None => (lb::by_enum(lb_policy, lb_config, at)?, true),
    };
    let mut locality_weighted = lb.locality_weighted || common_lb.locality_weighted;
    if matches!(cluster_discovery_type, None | Some(ClusterDiscoveryType::Type(STATIC))) {
        // Envoy's rule, where nobody but Envoy has such clusters: weights count where that is asked for, and there are any.
        let is_asked = common_lb.locality_weighted || (!by_name && lb.locality_weighted);
        locality_weighted = is_asked && load_assignment.as_ref().is_some_and(endpoints::has_weights);
    }
    let given = Given { eds: eds_cluster_config, inline: load_assignment, locality_weighted };
    let discovery = discovery(cluster_discovery_type, given, &name, at)?;
    let by_fields = http::Fields {
        upstream: upstream_http_protocol_options,
        common: common_http_protocol_options,
        http2: http2_protocol_options,
    };
    let http = http::options(by_fields, typed_extension_protocol_options, at)?;
    Ok(ClusterConfig {
        name,
        discovery,
        lb: lb.policy,
        locality_weighted,
        panic_threshold: common_lb.panic_threshold,
        limits: limits::breakers(circuit_breakers, &at.at("circuit_breakers"))?,
        tls: tls::upstream(transport_socket, rules, &at.at("transport_socket"))?,
        protocol: http.protocol,
        connect_timeout: connect_timeout_of(connect_timeout, &at.at("connect_timeout"))?,
        keepalive: http.keepalive,
        telemetry: metadata.as_ref().and_then(service_labels).map(Arc::new),
    })
}

/// The text of a `google.protobuf.Value`, if it is one.
pub(super) fn string_value(pb: &Value) -> Option<&str> {
    match &pb.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn connect_timeout_of(
    pb: Option<envoy_types::pb::google::protobuf::Duration>,
    at: &Place<'_>,
) -> Result<Duration, Invalid> {
    match pb.map(|pb| duration(pb, at)).transpose()? {
        None => Ok(ClusterConfig::CONNECT_TIMEOUT),
        Some(Duration::ZERO) => at.fail(Reason::Rule("must be more than 0")),
        Some(given) => Ok(given),
    }
}

/// What a cluster says of its endpoints.
struct Given {
    eds: Option<EdsClusterConfig>,
    inline: Option<ClusterLoadAssignment>,
    /// The weights of localities count.
    locality_weighted: bool,
}

fn discovery(
    kind: Option<ClusterDiscoveryType>,
    given: Given,
    name: &Arc<str>,
    at: &Place<'_>,
) -> Result<Discovery, Invalid> {
    let Given { eds, inline, locality_weighted } = given;
    let type_at = at.at("type");
    let kind = match kind {
        // protobuf's default of the enumeration
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(value)) => {
            type_at.check(DiscoveryType::try_from(value).map_err(|_| Reason::UnknownEnum(value)))?
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return at.at("cluster_type").fail(Reason::UnsupportedExtension(custom.name));
        }
    };
    let inline_at = at.at("load_assignment");
    match kind {
        DiscoveryType::Eds => {
            if inline.is_some() {
                inline_at.unapplied();
            }
            let at = at.at("eds_cluster_config");
            let EdsClusterConfig { eds_config, service_name } = at.required(eds)?;
            ads_source(eds_config, &at.at("eds_config"))?;
            match service_name.is_empty() {
                // The name of a cluster is of another type than that of its endpoints (gRFC A47).
                true if is_xdstp(name) => at.at("service_name").fail(Reason::Empty),
                true => Ok(Discovery::Eds { service: name.clone() }),
                // One text for both, as control planes tend to have it.
                false if service_name == **name => Ok(Discovery::Eds { service: name.clone() }),
                false => Ok(Discovery::Eds { service: canonical(&service_name) }),
            }
        }
        DiscoveryType::Static => {
            if eds.is_some() {
                let reason = Reason::Rule("has no meaning unless the type is EDS");
                return at.at("eds_cluster_config").fail(reason);
            }
            let mut pb = inline_at.required(inline)?;
            if pb.cluster_name.is_empty() {
                pb.cluster_name = name.to_string();
            }
            let endpoints =
                endpoints::assignment(pb, endpoints::Origin::Inline { locality_weighted }, &inline_at)?;
            Ok(Discovery::Static(Arc::new(endpoints)))
        }
        // Nothing would ever find their endpoints.
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns | DiscoveryType::OriginalDst => {
            type_at.fail(Reason::UnsupportedValue(kind.as_str_name().to_owned()))
        }
    }
}

/// What `common_lb_config` decides.
#[derive(Default)]
struct CommonLb {
    panic_threshold: Option<Percent>,
    locality_weighted: bool,
}

fn common_lb(pb: Option<CommonLbConfig>, at: &Place<'_>) -> Result<CommonLb, Invalid> {
    let Some(pb) = pb else { return Ok(CommonLb::default()) };
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window, // an update is one swap
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = pb;
    at.unapplied_if(fields![
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
    ]);
    range::check(ranged![update_merge_window], at)?;
    let panic_at = at.at("healthy_panic_threshold");
    let panic_threshold = match healthy_panic_threshold {
        // The whole part counts, as in Envoy.
        Some(pb) => Some(panic_at.check(Percent::new(percent(pb, &panic_at)? as u32))?),
        None => None,
    };
    let locality_weighted = match locality_config_specifier {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(pb)) => {
            let at = at.at("zone_aware_lb_config");
            pb.in_range(&at)?;
            at.unapplied();
            false
        }
        None => false,
    };
    Ok(CommonLb { panic_threshold, locality_weighted })
}

/// Istio's `services`, else the labels of `com.google.csm.telemetry_labels`; what is missing is `unknown`.
fn service_labels(pb: &Metadata) -> Option<ServiceLabels> {
    let Metadata { filter_metadata, typed_filter_metadata: _ } = pb;
    let istio = filter_metadata.get("istio").and_then(|m| m.fields.get("services")).and_then(first);
    let csm = filter_metadata.get("com.google.csm.telemetry_labels");
    let (fields, [host, name, namespace]) = match (istio, csm) {
        (Some(fields), _) => (fields, ["host", "name", "namespace"]),
        (None, Some(csm)) => (&csm.fields, ["host", "service_name", "service_namespace"]),
        (None, None) => return None,
    };
    let label = |key| Arc::from(fields.get(key).and_then(string_value).unwrap_or("unknown"));
    Some(ServiceLabels { host: label(host), name: label(name), namespace: label(namespace), workload: None })
}

type Fields = std::collections::HashMap<String, Value>;

fn first(pb: &Value) -> Option<&Fields> {
    let Some(Kind::ListValue(list)) = &pb.kind else { return None };
    match &list.values.first()?.kind {
        Some(Kind::StructValue(fields)) => Some(&fields.fields),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
