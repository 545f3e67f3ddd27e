//! Filter chains (gRFC A36): which connections, which TLS, which network filters.

use std::collections::HashSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain as PbFilterChain, FilterChainMatch};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac;
use ipnet::IpNet;
use mesh_core::config::listener::{ChainMatch, FilterChain, HttpConfig, SourceType};
use mesh_core::rbac::RbacConfig;

use super::super::common::{self, cidr_range, is_type, unpack};
use super::super::filter::{Side, rbac};
use super::super::range::{self, ranged};
use super::super::{Rules, tls};
use super::http;
use crate::invalid::{Invalid, Place, Reason, fields};

/// Most combinations of match criteria that one listener may have.
const MAX_COMBINATIONS: usize = 1 << 16;

/// One combination of criteria: no two chains may have the same.
type Criteria = (Option<IpNet>, bool, SourceType, Option<IpNet>, Option<u16>);

/// `filter_chains`, without those that can never match.
pub(super) fn chains(
    list: Vec<PbFilterChain>,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<Vec<FilterChain>, Invalid> {
    let mut seen = HashSet::new();
    let mut chains = Vec::with_capacity(list.len());
    for (i, mut pb) in list.into_iter().enumerate() {
        let at = at.index(i);
        let match_at = at.at("filter_chain_match");
        let matches = pb.filter_chain_match.take().unwrap_or_default();
        let Some(matches) = chain_match(matches, &match_at)? else { continue };
        unique(&matches, &mut seen, &match_at)?;
        chains.push(chain(pb, matches, rules, &at)?);
    }
    Ok(chains)
}

/// `default_filter_chain`, whose match is not looked at.
pub(super) fn default_chain(
    mut pb: PbFilterChain,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<FilterChain, Invalid> {
    if pb.filter_chain_match.take().is_some_and(|m| m != FilterChainMatch::default()) {
        at.at("filter_chain_match").unapplied();
    }
    chain(pb, ChainMatch::default(), rules, at)
}

fn chain(
    pb: PbFilterChain,
    matches: ChainMatch,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<FilterChain, Invalid> {
    #[expect(deprecated, reason = "`use_proxy_proto` is deprecated and must be refused")]
    let PbFilterChain {
        filter_chain_match: _, // read by the caller
        filters,
        use_proxy_proto,
        metadata: _,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = pb;
    if use_proxy_proto.is_some_and(|b| b.value) {
        return at.at("use_proxy_proto").fail(Reason::Unsupported);
    }
    at.unapplied_if(fields![transport_socket_connect_timeout]);
    range::check(ranged![transport_socket_connect_timeout], at)?;
    let tls = tls::downstream(transport_socket, rules, &at.at("transport_socket"))?;
    let (network_rbac, http) = network_filters(filters, &at.at("filters"))?;
    Ok(FilterChain { name: Arc::from(name), matches, tls, network_rbac, http })
}

/// RBAC any number of times, then one connection manager.
fn network_filters(list: Vec<Filter>, at: &Place<'_>) -> Result<(Vec<Arc<RbacConfig>>, HttpConfig), Invalid> {
    let mut names = HashSet::new();
    let mut network_rbac = Vec::new();
    let mut http = None;
    for (i, Filter { name, config_type }) in list.into_iter().enumerate() {
        let at = at.index(i);
        if name.is_empty() {
            return at.at("name").fail(Reason::Empty);
        }
        if !names.insert(name.clone()) {
            return at.at("name").fail(Reason::Duplicate(name));
        }
        if http.is_some() {
            return at.fail(Reason::Rule("nothing may follow the HTTP connection manager"));
        }
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return at.at("config_discovery").fail(Reason::Unsupported);
            }
            None => return at.at("typed_config").fail(Reason::Missing),
        };
        let at = at.at("typed_config");
        if is_type::<HttpConnectionManager>(&any) {
            http = Some(http::manager(&any, Side::Server, &at)?);
        } else if is_type::<Rbac>(&any) {
            network_rbac.push(rbac::network(unpack(&any, &at)?, &at)?);
        } else {
            return at.fail(Reason::UnsupportedExtension(any.type_url));
        }
    }
    match http {
        Some(http) => Ok((network_rbac, http)),
        None => at.fail(Reason::Rule("the last filter must be the HTTP connection manager")),
    }
}

/// None for a chain that asks for what is never known of a connection: it can never match (gRFC A36).
fn chain_match(pb: FilterChainMatch, at: &Place<'_>) -> Result<Option<ChainMatch>, Invalid> {
    let FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = pb;
    at.refuse_if(fields![address_suffix, suffix_len, direct_source_prefix_ranges])?;
    if let Some(port) = &destination_port {
        range::within(port.value, 1, u16::MAX.into(), &at.at("destination_port"))?;
    }
    let raw_buffer = transport_protocol == "raw_buffer";
    let foreign = [
        ("destination_port", destination_port.is_some()),
        ("server_names", !server_names.is_empty()),
        ("transport_protocol", !transport_protocol.is_empty() && !raw_buffer),
        ("application_protocols", !application_protocols.is_empty()),
    ];
    if foreign.iter().any(|(_, present)| *present) {
        at.unapplied_if(&foreign);
        return Ok(None);
    }
    let source_type = match ConnectionSourceType::try_from(source_type) {
        Ok(ConnectionSourceType::Any) => SourceType::Any,
        Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
        Ok(ConnectionSourceType::External) => SourceType::External,
        Err(_) => return at.at("source_type").fail(Reason::UnknownEnum(source_type)),
    };
    let ports_at = at.at("source_ports");
    let ports = source_ports.into_iter().enumerate();
    // Nothing connects from port 0.
    let ports = ports.map(|(i, port)| {
        let at = ports_at.index(i);
        range::within(port, 1, u16::MAX.into(), &at).and_then(|port| common::port(port, &at))
    });
    Ok(Some(ChainMatch {
        destination: ranges(prefix_ranges, &at.at("prefix_ranges"))?,
        source_type,
        source: ranges(source_prefix_ranges, &at.at("source_prefix_ranges"))?,
        source_ports: ports.collect::<Result<_, _>>()?,
        raw_buffer,
    }))
}

fn ranges(list: Vec<CidrRange>, at: &Place<'_>) -> Result<Vec<IpNet>, Invalid> {
    list.into_iter().enumerate().map(|(i, pb)| cidr_range(pb, &at.index(i))).collect()
}

/// Two chains that match the same connections leave open which policy holds.
fn unique(matches: &ChainMatch, seen: &mut HashSet<Criteria>, at: &Place<'_>) -> Result<(), Invalid> {
    fn or_any<T: Copy>(list: &[T]) -> Vec<Option<T>> {
        if list.is_empty() { vec![None] } else { list.iter().copied().map(Some).collect() }
    }
    let ChainMatch { destination, source_type, source, source_ports, raw_buffer } = matches;
    let (destinations, sources, ports) = (or_any(destination), or_any(source), or_any(source_ports));
    let product = destinations.len().saturating_mul(sources.len()).saturating_mul(ports.len());
    if seen.len().saturating_add(product) > MAX_COMBINATIONS {
        return at.fail(Reason::TooMany(MAX_COMBINATIONS));
    }
    for destination in &destinations {
        for source in &sources {
            for port in &ports {
                if !seen.insert((*destination, *raw_buffer, *source_type, *source, *port)) {
                    return at.fail(Reason::Rule("matches the same connections as an earlier entry"));
                }
            }
        }
    }
    Ok(())
}
