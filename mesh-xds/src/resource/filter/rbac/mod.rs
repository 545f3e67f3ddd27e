//! `envoy.filters.http.rbac` and `envoy.filters.network.rbac` (gRFC A41, A36, Envoy).
//!
//! Anything unknown is refused, wherever it is nested: dropping a rule inside a `not` would widen access. Policies are
//! kept in the order of their names, as Envoy tries them. An empty policy (Istio sends one where it failed to build
//! it) has no permission that could match; under `DENY` that would let everybody in, so it is refused.
#![expect(deprecated, reason = "`source_ip` is deprecated and still written")]

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
use envoy_types::pb::envoy::config::rbac::v3::principal::{Authenticated, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::rbac::{Action, AuditLoggingOptions};
use envoy_types::pb::envoy::config::rbac::v3::{
    MetadataSource, Permission as PbPermission, Policy as PbPolicy, Principal as PbPrincipal,
    Rbac as PbRules, SourcedMetadata, permission, principal,
};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher as PbHeaderMatcher;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as PbHttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as PbNetworkRbac;
use envoy_types::pb::envoy::r#type::matcher::v3::MetadataMatcher;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use mesh_core::matcher::header::{HeaderMatcher, MatchedHeader};
use mesh_core::rbac::{Permission, Policy, Principal, RbacAction, RbacConfig};

use super::super::{common, matcher};
use crate::invalid::{Invalid, Place, Reason, fields};

/// Where rules are evaluated: on a request, or on a connection alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Http,
    Network,
}

/// The HTTP filter. Without rules it allows everything.
pub(super) fn http(pb: PbHttpRbac, at: &Place<'_>) -> Result<Arc<RbacConfig>, Invalid> {
    Ok(per_route(pb, at)?.unwrap_or_else(|| Arc::new(allow_all())))
}

/// The HTTP filter's message in an override, where no rules means no access control.
pub(super) fn per_route(pb: PbHttpRbac, at: &Place<'_>) -> Result<Option<Arc<RbacConfig>>, Invalid> {
    let PbHttpRbac {
        rules: pb_rules,
        rules_stat_prefix: _,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix: _,
        track_per_rule_stats: _,
    } = pb;
    at.refuse_if(fields![matcher])?;
    at.unapplied_if(fields![shadow_rules, shadow_matcher]);
    let at = at.at("rules");
    Ok(pb_rules.map(|pb| rules(pb, Layer::Http, &at)).transpose()?.map(Arc::new))
}

/// The network filter, decided before any byte of HTTP.
pub(in crate::resource) fn network(pb: PbNetworkRbac, at: &Place<'_>) -> Result<Arc<RbacConfig>, Invalid> {
    let PbNetworkRbac {
        rules: pb_rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix: _,
        stat_prefix: _,
        enforcement_type: _, // once per connection or continuously: the connection's facts do not change
        delay_deny,
    } = pb;
    at.refuse_if(fields![matcher])?;
    at.unapplied_if(fields![shadow_rules, shadow_matcher, delay_deny]);
    let at = at.at("rules");
    let rules = pb_rules.map(|pb| rules(pb, Layer::Network, &at)).transpose()?;
    Ok(Arc::new(rules.unwrap_or_else(allow_all)))
}

fn allow_all() -> RbacConfig {
    // A denial of nothing: no policy matches, so everything passes.
    RbacConfig { action: RbacAction::Deny, policies: Vec::new() }
}

fn rules(pb: PbRules, layer: Layer, at: &Place<'_>) -> Result<RbacConfig, Invalid> {
    let PbRules { action, policies, audit_logging_options } = pb;
    let action = match Action::try_from(action) {
        Ok(Action::Allow) => RbacAction::Allow,
        Ok(Action::Deny) => RbacAction::Deny,
        Ok(Action::Log) => RbacAction::Log,
        Err(_) => return at.at("action").fail(Reason::UnknownEnum(action)),
    };
    if let Some(AuditLoggingOptions { audit_condition: _, logger_configs }) = audit_logging_options {
        for (i, logger) in logger_configs.iter().enumerate() {
            let at = at.at("audit_logging_options");
            let at = at.at("logger_configs");
            let at = at.index(i);
            // gRFC A59: a logger that is not known and not optional is refused.
            if !logger.is_optional {
                return at.fail(Reason::Unsupported);
            }
            at.unapplied();
        }
    }
    let sorted: BTreeMap<String, PbPolicy> = policies.into_iter().collect();
    let at = at.at("policies");
    let policies = sorted.into_iter().map(|(name, pb)| {
        let at = at.key(&name);
        policy(&name, pb, layer, &at)
    });
    Ok(RbacConfig { action, policies: policies.collect::<Result<_, _>>()? })
}

fn policy(name: &str, pb: PbPolicy, layer: Layer, at: &Place<'_>) -> Result<Policy, Invalid> {
    let PbPolicy { permissions, principals, condition, checked_condition, cel_config } = pb;
    at.refuse_if(fields![condition, checked_condition, cel_config])?;
    if permissions.is_empty() {
        return at.at("permissions").fail(Reason::Empty);
    }
    if principals.is_empty() {
        return at.at("principals").fail(Reason::Empty);
    }
    Ok(Policy {
        name: Arc::from(name),
        permissions: permission_list(permissions, layer, &at.at("permissions"))?,
        principals: principal_list(principals, layer, &at.at("principals"))?,
    })
}

fn permission_list(
    list: Vec<PbPermission>,
    layer: Layer,
    at: &Place<'_>,
) -> Result<Vec<Permission>, Invalid> {
    list.into_iter().enumerate().map(|(i, pb)| permission(pb, layer, &at.index(i))).collect()
}

fn permission_set(pb: permission::Set, layer: Layer, at: &Place<'_>) -> Result<Vec<Permission>, Invalid> {
    let permission::Set { rules } = pb;
    let at = at.at("rules");
    if rules.is_empty() { at.fail(Reason::Empty) } else { permission_list(rules, layer, &at) }
}

/// The recursion is bounded by that of the protobuf decoder (100 messages).
fn permission(pb: PbPermission, layer: Layer, at: &Place<'_>) -> Result<Permission, Invalid> {
    let PbPermission { rule } = pb;
    Ok(match at.required(rule)? {
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => return at.at("any").fail(Reason::UnsupportedValue("false".to_owned())),
        Rule::AndRules(set) => Permission::And(permission_set(set, layer, &at.at("and_rules"))?),
        Rule::OrRules(set) => Permission::Or(permission_set(set, layer, &at.at("or_rules"))?),
        Rule::NotRule(inner) => Permission::Not(Box::new(permission(*inner, layer, &at.at("not_rule"))?)),
        Rule::Header(pb) => Permission::Header(header(pb, layer, &at.at("header"))?),
        Rule::UrlPath(pb) => {
            let at = at.at("url_path");
            requests_only(layer, &at)?;
            Permission::UrlPath(matcher::path(pb, &at)?)
        }
        Rule::DestinationIp(pb) => {
            Permission::DestinationIp(common::cidr_range(pb, &at.at("destination_ip"))?)
        }
        Rule::DestinationPort(value) => {
            Permission::DestinationPort(common::port(value, &at.at("destination_port"))?)
        }
        Rule::DestinationPortRange(pb) => {
            Permission::DestinationPortRange(port_range(pb, &at.at("destination_port_range"))?)
        }
        Rule::Metadata(pb) => Permission::Metadata { invert: inverted(&pb) },
        Rule::SourcedMetadata(pb) => {
            Permission::Metadata { invert: sourced(pb, &at.at("sourced_metadata"))? }
        }
        Rule::RequestedServerName(pb) => {
            Permission::RequestedServerName(matcher::string(pb, &at.at("requested_server_name"))?)
        }
        Rule::Matcher(_) => return at.at("matcher").fail(Reason::Unsupported),
        Rule::UriTemplate(_) => return at.at("uri_template").fail(Reason::Unsupported),
    })
}

fn principal_list(list: Vec<PbPrincipal>, layer: Layer, at: &Place<'_>) -> Result<Vec<Principal>, Invalid> {
    list.into_iter().enumerate().map(|(i, pb)| principal(pb, layer, &at.index(i))).collect()
}

fn principal_set(pb: principal::Set, layer: Layer, at: &Place<'_>) -> Result<Vec<Principal>, Invalid> {
    let principal::Set { ids } = pb;
    let at = at.at("ids");
    if ids.is_empty() { at.fail(Reason::Empty) } else { principal_list(ids, layer, &at) }
}

fn principal(pb: PbPrincipal, layer: Layer, at: &Place<'_>) -> Result<Principal, Invalid> {
    let PbPrincipal { identifier } = pb;
    Ok(match at.required(identifier)? {
        Identifier::Any(true) => Principal::Any,
        Identifier::Any(false) => return at.at("any").fail(Reason::UnsupportedValue("false".to_owned())),
        Identifier::AndIds(set) => Principal::And(principal_set(set, layer, &at.at("and_ids"))?),
        Identifier::OrIds(set) => Principal::Or(principal_set(set, layer, &at.at("or_ids"))?),
        Identifier::NotId(inner) => Principal::Not(Box::new(principal(*inner, layer, &at.at("not_id"))?)),
        Identifier::Authenticated(Authenticated { principal_name }) => {
            let at = at.at("authenticated");
            let at = at.at("principal_name");
            Principal::Authenticated(principal_name.map(|pb| matcher::string(pb, &at)).transpose()?)
        }
        Identifier::SourceIp(pb) => Principal::DirectRemoteIp(common::cidr_range(pb, &at.at("source_ip"))?),
        Identifier::DirectRemoteIp(pb) => {
            Principal::DirectRemoteIp(common::cidr_range(pb, &at.at("direct_remote_ip"))?)
        }
        Identifier::RemoteIp(pb) => Principal::RemoteIp(common::cidr_range(pb, &at.at("remote_ip"))?),
        Identifier::Header(pb) => Principal::Header(header(pb, layer, &at.at("header"))?),
        Identifier::UrlPath(pb) => {
            let at = at.at("url_path");
            requests_only(layer, &at)?;
            Principal::UrlPath(matcher::path(pb, &at)?)
        }
        Identifier::Metadata(pb) => Principal::Metadata { invert: inverted(&pb) },
        Identifier::SourcedMetadata(pb) => {
            Principal::Metadata { invert: sourced(pb, &at.at("sourced_metadata"))? }
        }
        Identifier::FilterState(_) => return at.at("filter_state").fail(Reason::Unsupported),
        Identifier::Custom(_) => return at.at("custom").fail(Reason::Unsupported),
    })
}

fn header(pb: PbHeaderMatcher, layer: Layer, at: &Place<'_>) -> Result<HeaderMatcher, Invalid> {
    requests_only(layer, at)?;
    let text = pb.name.clone();
    let matcher = matcher::header(pb, at)?;
    let refused = match &matcher.name {
        MatchedHeader::Scheme => true,
        // gRFC A41: set by the transport on both sides, so nothing can be decided by them.
        MatchedHeader::Name(name) => name.as_str().starts_with("grpc-"),
        MatchedHeader::Method | MatchedHeader::Authority | MatchedHeader::Path => false,
    };
    if refused { at.at("name").fail(Reason::HeaderName(text)) } else { Ok(matcher) }
}

/// A connection has no headers and no path.
fn requests_only(layer: Layer, at: &Place<'_>) -> Result<(), Invalid> {
    match layer {
        Layer::Http => Ok(()),
        Layer::Network => at.fail(Reason::Rule("a connection has no headers and no path")),
    }
}

fn port_range(pb: Int32Range, at: &Place<'_>) -> Result<std::ops::Range<u32>, Invalid> {
    let Int32Range { start, end } = pb;
    let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else {
        return at.fail(Reason::Rule("ports are not negative"));
    };
    if start >= end || end > 65_536 {
        return at.fail(Reason::Rule("must be start < end <= 65536"));
    }
    Ok(start..end)
}

/// There is no dynamic metadata, so the value never matches, and only the inversion counts.
fn inverted(pb: &MetadataMatcher) -> bool {
    let MetadataMatcher { filter: _, path: _, value: _, invert } = pb;
    *invert
}

fn sourced(pb: SourcedMetadata, at: &Place<'_>) -> Result<bool, Invalid> {
    let SourcedMetadata { metadata_matcher, metadata_source } = pb;
    if metadata_source != MetadataSource::Dynamic as i32 {
        return at.at("metadata_source").fail(Reason::Unsupported);
    }
    Ok(inverted(&at.at("metadata_matcher").required(metadata_matcher)?))
}

#[cfg(test)]
mod tests;
