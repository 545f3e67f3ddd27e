//! Values that no proxy could apply are refused at their field, applied or not.

use crate::ads::Kind;
use crate::resource::tests::refusals;

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const LB: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

/// What each of these has to say after its path.
const NEGATIVE: &str = "duration of -1 s and 0 ns is negative or out of range";
const ENDLESS: &str = "duration of 315576000000 s and 0 ns is negative or out of range";
const ABOVE: &str = "101 is not within 0..=100";

fn cluster(fields: &str) -> String {
    format!("name: c\ntype: EDS\neds_cluster_config: {{eds_config: {{ads: {{}}}}}}\n{fields}")
}

fn forwarding(fields: &str) -> String {
    format!(
        "name: r\nvirtual_hosts: [{{name: v, domains: [a], routes: [{{match: {{prefix: /}}, route: {{cluster: c, {fields}}}}}]}}]"
    )
}

fn manager(fields: &str) -> String {
    let router = format!("{{name: router, typed_config: {{\"@type\": {HTTP}.router.v3.Router}}}}");
    format!(
        "name: l\napi_listener: {{api_listener: {{\"@type\": {HCM}, route_config: {{}}, http_filters: [{router}], {fields}}}}}"
    )
}

/// Refuses each of these texts with each of these values, at the path that the text names.
fn refused(kind: Kind, within: impl Fn(&str) -> String, at: &str, paths: &[&str], bad: &[(&str, &str)]) {
    for path in paths {
        for (value, why) in bad {
            // `a.b` as `a: {b: …}`; the field `[0]` as a list of one.
            let nested = path.split('.').rev().fold((*value).to_owned(), |inner, step| {
                match step.strip_suffix("[0]") {
                    Some(list) => format!("{list}: [{{{inner}}}]"),
                    None if inner == *value => format!("{step}: {inner}"),
                    None => format!("{step}: {{{inner}}}"),
                }
            });
            refusals(kind, &within, &[(&nested, &format!("{at}{path}{why}"))]);
        }
    }
}

#[test]
fn a_duration_that_is_negative_or_endless_is_refused_wherever_it_stands() {
    let (negative, endless) = (format!(": {NEGATIVE}"), format!(": {ENDLESS}"));
    let bad = [("-1s", negative.as_str()), ("315576000000s", endless.as_str())];
    let of_cluster = [
        "connect_timeout",
        "dns_refresh_rate",
        "dns_jitter",
        "dns_failure_refresh_rate.base_interval",
        "cleanup_interval",
        "per_connection_buffer_high_watermark_timeout",
        "outlier_detection.interval",
        "outlier_detection.base_ejection_time",
        "outlier_detection.max_ejection_time",
        "health_checks[0].timeout",
        "common_lb_config.update_merge_window",
        "common_http_protocol_options.idle_timeout",
        "round_robin_lb_config.slow_start_config.slow_start_window",
        "http2_protocol_options.connection_keepalive.connection_idle_interval",
    ];
    refused(Kind::Cluster, cluster, "", &of_cluster, &bad);
    let of_route = [
        "timeout",
        "idle_timeout",
        "flush_timeout",
        "max_grpc_timeout",
        "grpc_timeout_offset",
        "max_stream_duration.max_stream_duration",
        "max_stream_duration.grpc_timeout_header_max",
        "max_stream_duration.grpc_timeout_header_offset",
        "retry_policy.per_try_timeout",
        "retry_policy.per_try_idle_timeout",
        "retry_policy.retry_back_off.base_interval",
        "retry_policy.rate_limited_retry_back_off.max_interval",
    ];
    refused(Kind::Route, forwarding, "virtual_hosts[0].routes[0].route.", &of_route, &bad);
    let of_manager = [
        "stream_idle_timeout",
        "request_timeout",
        "request_headers_timeout",
        "drain_timeout",
        "delayed_close_timeout",
        "access_log_flush_interval",
        "common_http_protocol_options.idle_timeout",
        "common_http_protocol_options.max_connection_duration",
        "common_http_protocol_options.max_stream_duration",
        "http2_protocol_options.connection_keepalive.interval",
    ];
    refused(Kind::Listener, manager, "api_listener.api_listener.", &of_manager, &bad);
    let policy = |fields: &str| format!("cluster_name: c\npolicy: {{{fields}}}");
    refused(Kind::Endpoints, policy, "policy.", &["endpoint_stale_after"], &bad);
}

#[test]
fn a_share_above_the_whole_is_refused_wherever_it_stands() {
    let whole = format!(": {ABOVE}");
    let value = format!(".value: {ABOVE}");
    let fraction = format!(".numerator: {ABOVE}");
    let outlier = [
        "max_ejection_percent",
        "enforcing_consecutive_5xx",
        "enforcing_success_rate",
        "enforcing_consecutive_gateway_failure",
        "enforcing_consecutive_local_origin_failure",
        "enforcing_local_origin_success_rate",
        "failure_percentage_threshold",
        "enforcing_failure_percentage",
        "enforcing_failure_percentage_local_origin",
    ];
    let outlier_of = |fields: &str| cluster(&format!("outlier_detection: {{{fields}}}"));
    refused(Kind::Cluster, outlier_of, "outlier_detection.", &outlier, &[("101", &whole)]);
    let of_cluster = [
        "common_lb_config.healthy_panic_threshold",
        "common_lb_config.zone_aware_lb_config.routing_enabled",
        "common_http_protocol_options.max_connection_duration_jitter",
        "round_robin_lb_config.slow_start_config.min_weight_percent",
        "http2_protocol_options.connection_keepalive.interval_jitter",
    ];
    refused(Kind::Cluster, cluster, "", &of_cluster, &[("{value: 101}", &value)]);
    let of_route = ["hedge_policy.additional_request_chance"];
    let at = "virtual_hosts[0].routes[0].route.";
    refused(Kind::Route, forwarding, at, &of_route, &[("{numerator: 101}", &fraction)]);
    let of_manager = ["tracing.random_sampling", "drain_timeout_jitter"];
    let at = "api_listener.api_listener.";
    refused(Kind::Listener, manager, at, &of_manager, &[("{value: 101}", &value)]);
    let drops = |share: &str| {
        format!(
            "cluster_name: c\npolicy: {{drop_overloads: [{{category: a, drop_percentage: {{{share}}}}}]}}"
        )
    };
    let matching = |share: &str| {
        format!(
            "name: r\nvirtual_hosts: [{{name: v, domains: [a], routes: [{{match: {{prefix: /, runtime_fraction: {{default_value: {{{share}}}}}}}, route: {{cluster: c}}}}]}}]"
        )
    };
    for (share, why) in [
        ("numerator: 101", "101 is not within 0..=100"),
        ("numerator: 10001, denominator: TEN_THOUSAND", "10001 is not within 0..=10000"),
        ("numerator: 1000001, denominator: MILLION", "1000001 is not within 0..=1000000"),
        ("numerator: 4294967295", "4294967295 is not within 0..=100"),
    ] {
        let at = "policy.drop_overloads[0].drop_percentage.numerator";
        refusals(Kind::Endpoints, drops, &[(share, &format!("{at}: {why}"))]);
        let at = "virtual_hosts[0].routes[0].match.runtime_fraction.default_value.numerator";
        refusals(Kind::Route, matching, &[(share, &format!("{at}: {why}"))]);
    }
}

#[test]
fn options_of_a_policy_are_checked_where_they_are() {
    let with = |policy: &str| {
        cluster(&format!(
            "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: n, typed_config: {{\"@type\": {LB}.{policy}}}}}}}]}}"
        ))
    };
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    let zone = "locality_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 101}}}";
    for (policy, rest) in [
        (
            "round_robin.v3.RoundRobin, slow_start_config: {slow_start_window: -1s}",
            format!("slow_start_config.slow_start_window: {NEGATIVE}"),
        ),
        (
            "least_request.v3.LeastRequest, slow_start_config: {min_weight_percent: {value: 101}}",
            format!("slow_start_config.min_weight_percent.value: {ABOVE}"),
        ),
        (
            &format!("random.v3.Random, {zone}"),
            format!("locality_lb_config.zone_aware_lb_config.routing_enabled.value: {ABOVE}"),
        ),
    ] {
        refusals(Kind::Cluster, with, &[(policy, &format!("{at}.{rest}"))]);
    }
}

#[test]
fn a_fault_that_is_not_applied_has_to_be_one() {
    let filter = |fields: &str| {
        let router = format!("{{name: router, typed_config: {{\"@type\": {HTTP}.router.v3.Router}}}}");
        let fault =
            format!("{{name: fault, typed_config: {{\"@type\": {HTTP}.fault.v3.HTTPFault, {fields}}}}}");
        format!(
            "name: l\napi_listener: {{api_listener: {{\"@type\": {HCM}, route_config: {{}}, http_filters: [{fault}, {router}]}}}}"
        )
    };
    let on_host = |fields: &str| {
        format!(
            "name: r\nvirtual_hosts: [{{name: v, domains: [a], typed_per_filter_config: {{fault: {{\"@type\": {HTTP}.fault.v3.HTTPFault, {fields}}}}}}}]"
        )
    };
    for (fields, rest) in [
        (
            "abort: {http_status: 503, percentage: {numerator: 101}}",
            format!("abort.percentage.numerator: {ABOVE}"),
        ),
        ("delay: {fixed_delay: -1s}", format!("delay.fixed_delay: {NEGATIVE}")),
        (
            "delay: {fixed_delay: 1s, percentage: {denominator: 3}}",
            "delay.percentage.denominator: 3 is not a known value".to_owned(),
        ),
    ] {
        let at = "api_listener.api_listener.http_filters[0].typed_config";
        refusals(Kind::Listener, filter, &[(fields, &format!("{at}.{rest}"))]);
        let at = "virtual_hosts[0].typed_per_filter_config[\"fault\"]";
        refusals(Kind::Route, on_host, &[(fields, &format!("{at}.{rest}"))]);
    }
}
