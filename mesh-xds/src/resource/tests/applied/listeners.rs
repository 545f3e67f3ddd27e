//! Fields of listeners and their connection managers.

use super::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "tests/tests/fields/listeners::chains_by_what_is_known_of_a_connection",
        "server",
        "envoy.config.listener.v3.FilterChainMatch",
        &[
            "prefix_ranges",
            "source_prefix_ranges",
            "source_type=SAME_IP_OR_LOOPBACK",
            "source_type=EXTERNAL",
            "transport_protocol",
        ],
    ),
    (
        "tests/tests/fields/listeners::chains_by_what_is_known_of_a_connection",
        "server",
        "envoy.config.listener.v3.Listener",
        &["default_filter_chain"],
    ),
    (
        "tests/tests/fields/listeners::chains_by_what_is_known_of_a_connection",
        "server",
        "envoy.config.listener.v3.Filter",
        &["typed_config=envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"],
    ),
    (
        "tests/tests/fields/listeners::chains_by_the_port_of_the_caller",
        "server",
        "envoy.config.listener.v3.FilterChainMatch",
        &["source_ports"],
    ),
    (
        "tests/tests/fields/listeners::a_listener_is_that_of_its_address",
        "server",
        "envoy.config.listener.v3.Listener",
        &["name"],
    ),
    (
        "tests/tests/fields/listeners::a_listener_is_that_of_its_address",
        "server",
        "envoy.config.core.v3.Address",
        &["socket_address"],
    ),
    (
        "tests/tests/fields/listeners::a_listener_is_that_of_its_address",
        "server",
        "envoy.config.core.v3.SocketAddress",
        &["address", "port_value"],
    ),
    (
        "tests/tests/fields/listeners::heads_that_are_too_large_or_too_many",
        "server",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &["max_request_headers_kb"],
    ),
    (
        "tests/tests/fields/listeners::heads_that_are_too_large_or_too_many",
        "server",
        "envoy.config.core.v3.HttpProtocolOptions",
        &["max_headers_count"],
    ),
    (
        "tests/tests/fields/listeners::what_takes_too_long_ends",
        "server",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &["request_headers_timeout", "request_timeout", "stream_idle_timeout"],
    ),
    (
        "tests/tests/fields/listeners::what_takes_too_long_ends",
        "server",
        "envoy.config.core.v3.HttpProtocolOptions",
        &["idle_timeout", "max_connection_duration", "max_stream_duration"],
    ),
    (
        "tests/tests/fields/listeners::streams_at_a_time",
        "server",
        "envoy.config.core.v3.Http2ProtocolOptions",
        &["max_concurrent_streams"],
    ),
    (
        "tests/tests/fields/listeners::routes_by_name",
        "server",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &["rds", "route_config"],
    ),
    (
        "tests/tests/fields/listeners::routes_by_name",
        "server",
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        &["route_config_name"],
    ),
    (
        "tests/tests/fields/listeners::routes_by_name",
        "server",
        "envoy.config.core.v3.ConfigSource",
        &["ads", "self"],
    ),
    (
        "tests/tests/fields/access::rules_on_requests",
        "server",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        &["typed_config=envoy.extensions.filters.http.router.v3.Router"],
    ),
    (
        "tests/tests/fields/routes::time_limits",
        "client",
        "envoy.config.core.v3.HttpProtocolOptions",
        &["max_stream_duration"],
    ),
    (
        "tests/tests/fields/routes::routes_by_name",
        "client",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &["rds", "route_config"],
    ),
    (
        "tests/tests/fields/routes::routes_by_name",
        "client",
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        &["route_config_name"],
    ),
    (
        "tests/tests/fields/routes::routes_by_name",
        "client",
        "envoy.config.core.v3.ConfigSource",
        &["ads", "self"],
    ),
    ("tests/tests/fields/routes::routes_by_name", "client", "envoy.config.listener.v3.Listener", &["name"]),
    (
        "tests/tests/fields/routes::routes_by_name",
        "client",
        "envoy.config.listener.v3.ApiListener",
        &["api_listener=envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"],
    ),
    (
        "tests/tests/fields/routes::routes_by_name",
        "client",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        &["name", "typed_config=envoy.extensions.filters.http.router.v3.Router"],
    ),
];
