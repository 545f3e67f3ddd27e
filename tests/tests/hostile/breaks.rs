//! Mutations that know what they break: a path in a good document, what becomes of it, and so where a refusal has to point.

use mesh_core::rng::{Rng, Xoshiro};
use serde_json::Value;

use crate::docs::{Doc, Shape};

/// One way to break a document.
#[derive(Debug, Clone)]
pub(crate) struct Break {
    pub(crate) shape: Shape,
    /// What is wrong afterwards: where the refusal has to point, or at its parent.
    pub(crate) path: String,
    /// What is put where; nothing takes the field away.
    edits: Vec<(String, Option<Value>)>,
}

/// A step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

// === impl Break ===

impl Break {
    /// Breaks a document; false where it lacks what would be broken.
    pub(crate) fn apply(&self, json: &mut Value) -> bool {
        self.edits.iter().all(|(at, value)| set(json, &steps(at), value.as_ref()))
    }

    /// Whether both can be done to one document: neither works within what the other replaces.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        let within = |a: &str, b: &str| a == b || is_within(a, b) || is_within(b, a);
        let clash = |(a, _): &(String, _)| other.edits.iter().any(|(b, _)| within(a, b));
        !self.edits.iter().any(clash) && !within(&self.path, &other.path)
    }
}

/// Whether the reported path is the path that was changed, or its parent.
pub(crate) fn points_at(reported: &str, changed: &str) -> bool {
    reported == changed || parent(changed) == Some(reported)
}

/// The path without its last step.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let key = path.strip_suffix("\"]").and_then(|inner| inner.rfind("[\""));
    let end = key.or_else(|| path.rfind(['.', '['])).filter(|end| *end > 0)?;
    path.get(..end)
}

fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// `a.b[2].c["key.with.dots"]`, step by step.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(key) = rest.strip_prefix("[\"") {
            let (key, after) = key.split_once("\"]").expect("a key that ends");
            steps.push(Step::Field(key));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']').expect("an index that ends");
            steps.push(Step::Index(index.parse().expect("an index")));
            rest = after;
        } else {
            let field = rest.strip_prefix('.').unwrap_or(rest);
            let end = field.find(['.', '[']).unwrap_or(field.len());
            let (field, after) = field.split_at(end);
            steps.push(Step::Field(field));
            rest = after;
        }
    }
    steps
}

fn set(json: &mut Value, steps: &[Step<'_>], value: Option<&Value>) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return value.is_some_and(|value| {
            *json = value.clone();
            true
        });
    };
    match (*step, rest.is_empty(), value) {
        (Step::Field(field), true, None) => {
            json.as_object_mut().is_some_and(|object| object.remove(field).is_some())
        }
        // A message that is not there is made, but for what would then be half of one.
        (Step::Field(field), _, _) if json.is_object() && (json.get(field).is_some() || rest.len() < 2) => {
            set(&mut json[field], rest, value)
        }
        (Step::Field(_), _, _) => {
            json.is_null() && {
                *json = Value::Object(serde_json::Map::new());
                set(json, steps, value)
            }
        }
        (Step::Index(index), _, _) => json.get_mut(index).is_some_and(|element| set(element, rest, value)),
    }
}

/// Breaks of this shape that this document can have.
pub(crate) fn for_doc<'a>(table: &'a [Break], doc: &Doc) -> Vec<&'a Break> {
    let fits = |found: &&Break| found.shape == doc.shape && found.apply(&mut doc.json.clone());
    table.iter().filter(fits).collect()
}

/// One to three breaks that go together.
pub(crate) fn choose<'a>(breaks: &[&'a Break], rng: &mut Xoshiro) -> Vec<&'a Break> {
    let mut chosen: Vec<&Break> = Vec::new();
    for _ in 0..=rng.below(3) {
        let one = breaks[rng.below(breaks.len() as u64) as usize];
        if chosen.iter().all(|other| one.is_apart_from(other)) {
            chosen.push(one);
        }
    }
    chosen
}

/// The whole table.
pub(crate) fn table() -> Vec<Break> {
    let lists: [(Shape, Simple, &[Row]); 5] = [
        (Shape::Client, CLIENT, CLIENT_ROWS),
        (Shape::Server, SERVER, SERVER_ROWS),
        (Shape::Route, ROUTE, ROUTE_ROWS),
        (Shape::Cluster, CLUSTER, CLUSTER_ROWS),
        (Shape::Endpoints, ENDPOINTS, ENDPOINTS_ROWS),
    ];
    let mut table = Vec::new();
    for (shape, simple, rows) in lists {
        let simple = simple.iter().map(|(path, value)| (*path, vec![(*path, *value)]));
        let rows = rows.iter().map(|(path, edits)| (*path, edits.to_vec()));
        for (path, edits) in simple.chain(rows) {
            let edit = |(at, value): (&str, &str)| (long(at), parsed(value));
            let edits = edits.into_iter().map(edit).collect();
            table.push(Break { shape, path: long(path), edits });
        }
    }
    table
}

/// A path, and what becomes of it.
type Simple = &'static [(&'static str, &'static str)];

/// Where the refusal points, and the edits that lead to it.
type Row = (&'static str, &'static [(&'static str, &'static str)]);

/// Abbreviations at the beginning of a path.
const LONG: [(&str, &str); 10] = [
    ("@api", "api_listener.api_listener"),
    ("@chain", "filter_chains[0]"),
    ("@hcm", "filter_chains[0].filters[1].typed_config"),
    (
        "@policy",
        "filter_chains[0].filters[1].typed_config.http_filters[0].typed_config.rules.policies[\"p\"]",
    ),
    ("@network", "filter_chains[0].filters[0].typed_config.rules.policies[\"p\"]"),
    ("@route", "virtual_hosts[0].routes[0]"),
    ("@direct", "virtual_hosts[0].routes[1].direct_response"),
    ("@http", "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]"),
    ("@tls", "transport_socket.typed_config"),
    ("@one", "endpoints[0].lb_endpoints[0]"),
];

fn long(path: &str) -> String {
    let found = LONG.iter().find_map(|(short, long)| Some((long, path.strip_prefix(short)?)));
    found.map_or_else(|| path.to_owned(), |(long, rest)| format!("{long}{rest}"))
}

/// A value; nothing for no text. `#` stands for the beginning of the types of HTTP filters, `%` for that of balancing policies.
fn parsed(text: &str) -> Option<Value> {
    let text = text
        .replace('#', "type.googleapis.com/envoy.extensions.filters.http.")
        .replace('%', "type.googleapis.com/envoy.extensions.load_balancing_policies.");
    let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    (!text.is_empty()).then(|| parse(&text))
}

const CLIENT: &[(&str, &str)] = &[
    ("@api", r##"{"@type": "#router.v3.Router"}"##),
    ("@api.rds.config_source", "{}"),
    ("@api.rds.config_source", ""),
    ("@api.rds.config_source", r#"{"path": "/a"}"#),
    ("@api.rds.config_source", r#"{"api_config_source": {}}"#),
    ("@api.rds.route_config_name", r#""""#),
    ("@api.xff_num_trusted_hops", "1"),
    ("@api.original_ip_detection_extensions", r#"[{"name": "a"}]"#),
    ("@api.max_request_headers_kb", "0"),
    ("@api.max_request_headers_kb", "8193"),
    ("@api.http2_protocol_options.max_concurrent_streams", "0"),
    ("@api.request_headers_timeout", r#""-1s""#),
    ("@api.common_http_protocol_options.idle_timeout", r#""-1s""#),
    ("@api.common_http_protocol_options.max_stream_duration", r#""-1s""#),
    ("@api.http_filters", "[]"),
    ("@api.http_filters[0].name", r#""""#),
    ("@api.http_filters[0].typed_config", ""),
    ("@api.http_filters[0].disabled", "true"),
    ("@api.http_filters[0].typed_config.upstream_http_filters", r#"[{"name": "a"}]"#),
];

const CLIENT_ROWS: &[Row] = &[
    ("api_listener.api_listener", &[("api_listener", "{}")]),
    ("@api.route_specifier", &[("@api.rds", "")]),
    ("@api.scoped_routes", &[("@api.rds", ""), ("@api.scoped_routes", "{}")]),
    (
        "@api.route_config.virtual_hosts[0].domains",
        &[("@api.rds", ""), ("@api.route_config", r#"{"virtual_hosts": [{"name": "v"}]}"#)],
    ),
    (
        "@api.route_config.virtual_hosts[0].routes[0].match.safe_regex",
        &[
            ("@api.rds", ""),
            (
                "@api.route_config",
                r#"{"virtual_hosts": [{"name": "v", "domains": ["a"], "routes": [{"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "c"}}]}]}"#,
            ),
        ],
    ),
    (
        "@api.http_filters[0].typed_config",
        &[(
            "@api.http_filters",
            r##"[{"name": "f", "typed_config": {"@type": "#jwt_authn.v3.JwtAuthentication"}}, {"name": "r", "typed_config": {"@type": "#router.v3.Router"}}]"##,
        )],
    ),
    (
        "@api.http_filters[0]",
        &[(
            "@api.http_filters",
            r##"[{"name": "f", "typed_config": {"@type": "#rbac.v3.RBAC"}}, {"name": "r", "typed_config": {"@type": "#router.v3.Router"}}]"##,
        )],
    ),
    (
        "@api.http_filters[1].name",
        &[(
            "@api.http_filters",
            r##"[{"name": "r", "typed_config": {"@type": "#router.v3.Router"}}, {"name": "r", "typed_config": {"@type": "#router.v3.Router"}}]"##,
        )],
    ),
    (
        "@api.http_filters[1]",
        &[(
            "@api.http_filters",
            r##"[{"name": "r", "typed_config": {"@type": "#router.v3.Router"}}, {"name": "s", "typed_config": {"@type": "#router.v3.Router"}}]"##,
        )],
    ),
    (
        "@api.http_filters[0].config_discovery",
        &[("@api.http_filters[0]", r#"{"name": "a", "config_discovery": {}}"#)],
    ),
];

const SERVER: &[(&str, &str)] = &[
    ("address", ""),
    ("address.socket_address.address", r#""a""#),
    ("filter_chains", "[]"),
    ("listener_filters", r#"[{"name": "a"}]"#),
    ("use_original_dst", "true"),
    ("transparent", "true"),
    ("fcds_config", "{}"),
    ("filter_chain_matcher", "{}"),
    ("udp_listener_config", "{}"),
    ("@chain.use_proxy_proto", "true"),
    ("@chain.filter_chain_match.address_suffix", r#""a""#),
    ("@chain.filter_chain_match.suffix_len", "1"),
    ("@chain.filter_chain_match.direct_source_prefix_ranges", r#"[{"address_prefix": "::1"}]"#),
    ("@chain.filter_chain_match.source_type", "9"),
    ("@chain.filters", "[]"),
    ("@chain.filters[0].name", r#""""#),
    ("@chain.filters[0].typed_config", ""),
    ("@chain.filters[0].typed_config", r##"{"@type": "#router.v3.Router"}"##),
    ("@chain.filters[1].name", r#""rbac""#),
    ("@hcm.normalize_path", "true"),
    ("@hcm.merge_slashes", "true"),
    ("@hcm.path_with_escaped_slashes_action", r#""REJECT_REQUEST""#),
    ("@hcm.path_with_escaped_slashes_action", r#""UNESCAPE_AND_FORWARD""#),
    ("@hcm.path_normalization_options", "{}"),
    ("@hcm.strip_matching_host_port", "true"),
    ("@hcm.strip_any_host_port", "true"),
    ("@hcm.strip_trailing_host_dot", "true"),
    ("@hcm.forward_client_cert_details", r#""APPEND_FORWARD""#),
    ("@hcm.early_header_mutation_extensions", r#"[{"name": "a"}]"#),
    ("@hcm.typed_header_validation_config", r#"{"name": "a"}"#),
    ("@hcm.common_http_protocol_options.headers_with_underscores_action", r#""DROP_HEADER""#),
    ("@hcm.xff_num_trusted_hops", "1"),
    ("@hcm.max_request_headers_kb", "0"),
    ("@hcm.request_headers_timeout", r#""-1s""#),
    ("@hcm.http2_protocol_options.max_concurrent_streams", "0"),
    ("@hcm.http_filters", "[]"),
    ("@hcm.http_filters[1].name", r#""rbac""#),
    ("@hcm.http_filters[1].name", r#""""#),
    ("@hcm.http_filters[1].disabled", "true"),
    ("@hcm.route_config.virtual_hosts[0].domains", "[]"),
    ("@hcm.http_filters[0].typed_config.rules.action", "9"),
    ("@policy.permissions", "[]"),
    ("@policy.principals", "[]"),
    ("@policy.permissions[0]", "{}"),
    ("@policy.permissions[0].any", "false"),
    ("@policy.principals[0]", "{}"),
    ("@policy.principals[0].any", "false"),
    ("@network.permissions", "[]"),
    ("@network.principals", "[]"),
    ("@network.permissions[0].any", "false"),
    ("@chain.transport_socket.typed_config.common_tls_context", ""),
    ("@chain.transport_socket.typed_config.common_tls_context.tls_certificate_provider_instance", ""),
    (
        "@chain.transport_socket.typed_config.common_tls_context.tls_certificate_provider_instance.instance_name",
        r#""x""#,
    ),
    ("@chain.transport_socket.typed_config.require_sni", "true"),
    ("@chain.transport_socket.typed_config.ocsp_staple_policy", r#""STRICT_STAPLING""#),
    ("@chain.transport_socket.typed_config.ocsp_staple_policy", r#""MUST_STAPLE""#),
    ("@chain.transport_socket.typed_config.session_ticket_keys", "{}"),
    ("@chain.transport_socket.typed_config.common_tls_context.tls_params", "{}"),
    ("@chain.transport_socket.typed_config.common_tls_context.key_log", r#"{"path": "/k"}"#),
    ("@chain.transport_socket.typed_config.common_tls_context.tls_certificates", "[{}]"),
    (
        "@chain.transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context.crl",
        r#"{"filename": "/crl"}"#,
    ),
    ("@chain.transport_socket.typed_config", r##"{"@type": "#router.v3.Router"}"##),
    ("@chain.transport_socket.typed_config", ""),
];

const SERVER_ROWS: &[Row] = &[
    ("address.pipe.path", &[("address", r#"{"pipe": {"path": ""}}"#)]),
    ("address.pipe.mode", &[("address", r#"{"pipe": {"path": "/a", "mode": 384}}"#)]),
    ("internal_listener", &[("internal_listener", "{}")]),
    ("default_filter_chain.filters", &[("default_filter_chain", "{}")]),
    (
        "@chain.filter_chain_match.source_ports[1]",
        &[("@chain.filter_chain_match", r#"{"source_ports": [1, 65536]}"#)],
    ),
    (
        "@chain.filter_chain_match.prefix_ranges[0]",
        &[("@chain.filter_chain_match", r#"{"prefix_ranges": [{"address_prefix": "a"}]}"#)],
    ),
    (
        "@chain.filter_chain_match.source_prefix_ranges[0]",
        &[(
            "@chain.filter_chain_match",
            r#"{"source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 33}]}"#,
        )],
    ),
    (
        "@chain.filters[0].config_discovery",
        &[("@chain.filters[0]", r#"{"name": "a", "config_discovery": {}}"#)],
    ),
    (
        "@hcm.http_filters[0].typed_config",
        &[(
            "@hcm.http_filters[0]",
            r##"{"name": "f", "typed_config": {"@type": "#jwt_authn.v3.JwtAuthentication"}}"##,
        )],
    ),
    ("@policy.permissions[0].matcher", &[("@policy.permissions[0]", r#"{"matcher": {"name": "a"}}"#)]),
    (
        "@policy.permissions[0].uri_template",
        &[("@policy.permissions[0]", r#"{"uri_template": {"name": "a"}}"#)],
    ),
    ("@policy.permissions[0].and_rules.rules", &[("@policy.permissions[0]", r#"{"and_rules": {}}"#)]),
    ("@policy.permissions[0].or_rules.rules", &[("@policy.permissions[0]", r#"{"or_rules": {}}"#)]),
    ("@policy.permissions[0].not_rule", &[("@policy.permissions[0]", r#"{"not_rule": {}}"#)]),
    (
        "@policy.permissions[0].not_rule.matcher",
        &[("@policy.permissions[0]", r#"{"not_rule": {"matcher": {"name": "a"}}}"#)],
    ),
    (
        "@policy.permissions[0].destination_port",
        &[("@policy.permissions[0]", r#"{"destination_port": 65536}"#)],
    ),
    (
        "@policy.permissions[0].destination_ip",
        &[("@policy.permissions[0]", r#"{"destination_ip": {"address_prefix": "a"}}"#)],
    ),
    ("@policy.permissions[0].url_path", &[("@policy.permissions[0]", r#"{"url_path": {}}"#)]),
    ("@policy.permissions[0].url_path.path", &[("@policy.permissions[0]", r#"{"url_path": {"path": {}}}"#)]),
    (
        "@policy.permissions[0].header.prefix_match",
        &[("@policy.permissions[0]", r#"{"header": {"name": "a", "prefix_match": ""}}"#)],
    ),
    (
        "@policy.permissions[0].requested_server_name",
        &[("@policy.permissions[0]", r#"{"requested_server_name": {}}"#)],
    ),
    (
        "@policy.permissions[0].sourced_metadata.metadata_matcher",
        &[("@policy.permissions[0]", r#"{"sourced_metadata": {}}"#)],
    ),
    ("@policy.principals[0].filter_state", &[("@policy.principals[0]", r#"{"filter_state": {}}"#)]),
    ("@policy.principals[0].custom", &[("@policy.principals[0]", r#"{"custom": {"name": "a"}}"#)]),
    ("@policy.principals[0].and_ids.ids", &[("@policy.principals[0]", r#"{"and_ids": {}}"#)]),
    (
        "@policy.principals[0].not_id.filter_state",
        &[("@policy.principals[0]", r#"{"not_id": {"filter_state": {}}}"#)],
    ),
    (
        "@policy.principals[0].source_ip",
        &[("@policy.principals[0]", r#"{"source_ip": {"address_prefix": "a"}}"#)],
    ),
    (
        "@policy.principals[0].direct_remote_ip",
        &[("@policy.principals[0]", r#"{"direct_remote_ip": {"address_prefix": ""}}"#)],
    ),
    (
        "@policy.principals[0].authenticated.principal_name",
        &[("@policy.principals[0]", r#"{"authenticated": {"principal_name": {}}}"#)],
    ),
    ("@policy.principals[0].url_path", &[("@policy.principals[0]", r#"{"url_path": {}}"#)]),
    (
        "@network.permissions[0].destination_port",
        &[("@network.permissions[0]", r#"{"destination_port": 65536}"#)],
    ),
    (
        "@network.principals[0].source_ip",
        &[("@network.principals[0]", r#"{"source_ip": {"address_prefix": "a"}}"#)],
    ),
];

const ROUTE: &[(&str, &str)] = &[
    ("internal_only_headers", r#"["x-user"]"#),
    ("vhost_header", r#""x""#),
    ("ignore_path_parameters_in_path_matching", "true"),
    ("virtual_hosts[0].domains", "[]"),
    ("virtual_hosts[0].domains[0]", r#""""#),
    ("virtual_hosts[0].domains[0]", r#""a.*.b""#),
    ("virtual_hosts[0].domains[0]", r#""a\nb""#),
    ("virtual_hosts[0].name", r#""""#),
    ("virtual_hosts[1].domains[0]", r#""*""#),
    ("@route.match", ""),
    ("@route.match.runtime_fraction.default_value", ""),
    ("@route.match.runtime_fraction.default_value.denominator", "3"),
    ("@route.match.runtime_fraction.default_value.numerator", "2000000"),
    ("@route.match.tls_context", r#"{"presented": true}"#),
    ("@route.match.headers[0].name", r#""""#),
    ("@route.match.headers[0].name", r#"":status""#),
    ("@route.match.headers[0].name", r#""a b""#),
    ("@route.match.headers[0].string_match", "{}"),
    ("@route.match.query_parameters[0].name", r#""""#),
    ("@route.route.weighted_clusters.clusters", "[]"),
    ("@route.route.weighted_clusters.clusters", r#"[{"name": "a"}]"#),
    (
        "@route.route.weighted_clusters.clusters",
        r#"[{"name": "a", "weight": 4294967295}, {"name": "b", "weight": 1}]"#,
    ),
    ("@route.route.weighted_clusters.clusters[0].name", r#""""#),
    ("@route.route.timeout", r#""-1s""#),
    ("@route.route.timeout", r#""315576000000s""#),
    ("@route.route.idle_timeout", r#""-1s""#),
    ("@route.route.prefix_rewrite", r#""/a\nb""#),
    ("@route.route.max_stream_duration.max_stream_duration", r#""-1s""#),
    ("@route.route.max_stream_duration.grpc_timeout_header_max", r#""-1s""#),
    ("@route.route.host_rewrite_literal", r#""a b""#),
    ("@route.route.retry_policy.num_retries", "0"),
    ("@route.route.retry_policy.per_try_timeout", r#""-1s""#),
    ("@route.route.retry_policy.retry_back_off.base_interval", ""),
    ("@route.route.retry_policy.retry_back_off.base_interval", r#""0s""#),
    ("@route.route.retry_policy.retry_back_off.base_interval", r#""-1s""#),
    ("@direct.status", "0"),
    ("@direct.status", "600"),
    ("@direct.status", "70000"),
    ("@direct.body", "{}"),
    ("virtual_hosts[0].routes[2].match", ""),
    ("virtual_hosts[0].routes[2].route.cluster", r#""""#),
    ("virtual_hosts[0].routes[2].route.timeout", r#""-1s""#),
];

const ROUTE_ROWS: &[Row] = &[
    ("@route.action", &[("@route.route", "")]),
    ("@route.route.cluster_specifier", &[("@route.route", "{}")]),
    ("virtual_hosts[0].domains[1]", &[("virtual_hosts[0].domains", r#"["a.test", "A.Test"]"#)]),
    ("@route.match.path_specifier", &[("@route.match", "{}")]),
    ("@route.match.path_match_policy", &[("@route.match", r#"{"path_match_policy": {"name": "a"}}"#)]),
    ("@route.match.path_separated_prefix", &[("@route.match", r#"{"path_separated_prefix": "a"}"#)]),
    ("@route.match.path_separated_prefix", &[("@route.match", r#"{"path_separated_prefix": "/a/"}"#)]),
    ("@route.match.path_separated_prefix", &[("@route.match", r#"{"path_separated_prefix": "/a?b"}"#)]),
    ("@route.match.safe_regex.regex", &[("@route.match", r#"{"safe_regex": {}}"#)]),
    ("@route.match.safe_regex", &[("@route.match", r#"{"safe_regex": {"regex": "("}}"#)]),
    ("@route.match.safe_regex", &[("@route.match", r#"{"safe_regex": {"regex": "a)(b"}}"#)]),
    ("@route.match.safe_regex", &[("@route.match", r#"{"safe_regex": {"regex": "[a&&b]"}}"#)]),
    ("@route.match.safe_regex", &[("@route.match", r#"{"safe_regex": {"regex": "a{,3}"}}"#)]),
    ("@route.match.safe_regex", &[("@route.match", r#"{"safe_regex": {"regex": "(?x)a b"}}"#)]),
    (
        "@route.match.safe_regex",
        &[("@route.match", r#"{"safe_regex": {"regex": "(((a{200}){200}){200})"}}"#)],
    ),
    (
        "@route.match.headers[0].prefix_match",
        &[("@route.match.headers[0]", r#"{"name": "a", "prefix_match": ""}"#)],
    ),
    (
        "@route.match.headers[0].suffix_match",
        &[("@route.match.headers[0]", r#"{"name": "a", "suffix_match": ""}"#)],
    ),
    (
        "@route.match.headers[0].contains_match",
        &[("@route.match.headers[0]", r#"{"name": "a", "contains_match": ""}"#)],
    ),
    (
        "@route.match.headers[0].safe_regex_match.regex",
        &[("@route.match.headers[0]", r#"{"name": "a", "safe_regex_match": {}}"#)],
    ),
    (
        "@route.match.headers[0].string_match.prefix",
        &[("@route.match.headers[0].string_match", r#"{"prefix": ""}"#)],
    ),
    (
        "@route.match.headers[0].string_match.suffix",
        &[("@route.match.headers[0].string_match", r#"{"suffix": ""}"#)],
    ),
    (
        "@route.match.headers[0].string_match.contains",
        &[("@route.match.headers[0].string_match", r#"{"contains": ""}"#)],
    ),
    (
        "@route.match.headers[0].string_match.custom",
        &[("@route.match.headers[0].string_match", r#"{"custom": {"name": "a"}}"#)],
    ),
    (
        "@route.match.headers[0].string_match.ignore_case",
        &[("@route.match.headers[0].string_match", r#"{"safe_regex": {"regex": "a"}, "ignore_case": true}"#)],
    ),
    (
        "@route.match.query_parameters[0].present_match",
        &[("@route.match.query_parameters[0]", r#"{"name": "q", "present_match": false}"#)],
    ),
    (
        "@route.match.query_parameters[0].string_match.prefix",
        &[("@route.match.query_parameters[0].string_match", r#"{"prefix": ""}"#)],
    ),
    (
        "@route.route.retry_policy.retriable_status_codes[1]",
        &[("@route.route.retry_policy.retriable_status_codes", "[503, 99]")],
    ),
    (
        "@route.route.retry_policy.retriable_status_codes[0]",
        &[("@route.route.retry_policy.retriable_status_codes", "[70000]")],
    ),
    (
        "virtual_hosts[0].retry_policy.num_retries",
        &[("virtual_hosts[0].retry_policy", r#"{"num_retries": 0}"#)],
    ),
    (
        "typed_per_filter_config[\"f\"].rbac.rules.action",
        &[(
            "typed_per_filter_config",
            r##"{"f": {"@type": "#rbac.v3.RBACPerRoute", "rbac": {"rules": {"action": 9}}}}"##,
        )],
    ),
    (
        "virtual_hosts[0].typed_per_filter_config[\"f\"].rbac.rules.action",
        &[(
            "virtual_hosts[0].typed_per_filter_config",
            r##"{"f": {"@type": "#rbac.v3.RBACPerRoute", "rbac": {"rules": {"action": 9}}}}"##,
        )],
    ),
    (
        "@route.typed_per_filter_config[\"f\"].config.rbac.rules.action",
        &[(
            "@route.typed_per_filter_config",
            r##"{"f": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {"@type": "#rbac.v3.RBACPerRoute", "rbac": {"rules": {"action": 9}}}}}"##,
        )],
    ),
    (
        "@route.typed_per_filter_config[\"f\"].rbac.rules.action",
        &[(
            "@route.typed_per_filter_config",
            r##"{"f": {"@type": "#rbac.v3.RBACPerRoute", "rbac": {"rules": {"action": 9}}}}"##,
        )],
    ),
];

const CLUSTER: &[(&str, &str)] = &[
    ("type", "9"),
    ("type", r#""ORIGINAL_DST""#),
    ("eds_cluster_config", ""),
    ("eds_cluster_config.eds_config", ""),
    ("eds_cluster_config.eds_config", "{}"),
    ("eds_cluster_config.eds_config", r#"{"path": "/e"}"#),
    ("lb_policy", r#""RING_HASH""#),
    ("lb_policy", r#""MAGLEV""#),
    ("lb_policy", r#""CLUSTER_PROVIDED""#),
    ("lb_policy", "4"),
    ("circuit_breakers.thresholds[0].priority", "7"),
    ("circuit_breakers.thresholds[0].retry_budget.budget_percent.value", "101"),
    ("circuit_breakers.thresholds[0].retry_budget.budget_percent.value", r#""NaN""#),
    ("circuit_breakers.per_host_thresholds[0].max_connections", "0"),
    ("@http.http_filters", r#"[{"name": "a"}]"#),
    ("@http.upstream_http_protocol_options.auto_san_validation", "true"),
    ("@http.explicit_http_config.http2_protocol_options.connection_keepalive.timeout", ""),
    ("@http.explicit_http_config.http2_protocol_options.connection_keepalive.timeout", r#""0s""#),
    ("@http.explicit_http_config.http2_protocol_options.connection_keepalive.interval", r#""0s""#),
    ("common_lb_config.healthy_panic_threshold.value", "100.5"),
    ("common_lb_config.healthy_panic_threshold.value", "-1"),
    ("connect_timeout", r#""0s""#),
    ("connect_timeout", r#""-1s""#),
    ("transport_socket_matches", r#"[{"name": "a"}]"#),
    ("transport_socket_matcher", "{}"),
    ("filters", r#"[{"name": "a"}]"#),
    ("upstream_config", r#"{"name": "a"}"#),
    ("@tls", ""),
    ("@tls", r##"{"@type": "#router.v3.Router"}"##),
    ("@tls.common_tls_context", ""),
    ("@tls.auto_host_sni", "true"),
    ("@tls.auto_sni_san_validation", "true"),
    ("@tls.common_tls_context.tls_params", "{}"),
    ("@tls.common_tls_context.tls_certificates", "[{}]"),
    ("@tls.common_tls_context.tls_certificate_sds_secret_configs", r#"[{"name": "a"}]"#),
    ("@tls.common_tls_context.custom_tls_certificate_selector", r#"{"name": "a"}"#),
    ("@tls.common_tls_context.tls_certificate_certificate_provider", r#"{"name": "a"}"#),
    ("@tls.common_tls_context.custom_handshaker", r#"{"name": "a"}"#),
    ("@tls.common_tls_context.key_log", r#"{"path": "/k"}"#),
    ("@tls.common_tls_context.tls_certificate_provider_instance.instance_name", r#""x""#),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.trusted_ca",
        r#"{"filename": "/ca"}"#,
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.verify_certificate_spki",
        r#"["a"]"#,
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.verify_certificate_hash",
        r#"["a"]"#,
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.require_signed_certificate_timestamp",
        "true",
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.crl",
        r#"{"filename": "/crl"}"#,
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.custom_validator_config",
        r#"{"name": "a"}"#,
    ),
    ("@tls.common_tls_context.combined_validation_context.default_validation_context.max_verify_depth", "2"),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.ca_certificate_provider_instance.instance_name",
        r#""x""#,
    ),
    (
        "@tls.common_tls_context.combined_validation_context.validation_context_certificate_provider",
        r#"{"name": "a"}"#,
    ),
];

const CLUSTER_ROWS: &[Row] = &[
    ("cluster_type", &[("type", ""), ("cluster_type", r#"{"name": "envoy.clusters.aggregate"}"#)]),
    ("eds_cluster_config", &[("type", "")]),
    ("load_assignment", &[("type", ""), ("eds_cluster_config", "")]),
    ("type", &[("type", r#""STRICT_DNS""#), ("load_assignment", r#"{"endpoints": []}"#)]),
    (
        "type",
        &[("type", r#""LOGICAL_DNS""#), ("load_assignment", r#"{"endpoints": [{"lb_endpoints": [{}]}]}"#)],
    ),
    ("load_balancing_policy", &[("lb_policy", r#""LOAD_BALANCING_POLICY_CONFIG""#)]),
    (
        "least_request_lb_config.choice_count",
        &[("lb_policy", r#""LEAST_REQUEST""#), ("least_request_lb_config", r#"{"choice_count": 1}"#)],
    ),
    ("load_balancing_policy.policies", &[("load_balancing_policy", "{}")]),
    (
        "load_balancing_policy.policies[0].typed_extension_config",
        &[("load_balancing_policy", r#"{"policies": [{}]}"#)],
    ),
    (
        "load_balancing_policy.policies[0].typed_extension_config.typed_config",
        &[("load_balancing_policy", r#"{"policies": [{"typed_extension_config": {"name": "n"}}]}"#)],
    ),
    (
        "load_balancing_policy.policies[0]",
        &[(
            "load_balancing_policy",
            r#"{"policies": [{"typed_extension_config": {"name": "n", "typed_config": {"@type": "%maglev.v3.Maglev"}}}]}"#,
        )],
    ),
    (
        "load_balancing_policy.policies[0].typed_extension_config.typed_config.choice_count",
        &[(
            "load_balancing_policy",
            r#"{"policies": [{"typed_extension_config": {"name": "n", "typed_config": {"@type": "%least_request.v3.LeastRequest", "choice_count": 0}}}]}"#,
        )],
    ),
    (
        "load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy",
        &[(
            "load_balancing_policy",
            r#"{"policies": [{"typed_extension_config": {"name": "n", "typed_config": {"@type": "%wrr_locality.v3.WrrLocality"}}}]}"#,
        )],
    ),
    ("@http.upstream_protocol_options", &[("@http.explicit_http_config", "")]),
    ("@http.explicit_http_config.protocol_config", &[("@http.explicit_http_config", "{}")]),
    (
        "@http.explicit_http_config.http3_protocol_options",
        &[("@http.explicit_http_config", r#"{"http3_protocol_options": {}}"#)],
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.match_subject_alt_names[1]",
        &[(
            "@tls.common_tls_context.combined_validation_context.default_validation_context.match_subject_alt_names",
            r#"[{"exact": "a"}, {}]"#,
        )],
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names[0].san_type",
        &[(
            "@tls.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names",
            r#"[{"matcher": {"exact": "a"}}]"#,
        )],
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names[0].san_type",
        &[(
            "@tls.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names",
            r#"[{"san_type": 9}]"#,
        )],
    ),
    (
        "@tls.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names[0].matcher",
        &[(
            "@tls.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names",
            r#"[{"san_type": "DNS"}]"#,
        )],
    ),
    (
        "@tls.common_tls_context.validation_context_sds_secret_config",
        &[
            ("@tls.common_tls_context.combined_validation_context", ""),
            ("@tls.common_tls_context.validation_context_sds_secret_config", r#"{"name": "a"}"#),
        ],
    ),
    (
        "@tls.common_tls_context.validation_context",
        &[("@tls.common_tls_context.combined_validation_context", "")],
    ),
];

const ENDPOINTS: &[(&str, &str)] = &[
    ("policy.drop_overloads[0].category", r#""""#),
    ("policy.drop_overloads[0].drop_percentage", ""),
    ("policy.drop_overloads[0].drop_percentage.denominator", "3"),
    ("endpoints[0].locality", ""),
    ("endpoints[0].leds_cluster_locality_config", "{}"),
    ("@one.endpoint", ""),
    ("@one.endpoint.address", ""),
    ("@one.endpoint.address", "{}"),
    ("@one.health_status", "9"),
    ("@one.health_status", "-1"),
    ("@one.load_balancing_weight", "0"),
    ("@one.endpoint.address.socket_address.port_value", ""),
    ("@one.endpoint.address.socket_address.port_value", "65536"),
    ("@one.endpoint.address.socket_address.port_value", "4294967295"),
    ("@one.endpoint.address.socket_address.address", r#""a.test""#),
    ("@one.endpoint.address.socket_address.address", r#""""#),
    ("@one.endpoint.address.socket_address.address", r#""10.0.0.256""#),
    ("@one.endpoint.address.socket_address.protocol", r#""UDP""#),
    ("@one.endpoint.address.socket_address.resolver_name", r#""r""#),
    ("@one.endpoint.address.socket_address.network_namespace_filepath", r#""/n""#),
];

const ENDPOINTS_ROWS: &[Row] = &[
    ("@one.endpoint_name", &[("@one", r#"{"endpoint_name": "e"}"#)]),
    ("@one.endpoint.address.pipe.path", &[("@one.endpoint.address", r#"{"pipe": {"path": ""}}"#)]),
    (
        "@one.endpoint.address.envoy_internal_address",
        &[("@one.endpoint.address", r#"{"envoy_internal_address": {"server_listener_name": "a"}}"#)],
    ),
    (
        "@one.endpoint.address.socket_address.named_port",
        &[("@one.endpoint.address.socket_address", r#"{"address": "10.0.0.1", "named_port": "http"}"#)],
    ),
    (
        "endpoints[0]",
        &[("endpoints[0]", r#"{"load_balancing_weight": 1, "locality": {"zone": "z"}, "priority": 1}"#)],
    ),
    (
        "endpoints[1].locality",
        &[(
            "endpoints",
            r#"[{"load_balancing_weight": 1, "locality": {"zone": "z"}}, {"load_balancing_weight": 1, "locality": {"zone": "z"}}]"#,
        )],
    ),
    (
        "endpoints[1].load_balancing_weight",
        &[(
            "endpoints",
            r#"[{"load_balancing_weight": 4294967295, "locality": {"zone": "a"}}, {"load_balancing_weight": 1, "locality": {"zone": "b"}}]"#,
        )],
    ),
    (
        "endpoints[0].load_balancer_endpoints[0].endpoint",
        &[(
            "endpoints[0]",
            r#"{"load_balancing_weight": 1, "locality": {"zone": "z"}, "load_balancer_endpoints": {"lb_endpoints": [{}]}}"#,
        )],
    ),
    (
        "endpoints[0].lb_endpoints[1].endpoint.address",
        &[(
            "endpoints[0].lb_endpoints",
            r#"[{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}}}}, {"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}}}}]"#,
        )],
    ),
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_xds::Rules;
    use mesh_xds::testing::decode;

    use super::*;
    use crate::docs::encode;

    fn refused_at(shape: Shape, json: &Value) -> Result<Option<String>, String> {
        let kind = shape.kind();
        let rules = Rules::with_providers([Arc::from("default")]);
        let verdict = decode(kind, kind.type_url(), &encode(kind, json)?, &rules).verdict;
        Ok(verdict.err().map(|invalid| invalid.path().as_str().to_owned()))
    }

    #[test]
    fn every_break_of_the_table_is_refused_where_it_is() {
        let table = table();
        assert!(table.len() >= 200, "{} entries", table.len());
        let mut wrong = Vec::new();
        for shape in Shape::ALL {
            let good = Doc::rich(shape, "x");
            assert_eq!(refused_at(shape, &good.json), Ok(None), "{shape:?}");
            for one in table.iter().filter(|one| one.shape == shape) {
                let mut json = good.json.clone();
                let applies = one.apply(&mut json);
                let found = if applies { refused_at(shape, &json) } else { Err("does not apply".to_owned()) };
                if !matches!(&found, Ok(Some(reported)) if points_at(reported, &one.path)) {
                    wrong.push(format!("{shape:?} {}: {found:?}", one.path));
                }
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    }

    #[test]
    fn a_parent_is_one_step_up() {
        assert!(points_at("a.b", "a.b") && points_at("a", "a.b") && points_at("a", "a[2]"));
        assert!(points_at("a", "a[\"k.l\"]") && points_at("a[\"k.l\"]", "a[\"k.l\"].b"));
        assert!(!points_at("a", "a.b.c") && !points_at("", "a.b") && !points_at("a.c", "a.b"));
    }
}
