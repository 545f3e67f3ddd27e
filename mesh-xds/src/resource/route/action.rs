//! What a route does: `RouteAction`, `DirectResponseAction`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier as PbClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration as PbMaxStreamDuration,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as ClusterHostRewrite;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RouteAction as PbRouteAction, WeightedCluster as PbWeightedCluster,
};
use http::StatusCode;
use http::uri::PathAndQuery;
use mesh_core::config::route::{
    ClusterSpecifier, ForwardAction, MaxStreamDuration, RouteAction, WeightedCluster,
};
use mesh_core::config::units::{NonZeroWeight, OutOfRange};

use super::super::common::{duration_opt, header_name, header_value, timeout_opt};
use super::super::range::ranged;
use super::super::{filter, range, retry};
use super::{Action, Inherited, Plugins};
use crate::invalid::{Invalid, Place, Reason, fields};
use crate::xdstp::canonical;

/// `RouteAction`; one whose cluster cannot be told keeps its place, and its requests fail.
pub(super) fn forward(
    pb: PbRouteAction,
    inherited: &Inherited<'_>,
    at: &Place<'_>,
) -> Result<Action, Invalid> {
    let PbRouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy: _, // 0-RTT is never accepted
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits: _, // of `rate_limits`
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects: _, // of the redirects above
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = pb;
    at.unapplied_if(fields![
        cluster_not_found_response_code,
        metadata_match,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        idle_timeout,
        flush_timeout,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        hedge_policy,
    ]);
    let timed = ranged![idle_timeout, flush_timeout, max_grpc_timeout, grpc_timeout_offset];
    range::check(timed, at)?;
    range::check(ranged![hedge_policy, request_mirror_policies], at)?;
    let timeout = timeout_opt(timeout, &at.at("timeout"))?;
    let max_stream_duration =
        max_stream_duration.map(|pb| stream_duration(pb, &at.at("max_stream_duration"))).transpose()?;
    let retry = match retry_policy {
        Some(pb) => Some(Arc::new(retry::policy(pb, &at.at("retry_policy"))?)),
        None => inherited.retry.clone(),
    };
    let cluster = match cluster(cluster_specifier, &inherited.common.plugins, at)? {
        Destination::Known(cluster) => cluster,
        Destination::Foreign { field, is_skipped_by_grpc } => {
            return Ok(Action { action: RouteAction::Unsupported(field), is_skipped_by_grpc });
        }
    };
    let action = RouteAction::Forward(ForwardAction {
        cluster,
        timeout,
        max_stream_duration,
        retry,
        prefix_rewrite: rewrite(prefix_rewrite, &at.at("prefix_rewrite"))?,
        host_rewrite: host_rewrite(host_rewrite_specifier, at)?,
    });
    Ok(Action { action, is_skipped_by_grpc: false })
}

/// What a path begins with, or is: whatever follows, it has to be a path.
fn rewrite(text: String, at: &Place<'_>) -> Result<Option<Arc<str>>, Invalid> {
    let rule = match text.parse::<PathAndQuery>() {
        _ if text.is_empty() => return Ok(None),
        _ if !text.starts_with('/') => "must begin with `/`",
        _ if text.contains('#') => "must not hold a fragment",
        Ok(_) => return Ok(Some(Arc::from(text))),
        Err(_) => "is not a path",
    };
    at.fail(Reason::Text { value: text, rule })
}

/// `DirectResponseAction`.
pub(super) fn direct_response(
    pb: DirectResponseAction,
    max_body: u32,
    at: &Place<'_>,
) -> Result<RouteAction, Invalid> {
    let DirectResponseAction { status, body, body_format } = pb;
    at.unapplied_if(fields![body_format]);
    let code = u16::try_from(status).ok().filter(|code| (200..600).contains(code));
    let code = code.and_then(|code| StatusCode::from_u16(code).ok());
    let out = OutOfRange { value: status.into(), min: 200, max: 599 };
    let status = at.at("status").check(code.ok_or(out))?;
    let at = at.at("body");
    let Some(body) = body.map_or(Ok(Some(Vec::new())), |pb| inline_data(pb, &at))? else {
        return Ok(RouteAction::Unsupported("direct_response.body"));
    };
    let limit = usize::try_from(max_body).unwrap_or(usize::MAX);
    if body.len() > limit {
        return at.fail(Reason::TooLarge { size: body.len(), limit });
    }
    Ok(RouteAction::DirectResponse { status, body: Arc::from(body) })
}

/// None where it is not in the message: a file or a variable of the control plane's choice is not read.
fn inline_data(pb: DataSource, at: &Place<'_>) -> Result<Option<Vec<u8>>, Invalid> {
    let DataSource { watched_directory: _, specifier } = pb;
    match at.required(specifier)? {
        Specifier::InlineBytes(bytes) => return Ok(Some(bytes)),
        Specifier::InlineString(text) => return Ok(Some(text.into_bytes())),
        Specifier::Filename(_) => at.at("filename").unapplied(),
        Specifier::EnvironmentVariable(_) => at.at("environment_variable").unapplied(),
    }
    Ok(None)
}

fn stream_duration(pb: PbMaxStreamDuration, at: &Place<'_>) -> Result<MaxStreamDuration, Invalid> {
    let PbMaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } = pb;
    at.unapplied_if(fields![grpc_timeout_header_offset]);
    range::check(ranged![grpc_timeout_header_offset], at)?;
    Ok(MaxStreamDuration {
        max_stream_duration: duration_opt(max_stream_duration, &at.at("max_stream_duration"))?,
        grpc_timeout_header_max: duration_opt(grpc_timeout_header_max, &at.at("grpc_timeout_header_max"))?,
    })
}

/// Where the requests of a route go.
enum Destination {
    Known(ClusterSpecifier),
    /// The cluster is chosen in a way that is not implemented.
    Foreign {
        /// It says how.
        field: &'static str,
        is_skipped_by_grpc: bool,
    },
}

fn cluster(
    pb: Option<PbClusterSpecifier>,
    plugins: &Plugins,
    at: &Place<'_>,
) -> Result<Destination, Invalid> {
    let foreign = |field, is_skipped_by_grpc| {
        at.at(field).unapplied();
        Ok(Destination::Foreign { field, is_skipped_by_grpc })
    };
    match at.at("cluster_specifier").required(pb)? {
        PbClusterSpecifier::Cluster(name) if name.is_empty() => at.at("cluster").fail(Reason::Empty),
        PbClusterSpecifier::Cluster(name) => {
            Ok(Destination::Known(ClusterSpecifier::Single(canonical(&name))))
        }
        PbClusterSpecifier::WeightedClusters(pb) => weighted_clusters(pb, &at.at("weighted_clusters")),
        PbClusterSpecifier::ClusterHeader(name) => {
            header_name(&name, &at.at("cluster_header"))?;
            foreign("cluster_header", true)
        }
        PbClusterSpecifier::ClusterSpecifierPlugin(name) => match plugins.get(&name) {
            Some(is_optional) => foreign("cluster_specifier_plugin", *is_optional),
            None if name.is_empty() => at.at("cluster_specifier_plugin").fail(Reason::Empty),
            None => {
                let reason = Reason::Text { value: name, rule: "is not in cluster_specifier_plugins" };
                at.at("cluster_specifier_plugin").fail(reason)
            }
        },
        PbClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            foreign("inline_cluster_specifier_plugin", false)
        }
    }
}

fn weighted_clusters(pb: PbWeightedCluster, at: &Place<'_>) -> Result<Destination, Invalid> {
    let PbWeightedCluster {
        clusters: list,
        total_weight: _,       // the sum of the weights counts (gRFC A28, Envoy)
        runtime_key_prefix: _, // there is no runtime
        random_value_specifier,
    } = pb;
    if random_value_specifier.is_some() {
        at.at("random_value_specifier").unapplied();
    }
    let at = at.at("clusters");
    let mut sum = 0_u64;
    let mut by_header = false;
    let mut clusters = Vec::with_capacity(list.len());
    for (i, pb) in list.into_iter().enumerate() {
        let at = at.index(i);
        let weight = pb.weight.map_or(0, |w| w.value);
        sum += u64::from(weight);
        by_header |= weight > 0 && pb.name.is_empty() && !pb.cluster_header.is_empty();
        let found = cluster_weight(pb, &at)?;
        if let (Some(weight), Some((name, overrides))) = (NonZeroWeight::new(weight), found) {
            clusters.push(WeightedCluster { name, weight, overrides });
        }
    }
    if sum == 0 || sum > u64::from(u32::MAX) {
        return at.fail(Reason::WeightSum(sum));
    }
    Ok(match by_header {
        false => Destination::Known(ClusterSpecifier::Weighted(clusters)),
        true => Destination::Foreign { field: "cluster_header", is_skipped_by_grpc: false },
    })
}

type Named = (Arc<str>, mesh_core::config::filter::FilterOverrides);

fn cluster_weight(pb: ClusterWeight, at: &Place<'_>) -> Result<Option<Named>, Invalid> {
    let ClusterWeight {
        name,
        cluster_header,
        weight: _, // read by the caller, which needs it for clusters by header too
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = pb;
    at.unapplied_if(fields![
        cluster_header,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        // Filters are of servers, which serve what is here and go to no cluster.
        typed_per_filter_config,
    ]);
    if let Some(ClusterHostRewrite::HostRewriteLiteral(host)) = host_rewrite_specifier {
        let at = at.at("host_rewrite_literal");
        header_value(&host, &at)?;
        at.unapplied();
    }
    if !cluster_header.is_empty() {
        header_name(&cluster_header, &at.at("cluster_header"))?;
    }
    let overrides_at = at.at("typed_per_filter_config");
    let overrides = filter::overrides_of_cluster(typed_per_filter_config, &overrides_at)?;
    match (name.is_empty(), cluster_header.is_empty()) {
        (true, true) => at.at("name").fail(Reason::Empty),
        (true, false) => Ok(None),
        (false, _) => Ok(Some((canonical(&name), overrides))),
    }
}

fn host_rewrite(pb: Option<HostRewriteSpecifier>, at: &Place<'_>) -> Result<Option<Arc<str>>, Invalid> {
    let field = match pb {
        None => return Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            let at = at.at("host_rewrite_literal");
            return match host.parse::<http::uri::Authority>() {
                Ok(_) => Ok(Some(Arc::from(host))),
                Err(_) => at.fail(Reason::Text { value: host, rule: "is not an authority" }),
            };
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(on)) if !on.value => return Ok(None),
        Some(HostRewriteSpecifier::AutoHostRewrite(_)) => "auto_host_rewrite",
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            header_name(&name, &at.at("host_rewrite_header"))?;
            "host_rewrite_header"
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => "host_rewrite_path_regex",
        Some(HostRewriteSpecifier::HostRewrite(_)) => "host_rewrite",
    };
    at.at(field).unapplied();
    Ok(None)
}
