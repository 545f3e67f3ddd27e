//! HTTP filters and their overrides per route (gRFC A39): one module per filter, one table of what is known.
//!
//! A filter that is not known is refused unless `is_optional`: it may be the one that keeps somebody out. Filters that
//! only shape traffic and are not implemented ([`TRAFFIC_ONLY`]) are accepted and listed as not applied.

pub(super) mod rbac;
mod router;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::FilterConfig as PbFilterConfig;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter as PbHttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::google::protobuf::Any;
use mesh_core::config::filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter};

use super::common::{is_type, type_name, unpack};
use super::range::Ranged as _;
use crate::invalid::{Invalid, Place, Reason};

/// Filters that decide how traffic goes, never who may talk, and are not implemented.
const TRAFFIC_ONLY: [&str; 4] = [
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
];

/// Which side a connection manager serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// `api_listener`.
    Client,
    /// A filter chain.
    Server,
}

/// `http_filters`: unique names, the router last and only there.
pub(super) fn http_filters(
    list: Vec<PbHttpFilter>,
    side: Side,
    at: &Place<'_>,
) -> Result<Vec<HttpFilter>, Invalid> {
    let mut names = BTreeSet::new();
    let mut filters: Vec<HttpFilter> = Vec::with_capacity(list.len());
    for (i, pb) in list.into_iter().enumerate() {
        let at = at.index(i);
        // Whether a filter is known or left out, it has a name of its own and a place before the router.
        if !pb.name.is_empty() && !names.insert(pb.name.clone()) {
            return at.at("name").fail(Reason::Duplicate(pb.name));
        }
        if filters.last().is_some_and(|f| f.config == FilterConfig::Router) {
            return at.fail(Reason::Rule("nothing may follow the router"));
        }
        filters.extend(http_filter(pb, side, &at)?);
    }
    match filters.last() {
        Some(HttpFilter { config: FilterConfig::Router, .. }) => Ok(filters),
        Some(_) | None => at.fail(Reason::Rule("the last filter must be the router")),
    }
}

/// `typed_per_filter_config`, by the name of the filter instance.
pub(super) fn overrides(map: HashMap<String, Any>, at: &Place<'_>) -> Result<FilterOverrides, Invalid> {
    let overrides = overrides_of_cluster(map, at)?;
    overrides.0.keys().for_each(|name| at.key(name).is_override_of(name));
    Ok(overrides)
}

/// The same of a weighted cluster, which no server sends anything to: whatever runs, they have no effect.
pub(super) fn overrides_of_cluster(
    map: HashMap<String, Any>,
    at: &Place<'_>,
) -> Result<FilterOverrides, Invalid> {
    let mut found = BTreeMap::new();
    // In the order of the names, so that the same resource always reports the same field.
    let sorted: BTreeMap<String, Any> = map.into_iter().collect();
    for (name, any) in sorted {
        if let Some(change) = one_override(&any, &at.key(&name))? {
            found.insert(Arc::from(name), change);
        }
    }
    Ok(FilterOverrides(found))
}

fn http_filter(pb: PbHttpFilter, side: Side, at: &Place<'_>) -> Result<Option<HttpFilter>, Invalid> {
    let PbHttpFilter { name, is_optional, disabled, config_type } = pb;
    if name.is_empty() {
        return at.at("name").fail(Reason::Empty);
    }
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) if is_optional => return skip(at),
        Some(ConfigType::ConfigDiscovery(_)) => return at.at("config_discovery").fail(Reason::Unsupported),
        None => return at.at("typed_config").fail(Reason::Missing),
    };
    let config_at = at.at("typed_config");
    let config = if is_type::<Router>(&any) {
        if disabled {
            return at.at("disabled").fail(Reason::Rule("the router cannot be disabled"));
        }
        router::validate(unpack(&any, &config_at)?, &config_at)?;
        FilterConfig::Router
    } else if is_type::<Rbac>(&any) && side == Side::Server {
        FilterConfig::Rbac(rbac::http(unpack(&any, &config_at)?, &config_at)?)
    } else if is_optional || TRAFFIC_ONLY.contains(&type_name(&any)) {
        foreign(&any, &config_at)?;
        return skip(at);
    } else if is_type::<Rbac>(&any) {
        return at.fail(Reason::Rule("access control belongs on the server's side"));
    } else {
        return config_at.fail(Reason::UnsupportedExtension(any.type_url));
    };
    Ok(Some(HttpFilter { name: Arc::from(name), config, disabled }))
}

fn skip<T>(at: &Place<'_>) -> Result<Option<T>, Invalid> {
    at.unapplied();
    Ok(None)
}

/// What is known of a filter that is not applied has to be what it claims to be.
fn foreign(any: &Any, at: &Place<'_>) -> Result<(), Invalid> {
    if is_type::<HttpFault>(any) { unpack::<HttpFault>(any, at)?.in_range(at) } else { Ok(()) }
}

fn one_override(any: &Any, at: &Place<'_>) -> Result<Option<FilterOverride>, Invalid> {
    if !is_type::<PbFilterConfig>(any) {
        return typed_override(any, false, at);
    }
    let PbFilterConfig { config, is_optional, disabled } = unpack(any, at)?;
    if disabled {
        return Ok(Some(FilterOverride::Disabled));
    }
    match config {
        None => Ok(Some(FilterOverride::Enabled)),
        Some(inner) => typed_override(&inner, is_optional, &at.at("config")),
    }
}

fn typed_override(any: &Any, is_optional: bool, at: &Place<'_>) -> Result<Option<FilterOverride>, Invalid> {
    if is_type::<RbacPerRoute>(any) {
        let RbacPerRoute { rbac } = unpack(any, at)?;
        let rbac = rbac.map(|pb| rbac::per_route(pb, &at.at("rbac"))).transpose()?;
        return Ok(Some(FilterOverride::Rbac(rbac.flatten())));
    }
    if is_optional || TRAFFIC_ONLY.contains(&type_name(any)) {
        foreign(any, at)?;
        return skip(at);
    }
    at.refused_by_servers(Reason::UnsupportedExtension(any.type_url.clone()));
    skip(at)
}

#[cfg(test)]
mod tests;
