//! `RouteConfiguration` (gRFC A28, A31, A44, A63, Envoy).
//!
//! Deviations: a route whose action is not implemented (redirect, `cluster_header`, a cluster specifier plugin) keeps its
//! place and its requests fail, instead of falling through to the next route, which may have a laxer policy. gRPC
//! requests skip `cluster_header` and optional plugins (gRFC A28), unless routes here have filter overrides. A route
//! that matches on what is not implemented (cookies, dynamic metadata) is left out; where it carries filter overrides,
//! servers refuse the whole ([`crate::deferred`]), as they do for overrides of unknown types. `prefix_rewrite` and the host rewrite are applied; header mutations are not yet.
#![expect(deprecated, reason = "deprecated fields must be decided as well")]

mod action;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3::route::Action as PbAction;
use envoy_types::pb::envoy::config::route::v3::route_match::{GrpcRouteMatchOptions, PathSpecifier};
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{
    ClusterSpecifierPlugin, NonForwardingAction, Route as PbRoute, RouteConfiguration,
    RouteMatch as PbRouteMatch, VirtualHost as PbVirtualHost,
};
use mesh_core::config::filter::{FilterOverrides, HttpFilter};
use mesh_core::config::retry::RetryPolicy;
use mesh_core::config::route::{RequestKinds, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost};
use mesh_core::matcher::domain::DomainPattern;
use mesh_core::matcher::path::PathMatcher;
use mesh_core::matcher::string::Text;

use super::filter::Side;
use super::range::ranged;
use super::{common, filter, matcher, range, retry};
use crate::deferred::runs;
use crate::invalid::{Invalid, Place, Reason, fields};
use crate::xdstp::canonical;

pub(super) type Proto = RouteConfiguration;

/// Most bytes of a direct response where the configuration does not say (Envoy's default).
const MAX_DIRECT_RESPONSE_BYTES: u32 = 4096;

/// Of the whole configuration.
struct Common {
    overrides: FilterOverrides,
    max_body: u32,
    plugins: Plugins,
}

/// Cluster specifier plugins by name, and whether they are optional.
type Plugins = BTreeMap<String, bool>;

/// What the routes of a virtual host inherit.
struct Inherited<'a> {
    retry: Option<Arc<RetryPolicy>>,
    has_overrides: bool,
    common: &'a Common,
}

/// What a route does.
struct Action {
    action: RouteAction,
    /// gRPC requests go on to the next route (gRFC A28).
    is_skipped_by_grpc: bool,
}

/// A route configuration by name.
pub(super) fn validate(pb: RouteConfiguration, at: &Place<'_>) -> Result<RouteConfig, Invalid> {
    virtual_hosts_are_named(&pb, at)?;
    configuration(pb, at)
}

/// A route configuration within a listener, which judges what it can. istiod leaves out the names of a server's virtual
/// hosts.
pub(super) fn inline(
    pb: RouteConfiguration,
    side: Side,
    filters: &[HttpFilter],
    at: &Place<'_>,
) -> Result<RouteConfig, Invalid> {
    if side == Side::Client {
        virtual_hosts_are_named(&pb, at)?;
    }
    let config = configuration(pb, at)?;
    let deferred = at.take_deferred();
    match deferred.refused_by_servers() {
        Some(invalid) if side == Side::Server => return Err(invalid.clone()),
        Some(_) | None => at.unapplied_too(&deferred.without_effect(|name| runs(filters, name))),
    }
    Ok(config)
}

fn virtual_hosts_are_named(pb: &RouteConfiguration, at: &Place<'_>) -> Result<(), Invalid> {
    match pb.virtual_hosts.iter().position(|host| host.name.is_empty()) {
        Some(i) => at.at("virtual_hosts").index(i).at("name").fail(Reason::Empty),
        None => Ok(()),
    }
}

fn configuration(pb: RouteConfiguration, at: &Place<'_>) -> Result<RouteConfig, Invalid> {
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
    range::check(ranged![request_mirror_policies], at)?;
    let common = Common {
        overrides: filter::overrides(typed_per_filter_config, &at.at("typed_per_filter_config"))?,
        max_body: max_direct_response_body_size_bytes.map_or(MAX_DIRECT_RESPONSE_BYTES, |n| n.value),
        plugins: plugins(cluster_specifier_plugins, &at.at("cluster_specifier_plugins"))?,
    };
    let at = at.at("virtual_hosts");
    let mut domains = BTreeSet::new();
    let mut virtual_hosts = Vec::with_capacity(pb_hosts.len());
    for (i, pb) in pb_hosts.into_iter().enumerate() {
        let at = at.index(i);
        unique_domains(&pb.domains, &mut domains, &at.at("domains"))?;
        virtual_hosts.push(virtual_host(pb, &common, &at)?);
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

fn plugins(list: Vec<ClusterSpecifierPlugin>, at: &Place<'_>) -> Result<Plugins, Invalid> {
    let mut found = Plugins::new();
    for (i, ClusterSpecifierPlugin { extension, is_optional }) in list.into_iter().enumerate() {
        let at = at.index(i);
        let at = at.at("extension");
        let TypedExtensionConfig { name, typed_config: _ } = at.required(extension)?;
        let at = at.at("name");
        if name.is_empty() {
            return at.fail(Reason::Empty);
        }
        if found.insert(name.clone(), is_optional).is_some() {
            return at.fail(Reason::Duplicate(name));
        }
    }
    Ok(found)
}

fn virtual_host(pb: PbVirtualHost, common: &Common, at: &Place<'_>) -> Result<VirtualHost, Invalid> {
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
    range::check(ranged![hedge_policy, request_mirror_policies], at)?;
    let domains_at = at.at("domains");
    if domains.is_empty() {
        return domains_at.fail(Reason::Empty);
    }
    let domains = domains.iter().enumerate().map(|(i, text)| domain(text, &domains_at.index(i)));
    let domains = domains.collect::<Result<Vec<_>, _>>()?;
    // The route configuration's overrides are the least specific: the virtual host's replace them by name.
    let mut overrides = common.overrides.clone();
    overrides.0.extend(filter::overrides(typed_per_filter_config, &at.at("typed_per_filter_config"))?.0);
    let retry = retry_policy.map(|pb| retry::policy(pb, &at.at("retry_policy"))).transpose()?.map(Arc::new);
    let inherited = Inherited { retry, has_overrides: !overrides.is_empty(), common };
    let routes = route_list(routes, &inherited, &at.at("routes"))?;
    Ok(VirtualHost { name: Arc::from(name), domains, routes, overrides })
}

fn route_list(list: Vec<PbRoute>, inherited: &Inherited<'_>, at: &Place<'_>) -> Result<Vec<Route>, Invalid> {
    // Not collected: that would keep the allocation of the messages, which are many times as large.
    let mut served = Vec::with_capacity(list.len());
    let mut skipped = Vec::new();
    for (i, pb) in list.into_iter().enumerate() {
        let Some((route, is_skipped_by_grpc)) = route(pb, inherited, &at.index(i))? else { continue };
        if is_skipped_by_grpc {
            skipped.push(served.len());
        }
        served.push(route);
    }
    // Where a later route may have another policy, skipping one could let somebody in: then its requests fail.
    if inherited.has_overrides || served.iter().any(|route| !route.overrides.is_empty()) {
        return Ok(served);
    }
    for ix in skipped.into_iter().rev() {
        match served.get_mut(ix).map(|route| &mut route.matches.requests) {
            Some(RequestKinds::Grpc) => {
                served.remove(ix);
            }
            Some(requests) => *requests = RequestKinds::NotGrpc,
            None => {}
        }
    }
    Ok(served)
}

/// A pattern; one that no authority can match is listed, as Envoy and gRPC take it.
fn domain(text: &str, at: &Place<'_>) -> Result<DomainPattern, Invalid> {
    let pattern = at.check(DomainPattern::parse(text))?;
    let is_foreign = |c: char| !c.is_ascii() || c == ' ' || r#"/?#\"<>^`{|}"#.contains(c);
    if text.contains(is_foreign) {
        at.unapplied();
    }
    Ok(pattern)
}

/// None where it is left out; else the route, and whether gRPC requests skip it.
fn route(pb: PbRoute, inherited: &Inherited<'_>, at: &Place<'_>) -> Result<Option<(Route, bool)>, Invalid> {
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
    range::check(ranged![tracing], at)?;
    let overrides = filter::overrides(typed_per_filter_config, &at.at("typed_per_filter_config"))?;
    let match_at = at.at("match");
    let matches = route_match(match_at.required(r#match)?, &match_at)?;
    let Action { action, is_skipped_by_grpc } = route_action(action, inherited, at)?;
    match matches {
        Some(matches) => {
            let route = Route { name: Arc::from(name), matches, action, overrides };
            Ok(Some((route, is_skipped_by_grpc)))
        }
        // Its requests go to a later route. That must not change who is let in.
        None if inherited.has_overrides || !overrides.is_empty() => {
            let rule = "matches on what is not supported, and has filter overrides";
            match_at.refused_by_servers(Reason::Rule(rule));
            Ok(None)
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
        requests: match grpc {
            Some(GrpcRouteMatchOptions {}) => RequestKinds::Grpc,
            None => RequestKinds::All,
        },
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
    action: Option<PbAction>,
    inherited: &Inherited<'_>,
    at: &Place<'_>,
) -> Result<Action, Invalid> {
    let action = match at.at("action").required(action)? {
        PbAction::Route(pb) => return action::forward(pb, inherited, &at.at("route")),
        PbAction::NonForwardingAction(NonForwardingAction {}) => RouteAction::NonForwarding,
        PbAction::DirectResponse(pb) => {
            action::direct_response(pb, inherited.common.max_body, &at.at("direct_response"))?
        }
        PbAction::Redirect(_) => {
            at.at("redirect").unapplied();
            RouteAction::Unsupported("redirect")
        }
        PbAction::FilterAction(_) => {
            at.at("filter_action").unapplied();
            RouteAction::Unsupported("filter_action")
        }
    };
    Ok(Action { action, is_skipped_by_grpc: false })
}

#[cfg(test)]
mod tests;
