//! The named list of fields that are accepted and have no meaning here, in one place.
//!
//! Everything else is applied, refused, or listed as not applied: `tests::fields` sets each field of these messages in
//! turn and holds the validators to this list, in both directions.

/// Fields by message: setting one changes nothing, is not refused, and is not listed as not applied.
pub(crate) const IGNORED: &[(&str, &[&str])] = &[
    (
        "envoy.config.cluster.v3.Cluster",
        &[
            // names and amount of statistics
            "alt_stat_name",
            "stats_matcher",
            "track_cluster_stats",
            "track_timeout_budgets",
            // options of a type or a policy that the cluster does not have
            "cleanup_interval",
            "maglev_lb_config",
            "original_dst_lb_config",
            "ring_hash_lb_config",
            // HTTP/1.1 is the default; its options are hyper's
            "http_protocol_options",
            "protocol_selection",
            // a snapshot is complete or not published
            "wait_for_warm_on_init",
        ],
    ),
    ("envoy.config.cluster.v3.CircuitBreakers.Thresholds", &["track_remaining"]),
    // an update is one swap
    ("envoy.config.cluster.v3.Cluster.CommonLbConfig", &["update_merge_window"]),
    ("envoy.config.core.v3.ConfigSource", &["initial_fetch_timeout", "resource_api_version"]),
    ("envoy.config.core.v3.SelfConfigSource", &["transport_api_version"]),
    ("envoy.config.core.v3.DataSource", &["watched_directory"]),
    (
        "envoy.config.core.v3.Http2ProtocolOptions",
        &[
            // limits of Envoy's codec; the library's codec has its own against floods
            "disallow_obs_text",
            "enable_huffman_encoding",
            "max_consecutive_inbound_frames_with_empty_payload",
            "max_header_field_size_kb",
            "max_inbound_priority_frames_per_stream",
            "max_inbound_window_update_frames_per_data_frame_sent",
            "max_metadata_size",
            "max_outbound_control_frames",
            "max_outbound_frames",
            "override_stream_error_on_invalid_http_message",
            "stream_error_on_invalid_http_messaging",
            "stream_reset_burst",
            "stream_reset_rate",
            "use_oghttp2_codec",
        ],
    ),
    // who binds a socket file sets its mode
    ("envoy.config.core.v3.Pipe", &["mode"]),
    // there is no runtime
    ("envoy.config.core.v3.RuntimeFractionalPercent", &["runtime_key"]),
    ("envoy.config.core.v3.SocketAddress", &["ipv4_compat"]),
    // the type decides
    ("envoy.config.core.v3.TransportSocket", &["name"]),
    ("envoy.config.core.v3.TypedExtensionConfig", &["name"]),
    ("envoy.config.endpoint.v3.Endpoint", &["observability_name"]),
    ("envoy.config.endpoint.v3.LocalityLbEndpoints", &["metadata"]),
    ("envoy.config.listener.v3.FilterChain", &["metadata"]),
    (
        "envoy.config.listener.v3.Listener",
        &[
            // names of statistics, notes
            "metadata",
            "stat_prefix",
            "stats_matcher",
            "traffic_direction",
            // the application binds the socket; the library accepts and drains
            "connection_balance_config",
            "deprecated_v1",
            "drain_type",
            "enable_reuse_port",
            "max_connections_to_accept_per_socket_event",
            "reuse_port",
            // a client listens nowhere
            "address",
            // of Envoy's overload manager
            "bypass_overload_manager",
            "ignore_global_conn_limit",
            // of listener filters, which are refused
            "continue_on_listener_filters_timeout",
            "listener_filters_timeout",
        ],
    ),
    // of loggers that are refused or listed
    ("envoy.config.rbac.v3.RBAC.AuditLoggingOptions", &["audit_condition"]),
    // true is what the name alone means; false is refused
    ("envoy.config.route.v3.QueryParameterMatcher", &["present_match"]),
    ("envoy.config.route.v3.Route", &["decorator", "metadata", "stat_prefix"]),
    // 0-RTT is never accepted; the others belong to fields that are listed
    (
        "envoy.config.route.v3.RouteAction",
        &["early_data_policy", "include_vh_rate_limits", "max_internal_redirects"],
    ),
    (
        "envoy.config.route.v3.RouteConfiguration",
        &[
            "metadata",
            // of mutations that are listed
            "most_specific_header_mutations_wins",
            // a cluster that is missing is an error of its own requests
            "validate_clusters",
        ],
    ),
    ("envoy.config.route.v3.VirtualHost", &["metadata", "virtual_clusters"]),
    // the sum of the weights counts; there is no runtime
    ("envoy.config.route.v3.WeightedCluster", &["runtime_key_prefix", "total_weight"]),
    (
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        &["rules_stat_prefix", "shadow_rules_stat_prefix", "track_per_rule_stats"],
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        &[
            "dynamic_stats",
            "suppress_grpc_request_failure_code_stats",
            // each attempt has a span of its own, and no headers of Envoy's
            "start_child_span",
            "suppress_envoy_headers",
            // CONNECT is not served
            "reject_connect_request_early_data",
            // of a log that is listed
            "upstream_log_options",
        ],
    ),
    // a filter that is known is applied, optional or not
    ("envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter", &["is_optional"]),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &[
            // names, and headers and bodies that this library neither adds nor changes
            "add_user_agent",
            "always_set_request_id_in_response",
            "append_x_forwarded_port",
            "generate_request_id",
            "preserve_external_request_id",
            "proxy_status_config",
            "request_id_extension",
            "server_header_transformation",
            "server_name",
            "skip_xff_append",
            "stat_prefix",
            "via",
            // the version is found from the connection; HTTP/1.1 is hyper's
            "codec_type",
            "http1_safe_max_connection_duration",
            "http_protocol_options",
            "proxy_100_continue",
            "stream_error_on_invalid_http_message",
            // the peer of a connection is always who holds the socket (gRFC A41)
            "add_proxy_protocol_connection_state",
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
            "set_current_client_cert_details",
            // of fields that are listed
            "access_log_flush_interval",
            "access_log_options",
            "drain_timeout_jitter",
            "flush_access_log_on_new_request",
            // a client takes no connections, from a proxy or from anybody
            "use_remote_address",
            // what is done
            "path_with_escaped_slashes_action=KEEP_UNCHANGED",
            // of Envoy's own shutdown and overload
            "append_local_overload",
            "delayed_close_timeout",
        ],
    ),
    (
        "envoy.extensions.filters.network.rbac.v3.RBAC",
        // the facts of a connection do not change
        &["enforcement_type", "shadow_rules_stat_prefix", "stat_prefix"],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        &[
            // never allowed, always verified: ignoring them is stricter
            "allow_expired_certificate",
            "trust_chain_verification",
            // an instance is preferred where both are given (gRFC A82)
            "system_root_certs",
            // of files that are refused, and a hint to clients
            "only_verify_leaf_cert_crl",
            "suppress_client_ca_list",
            "watched_directory",
        ],
    ),
    // HTTP/1.1 is hyper's; there is no HTTP/3, nor anything that remembers where it is
    (
        "envoy.config.core.v3.Http1ProtocolOptions",
        &[
            "accept_http_10",
            "allow_absolute_url",
            "allow_chunked_length",
            "allow_custom_methods",
            "default_host_for_http_10",
            "enable_trailers",
            "header_key_format",
            "ignore_http_11_upgrade",
            "override_stream_error_on_invalid_http_message",
            "send_fully_qualified_url",
            "use_balsa_parser",
        ],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig",
        &["alternate_protocols_cache_options", "http_protocol_options"],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        &["http_protocol_options"],
    ),
    // there is no dynamic metadata: only the inversion counts
    ("envoy.type.matcher.v3.MetadataMatcher", &["filter", "path", "value"]),
    // the one engine that there is
    ("envoy.type.matcher.v3.RegexMatcher", &["google_re2"]),
    // decided by the versions of HTTP that are served or spoken
    ("envoy.extensions.transport_sockets.tls.v3.CommonTlsContext", &["alpn_protocols"]),
    (
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        &[
            // names are matched on resumed sessions too
            "disable_stateful_session_resumption",
            "disable_stateless_session_resumption",
            "session_timeout",
            // there is one certificate, and no weak cipher to prefer
            "full_scan_certs_on_sni_mismatch",
            "prefer_client_ciphers",
        ],
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        // never done, always enforced: ignoring them is stricter; and a cache size
        &["allow_renegotiation", "enforce_rsa_key_usage", "max_session_keys"],
    ),
];
