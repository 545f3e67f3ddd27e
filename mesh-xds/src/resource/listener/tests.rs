//! What of a `Listener` is accepted on either side, and what is refused where.

use std::time::Duration;

use mesh_core::config::listener::{ChainMatch, HttpConfig, RouteSource, ServingConfig, SourceType};

use crate::ads::Kind;
use crate::resource::tests::{client, not_applied, refusals, server, unapplied};

const PREFIX: &str = "type.googleapis.com/envoy.extensions.filters";
const ADDRESS: &str = "address: {socket_address: {address: 0.0.0.0, port_value: 80}}";

fn router() -> String {
    format!("http_filters: [{{name: router, typed_config: {{\"@type\": {PREFIX}.http.router.v3.Router}}}}]")
}

/// A connection manager with these fields besides its filters.
fn manager(fields: &str) -> String {
    format!(
        "{{\"@type\": {PREFIX}.network.http_connection_manager.v3.HttpConnectionManager, {}, {fields}}}",
        router()
    )
}

fn api(fields: &str) -> String {
    format!("name: l\napi_listener: {{api_listener: {}}}", manager(fields))
}

/// A client whose routes are inline and empty, with these fields besides.
fn api_with(fields: &str) -> String {
    api(&format!("route_config: {{}}, {fields}"))
}

fn listening(fields: &str) -> String {
    format!("name: l\n{ADDRESS}\n{fields}")
}

fn hcm() -> String {
    format!("{{name: hcm, typed_config: {}}}", manager("route_config: {}"))
}

/// A chain with these fields besides its filters.
fn chain(fields: &str) -> String {
    format!("{{filters: [{}], {fields}}}", hcm())
}

fn chains(list: &[&str]) -> String {
    let list: Vec<_> = list.iter().map(|fields| chain(fields)).collect();
    listening(&format!("filter_chains: [{}]", list.join(", ")))
}

fn matching(fields: &str) -> String {
    chains(&[&format!("filter_chain_match: {{{fields}}}")])
}

fn filters(list: &str) -> String {
    listening(&format!("filter_chains: [{{filters: [{list}]}}]"))
}

fn serving(fields: &str) -> String {
    filters(&format!("{{name: hcm, typed_config: {}}}", manager(&format!("route_config: {{}}, {fields}"))))
}

#[test]
fn a_client_listener_has_routes_by_name_or_inline() {
    for source in ["ads: {}", "self: {}"] {
        let found = client(&api(&format!("rds: {{route_config_name: r, config_source: {{{source}}}}}")));
        assert_eq!(found, HttpConfig::new(RouteSource::Rds("r".into())), "{source}");
    }
    let found = client(&api("route_config: {name: inner, virtual_hosts: [{name: v, domains: [a]}]}"));
    let RouteSource::Inline(routes) = found.routes else { panic!("{found:?}") };
    assert_eq!((&*routes.name, routes.virtual_hosts.len()), ("inner", 1));
}

#[test]
fn virtual_hosts_have_names_but_for_those_within_a_server() {
    let unnamed = "route_config: {virtual_hosts: [{name: a, domains: [a]}, {domains: ['*']}]}";
    let why = "api_listener.api_listener.route_config.virtual_hosts[1].name: must not be empty";
    refusals(Kind::Listener, api, &[(unnamed, why)]);
    // istiod's inbound listeners
    let found = server(&filters(&format!("{{name: hcm, typed_config: {}}}", manager(unnamed))));
    let RouteSource::Inline(routes) = &found.chains[0].http.routes else { panic!("{found:?}") };
    assert_eq!(routes.virtual_hosts.len(), 2);
}

#[test]
fn limits_of_the_connection_manager_are_kept() {
    let found = client(&api_with(
        "common_http_protocol_options: {max_stream_duration: 3s, idle_timeout: 4s}, request_headers_timeout: 5s, \
         http2_protocol_options: {max_concurrent_streams: 6}, max_request_headers_kb: 7",
    ));
    assert_eq!(found.max_stream_duration, Some(Duration::from_secs(3)));
    assert_eq!(
        (found.idle_timeout, found.headers_timeout),
        (Some(Duration::from_secs(4)), Some(Duration::from_secs(5)))
    );
    assert_eq!((found.max_concurrent_streams, found.max_header_bytes), (Some(6), Some(7168)));
    let zero = client(&api_with(
        "common_http_protocol_options: {max_stream_duration: 0s, idle_timeout: 0s}, request_headers_timeout: 0s",
    ));
    assert_eq!((zero.max_stream_duration, zero.idle_timeout, zero.headers_timeout), (None, None, None));
}

#[test]
fn what_a_server_grants_is_kept_and_zero_is_none() {
    let of = |fields: &str| server(&serving(fields)).chains[0].http.serving;
    let found = of("stream_idle_timeout: 1s, request_timeout: 2s, \
         common_http_protocol_options: {max_connection_duration: 3s, max_headers_count: 4}");
    let seconds = |n| Some(Duration::from_secs(n));
    let expected = ServingConfig {
        stream_idle_timeout: seconds(1),
        request_timeout: seconds(2),
        max_connection_duration: seconds(3),
        max_headers_count: Some(4),
        trusts_forwarded_for: true,
    };
    assert_eq!(found, expected);
    assert!(
        !of("use_remote_address: true").trusts_forwarded_for
            && of("use_remote_address: false").trusts_forwarded_for
    );
    // Envoy counts whole milliseconds, and has defaults that would end a quiet gRPC stream.
    for none in [
        "stat_prefix: s",
        "stream_idle_timeout: 0s, request_timeout: 0s, common_http_protocol_options: {max_connection_duration: 0s}",
        "stream_idle_timeout: 0.0009s, request_timeout: 0.0009s",
    ] {
        let nothing = ServingConfig { trusts_forwarded_for: true, ..ServingConfig::default() };
        assert_eq!(of(none), nothing, "{none}");
    }
    let all = serving(
        "stream_idle_timeout: 1s, request_timeout: 2s, \
         common_http_protocol_options: {max_connection_duration: 3s, max_headers_count: 4}",
    );
    assert!(unapplied(Kind::Listener, &all).is_empty());
    not_applied(
        Kind::Listener,
        serving,
        &[(
            "common_http_protocol_options: {max_connection_duration_jitter: {value: 5}}",
            "filter_chains[0].filters[0].typed_config.common_http_protocol_options.max_connection_duration_jitter",
        )],
    );
}

#[test]
fn what_a_server_cannot_grant_is_refused_at_its_field() {
    for (fields, rest) in [
        (
            "stream_idle_timeout: -1s",
            "stream_idle_timeout: duration of -1 s and 0 ns is negative or out of range",
        ),
        ("request_timeout: -1s", "request_timeout: duration of -1 s and 0 ns is negative or out of range"),
        (
            "common_http_protocol_options: {max_connection_duration: -1s}",
            "common_http_protocol_options.max_connection_duration: duration of -1 s and 0 ns is negative or out of range",
        ),
        (
            "common_http_protocol_options: {max_headers_count: 0}",
            "common_http_protocol_options.max_headers_count: 0 is not within 1..=4294967295",
        ),
    ] {
        let on_server = format!("filter_chains[0].filters[0].typed_config.{rest}");
        refusals(Kind::Listener, serving, &[(fields, &on_server)]);
    }
}

#[test]
fn a_client_listener_that_cannot_be_honoured_is_refused() {
    let at = "api_listener.api_listener";
    refusals(
        Kind::Listener,
        str::to_owned,
        &[
            ("name: l\napi_listener: {}", "api_listener.api_listener: is required"),
            (
                &format!(
                    "name: l\napi_listener: {{api_listener: {{\"@type\": {PREFIX}.http.router.v3.Router}}}}"
                ),
                &format!(
                    "{at}: type \"{PREFIX}.http.router.v3.Router\" where \"HttpConnectionManager\" is expected"
                ),
            ),
        ],
    );
    for (fields, rest) in [
        ("stat_prefix: s", "route_specifier: is required"),
        ("rds: {}", "rds.config_source: is required"),
        ("rds: {config_source: {}}", "rds.config_source: is required"),
        ("rds: {config_source: {path: /a}}", "rds.config_source: must be `ads` or `self`"),
        ("rds: {config_source: {api_config_source: {}}}", "rds.config_source: must be `ads` or `self`"),
        ("rds: {config_source: {ads: {}}}", "rds.route_config_name: must not be empty"),
        ("scoped_routes: {}", "scoped_routes: is not supported"),
        ("route_config: {virtual_hosts: [{}]}", "route_config.virtual_hosts[0].name: must not be empty"),
        (
            "route_config: {virtual_hosts: [{name: v, domains: [a], routes: [{match: {safe_regex: {regex: '('}}, route: {cluster: c}}]}]}",
            "route_config.virtual_hosts[0].routes[0].match.safe_regex: invalid regular expression: unclosed group",
        ),
    ] {
        refusals(Kind::Listener, api, &[(fields, &format!("{at}.{rest}"))]);
    }
    for (fields, rest) in [
        ("xff_num_trusted_hops: 1", "xff_num_trusted_hops: is not supported"),
        (
            "original_ip_detection_extensions: [{name: a}]",
            "original_ip_detection_extensions: is not supported",
        ),
        ("max_request_headers_kb: 0", "max_request_headers_kb: 0 is not within 1..=8192"),
        ("max_request_headers_kb: 8193", "max_request_headers_kb: 8193 is not within 1..=8192"),
        (
            "http2_protocol_options: {max_concurrent_streams: 0}",
            "http2_protocol_options.max_concurrent_streams: 0 is not within 1..=2147483647",
        ),
        (
            "http2_protocol_options: {max_concurrent_streams: 2147483648}",
            "http2_protocol_options.max_concurrent_streams: 2147483648 is not within 1..=2147483647",
        ),
        (
            "request_headers_timeout: -1s",
            "request_headers_timeout: duration of -1 s and 0 ns is negative or out of range",
        ),
        (
            "common_http_protocol_options: {idle_timeout: -1s}",
            "common_http_protocol_options.idle_timeout: duration of -1 s and 0 ns is negative or out of range",
        ),
        (
            "common_http_protocol_options: {max_stream_duration: -1s}",
            "common_http_protocol_options.max_stream_duration: duration of -1 s and 0 ns is negative or out of range",
        ),
    ] {
        refusals(Kind::Listener, api_with, &[(fields, &format!("{at}.{rest}"))]);
    }
}

/// Fields that on a server change the path that policies see, or whom a request is taken to come from.
const IDENTITY: [(&str, &str); 12] = [
    ("normalize_path: true", "normalize_path"),
    ("merge_slashes: true", "merge_slashes"),
    ("path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action"),
    ("path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD", "path_with_escaped_slashes_action"),
    ("path_normalization_options: {}", "path_normalization_options"),
    ("strip_matching_host_port: true", "strip_matching_host_port"),
    ("strip_any_host_port: true", "strip_any_host_port"),
    ("strip_trailing_host_dot: true", "strip_trailing_host_dot"),
    ("forward_client_cert_details: APPEND_FORWARD", "forward_client_cert_details"),
    ("early_header_mutation_extensions: [{name: a}]", "early_header_mutation_extensions"),
    ("typed_header_validation_config: {name: a}", "typed_header_validation_config"),
    (
        "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}",
        "common_http_protocol_options.headers_with_underscores_action",
    ),
];

#[test]
fn what_changes_who_is_seen_is_refused_on_servers_and_listed_on_clients() {
    for (fields, field) in IDENTITY {
        let server_at = format!("filter_chains[0].filters[0].typed_config.{field}: is not supported");
        refusals(Kind::Listener, serving, &[(fields, &server_at)]);
        not_applied(Kind::Listener, api_with, &[(fields, &format!("api_listener.api_listener.{field}"))]);
    }
    let harmless = serving(
        "normalize_path: false, path_with_escaped_slashes_action: KEEP_UNCHANGED, use_remote_address: true",
    );
    assert!(unapplied(Kind::Listener, &harmless).is_empty());
}

#[test]
fn a_server_listener_has_an_address_and_chains() {
    let found = server(&listening(&format!(
        "filter_chains: [{}]\ndefault_filter_chain: {}",
        chain("name: one"),
        chain("name: rest")
    )));
    assert_eq!(found.address.to_string(), "0.0.0.0:80");
    assert_eq!((&*found.chains[0].name, found.chains[0].matches.clone()), ("one", ChainMatch::default()));
    assert!(found.chains[0].tls.is_none() && found.chains[0].network_rbac.is_empty());
    assert_eq!(&*found.default_chain.unwrap().name, "rest");
}

#[test]
fn a_match_keeps_what_is_known_of_a_connection() {
    let found = server(&matching(
        "prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}], source_type: EXTERNAL, \
         source_prefix_ranges: [{address_prefix: '::1', prefix_len: 128}], source_ports: [7, 8], transport_protocol: raw_buffer",
    ));
    let wanted = ChainMatch {
        destination: vec!["10.0.0.0/8".parse().unwrap()],
        source_type: SourceType::External,
        source: vec!["::1/128".parse().unwrap()],
        source_ports: vec![7, 8],
        raw_buffer: true,
    };
    assert_eq!(found.chains[0].matches, wanted);
    let local = server(&matching("source_type: SAME_IP_OR_LOOPBACK"));
    assert_eq!(local.chains[0].matches.source_type, SourceType::SameIpOrLoopback);
}

#[test]
fn a_chain_that_can_never_match_is_left_out_before_it_is_checked() {
    for (fields, field) in [
        ("destination_port: 80", "destination_port"),
        ("server_names: [a]", "server_names"),
        ("transport_protocol: tls", "transport_protocol"),
        ("application_protocols: [h2]", "application_protocols"),
    ] {
        let yaml = listening(&format!("filter_chains: [{{filter_chain_match: {{{fields}}}, filters: []}}]"));
        let found = server(&yaml);
        assert!(found.chains.is_empty() && found.default_chain.is_none(), "{fields}");
        assert_eq!(
            unapplied(Kind::Listener, &yaml),
            [format!("filter_chains[0].filter_chain_match.{field}")]
        );
    }
}

#[test]
fn two_chains_that_match_the_same_connections_are_refused() {
    let why = "filter_chains[1].filter_chain_match: matches the same connections as an earlier entry";
    let with = |fields: &str| format!("filter_chain_match: {{{fields}}}");
    for (one, other) in [
        ("", ""),
        ("source_ports: [1, 2]", "source_ports: [2, 3]"),
        (
            "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
            "prefix_ranges: [{address_prefix: 11.0.0.0, prefix_len: 8}, {address_prefix: 10.9.9.9, prefix_len: 8}]",
        ),
        ("source_type: EXTERNAL", "source_type: EXTERNAL"),
    ] {
        let yaml = chains(&[&with(one), &with(other)]);
        assert_eq!(crate::resource::tests::refusal(Kind::Listener, &yaml), why, "{one} / {other}");
    }
    for (one, other) in [
        ("", "source_ports: [1]"),
        ("source_type: EXTERNAL", "source_type: ANY"),
        ("transport_protocol: raw_buffer", ""),
        ("prefix_ranges: [{address_prefix: 0.0.0.0}]", ""),
        ("prefix_ranges: [{address_prefix: 0.0.0.0}]", "prefix_ranges: [{address_prefix: '::'}]"),
    ] {
        assert_eq!(server(&chains(&[&with(one), &with(other)])).chains.len(), 2, "{one} / {other}");
    }
    let ports: Vec<_> = (1..301).map(|p| p.to_string()).collect();
    let nets: Vec<_> = (0..250).map(|n| format!("{{address_prefix: 10.0.0.{n}, prefix_len: 32}}")).collect();
    let many = format!("source_ports: [{}], source_prefix_ranges: [{}]", ports.join(","), nets.join(","));
    refusals(
        Kind::Listener,
        matching,
        &[(&many, "filter_chains[0].filter_chain_match: more than 65536 entries")],
    );
}

#[test]
fn a_broken_match_is_refused_at_its_field() {
    for (fields, rest) in [
        ("address_suffix: a", "address_suffix: is not supported"),
        ("suffix_len: 1", "suffix_len: is not supported"),
        (
            "direct_source_prefix_ranges: [{address_prefix: '::1'}]",
            "direct_source_prefix_ranges: is not supported",
        ),
        ("source_type: 9", "source_type: 9 is not a known value"),
        ("source_ports: [1, 65536]", "source_ports[1]: 65536 is not within 1..=65535"),
        ("source_ports: [0]", "source_ports[0]: 0 is not within 1..=65535"),
        ("destination_port: 0", "destination_port: 0 is not within 1..=65535"),
        ("destination_port: 65536", "destination_port: 65536 is not within 1..=65535"),
        ("prefix_ranges: [{address_prefix: a}]", "prefix_ranges[0]: \"a\" is not an IP address"),
        (
            "source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 33}]",
            "source_prefix_ranges[0]: prefix length 33 is longer than the address",
        ),
    ] {
        refusals(
            Kind::Listener,
            matching,
            &[(fields, &format!("filter_chains[0].filter_chain_match.{rest}"))],
        );
    }
}

#[test]
fn a_server_listener_that_cannot_be_honoured_is_refused() {
    let one = format!("filter_chains: [{}]", chain(""));
    refusals(
        Kind::Listener,
        str::to_owned,
        &[
            ("name: l", "address: is required"),
            ("name: l\naddress: {pipe: {}}", "address.pipe.path: must not be empty"),
            (
                "name: l\naddress: {pipe: {path: /a, mode: 384}}",
                "address.pipe.mode: is set by the application, which binds the socket",
            ),
            (
                "name: l\naddress: {socket_address: {address: a, port_value: 1}}",
                "address.socket_address.address: \"a\" is not an IP address",
            ),
            (&listening(""), "filter_chains: must not be empty"),
        ],
    );
    refusals(
        Kind::Listener,
        |fields| listening(&format!("{one}\n{fields}")),
        &[
            ("listener_filters: [{name: a}]", "listener_filters: is not supported"),
            ("use_original_dst: true", "use_original_dst: is not supported"),
            ("transparent: true", "transparent: is not supported"),
            ("fcds_config: {}", "fcds_config: is not supported"),
            ("filter_chain_matcher: {}", "filter_chain_matcher: is not supported"),
            ("udp_listener_config: {}", "udp_listener_config: is not supported"),
            ("internal_listener: {}", "internal_listener: is not supported"),
            (
                "default_filter_chain: {}",
                "default_filter_chain.filters: the last filter must be the HTTP connection manager",
            ),
        ],
    );
    refusals(
        Kind::Listener,
        |fields| chains(&[fields]),
        &[("use_proxy_proto: true", "filter_chains[0].use_proxy_proto: is not supported")],
    );
}

#[test]
fn additional_addresses_are_such_and_differ() {
    let with =
        |list: &str| listening(&format!("filter_chains: [{}]\nadditional_addresses: [{list}]", chain("")));
    let one = |ip: &str| format!("{{address: {{socket_address: {{address: '{ip}', port_value: 80}}}}}}");
    let at = "additional_addresses";
    refusals(
        Kind::Listener,
        with,
        &[
            ("{}", &format!("{at}[0].address: is required")),
            (&one("0.0.0.0"), &format!("{at}[0].address: \"0.0.0.0:80\" is given twice")),
            (
                &format!("{}, {}", one("::"), one("::")),
                &format!("{at}[1].address: \"[::]:80\" is given twice"),
            ),
            (&one("a"), &format!("{at}[0].address.socket_address.address: \"a\" is not an IP address")),
        ],
    );
}

#[test]
fn network_filters_end_with_one_connection_manager() {
    let hcm = hcm();
    let other = hcm.replace("name: hcm", "name: other");
    let rbac =
        format!("{{name: rbac, typed_config: {{\"@type\": {PREFIX}.network.rbac.v3.RBAC, stat_prefix: s}}}}");
    assert_eq!(server(&filters(&format!("{rbac}, {hcm}"))).chains[0].network_rbac.len(), 1);
    let tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    for (list, rest) in [
        (String::new(), ": the last filter must be the HTTP connection manager"),
        (rbac.clone(), ": the last filter must be the HTTP connection manager"),
        (format!("{hcm}, {other}"), "[1]: nothing may follow the HTTP connection manager"),
        (format!("{hcm}, {rbac}"), "[1]: nothing may follow the HTTP connection manager"),
        (format!("{rbac}, {rbac}"), "[1].name: \"rbac\" is given twice"),
        ("{}".to_owned(), "[0].name: must not be empty"),
        ("{name: a}".to_owned(), "[0].typed_config: is required"),
        ("{name: a, config_discovery: {}}".to_owned(), "[0].config_discovery: is not supported"),
        (
            format!("{{name: a, typed_config: {{\"@type\": {tcp}}}}}"),
            &*format!("[0].typed_config: extension \"{tcp}\" is not supported"),
        ),
    ]
    .map(|(list, rest)| (list, rest.to_owned()))
    {
        refusals(Kind::Listener, filters, &[(&list, &format!("filter_chains[0].filters{rest}"))]);
    }
}

#[test]
fn traffic_fields_without_effect_are_listed() {
    let at = "api_listener.api_listener";
    for (fields, field) in [
        ("stream_idle_timeout: 1s", "stream_idle_timeout"),
        ("request_timeout: 1s", "request_timeout"),
        ("drain_timeout: 1s", "drain_timeout"),
        ("access_log: [{}]", "access_log"),
        ("upgrade_configs: [{}]", "upgrade_configs"),
        ("local_reply_config: {}", "local_reply_config"),
        ("internal_address_config: {}", "internal_address_config"),
        (
            "http2_protocol_options: {initial_stream_window_size: 65535}",
            "http2_protocol_options.initial_stream_window_size",
        ),
        ("http2_protocol_options: {connection_keepalive: {}}", "http2_protocol_options.connection_keepalive"),
        (
            "common_http_protocol_options: {max_connection_duration: 1s}",
            "common_http_protocol_options.max_connection_duration",
        ),
        (
            "common_http_protocol_options: {max_headers_count: 1}",
            "common_http_protocol_options.max_headers_count",
        ),
    ] {
        not_applied(Kind::Listener, api_with, &[(fields, &format!("{at}.{field}"))]);
    }
    let api = api_with("stat_prefix: s");
    not_applied(
        Kind::Listener,
        |fields| format!("{api}\n{fields}"),
        &[
            ("filter_chains: [{}]", "filter_chains"),
            ("listener_filters: [{}]", "listener_filters"),
            ("access_log: [{}]", "access_log"),
            ("bind_to_port: false", "bind_to_port"),
            ("tcp_backlog_size: 1", "tcp_backlog_size"),
        ],
    );
    not_applied(
        Kind::Listener,
        |fields| chains(&[fields]),
        &[("transport_socket_connect_timeout: 1s", "filter_chains[0].transport_socket_connect_timeout")],
    );
    let default =
        listening(&format!("default_filter_chain: {}", chain("filter_chain_match: {source_ports: [1]}")));
    assert_eq!(unapplied(Kind::Listener, &default), ["default_filter_chain.filter_chain_match"]);
    let more = listening(&format!(
        "filter_chains: [{}]\nadditional_addresses: [{{address: {{socket_address: {{address: '::', port_value: 80}}}}}}]\nfreebind: true",
        chain("")
    ));
    assert_eq!(unapplied(Kind::Listener, &more), ["additional_addresses", "freebind"]);
}
