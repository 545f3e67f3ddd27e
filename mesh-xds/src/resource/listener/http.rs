//! `HttpConnectionManager` (gRFC A27, A31, A36, A39, A41).
//!
//! On a server whatever changes the path that policies see, or whom a request is taken to come from, is refused: the path
//! that RBAC sees is byte for byte the path that the application sees. On a client none of it decides anything.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{
    Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
};
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds,
};
use envoy_types::pb::google::protobuf::{Any, Duration};
use mesh_core::config::filter::HttpFilter;
use mesh_core::config::listener::{HttpConfig, RouteSource, ServingConfig};
use mesh_core::config::units::OutOfRange;

use super::super::common::{MIN_WINDOW, ads_source, duration_opt, http2_sizes, timeout_opt, unpack};
use super::super::filter::{self, Side};
use super::super::range::{self, ranged};
use super::super::route;
use crate::invalid::{Invalid, Place, Reason, fields};
use crate::xdstp::canonical;

/// Largest `max_request_headers_kb` that Envoy takes.
const MAX_HEADERS_KB: u32 = 8192;

/// A connection manager.
#[expect(clippy::too_many_lines, reason = "one list of the fields of one message, each with its decision")]
pub(super) fn manager(any: &Any, side: Side, at: &Place<'_>) -> Result<HttpConfig, Invalid> {
    let HttpConnectionManager {
        codec_type: _, // the version is found from the connection itself
        stat_prefix: _,
        http_filters,
        add_user_agent: _,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration: _,
        http_protocol_options: _, // HTTP/1.1 is hyper's
        http2_protocol_options,
        http3_protocol_options,
        server_name: _, // no `server` header is added
        server_header_transformation: _,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval, // of `access_log`
        flush_access_log_on_new_request: _,
        access_log_options: _,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append: _, // nothing is appended
        via: _,
        generate_request_id: _,
        preserve_external_request_id: _,
        always_set_request_id_in_response: _,
        forward_client_cert_details,
        set_current_client_cert_details: _, // of the above
        forward_client_cert_matcher,
        proxy_100_continue: _,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6: _,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension: _,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message: _,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config: _,
        typed_header_validation_config,
        append_x_forwarded_port: _,
        append_local_overload: _,
        add_proxy_protocol_connection_state: _,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = unpack(any, at)?;
    // gRFC A41, both sides: these take addresses from elsewhere.
    at.refuse_if(fields![xff_num_trusted_hops, original_ip_detection_extensions])?;
    at.unapplied_if(fields![
        tracing,
        http3_protocol_options,
        scheme_header_transformation,
        stream_flush_timeout,
        drain_timeout,
        access_log,
        internal_address_config,
        upgrade_configs,
        local_reply_config,
        forward_proto_config,
    ]);
    let timed = ranged![
        tracing,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log_flush_interval,
    ];
    range::check(timed, at)?;
    let keep = PathWithEscapedSlashesAction::KeepUnchanged as i32;
    let unspecified = PathWithEscapedSlashesAction::ImplementationSpecificDefault as i32;
    let sanitize = ForwardClientCertDetails::Sanitize as i32;
    let identity = [
        ("early_header_mutation_extensions", !early_header_mutation_extensions.is_empty()),
        ("forward_client_cert_details", forward_client_cert_details != sanitize),
        ("forward_client_cert_matcher", forward_client_cert_matcher.is_some()),
        ("normalize_path", normalize_path.is_some_and(|b| b.value)),
        ("merge_slashes", merge_slashes),
        (
            "path_with_escaped_slashes_action",
            ![keep, unspecified].contains(&path_with_escaped_slashes_action),
        ),
        ("path_normalization_options", path_normalization_options.is_some()),
        ("strip_matching_host_port", strip_matching_host_port),
        ("strip_trailing_host_dot", strip_trailing_host_dot),
        ("strip_any_host_port", strip_port_mode.is_some()),
        ("typed_header_validation_config", typed_header_validation_config.is_some()),
    ];
    match side {
        Side::Server => at.refuse_if(&identity)?,
        Side::Client => at.unapplied_if(&identity),
    }
    let common = common(common_http_protocol_options, side, &at.at("common_http_protocol_options"))?;
    let mut serving = common.serving;
    match side {
        Side::Server => {
            serving.stream_idle_timeout = timeout(stream_idle_timeout, &at.at("stream_idle_timeout"))?;
            serving.request_timeout = timeout(request_timeout, &at.at("request_timeout"))?;
            serving.trusts_forwarded_for = !use_remote_address.is_some_and(|value| value.value);
        }
        // Of connections that are accepted.
        Side::Client => at.unapplied_if(fields![
            stream_idle_timeout,
            request_timeout,
            request_headers_timeout,
            max_request_headers_kb,
        ]),
    }
    let headers_at = at.at("request_headers_timeout");
    let filters = filter::http_filters(http_filters, side, &at.at("http_filters"))?;
    Ok(HttpConfig {
        routes: routes(route_specifier, side, &filters, at)?,
        filters,
        max_stream_duration: common.max_stream_duration,
        idle_timeout: common.idle_timeout,
        headers_timeout: duration_opt(request_headers_timeout, &headers_at)?.filter(|d| !d.is_zero()),
        max_concurrent_streams: http2(http2_protocol_options, side, &at.at("http2_protocol_options"))?,
        max_header_bytes: match max_request_headers_kb.map(|n| n.value) {
            None => None,
            Some(kb @ 1..=MAX_HEADERS_KB) => Some(kb * 1024),
            Some(kb) => {
                let reason = OutOfRange { value: kb.into(), min: 1, max: MAX_HEADERS_KB.into() };
                return at.at("max_request_headers_kb").fail(reason);
            }
        },
        serving,
    })
}

fn routes(
    pb: Option<RouteSpecifier>,
    side: Side,
    filters: &[HttpFilter],
    at: &Place<'_>,
) -> Result<RouteSource, Invalid> {
    match at.at("route_specifier").required(pb)? {
        RouteSpecifier::Rds(Rds { config_source, route_config_name }) => {
            let at = at.at("rds");
            ads_source(config_source, &at.at("config_source"))?;
            if route_config_name.is_empty() {
                return at.at("route_config_name").fail(Reason::Empty);
            }
            Ok(RouteSource::Rds(canonical(&route_config_name)))
        }
        RouteSpecifier::RouteConfig(pb) => {
            let config = route::inline(pb, side, filters, &at.at("route_config"))?;
            Ok(RouteSource::Inline(Arc::new(config)))
        }
        RouteSpecifier::ScopedRoutes(_) => at.at("scoped_routes").fail(Reason::Unsupported),
    }
}

#[derive(Default)]
struct Common {
    max_stream_duration: Option<std::time::Duration>,
    idle_timeout: Option<std::time::Duration>,
    serving: ServingConfig,
}

fn common(pb: Option<HttpProtocolOptions>, side: Side, at: &Place<'_>) -> Result<Common, Invalid> {
    let Some(pb) = pb else { return Ok(Common::default()) };
    let HttpProtocolOptions {
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
        max_connection_duration_jitter,
        max_response_headers_kb,
        max_requests_per_connection,
    ]);
    let jitter = ranged![max_connection_duration, max_connection_duration_jitter];
    range::check(jitter, at)?;
    let mut serving = ServingConfig::default();
    // Dropping or refusing such headers keeps a client from passing `x_user` for `x-user`.
    let allow = HeadersWithUnderscoresAction::Allow as i32;
    let underscores = [("headers_with_underscores_action", headers_with_underscores_action != allow)];
    match side {
        Side::Server => {
            at.refuse_if(&underscores)?;
            serving.max_connection_duration =
                timeout(max_connection_duration, &at.at("max_connection_duration"))?;
            serving.max_headers_count = max_headers_count.map(|n| n.value);
            if serving.max_headers_count == Some(0) {
                let reason = OutOfRange { value: 0, min: 1, max: u32::MAX.into() };
                return at.at("max_headers_count").fail(reason);
            }
        }
        Side::Client => {
            at.unapplied_if(&underscores);
            at.unapplied_if(fields![max_connection_duration, max_headers_count, idle_timeout]);
        }
    }
    // Zero is none, for every one of Envoy's timeouts.
    let max_stream_duration = duration_opt(max_stream_duration, &at.at("max_stream_duration"))?;
    let idle_timeout = duration_opt(idle_timeout, &at.at("idle_timeout"))?;
    Ok(Common {
        max_stream_duration: max_stream_duration.filter(|d| !d.is_zero()),
        idle_timeout: idle_timeout.filter(|d| !d.is_zero()),
        serving,
    })
}

/// A timeout, where none and zero are the same.
fn timeout(pb: Option<Duration>, at: &Place<'_>) -> Result<Option<std::time::Duration>, Invalid> {
    Ok(timeout_opt(pb, at)?.filter(|d| !d.is_zero()))
}

fn http2(pb: Option<Http2ProtocolOptions>, side: Side, at: &Place<'_>) -> Result<Option<u32>, Invalid> {
    let Some(pb) = pb else { return Ok(None) };
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
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        custom_settings_parameters,
        connection_keepalive,
    ]);
    if side == Side::Client {
        at.unapplied_if(fields![max_concurrent_streams]);
    }
    http2_sizes(
        [
            ("max_concurrent_streams", 1, &max_concurrent_streams),
            ("initial_stream_window_size", MIN_WINDOW, &initial_stream_window_size),
            ("initial_connection_window_size", MIN_WINDOW, &initial_connection_window_size),
        ],
        at,
    )?;
    if let Some(KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval }) =
        connection_keepalive
    {
        let at = at.at("connection_keepalive");
        range::check(ranged![interval, timeout, interval_jitter, connection_idle_interval], &at)?;
    }
    Ok(max_concurrent_streams.map(|n| n.value))
}
