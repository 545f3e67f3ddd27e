//! HTTP version and keepalive of a cluster: `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`, or the older
//! fields of the cluster itself where it is absent.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Http2ProtocolOptions, HttpProtocolOptions as PbCommonOptions, KeepaliveSettings,
    UpstreamHttpProtocolOptions,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::google::protobuf::Any;
use mesh_core::config::cluster::{KeepaliveConfig, UpstreamProtocol};

use super::super::common::{MIN_WINDOW, duration, http2_sizes, is_type, unpack};
use super::super::range::{self, ranged};
use crate::invalid::{Invalid, Place, Reason, fields};

/// The fields of the cluster that `HttpProtocolOptions` has replaced.
pub(super) struct Fields {
    pub(super) upstream: Option<UpstreamHttpProtocolOptions>,
    pub(super) common: Option<PbCommonOptions>,
    pub(super) http2: Option<Http2ProtocolOptions>,
}

/// What they decide.
pub(super) struct Http {
    pub(super) protocol: UpstreamProtocol,
    pub(super) keepalive: Option<KeepaliveConfig>,
}

/// The options of a cluster.
pub(super) fn options(older: Fields, typed: HashMap<String, Any>, at: &Place<'_>) -> Result<Http, Invalid> {
    let Fields { upstream, common, http2 } = older;
    server_name(upstream, &at.at("upstream_http_protocol_options"))?;
    common_options(common, &at.at("common_http_protocol_options"))?;
    let protocol = if http2.is_some() { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
    let mut http = Http { protocol, keepalive: keepalive(http2, &at.at("http2_protocol_options"))? };
    let at = at.at("typed_extension_protocol_options");
    let sorted: BTreeMap<String, Any> = typed.into_iter().collect();
    for (name, any) in &sorted {
        let at = at.key(name);
        if is_type::<HttpProtocolOptions>(any) {
            http = typed_options(unpack(any, &at)?, &at)?;
        } else {
            at.unapplied();
        }
    }
    Ok(http)
}

fn typed_options(pb: HttpProtocolOptions, at: &Place<'_>) -> Result<Http, Invalid> {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = pb;
    at.refuse_if(fields![http_filters])?;
    at.unapplied_if(fields![
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
    ]);
    common_options(common_http_protocol_options, &at.at("common_http_protocol_options"))?;
    server_name(upstream_http_protocol_options, &at.at("upstream_http_protocol_options"))?;
    match at.at("upstream_protocol_options").required(upstream_protocol_options)? {
        UpstreamProtocolOptions::ExplicitHttpConfig(pb) => explicit(pb, &at.at("explicit_http_config")),
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(pb) => {
            let at = at.at("use_downstream_protocol_config");
            let UseDownstreamHttpConfig {
                http_protocol_options: _,
                http2_protocol_options,
                http3_protocol_options,
            } = pb;
            at.unapplied_if(fields![http3_protocol_options]);
            let keepalive = keepalive(http2_protocol_options, &at.at("http2_protocol_options"))?;
            Ok(Http { protocol: UpstreamProtocol::Auto, keepalive })
        }
        UpstreamProtocolOptions::AutoConfig(pb) => {
            let at = at.at("auto_config");
            let AutoHttpConfig {
                http_protocol_options: _,
                http2_protocol_options,
                http3_protocol_options,
                alternate_protocols_cache_options: _, // of HTTP/3
            } = pb;
            at.unapplied_if(fields![http3_protocol_options]);
            let keepalive = keepalive(http2_protocol_options, &at.at("http2_protocol_options"))?;
            Ok(Http { protocol: UpstreamProtocol::Auto, keepalive })
        }
    }
}

fn explicit(pb: ExplicitHttpConfig, at: &Place<'_>) -> Result<Http, Invalid> {
    let ExplicitHttpConfig { protocol_config } = pb;
    match at.at("protocol_config").required(protocol_config)? {
        ProtocolConfig::HttpProtocolOptions(_) => {
            Ok(Http { protocol: UpstreamProtocol::Http1, keepalive: None })
        }
        ProtocolConfig::Http2ProtocolOptions(pb) => {
            let keepalive = keepalive(Some(pb), &at.at("http2_protocol_options"))?;
            Ok(Http { protocol: UpstreamProtocol::Http2, keepalive })
        }
        // Its endpoints speak QUIC: nothing could be reached.
        ProtocolConfig::Http3ProtocolOptions(_) => at.at("http3_protocol_options").fail(Reason::Unsupported),
    }
}

/// A server name taken from the request decides who is spoken to; here the TLS context does.
fn server_name(pb: Option<UpstreamHttpProtocolOptions>, at: &Place<'_>) -> Result<(), Invalid> {
    let Some(UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header }) = pb
    else {
        return Ok(());
    };
    at.refuse_if(fields![auto_san_validation])?;
    at.unapplied_if(fields![auto_sni, override_auto_sni_header]);
    Ok(())
}

fn common_options(pb: Option<PbCommonOptions>, at: &Place<'_>) -> Result<(), Invalid> {
    let Some(pb) = pb else { return Ok(()) };
    let PbCommonOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = pb;
    at.unapplied_if(fields![
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    ]);
    let ranged =
        ranged![idle_timeout, max_connection_duration, max_connection_duration_jitter, max_stream_duration];
    range::check(ranged, at)
}

/// `connection_keepalive`, with Envoy's bounds; without an interval no PINGs are sent.
fn keepalive(pb: Option<Http2ProtocolOptions>, at: &Place<'_>) -> Result<Option<KeepaliveConfig>, Invalid> {
    let Some(pb) = pb else { return Ok(None) };
    let Some(pb) = http2(pb, at)? else { return Ok(None) };
    let at = at.at("connection_keepalive");
    let KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = pb;
    range::check(ranged![interval_jitter, connection_idle_interval], &at)?;
    at.unapplied_if(fields![interval_jitter, connection_idle_interval]);
    let at_least = |pb, at: &Place<'_>| match duration(pb, at)? {
        short if short < Duration::from_millis(1) => at.fail(Reason::Rule("must be at least 1 ms")),
        given => Ok(given),
    };
    let timeout_at = at.at("timeout");
    let timeout = at_least(timeout_at.required(timeout)?, &timeout_at)?;
    let Some(interval) = interval else { return Ok(None) };
    Ok(Some(KeepaliveConfig { interval: at_least(interval, &at.at("interval"))?, timeout }))
}

/// Lists what is not applied of the HTTP/2 options, and returns the keepalive.
fn http2(pb: Http2ProtocolOptions, at: &Place<'_>) -> Result<Option<KeepaliveSettings>, Invalid> {
    #[expect(deprecated, reason = "deprecated fields must be decided as well")]
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames: _, // limits of Envoy's codec against floods; the library's codec has its own
        max_outbound_control_frames: _,
        max_consecutive_inbound_frames_with_empty_payload: _,
        max_inbound_priority_frames_per_stream: _,
        max_inbound_window_update_frames_per_data_frame_sent: _,
        stream_error_on_invalid_http_messaging: _,
        override_stream_error_on_invalid_http_message: _,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec: _,
        max_metadata_size: _,
        enable_huffman_encoding: _,
        max_header_field_size_kb: _,
        disallow_obs_text: _,
        stream_reset_burst: _,
        stream_reset_rate: _,
    } = pb;
    at.unapplied_if(fields![
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        custom_settings_parameters,
    ]);
    http2_sizes(
        [
            ("max_concurrent_streams", 1, &max_concurrent_streams),
            ("initial_stream_window_size", MIN_WINDOW, &initial_stream_window_size),
            ("initial_connection_window_size", MIN_WINDOW, &initial_connection_window_size),
        ],
        at,
    )?;
    Ok(connection_keepalive)
}
