//! `Listener`: a client target (`api_listener`, gRFC A27) or a listening address of a server (gRFC A36).
//!
//! Deviation from gRPC: a server listener all of whose chains are dropped because they can never match is accepted, and
//! refuses every connection.
#![expect(deprecated, reason = "deprecated fields must be decided as well")]

mod chain;
mod http;

use envoy_types::pb::envoy::config::core::v3::address::Address as PbAddressKind;
use envoy_types::pb::envoy::config::core::v3::{Address as PbAddress, Pipe};
use envoy_types::pb::envoy::config::listener::v3::{AdditionalAddress, ApiListener, Listener};
use envoy_types::pb::google::protobuf::BoolValue;
use mesh_core::config::endpoints::Address;
use mesh_core::config::listener::{ListenerConfig, ServerListener};

use super::Rules;
use super::common;
use super::filter::Side;
use super::range::{self, ranged};
use crate::invalid::{Invalid, Place, Reason, fields};

pub(super) type Proto = Listener;

/// A listener.
#[expect(clippy::too_many_lines, reason = "one list of the fields of one message, each with its decision")]
pub(super) fn validate(pb: Listener, rules: &Rules, at: &Place<'_>) -> Result<ListenerConfig, Invalid> {
    let Listener {
        name: _, // the key under which the store keeps it
        address,
        additional_addresses,
        stat_prefix: _,
        stats_matcher: _,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata: _,
        deprecated_v1: _, // bind_to_port
        drain_type: _,
        listener_filters,
        listener_filters_timeout, // of the filters, of which there are none
        continue_on_listener_filters_timeout: _,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction: _, // statistics
        udp_listener_config,
        api_listener,
        connection_balance_config: _, // of Envoy's threads
        reuse_port: _,                // the application binds the socket
        enable_reuse_port: _,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event: _,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit: _,
        bypass_overload_manager: _,
        tcp_keepalive,
        listener_specifier: internal_listener,
    } = pb;
    at.unapplied_if(fields![
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        socket_options,
        tcp_fast_open_queue_length,
        access_log,
        tcp_backlog_size,
        bind_to_port,
        enable_mptcp,
        tcp_keepalive,
    ]);
    let timed = ranged![per_connection_buffer_high_watermark_timeout, listener_filters_timeout];
    range::check(timed, at)?;
    if let Some(ApiListener { api_listener }) = api_listener {
        // Nothing is listened on for a client target.
        at.unapplied_if(fields![
            additional_addresses,
            filter_chains,
            fcds_config,
            filter_chain_matcher,
            use_original_dst,
            default_filter_chain,
            listener_filters,
            transparent,
            freebind,
            udp_listener_config,
            internal_listener,
        ]);
        let at = at.at("api_listener");
        let at = at.at("api_listener");
        let http = http::manager(&at.required(api_listener)?, Side::Client, &at)?;
        return Ok(ListenerConfig::Client(http));
    }
    at.refuse_if(fields![
        fcds_config,
        filter_chain_matcher,
        listener_filters,
        udp_listener_config,
        internal_listener,
    ])?;
    for (field, flag) in [("use_original_dst", use_original_dst), ("transparent", transparent)] {
        // The address that a connection was sent to would decide which chain it meets.
        if flag.is_some_and(|BoolValue { value }| value) {
            return at.at(field).fail(Reason::Unsupported);
        }
    }
    at.unapplied_if(fields![additional_addresses, freebind]);
    let address_at = at.at("address");
    let address = address_at.required(address)?;
    unbound(&address, &address_at)?;
    let address = common::address(address, &address_at)?;
    unique_addresses(address.clone(), additional_addresses, at)?;
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        return at.at("filter_chains").fail(Reason::Empty);
    }
    let chains = chain::chains(filter_chains, rules, &at.at("filter_chains"))?;
    let default_at = at.at("default_filter_chain");
    let default_chain =
        default_filter_chain.map(|pb| chain::default_chain(pb, rules, &default_at)).transpose()?;
    Ok(ListenerConfig::Server(ServerListener { address, chains, default_chain }))
}

/// The mode of a socket's file decides who may connect, and the application has bound it.
fn unbound(PbAddress { address }: &PbAddress, at: &Place<'_>) -> Result<(), Invalid> {
    match address {
        Some(PbAddressKind::Pipe(Pipe { path: _, mode: 1.. })) => {
            at.at("pipe").at("mode").fail(Reason::Rule("is set by the application, which binds the socket"))
        }
        _ => Ok(()),
    }
}

/// Addresses that are not listened on have to be such, and each of them another.
fn unique_addresses(own: Address, more: Vec<AdditionalAddress>, at: &Place<'_>) -> Result<(), Invalid> {
    let mut seen = vec![own];
    let at = at.at("additional_addresses");
    for (i, AdditionalAddress { address, socket_options: _, tcp_keepalive: _ }) in
        more.into_iter().enumerate()
    {
        let at = at.index(i);
        let at = at.at("address");
        let address = common::address(at.required(address)?, &at)?;
        if seen.contains(&address) {
            return at.fail(Reason::Duplicate(address.to_string()));
        }
        seen.push(address);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
