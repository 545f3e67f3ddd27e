//! What of a `RouteConfiguration` is accepted, and what is refused where.

use std::time::Duration;

use mesh_core::config::filter::FilterOverride;
use mesh_core::config::route::{
    ClusterSpecifier, ForwardAction, MaxStreamDuration, RequestKinds, RouteAction, RouteMatch,
};
use mesh_core::config::units::PerMillion;
use mesh_core::matcher::domain::DomainPattern;
use mesh_core::matcher::path::PathMatcher;
use mesh_core::matcher::string::Text;

use crate::ads::Kind;
use crate::resource::tests::{not_applied, refusals, refused_by_servers, routes, unapplied};

const ROUTE: &str = "virtual_hosts[0].routes[0]";
const FILTER: &str = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";

fn config(fields: &str) -> String {
    format!("name: r\n{fields}")
}

fn host(fields: &str) -> String {
    config(&format!("virtual_hosts: [{{name: v, domains: [a], {fields}}}]"))
}

fn route(fields: &str) -> String {
    host(&format!("routes: [{{{fields}}}]"))
}

fn matching(fields: &str) -> String {
    route(&format!("match: {{{fields}}}, route: {{cluster: c}}"))
}

fn forwarding(fields: &str) -> String {
    route(&format!("match: {{prefix: /}}, route: {{{fields}}}"))
}

fn to_c(fields: &str) -> String {
    forwarding(&format!("cluster: c, {fields}"))
}

fn weighted(clusters: &str) -> String {
    forwarding(&format!("weighted_clusters: {{clusters: [{clusters}]}}"))
}

fn answering(fields: &str) -> String {
    route(&format!("match: {{prefix: /}}, direct_response: {{{fields}}}"))
}

fn matches(fields: &str) -> RouteMatch {
    routes(&matching(fields)).virtual_hosts[0].routes[0].matches.clone()
}

fn action(yaml: &str) -> RouteAction {
    routes(yaml).virtual_hosts[0].routes[0].action.clone()
}

fn forward(yaml: &str) -> ForwardAction {
    match action(yaml) {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

/// Refusals whose path begins with `at`.
fn refused_at(at: &str, within: impl Fn(&str) -> String, table: &[(&str, &str)]) {
    for (fragment, rest) in table {
        refusals(Kind::Route, &within, &[(fragment, &format!("{at}{rest}"))]);
    }
}

fn listed_at(at: &str, within: impl Fn(&str) -> String, table: &[(&str, &str)]) {
    for (fragment, rest) in table {
        not_applied(Kind::Route, &within, &[(fragment, &format!("{at}.{rest}"))]);
    }
}

#[test]
fn hosts_and_routes_keep_their_order_and_names() {
    let found = routes(
        "
name: r
virtual_hosts:
- {name: one, domains: [A.test, '*.b.test', 'c.*', '*']}
- {name: two, domains: ['d.test:80'], routes: [
    {name: first, match: {path: /x}, route: {cluster: c}}, {match: {prefix: /}, non_forwarding_action: {}}]}
",
    );
    assert_eq!(&*found.name, "r");
    let [one, two] = found.virtual_hosts.as_slice() else { panic!("{found:?}") };
    let wanted = [
        DomainPattern::Exact("a.test".into()),
        DomainPattern::Suffix(".b.test".into()),
        DomainPattern::Prefix("c.".into()),
        DomainPattern::Any,
    ];
    assert_eq!((&*one.name, one.domains.as_slice(), one.routes.len()), ("one", wanted.as_slice(), 0));
    assert_eq!((&*two.routes[0].name, &*two.routes[1].name), ("first", ""));
    assert_eq!(two.routes[1].action, RouteAction::NonForwarding);
    assert!(routes(&config("")).virtual_hosts.is_empty());
}

#[test]
fn paths_are_matched_in_every_way() {
    let text = |value| Text::new(value, false);
    assert_eq!(matches("prefix: /a").path, PathMatcher::Prefix(text("/a")));
    assert_eq!(matches("prefix: ''").path, PathMatcher::Prefix(text("")));
    assert_eq!(matches("path: /a").path, PathMatcher::Exact(text("/a")));
    assert_eq!(matches("path_separated_prefix: /a").path, PathMatcher::SeparatedPrefix(text("/a")));
    let regex = mesh_core::matcher::regex::SafeRegex::new("/a.*").unwrap();
    assert_eq!(matches("safe_regex: {regex: '/a.*'}").path, PathMatcher::Regex(regex));
    let any_case = matches("path: /A, case_sensitive: false").path;
    assert_eq!(any_case, PathMatcher::Exact(Text::new("/A", true)));
    assert_eq!(matches("path: /A, case_sensitive: true").path, PathMatcher::Exact(text("/A")));
}

#[test]
fn the_rest_of_a_match_is_kept() {
    let found = matches(
        "prefix: /, grpc: {}, headers: [{name: a}], query_parameters: [{name: q}], \
         runtime_fraction: {default_value: {numerator: 3, denominator: TEN_THOUSAND}, runtime_key: k}",
    );
    assert!(found.requests == RequestKinds::Grpc && found.headers.len() == 1 && found.query.len() == 1);
    assert_eq!(found.fraction, Some(PerMillion::new(300).unwrap()));
    let plain = matches("prefix: /");
    assert_eq!((plain.requests, plain.fraction), (RequestKinds::All, None));
}

#[test]
fn a_broken_match_is_refused_at_its_field() {
    let at = format!("{ROUTE}.match");
    refused_at(
        &at,
        matching,
        &[
            ("", ".path_specifier: is required"),
            ("path_match_policy: {name: a}", ".path_match_policy: is not supported"),
            ("path_separated_prefix: a", ".path_separated_prefix: \"a\" must begin with `/`"),
            ("path_separated_prefix: /a/", ".path_separated_prefix: \"/a/\" must not end with `/`"),
            ("path_separated_prefix: '/a?b'", ".path_separated_prefix: \"/a?b\" must not contain `?` or `#`"),
            ("prefix: /, runtime_fraction: {}", ".runtime_fraction.default_value: is required"),
            (
                "prefix: /, runtime_fraction: {default_value: {denominator: 3}}",
                ".runtime_fraction.default_value.denominator: 3 is not a known value",
            ),
            ("prefix: /, tls_context: {presented: true}", ".tls_context: is not supported"),
        ],
    );
}

#[test]
fn a_route_that_matches_on_something_foreign_is_left_out() {
    for (fields, field) in [
        ("prefix: /, cookies: [{name: a}]", "cookies"),
        ("prefix: /, dynamic_metadata: [{}]", "dynamic_metadata"),
        ("prefix: /, filter_state: [{}]", "filter_state"),
        ("connect_matcher: {}", "connect_matcher"),
    ] {
        let yaml = matching(fields);
        assert!(routes(&yaml).virtual_hosts[0].routes.is_empty(), "{fields}");
        assert_eq!(unapplied(Kind::Route, &yaml), [format!("{ROUTE}.match.{field}")]);
    }
    // Its requests would meet the next route, which may let in whom this one keeps out.
    let why = "match: matches on what is not supported, and has filter overrides";
    let overriding = format!("{{rbac: {{{FILTER}, disabled: true}}}}");
    let on_route = |fields: &str| {
        route(&format!("match: {{{fields}}}, typed_per_filter_config: {overriding}, route: {{cluster: c}}"))
    };
    let cookies = "prefix: /, cookies: [{name: a}]";
    let refused = |yaml: &str| {
        assert_eq!(refused_by_servers(yaml), Some(format!("{ROUTE}.{why}")), "{yaml}");
        // A client has no policy.
        assert!(routes(yaml).virtual_hosts[0].routes.is_empty(), "{yaml}");
        assert_eq!(unapplied(Kind::Route, yaml), [format!("{ROUTE}.match.cookies")]);
    };
    refused(&on_route(cookies));
    let on_host = |fields: &str| {
        host(&format!(
            "typed_per_filter_config: {overriding}, routes: [{{match: {{{fields}}}, route: {{cluster: c}}}}]"
        ))
    };
    refused(&on_host(cookies));
}

#[test]
fn domains_are_checked_and_belong_to_one_host() {
    let domains = |list: &str| config(&format!("virtual_hosts: [{{name: v, domains: [{list}]}}]"));
    refusals(
        Kind::Route,
        domains,
        &[
            ("", "virtual_hosts[0].domains: must not be empty"),
            ("a, ''", "virtual_hosts[0].domains[1]: a domain must not be empty"),
            (
                "a.*.b",
                "virtual_hosts[0].domains[0]: domain \"a.*.b\": `*` may only be the first or the last character",
            ),
            ("a.test, A.Test", "virtual_hosts[0].domains[1]: \"A.Test\" is given twice"),
        ],
    );
    for text in ["a\\nb", "a.test\\r", "\\0", "*.a\\tb"] {
        let yaml = domains(&format!("b, \"{text}\""));
        let why = crate::resource::tests::refusal(Kind::Route, &yaml);
        assert!(why.starts_with("virtual_hosts[0].domains[1]: domain "), "{why}");
        assert!(why.ends_with(": holds a control character"), "{why}");
    }
    refusals(
        Kind::Route,
        config,
        &[("virtual_hosts: [{name: '', domains: [a]}]", "virtual_hosts[0].name: must not be empty")],
    );
    // No authority is like that; Envoy and gRPC take it, and so the other domains count.
    for text in ["a b", "http://a.test", "a?b", "ä.test", "*.a/b"] {
        let yaml = domains(&format!("c, '{text}'"));
        assert_eq!(unapplied(Kind::Route, &yaml), ["virtual_hosts[0].domains[1]"], "{text}");
    }
    for text in ["[::1]:80", "a_b.test:8080", "outbound_.80_._.a.svc", "a.test.", "*-x.test"] {
        assert!(unapplied(Kind::Route, &domains(&format!("'{text}'"))).is_empty(), "{text}");
    }
    refusals(
        Kind::Route,
        config,
        &[(
            "virtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: [c, '*']}]",
            "virtual_hosts[1].domains[1]: \"*\" is given twice",
        )],
    );
}

#[test]
fn a_forwarding_route_keeps_what_it_says() {
    let plain = forward(&to_c(""));
    assert_eq!(plain, ForwardAction::to("c"));
    let full = forward(&to_c(
        "timeout: 3s, prefix_rewrite: /b, host_rewrite_literal: 'b.test:80', \
         max_stream_duration: {max_stream_duration: 4s, grpc_timeout_header_max: 0s}",
    ));
    assert_eq!(full.timeout, Some(Duration::from_secs(3)));
    assert_eq!(
        (full.prefix_rewrite.as_deref(), full.host_rewrite.as_deref()),
        (Some("/b"), Some("b.test:80"))
    );
    let wanted = MaxStreamDuration {
        max_stream_duration: Some(Duration::from_secs(4)),
        grpc_timeout_header_max: Some(Duration::ZERO),
    };
    assert_eq!(full.max_stream_duration, Some(wanted));
    // Envoy counts whole milliseconds.
    assert_eq!(forward(&to_c("timeout: 0.0005s")).timeout, Some(Duration::ZERO));
    let empty = forward(&to_c("max_stream_duration: {}")).max_stream_duration;
    assert_eq!(empty, Some(MaxStreamDuration { max_stream_duration: None, grpc_timeout_header_max: None }));
    assert_eq!(forward(&to_c("auto_host_rewrite: false")).host_rewrite, None);
}

#[test]
fn weights_of_zero_are_left_out() {
    let found = forward(&weighted(&format!(
        "{{name: a, weight: 1, typed_per_filter_config: {{f: {{{FILTER}, disabled: true}}}}}}, {{name: b, weight: 0}}, {{name: d}}, {{name: c, weight: 4294967294}}"
    )));
    let ClusterSpecifier::Weighted(list) = found.cluster else { panic!("{found:?}") };
    let pairs: Vec<_> = list.iter().map(|c| (&*c.name, c.weight.get())).collect();
    assert_eq!(pairs, [("a", 1), ("c", 4_294_967_294)]);
    assert_eq!(list[0].overrides.find("f"), Some(&FilterOverride::Disabled));
    let at = format!("{ROUTE}.route.weighted_clusters.clusters");
    refused_at(
        &at,
        weighted,
        &[
            ("", ": the weights add up to 0, which is not within 1..=4294967295"),
            (
                "{name: a}, {name: b, weight: 0}",
                ": the weights add up to 0, which is not within 1..=4294967295",
            ),
            (
                "{name: a, weight: 4294967295}, {name: b, weight: 1}",
                ": the weights add up to 4294967296, which is not within 1..=4294967295",
            ),
            ("{weight: 1}", "[0].name: must not be empty"),
        ],
    );
}

#[test]
fn an_action_that_is_not_served_keeps_its_place_and_fails() {
    for (fields, field) in [
        ("cluster_header: x", "route.cluster_header"),
        ("inline_cluster_specifier_plugin: {}", "route.inline_cluster_specifier_plugin"),
        (
            "weighted_clusters: {clusters: [{cluster_header: x, weight: 1}, {name: a, weight: 1}]}",
            "route.weighted_clusters.clusters[0].cluster_header",
        ),
    ] {
        let yaml = forwarding(fields);
        let RouteAction::Unsupported(what) = action(&yaml) else { panic!("{fields}") };
        assert_eq!(Some(what), field.rsplit('.').next());
        assert_eq!(unapplied(Kind::Route, &yaml), [format!("{ROUTE}.{field}")]);
    }
    for kind in ["redirect", "filter_action"] {
        let yaml = route(&format!("match: {{prefix: /}}, {kind}: {{}}"));
        assert_eq!(action(&yaml), RouteAction::Unsupported(kind));
        assert_eq!(unapplied(Kind::Route, &yaml), [format!("{ROUTE}.{kind}")]);
    }
}

const PLUGIN: &str = "cluster_specifier_plugins: [{extension: {name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}, is_optional: OPTIONAL}]";

/// A route to a plugin that is declared, and then one to a cluster.
fn to_plugin(optional: bool, more: &str) -> String {
    let declared = PLUGIN.replace("OPTIONAL", &optional.to_string());
    let routes = "{match: {prefix: /a}, route: {cluster_specifier_plugin: p}}, {match: {prefix: /}, route: {cluster: c}}";
    config(&format!("{declared}\nvirtual_hosts: [{{name: v, domains: [a], routes: [{routes}]{more}}}]"))
}

#[test]
fn grpc_requests_skip_a_route_whose_cluster_is_not_told_in_a_known_way() {
    let kinds = |yaml: &str| {
        let found = routes(yaml);
        found.virtual_hosts[0]
            .routes
            .iter()
            .map(|r| (r.matches.requests, matches!(r.action, RouteAction::Unsupported(_))))
            .collect::<Vec<_>>()
    };
    let after = |first: &str, second: &str, on_host: &str| {
        host(&format!(
            "{on_host}routes: [{{match: {{prefix: /a{first}}}, route: {{cluster_header: x}}}}, {{match: {{prefix: /}}, route: {{cluster: c}}{second}}}]"
        ))
    };
    let to_c = (RequestKinds::All, false);
    assert_eq!(kinds(&after("", "", "")), [(RequestKinds::NotGrpc, true), to_c]);
    // No request is left that it would take.
    assert_eq!(kinds(&after(", grpc: {}", "", "")), [to_c]);
    assert_eq!(kinds(&to_plugin(true, "")), [(RequestKinds::NotGrpc, true), to_c]);
    assert_eq!(kinds(&to_plugin(false, "")), [(RequestKinds::All, true), to_c]);
    // The next route may let in whom this one keeps out: then its requests fail.
    let policy = format!("typed_per_filter_config: {{rbac: {{{FILTER}, disabled: true}}}}");
    assert_eq!(kinds(&after("", &format!(", {policy}"), "")), [(RequestKinds::All, true), to_c]);
    assert_eq!(kinds(&after("", "", &format!("{policy}, "))), [(RequestKinds::All, true), to_c]);
    let grpc_only = after(", grpc: {}", &format!(", {policy}"), "");
    assert_eq!(kinds(&grpc_only), [(RequestKinds::Grpc, true), to_c]);
    assert_eq!(unapplied(Kind::Route, &after("", "", "")), [format!("{ROUTE}.route.cluster_header")]);
    let listed = ["cluster_specifier_plugins".to_owned(), format!("{ROUTE}.route.cluster_specifier_plugin")];
    assert_eq!(unapplied(Kind::Route, &to_plugin(true, "")), listed);
}

#[test]
fn a_plugin_is_declared_before_it_is_named() {
    refused_at(
        &format!("{ROUTE}.route.cluster_specifier_plugin"),
        forwarding,
        &[
            ("cluster_specifier_plugin: p", ": \"p\" is not in cluster_specifier_plugins"),
            ("cluster_specifier_plugin: ''", ": must not be empty"),
        ],
    );
    let other = to_plugin(true, "").replace("cluster_specifier_plugin: p", "cluster_specifier_plugin: q");
    let why = format!("{ROUTE}.route.cluster_specifier_plugin: \"q\" is not in cluster_specifier_plugins");
    refusals(Kind::Route, str::to_owned, &[(&other, &why)]);
    let one = "{extension: {name: p}}";
    refusals(
        Kind::Route,
        |list| config(&format!("cluster_specifier_plugins: [{list}]")),
        &[
            ("{}", "cluster_specifier_plugins[0].extension: is required"),
            ("{extension: {}}", "cluster_specifier_plugins[0].extension.name: must not be empty"),
            (&format!("{one}, {one}"), "cluster_specifier_plugins[1].extension.name: \"p\" is given twice"),
        ],
    );
}

#[test]
fn a_broken_action_is_refused_at_its_field() {
    refused_at(
        ROUTE,
        route,
        &[
            ("", ".match: is required"),
            ("match: {prefix: /}", ".action: is required"),
            ("match: {prefix: /}, route: {}", ".route.cluster_specifier: is required"),
        ],
    );
    let at = format!("{ROUTE}.route");
    let header = "is not a header name that can be matched";
    refused_at(
        &at,
        forwarding,
        &[
            ("cluster: ''", ".cluster: must not be empty"),
            ("cluster_header: ''", &format!(".cluster_header: \"\" {header}")),
            ("cluster_header: \"a\\nb\"", &format!(".cluster_header: \"a\\nb\" {header}")),
        ],
    );
    refused_at(
        &at,
        weighted,
        &[
            (
                "{cluster_header: 'a b', weight: 1}",
                &format!(".weighted_clusters.clusters[0].cluster_header: \"a b\" {header}"),
            ),
            (
                "{name: c, weight: 1, host_rewrite_literal: \"a\\rb\"}",
                ".weighted_clusters.clusters[0].host_rewrite_literal: \"a\\rb\" must not hold a line break or a NUL",
            ),
        ],
    );
    refused_at(
        &at,
        to_c,
        &[
            ("timeout: -1s", ".timeout: duration of -1 s and 0 ns is negative or out of range"),
            (
                "max_stream_duration: {max_stream_duration: -1s}",
                ".max_stream_duration.max_stream_duration: duration of -1 s and 0 ns is negative or out of range",
            ),
            (
                "max_stream_duration: {grpc_timeout_header_max: -1s}",
                ".max_stream_duration.grpc_timeout_header_max: duration of -1 s and 0 ns is negative or out of range",
            ),
            ("host_rewrite_literal: 'a b'", ".host_rewrite_literal: \"a b\" is not an authority"),
            (
                "host_rewrite_header: ''",
                ".host_rewrite_header: \"\" is not a header name that can be matched",
            ),
            ("prefix_rewrite: \"/a\\nb\"", ".prefix_rewrite: \"/a\\nb\" is not a path"),
            ("prefix_rewrite: \"/a\\0\"", ".prefix_rewrite: \"/a\\0\" is not a path"),
            ("prefix_rewrite: '/a b'", ".prefix_rewrite: \"/a b\" is not a path"),
            ("prefix_rewrite: a/b", ".prefix_rewrite: \"a/b\" must begin with `/`"),
            ("prefix_rewrite: '/a#b'", ".prefix_rewrite: \"/a#b\" must not hold a fragment"),
        ],
    );
}

#[test]
fn a_direct_response_has_a_status_and_a_bounded_body() {
    let of = |fields: &str| match action(&answering(fields)) {
        RouteAction::DirectResponse { status, body } => (status.as_u16(), body.to_vec()),
        other => panic!("{other:?}"),
    };
    assert_eq!(of("status: 204"), (204, Vec::new()));
    assert_eq!(of("status: 503, body: {inline_string: busy}"), (503, b"busy".to_vec()));
    assert_eq!(of("status: 200, body: {inline_bytes: AAE=}"), (200, vec![0, 1]));
    let long = "x".repeat(4097);
    let body = format!("status: 200, body: {{inline_string: {long}}}");
    let at = format!("{ROUTE}.direct_response");
    refused_at(
        &at,
        answering,
        &[
            ("", ".status: 0 is not within 200..=599"),
            ("status: 600", ".status: 600 is not within 200..=599"),
            ("status: 70000", ".status: 70000 is not within 200..=599"),
            ("status: 200, body: {}", ".body: is required"),
            (&body, ".body: 4097 bytes are more than the limit of 4096"),
        ],
    );
    listed_at(&at, answering, &[("status: 200, body_format: {}", "body_format")]);
    // A body that is not in the message costs its route, and no other.
    for (body, field) in
        [("filename: /etc/passwd", "filename"), ("environment_variable: HOME", "environment_variable")]
    {
        let yaml = answering(&format!("status: 200, body: {{{body}}}"));
        assert_eq!(action(&yaml), RouteAction::Unsupported("direct_response.body"));
        assert_eq!(unapplied(Kind::Route, &yaml), [format!("{at}.body.{field}")]);
    }
    let raised = format!("{}\nmax_direct_response_body_size_bytes: 5000", answering(&body));
    assert!(matches!(action(&raised), RouteAction::DirectResponse { .. }));
}

#[test]
fn the_most_specific_override_wins_whole() {
    let off = format!("{{{FILTER}, disabled: true}}");
    let on = format!("{{{FILTER}}}");
    let found = routes(&config(&format!(
        "typed_per_filter_config: {{a: {off}, b: {off}}}\nvirtual_hosts: [{{name: v, domains: [d], typed_per_filter_config: {{b: {on}}}, routes: [{{match: {{prefix: /}}, route: {{cluster: c}}, typed_per_filter_config: {{a: {on}}}}}]}}]"
    )));
    let host = &found.virtual_hosts[0];
    assert_eq!(host.overrides.find("a"), Some(&FilterOverride::Disabled));
    assert_eq!(host.overrides.find("b"), Some(&FilterOverride::Enabled));
    assert_eq!(host.routes[0].overrides.find("a"), Some(&FilterOverride::Enabled));
    assert_eq!(host.routes[0].overrides.find("b"), None);
}

#[test]
fn whatever_changes_which_policy_a_request_meets_is_refused() {
    refusals(
        Kind::Route,
        config,
        &[
            ("internal_only_headers: [x-user]", "internal_only_headers: is not supported"),
            ("vhost_header: x", "vhost_header: is not supported"),
            (
                "ignore_path_parameters_in_path_matching: true",
                "ignore_path_parameters_in_path_matching: is not supported",
            ),
        ],
    );
    refused_at(
        "virtual_hosts[0]",
        host,
        &[
            ("require_tls: ALL", ".require_tls: is not supported"),
            ("require_tls: EXTERNAL_ONLY", ".require_tls: is not supported"),
            ("matcher: {}", ".matcher: is not supported"),
        ],
    );
}

#[test]
fn traffic_fields_without_effect_are_listed() {
    not_applied(
        Kind::Route,
        config,
        &[
            ("vhds: {}", "vhds"),
            ("request_headers_to_add: [{}]", "request_headers_to_add"),
            ("request_headers_to_remove: [a]", "request_headers_to_remove"),
            ("response_headers_to_add: [{}]", "response_headers_to_add"),
            ("response_headers_to_remove: [a]", "response_headers_to_remove"),
            ("request_mirror_policies: [{}]", "request_mirror_policies"),
            ("ignore_port_in_host_matching: true", "ignore_port_in_host_matching"),
        ],
    );
    listed_at(
        "virtual_hosts[0]",
        host,
        &[
            ("cors: {}", "cors"),
            ("rate_limits: [{}]", "rate_limits"),
            ("hedge_policy: {}", "hedge_policy"),
            ("include_request_attempt_count: true", "include_request_attempt_count"),
            ("per_request_buffer_limit_bytes: 1", "per_request_buffer_limit_bytes"),
        ],
    );
    listed_at(
        &format!("{ROUTE}.route"),
        to_c,
        &[
            ("cluster_not_found_response_code: NOT_FOUND", "cluster_not_found_response_code"),
            ("metadata_match: {}", "metadata_match"),
            ("regex_rewrite: {}", "regex_rewrite"),
            ("idle_timeout: 1s", "idle_timeout"),
            ("hash_policy: [{}]", "hash_policy"),
            ("priority: HIGH", "priority"),
            ("request_mirror_policies: [{}]", "request_mirror_policies"),
            ("max_grpc_timeout: 1s", "max_grpc_timeout"),
            ("upgrade_configs: [{}]", "upgrade_configs"),
            (
                "max_stream_duration: {grpc_timeout_header_offset: 1s}",
                "max_stream_duration.grpc_timeout_header_offset",
            ),
            ("auto_host_rewrite: true", "auto_host_rewrite"),
            ("host_rewrite_header: x", "host_rewrite_header"),
            ("host_rewrite_path_regex: {}", "host_rewrite_path_regex"),
        ],
    );
    listed_at(
        &format!("{ROUTE}.route.weighted_clusters"),
        |fields| forwarding(&format!("weighted_clusters: {{clusters: [{{name: a, weight: 1}}], {fields}}}")),
        &[("header_name: x", "random_value_specifier")],
    );
    listed_at(
        &format!("{ROUTE}.route.weighted_clusters.clusters[0]"),
        |fields| weighted(&format!("{{name: a, weight: 1, {fields}}}")),
        &[("host_rewrite_literal: b", "host_rewrite_literal"), ("metadata_match: {}", "metadata_match")],
    );
}

#[test]
fn names_of_statistics_are_ignored() {
    let yaml = config(
        "metadata: {}\nvalidate_clusters: true\nvirtual_hosts: [{name: v, domains: [a], metadata: {}, virtual_clusters: [{name: x}], \
         routes: [{match: {prefix: /}, route: {cluster: c}, metadata: {}, decorator: {operation: o}, stat_prefix: s}]}]",
    );
    assert!(unapplied(Kind::Route, &yaml).is_empty());
}

#[test]
fn the_routes_of_a_host_do_not_keep_the_room_of_their_messages() {
    let one = "{match: {prefix: /}, route: {cluster: c}}";
    let routes = routes(&host(&format!("routes: [{}]", [one; 10].join(", "))));
    let routes = &routes.virtual_hosts[0].routes;
    assert_eq!((routes.len(), routes.capacity()), (10, 10));
}
