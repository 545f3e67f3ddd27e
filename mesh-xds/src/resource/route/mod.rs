//! `RouteConfiguration` (gRFC A28, A31, A44, A63; `envoy-semantics.md`).
//!
//! Deviations: a route whose action is not implemented (redirect, `cluster_header`, a cluster specifier plugin) keeps its
//! place and its requests fail, instead of falling through to the next route, which may have a laxer policy. A route
//! that matches on what is not implemented (cookies, dynamic metadata) is left out, and refused where it carries filter
//! overrides. `prefix_rewrite` and the host rewrite are applied; header mutations are not yet.
#![expect(deprecated, reason = "deprecated fields must be decided as well")]

mod action;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::{GrpcRouteMatchOptions, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{
    NonForwardingAction, Route as PbRoute, RouteConfiguration, RouteMatch as PbRouteMatch,
    VirtualHost as PbVirtualHost,
};
use mesh_core::config::filter::FilterOverrides;
use mesh_core::config::retry::RetryPolicy;
use mesh_core::config::route::{Route, RouteAction, RouteConfig, RouteMatch, VirtualHost};
use mesh_core::matcher::domain::DomainPattern;
use mesh_core::matcher::path::PathMatcher;
use mesh_core::matcher::string::Text;

use super::{common, filter, matcher, retry};
use crate::invalid::{Invalid, Place, Reason, fields};
use crate::xdstp::canonical;

pub(super) type Proto = RouteConfiguration;

/// Most bytes of a direct response where the configuration does not say (Envoy's default).
const MAX_DIRECT_RESPONSE_BYTES: u32 = 4096;

/// What the routes of a virtual host inherit.
struct Inherited {
    retry: Option<Arc<RetryPolicy>>,
    has_overrides: bool,
    max_body: u32,
}

/// A route configuration, inline or by name.
pub(super) fn validate(pb: RouteConfiguration, at: &Place<'_>) -> Result<RouteConfig, Invalid> {
    let RouteConfiguration {
        name,
        virtual_hosts: pb_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins: _, // of the mutations above
        validate_clusters: _,                   // a cluster that is missing is a named error of its own
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: _,
        route_specifiers,
    } = pb;
    // Each of these changes which route, and so which policy, a request meets.
    at.refuse_if(fields![internal_only_headers, vhost_header, ignore_path_parameters_in_path_matching])?;
    at.unapplied_if(fields![
        vhds,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        route_specifiers,
    ]);
    let overrides = filter::overrides(typed_per_filter_config, &at.at("typed_per_filter_config"))?;
    let max_body = max_direct_response_body_size_bytes.map_or(MAX_DIRECT_RESPONSE_BYTES, |n| n.value);
    let at = at.at("virtual_hosts");
    let mut domains = BTreeSet::new();
    let mut virtual_hosts = Vec::with_capacity(pb_hosts.len());
    for (i, pb) in pb_hosts.into_iter().enumerate() {
        let at = at.index(i);
        unique_domains(&pb.domains, &mut domains, &at.at("domains"))?;
        virtual_hosts.push(virtual_host(pb, &overrides, max_body, &at)?);
    }
    Ok(RouteConfig { name: canonical(&name), virtual_hosts })
}

/// A domain belongs to one virtual host, whatever its case.
fn unique_domains(list: &[String], seen: &mut BTreeSet<String>, at: &Place<'_>) -> Result<(), Invalid> {
    for (i, domain) in list.iter().enumerate() {
        if !seen.insert(domain.to_ascii_lowercase()) {
            return at.index(i).fail(Reason::Duplicate(domain.clone()));
        }
    }
    Ok(())
}

fn virtual_host(
    pb: PbVirtualHost,
    below: &FilterOverrides,
    max_body: u32,
    at: &Place<'_>,
) -> Result<VirtualHost, Invalid> {
    let PbVirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters: _, // statistics
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata: _,
        route_specifiers,
    } = pb;
    if require_tls != TlsRequirementType::None as i32 {
        return at.at("require_tls").fail(Reason::Unsupported);
    }
    at.refuse_if(fields![matcher])?;
    at.unapplied_if(fields![
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        route_specifiers,
    ]);
    let domains_at = at.at("domains");
    if domains.is_empty() {
        return domains_at.fail(Reason::Empty);
    }
    let domains = domains.iter().enumerate().map(|(i, d)| domains_at.index(i).check(DomainPattern::parse(d)));
    let domains = domains.collect::<Result<Vec<_>, _>>()?;
    // The route configuration's overrides are the least specific: the virtual host's replace them by name.
    let mut overrides = below.clone();
    overrides.0.extend(filter::overrides(typed_per_filter_config, &at.at("typed_per_filter_config"))?.0);
    let retry = retry_policy.map(|pb| retry::policy(pb, &at.at("retry_policy"))).transpose()?.map(Arc::new);
    let inherited = Inherited { retry, has_overrides: !overrides.is_empty(), max_body };
    let at = at.at("routes");
    // Not collected: that would keep the allocation of the messages, which are many times as large.
    let mut served = Vec::with_capacity(routes.len());
    for (i, pb) in routes.into_iter().enumerate() {
        served.extend(route(pb, &inherited, &at.index(i))?);
    }
    Ok(VirtualHost { name: Arc::from(name), domains, routes: served, overrides })
}

fn route(pb: PbRoute, inherited: &Inherited, at: &Place<'_>) -> Result<Option<Route>, Invalid> {
    let PbRoute {
        name,
        r#match,
        metadata: _,
        decorator: _, // the name of a span
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix: _,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = pb;
    at.unapplied_if(fields![
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        route_specifiers,
    ]);
    let overrides = filter::overrides(typed_per_filter_config, &at.at("typed_per_filter_config"))?;
    let match_at = at.at("match");
    let matches = route_match(match_at.required(r#match)?, &match_at)?;
    let action = route_action(action, inherited, at)?;
    match matches {
        Some(matches) => Ok(Some(Route { name: Arc::from(name), matches, action, overrides })),
        // Its requests go to a later route. That must not change who is let in.
        None if inherited.has_overrides || !overrides.is_empty() => {
            match_at.fail(Reason::Rule("matches on what is not supported, and has filter overrides"))
        }
        None => Ok(None),
    }
}

/// None where the route matches on something that is not implemented.
fn route_match(pb: PbRouteMatch, at: &Place<'_>) -> Result<Option<RouteMatch>, Invalid> {
    let PbRouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = pb;
    at.refuse_if(fields![tls_context])?;
    let foreign = fields![cookies, dynamic_metadata, filter_state];
    let mut served = !foreign.iter().any(|(_, present)| *present);
    at.unapplied_if(foreign);
    let ignore_case = case_sensitive.is_some_and(|b| !b.value);
    let path = match at.at("path_specifier").required(path_specifier)? {
        PathSpecifier::Prefix(prefix) => PathMatcher::Prefix(Text::new(&prefix, ignore_case)),
        PathSpecifier::Path(path) => PathMatcher::Exact(Text::new(&path, ignore_case)),
        PathSpecifier::SafeRegex(pb) => PathMatcher::Regex(matcher::regex(pb, &at.at("safe_regex"))?),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let at = at.at("path_separated_prefix");
            PathMatcher::SeparatedPrefix(separated_prefix(&prefix, ignore_case, &at)?)
        }
        PathSpecifier::ConnectMatcher(_) => {
            at.at("connect_matcher").unapplied();
            served = false;
            PathMatcher::any()
        }
        PathSpecifier::PathMatchPolicy(_) => {
            return at.at("path_match_policy").fail(Reason::Unsupported);
        }
    };
    let fraction = runtime_fraction.map(|pb| common::runtime_fraction(&pb, &at.at("runtime_fraction")));
    let query_at = at.at("query_parameters");
    let query =
        query_parameters.into_iter().enumerate().map(|(i, pb)| matcher::query(pb, &query_at.index(i)));
    let matches = RouteMatch {
        path,
        headers: matcher::headers(headers, &at.at("headers"))?,
        query: query.collect::<Result<_, _>>()?,
        fraction: fraction.transpose()?,
        grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
    };
    Ok(served.then_some(matches))
}

fn separated_prefix(text: &str, ignore_case: bool, at: &Place<'_>) -> Result<Text, Invalid> {
    let rule = if !text.starts_with('/') {
        "must begin with `/`"
    } else if text.ends_with('/') {
        "must not end with `/`"
    } else if text.contains(['?', '#']) {
        "must not contain `?` or `#`"
    } else {
        return Ok(Text::new(text, ignore_case));
    };
    at.fail(Reason::Text { value: text.to_owned(), rule })
}

fn route_action(
    action: Option<Action>,
    inherited: &Inherited,
    at: &Place<'_>,
) -> Result<RouteAction, Invalid> {
    match action {
        Some(Action::Route(pb)) => action::forward(pb, inherited, &at.at("route")),
        Some(Action::NonForwardingAction(NonForwardingAction {})) => Ok(RouteAction::NonForwarding),
        Some(Action::DirectResponse(pb)) => action::direct_response(pb, inherited, &at.at("direct_response")),
        Some(Action::Redirect(_)) => {
            at.at("redirect").unapplied();
            Ok(RouteAction::Unsupported)
        }
        Some(Action::FilterAction(_)) => {
            at.at("filter_action").unapplied();
            Ok(RouteAction::Unsupported)
        }
        None => at.at("action").fail(Reason::Missing),
    }
}

#[cfg(test)]
mod tests;
