//! Where the walk over every field starts, and samples for the fields that a plain value does not suit.
//!
//! `@envoy.…` stands for the `@type` of an extension, `LONG` for a long text.

use crate::ads::Kind;

/// What a field means can depend on where its message is: the message or `message.field` that begins a scope.
pub(super) const SCOPES: &[(&str, &str)] = &[
    ("envoy.extensions.filters.network.rbac.v3.RBAC", "network"),
    ("envoy.config.cluster.v3.CircuitBreakers.per_host_thresholds", "host"),
    ("envoy.config.cluster.v3.Cluster.load_assignment", "inline"),
];

/// Fields whose message is walked at another place, by the same validator.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[
    ("envoy.config.listener.v3.Listener", "default_filter_chain"),
    ("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", "rbac"),
    (HCM, "route_config"),
];

const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const HTTP_FILTER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const FILTER_CHAIN: &str = "envoy.config.listener.v3.FilterChain";
const MATCH: &str = "envoy.config.listener.v3.FilterChainMatch";
const PERMISSION: &str = "envoy.config.rbac.v3.Permission";
const PRINCIPAL: &str = "envoy.config.rbac.v3.Principal";
const HTTP2: &str = "envoy.config.core.v3.Http2ProtocolOptions";
const ROUTE: &str = "envoy.config.route.v3.Route";
const ROUTE_MATCH: &str = "envoy.config.route.v3.RouteMatch";
const ROUTE_ACTION: &str = "envoy.config.route.v3.RouteAction";
const HEADER: &str = "envoy.config.route.v3.HeaderMatcher";
const RETRY: &str = "envoy.config.route.v3.RetryPolicy";
const STRING: &str = "envoy.type.matcher.v3.StringMatcher";
const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext";
const VALIDATION: &str = "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext";
const OVERRIDES: &str = "typed_per_filter_config: {f: {@envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}}}}}";
const WRAPPED: &str = "typed_per_filter_config: {f: {@envoy.config.route.v3.FilterConfig}}";
const LABELS: &str = "metadata: {filter_metadata: {com.google.csm.telemetry_labels: {service_name: a}}}";
const POLICIES: &str = "policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}";

/// A small valid resource of each scope.
pub(super) fn roots() -> Vec<(Kind, &'static str, String)> {
    let router = "{name: router, typed_config: {@envoy.extensions.filters.http.router.v3.Router}}";
    let manager =
        |filters: &str, routes: &str| format!("{{@{HCM}, {routes}, http_filters: [{filters}{router}]}}");
    let client = manager("", "rds: {route_config_name: r, config_source: {ads: {}}}");
    let rbac = format!(
        "{{name: rbac, typed_config: {{@envoy.extensions.filters.http.rbac.v3.RBAC, rules: {{{POLICIES}}}}}}}, "
    );
    let network = format!(
        "{{name: rbac, typed_config: {{@envoy.extensions.filters.network.rbac.v3.RBAC, rules: {{{POLICIES}}}}}}}"
    );
    let server = manager(&rbac, "route_config: {name: r}");
    let route = "{match: {prefix: /}, route: {cluster: c}}";
    let endpoint = "{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}";
    vec![
        (Kind::Listener, "client", format!("name: l, api_listener: {{api_listener: {client}}}")),
        (
            Kind::Listener,
            "server",
            format!(
                "name: l, address: {{socket_address: {{address: 10.0.0.1, port_value: 80}}}}, filter_chains: [{{filters: [{network}, {{name: hcm, typed_config: {server}}}]}}]"
            ),
        ),
        (
            Kind::Cluster,
            "cluster",
            "name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}".to_owned(),
        ),
        (
            Kind::Cluster,
            "cluster",
            format!(
                "name: c, type: STATIC, common_lb_config: {{locality_weighted_lb_config: {{}}}}, load_assignment: {{endpoints: [{{locality: {{zone: z}}, lb_endpoints: [{endpoint}]}}]}}"
            ),
        ),
        (
            Kind::Route,
            "route",
            format!(
                "name: r, cluster_specifier_plugins: [{{extension: {{name: x}}}}], virtual_hosts: [{{name: v, domains: [a], routes: [{route}]}}]"
            ),
        ),
        (
            Kind::Endpoints,
            "endpoints",
            format!(
                "cluster_name: c, endpoints: [{{locality: {{zone: z}}, load_balancing_weight: 1, lb_endpoints: [{endpoint}]}}]"
            ),
        ),
    ]
}

/// The text with the types of extensions as YAML writes them.
pub(super) fn with_types(text: &str) -> String {
    text.replace('@', "\"@type\": type.googleapis.com/").replace("LONG", &"x".repeat(5000))
}

/// By message and field: the YAML of the field, and of what else it needs to be valid and to have a meaning.
pub(super) const SAMPLES: &[(&str, &str, &str)] = &[
    // === listeners ===
    (
        "envoy.config.listener.v3.Listener",
        "additional_addresses",
        "additional_addresses: [{address: {socket_address: {address: 10.0.0.7, port_value: 80}}}]",
    ),
    (
        "envoy.config.listener.v3.Listener",
        "default_filter_chain",
        "default_filter_chain: {filters: [{name: hcm, typed_config: {@envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, route_config: {}, http_filters: [{name: router, typed_config: {@envoy.extensions.filters.http.router.v3.Router}}]}}]}",
    ),
    ("envoy.config.core.v3.SocketAddress", "address", "address: 10.0.0.2"),
    ("envoy.config.core.v3.Address", "pipe", "pipe: {path: /a}"),
    (
        "envoy.config.core.v3.Address",
        "envoy_internal_address",
        "envoy_internal_address: {server_listener_name: a}",
    ),
    (
        FILTER_CHAIN,
        "transport_socket",
        "transport_socket: {name: tls, typed_config: {@envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_certificate_provider_instance: {instance_name: default}, validation_context: {ca_certificate_provider_instance: {instance_name: default}}}}}",
    ),
    (
        FILTER_CHAIN,
        "transport_socket",
        "transport_socket: {name: raw, typed_config: {@envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}",
    ),
    (MATCH, "prefix_ranges", "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"),
    (MATCH, "source_prefix_ranges", "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]"),
    (MATCH, "transport_protocol", "transport_protocol: raw_buffer"),
    (MATCH, "transport_protocol", "transport_protocol: tls"),
    ("envoy.config.core.v3.CidrRange", "address_prefix", "address_prefix: 10.0.0.0"),
    (HCM, "rds", "rds: {route_config_name: r, config_source: {ads: {}}}"),
    (HCM, "route_config", "route_config: {name: r2}"),
    (
        HCM,
        "http_filters",
        "http_filters: [{name: rbac, typed_config: {@envoy.extensions.filters.http.rbac.v3.RBAC, rules: {policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}}}}, {name: router, typed_config: {@envoy.extensions.filters.http.router.v3.Router}}]",
    ),
    (
        HCM,
        "http_filters",
        "http_filters: [{name: router, typed_config: {@envoy.extensions.filters.http.router.v3.Router}}]",
    ),
    (
        HCM,
        "http_filters",
        "http_filters: [{name: lua, is_optional: true, typed_config: {@envoy.extensions.filters.http.lua.v3.Lua}}, {name: router, typed_config: {@envoy.extensions.filters.http.router.v3.Router}}]",
    ),
    (HTTP_FILTER, "disabled", "disabled: true, typed_config: {@envoy.extensions.filters.http.rbac.v3.RBAC}"),
    (
        HTTP_FILTER,
        "is_optional",
        "is_optional: true, typed_config: {@envoy.extensions.filters.http.lua.v3.Lua}",
    ),
    (HTTP_FILTER, "is_optional", "is_optional: true"),
    // === access control ===
    (
        "envoy.config.rbac.v3.RBAC",
        "audit_logging_options",
        "audit_logging_options: {logger_configs: [{is_optional: true}]}",
    ),
    ("envoy.config.rbac.v3.RBAC", "policies", POLICIES),
    (
        "envoy.config.rbac.v3.RBAC.AuditLoggingOptions.AuditLoggerConfig",
        "audit_logger",
        "audit_logger: {name: a}, is_optional: true",
    ),
    (PERMISSION, "and_rules", "and_rules: {rules: [{destination_port: 9}]}"),
    (PERMISSION, "or_rules", "or_rules: {rules: [{destination_port: 9}]}"),
    (PERMISSION, "not_rule", "not_rule: {destination_port: 9}"),
    (PERMISSION, "header", "header: {name: a, exact_match: b}"),
    (PERMISSION, "url_path", "url_path: {path: {exact: /a}}"),
    (PERMISSION, "destination_ip", "destination_ip: {address_prefix: 10.0.0.0, prefix_len: 8}"),
    (PERMISSION, "destination_port_range", "destination_port_range: {start: 1, end: 20}"),
    (PERMISSION, "requested_server_name", "requested_server_name: {exact: a}"),
    (
        PERMISSION,
        "metadata",
        "metadata: {filter: a, path: [{key: b}], value: {present_match: true}, invert: true}",
    ),
    (PERMISSION, "sourced_metadata", "sourced_metadata: {metadata_matcher: {invert: true}}"),
    (PRINCIPAL, "and_ids", "and_ids: {ids: [{authenticated: {}}]}"),
    (PRINCIPAL, "or_ids", "or_ids: {ids: [{authenticated: {}}]}"),
    (PRINCIPAL, "not_id", "not_id: {authenticated: {}}"),
    (PRINCIPAL, "authenticated", "authenticated: {principal_name: {exact: a}}"),
    (PRINCIPAL, "header", "header: {name: a, exact_match: b}"),
    (PRINCIPAL, "url_path", "url_path: {path: {exact: /a}}"),
    (PRINCIPAL, "source_ip", "source_ip: {address_prefix: 10.0.0.0, prefix_len: 8}"),
    (PRINCIPAL, "direct_remote_ip", "direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}"),
    (PRINCIPAL, "remote_ip", "remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}"),
    (
        PRINCIPAL,
        "metadata",
        "metadata: {filter: a, path: [{key: b}], value: {present_match: true}, invert: true}",
    ),
    (PRINCIPAL, "sourced_metadata", "sourced_metadata: {metadata_matcher: {invert: true}}"),
    // === matchers ===
    (STRING, "safe_regex", "safe_regex: {regex: b}"),
    (STRING, "ignore_case", "exact: b, ignore_case: true"),
    (HEADER, "string_match", "string_match: {exact: b}"),
    (HEADER, "safe_regex_match", "safe_regex_match: {regex: b}"),
    (HEADER, "present_match", "present_match: false"),
    (HEADER, "range_match", "range_match: {start: 1, end: 2}"),
    ("envoy.config.route.v3.QueryParameterMatcher", "string_match", "string_match: {exact: b}"),
    // === TLS ===
    (
        TLS,
        "validation_context",
        "validation_context: {ca_certificate_provider_instance: {instance_name: default}}",
    ),
    (TLS, "validation_context", "validation_context: {system_root_certs: {}}"),
    (
        TLS,
        "combined_validation_context",
        "combined_validation_context: {default_validation_context: {ca_certificate_provider_instance: {instance_name: default}}}",
    ),
    (TLS, "tls_certificate_provider_instance", "tls_certificate_provider_instance: {instance_name: default}"),
    (
        TLS,
        "tls_certificate_certificate_provider_instance",
        "tls_certificate_certificate_provider_instance: {instance_name: default}",
    ),
    (
        TLS,
        "validation_context_certificate_provider_instance",
        "validation_context_certificate_provider_instance: {instance_name: default}",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        "validation_context_certificate_provider_instance",
        "validation_context_certificate_provider_instance: {instance_name: default}",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance",
        "instance_name",
        "instance_name: default",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CertificateProviderInstance",
        "instance_name",
        "instance_name: default",
    ),
    (
        VALIDATION,
        "ca_certificate_provider_instance",
        "ca_certificate_provider_instance: {instance_name: default}",
    ),
    (
        VALIDATION,
        "match_typed_subject_alt_names",
        "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}], ca_certificate_provider_instance: {instance_name: default}",
    ),
    (
        VALIDATION,
        "match_subject_alt_names",
        "match_subject_alt_names: [{exact: a}], ca_certificate_provider_instance: {instance_name: default}",
    ),
    // === clusters ===
    (HTTP2, "initial_stream_window_size", "initial_stream_window_size: 70000"),
    (HTTP2, "initial_connection_window_size", "initial_connection_window_size: 70000"),
    (CLUSTER, "type", "type: EDS"),
    (
        CLUSTER,
        "transport_socket",
        "transport_socket: {name: tls, typed_config: {@envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {tls_certificate_provider_instance: {instance_name: default}, validation_context: {ca_certificate_provider_instance: {instance_name: default}}}}}",
    ),
    (
        CLUSTER,
        "transport_socket",
        "transport_socket: {name: raw, typed_config: {@envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}",
    ),
    (
        CLUSTER,
        "transport_socket",
        "transport_socket: {name: tls, typed_config: {@envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {system_root_certs: {}}}}}",
    ),
    (CLUSTER, "round_robin_lb_config", "lb_policy: ROUND_ROBIN, round_robin_lb_config: {}"),
    (
        CLUSTER,
        "least_request_lb_config",
        "lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5}",
    ),
    (CLUSTER, "common_lb_config", "common_lb_config: {}, lb_policy: RANDOM"),
    (
        CLUSTER,
        "circuit_breakers",
        "circuit_breakers: {thresholds: [{max_requests: 3}], per_host_thresholds: [{max_connections: 3}]}",
    ),
    (CLUSTER, "metadata", LABELS),
    (CLUSTER, "metadata", "metadata: {filter_metadata: {istio: {services: [{name: a}]}}}"),
    (
        CLUSTER,
        "http2_protocol_options",
        "http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 1s}}",
    ),
    (
        CLUSTER,
        "typed_extension_protocol_options",
        "typed_extension_protocol_options: {o: {@envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 1s}}}}}",
    ),
    (
        CLUSTER,
        "load_balancing_policy",
        "load_balancing_policy: {policies: [{typed_extension_config: {name: a, typed_config: {@envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest}}}]}",
    ),
    (
        CLUSTER,
        "load_balancing_policy",
        "load_balancing_policy: {policies: [{typed_extension_config: {name: a, typed_config: {@envoy.extensions.load_balancing_policies.random.v3.Random}}}]}",
    ),
    (
        CLUSTER,
        "load_balancing_policy",
        "load_balancing_policy: {policies: [{typed_extension_config: {name: a, typed_config: {@envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}]}",
    ),
    (
        CLUSTER,
        "load_balancing_policy",
        "load_balancing_policy: {policies: [{typed_extension_config: {name: a, typed_config: {@envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality, endpoint_picking_policy: {policies: [{typed_extension_config: {name: b, typed_config: {@envoy.extensions.load_balancing_policies.random.v3.Random}}}]}}}}]}",
    ),
    ("envoy.config.core.v3.KeepaliveSettings", "interval", "interval: 2s"),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config",
        "use_downstream_protocol_config: {http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 1s}}}",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "auto_config",
        "auto_config: {http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 1s}}}",
    ),
    // === routes ===
    ("envoy.config.route.v3.RouteConfiguration", "typed_per_filter_config", OVERRIDES),
    ("envoy.config.route.v3.RouteConfiguration", "typed_per_filter_config", WRAPPED),
    (
        "envoy.config.route.v3.RouteConfiguration",
        "max_direct_response_body_size_bytes",
        "max_direct_response_body_size_bytes: 9000, virtual_hosts: [{name: v, domains: [a], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: LONG}}}]}]",
    ),
    ("envoy.config.route.v3.VirtualHost", "domains", "domains: [b]"),
    ("envoy.config.route.v3.VirtualHost", "typed_per_filter_config", OVERRIDES),
    ("envoy.config.route.v3.VirtualHost", "typed_per_filter_config", WRAPPED),
    ("envoy.config.route.v3.VirtualHost", "retry_policy", "retry_policy: {retry_on: 5xx}"),
    (ROUTE, "typed_per_filter_config", OVERRIDES),
    (ROUTE, "typed_per_filter_config", WRAPPED),
    (ROUTE, "direct_response", "direct_response: {status: 200, body: {inline_string: a}}"),
    (
        "envoy.config.route.v3.FilterConfig",
        "config",
        "config: {@envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}}}}",
    ),
    (
        "envoy.config.route.v3.FilterConfig",
        "is_optional",
        "config: {@envoy.extensions.filters.http.lua.v3.Lua}, is_optional: true",
    ),
    (ROUTE_MATCH, "path", "path: /a"),
    (ROUTE_MATCH, "prefix", "prefix: /a"),
    (ROUTE_MATCH, "path_separated_prefix", "path_separated_prefix: /a"),
    (ROUTE_MATCH, "safe_regex", "safe_regex: {regex: /a}"),
    (ROUTE_MATCH, "case_sensitive", "case_sensitive: false"),
    (ROUTE_MATCH, "headers", "headers: [{name: a, exact_match: b}]"),
    (ROUTE_MATCH, "query_parameters", "query_parameters: [{name: a, string_match: {exact: b}}]"),
    (ROUTE_MATCH, "runtime_fraction", "runtime_fraction: {default_value: {numerator: 5}}"),
    (ROUTE_ACTION, "weighted_clusters", "weighted_clusters: {clusters: [{name: c, weight: 2}]}"),
    (ROUTE_ACTION, "retry_policy", "retry_policy: {retry_on: 5xx}"),
    (ROUTE_ACTION, "prefix_rewrite", "prefix_rewrite: /a"),
    (ROUTE_ACTION, "auto_host_rewrite", "auto_host_rewrite: true"),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "typed_per_filter_config", OVERRIDES),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "typed_per_filter_config", WRAPPED),
    ("envoy.config.route.v3.DirectResponseAction", "status", "status: 404"),
    (RETRY, "retry_on", "retry_on: 5xx"),
    (RETRY, "retriable_status_codes", "retriable_status_codes: [503]"),
    (RETRY, "retriable_headers", "retriable_headers: [{name: a, exact_match: b}]"),
    (RETRY, "retry_back_off", "retry_back_off: {base_interval: 1s, max_interval: 2s}"),
    ("envoy.config.route.v3.RetryPolicy.RetryBackOff", "base_interval", "base_interval: 2s"),
    // === endpoints ===
    (
        "envoy.config.endpoint.v3.Endpoint",
        "additional_addresses",
        "additional_addresses: [{address: {socket_address: {address: 10.0.0.7, port_value: 80}}}]",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "policy",
        "policy: {drop_overloads: [{category: a, drop_percentage: {numerator: 5}}]}",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
        "drop_overloads",
        "drop_overloads: [{category: a, drop_percentage: {numerator: 5}}]",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload",
        "drop_percentage",
        "drop_percentage: {numerator: 5}",
    ),
    (
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        "load_balancer_endpoints",
        "load_balancer_endpoints: {lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.2, port_value: 80}}}}]}",
    ),
    (
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "endpoints",
        "endpoints: [{locality: {zone: z}, load_balancing_weight: 1, priority: 1, lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}, {locality: {zone: z}, load_balancing_weight: 1, lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.9, port_value: 80}}}}]}]",
    ),
    ("envoy.config.endpoint.v3.LocalityLbEndpoints", "load_balancing_weight", "load_balancing_weight: 3"),
    ("envoy.config.endpoint.v3.LocalityLbEndpoints", "priority", "priority: 1"),
    (
        "envoy.config.endpoint.v3.LbEndpoint",
        "metadata",
        "metadata: {filter_metadata: {istio: {workload: a;b;c;d;e}}}",
    ),
];

/// Refused for what stands around it; a valid resource with it is another resource.
pub(super) const REFUSED: &[(&str, &str, &str)] = &[
    // it makes the listener one of a client, which is walked by itself
    ("server", "envoy.config.listener.v3.Listener", "api_listener"),
    // it asks for `load_balancing_policy`, which then decides
    ("cluster", CLUSTER, "lb_policy=LOAD_BALANCING_POLICY_CONFIG"),
    // the value that means none
    ("cluster", SAN, "san_type=SAN_TYPE_UNSPECIFIED"),
    ("server", SAN, "san_type=SAN_TYPE_UNSPECIFIED"),
];

const SAN: &str = "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher";
