//! RBAC rules of HTTP and network filters: every kind of rule, and every refusal.

use std::sync::Arc;

use mesh_core::config::filter::FilterConfig;
use mesh_core::matcher::string::StringMatcher;
use mesh_core::rbac::{Permission, Principal, RbacAction, RbacConfig};

use crate::ads::Kind;
use crate::resource::tests::{not_applied, refusals, server, unapplied};

const PREFIX: &str = "type.googleapis.com/envoy.extensions.filters";
const CHAIN: &str =
    "name: l\naddress: {socket_address: {address: 0.0.0.0, port_value: 80}}\nfilter_chains:\n- filters:\n";

fn manager(filters: &str) -> String {
    format!(
        "  - {{name: hcm, typed_config: {{\"@type\": {PREFIX}.network.http_connection_manager.v3.HttpConnectionManager, route_config: {{}}, http_filters: [{filters}{{name: router, typed_config: {{\"@type\": {PREFIX}.http.router.v3.Router}}}}]}}}}\n"
    )
}

/// A server with this HTTP filter.
fn http(fields: &str) -> String {
    let filter =
        format!("{{name: rbac, typed_config: {{\"@type\": {PREFIX}.http.rbac.v3.RBAC, {fields}}}}}, ");
    format!("{CHAIN}{}", manager(&filter))
}

/// A server with this network filter.
fn network(fields: &str) -> String {
    format!(
        "{CHAIN}  - {{name: rbac, typed_config: {{\"@type\": {PREFIX}.network.rbac.v3.RBAC, {fields}}}}}\n{}",
        manager("")
    )
}

fn rules(fields: &str) -> String {
    http(&format!("rules: {{{fields}}}"))
}

fn policy(fields: &str) -> String {
    rules(&format!("policies: {{p: {{{fields}}}}}"))
}

fn permission(rule: &str) -> String {
    policy(&format!("permissions: [{{{rule}}}], principals: [{{any: true}}]"))
}

fn principal(id: &str) -> String {
    policy(&format!("permissions: [{{any: true}}], principals: [{{{id}}}]"))
}

fn of_http(yaml: &str) -> Arc<RbacConfig> {
    match &server(yaml).chains[0].http.filters[0].config {
        FilterConfig::Rbac(rbac) => rbac.clone(),
        other => panic!("{other:?}"),
    }
}

fn asked(rule: &str) -> Permission {
    of_http(&permission(rule)).policies[0].permissions[0].clone()
}

fn asking(id: &str) -> Principal {
    of_http(&principal(id)).policies[0].principals[0].clone()
}

const AT: &str = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";

fn refused_at(rest_of_path: &str, within: impl Fn(&str) -> String, table: &[(&str, &str)]) {
    for (fragment, rest) in table {
        refusals(Kind::Listener, &within, &[(fragment, &format!("{AT}{rest_of_path}{rest}"))]);
    }
}

#[test]
fn policies_are_tried_in_the_order_of_their_names() {
    let any = "{permissions: [{any: true}], principals: [{any: true}]}";
    let found = of_http(&rules(&format!("action: DENY, policies: {{b: {any}, a: {any}}}")));
    assert_eq!(found.action, RbacAction::Deny);
    assert_eq!(found.policies.iter().map(|p| &*p.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(of_http(&rules("action: LOG")).action, RbacAction::Log);
    // Rules without a policy allow nobody.
    let empty = of_http(&http("rules: {}"));
    assert_eq!((empty.action, empty.policies.len()), (RbacAction::Allow, 0));
}

#[test]
fn every_permission_is_read() {
    assert_eq!(asked("any: true"), Permission::Any);
    let any = Permission::Any;
    assert_eq!(asked("and_rules: {rules: [{any: true}]}"), Permission::And(vec![any.clone()]));
    assert_eq!(asked("or_rules: {rules: [{any: true}]}"), Permission::Or(vec![any.clone()]));
    assert_eq!(asked("not_rule: {any: true}"), Permission::Not(Box::new(any)));
    assert!(matches!(asked("header: {name: a}"), Permission::Header(_)));
    assert_eq!(asked("url_path: {path: {exact: /a}}"), Permission::UrlPath(StringMatcher::exact("/a")));
    let net = "10.0.0.0/8".parse().unwrap();
    assert_eq!(
        asked("destination_ip: {address_prefix: 10.1.2.3, prefix_len: 8}"),
        Permission::DestinationIp(net)
    );
    assert_eq!(asked("destination_port: 80"), Permission::DestinationPort(80));
    assert_eq!(
        asked("destination_port_range: {start: 1, end: 65536}"),
        Permission::DestinationPortRange(1..65_536)
    );
    let name = StringMatcher::exact("a");
    assert_eq!(asked("requested_server_name: {exact: a}"), Permission::RequestedServerName(name));
    for (text, invert) in [
        ("metadata: {filter: f}", false),
        ("metadata: {filter: f, invert: true}", true),
        ("sourced_metadata: {metadata_matcher: {invert: true}}", true),
    ] {
        assert_eq!(asked(text), Permission::Metadata { invert }, "{text}");
    }
}

#[test]
fn every_principal_is_read() {
    assert_eq!(asking("any: true"), Principal::Any);
    let any = Principal::Any;
    assert_eq!(asking("and_ids: {ids: [{any: true}]}"), Principal::And(vec![any.clone()]));
    assert_eq!(asking("or_ids: {ids: [{any: true}]}"), Principal::Or(vec![any.clone()]));
    assert_eq!(asking("not_id: {any: true}"), Principal::Not(Box::new(any)));
    assert_eq!(asking("authenticated: {}"), Principal::Authenticated(None));
    let name = StringMatcher::exact("spiffe://td/a");
    assert_eq!(
        asking("authenticated: {principal_name: {exact: 'spiffe://td/a'}}"),
        Principal::Authenticated(Some(name))
    );
    let net: ipnet::IpNet = "10.0.0.0/0".parse::<ipnet::IpNet>().unwrap().trunc();
    for (field, principal) in [
        ("source_ip", Principal::DirectRemoteIp(net)),
        ("direct_remote_ip", Principal::DirectRemoteIp(net)),
        ("remote_ip", Principal::RemoteIp(net)),
    ] {
        // Without a length every address of the family matches (gRFC A41).
        assert_eq!(asking(&format!("{field}: {{address_prefix: 10.0.0.1}}")), principal, "{field}");
    }
    assert!(matches!(asking("header: {name: a}"), Principal::Header(_)));
    assert_eq!(asking("url_path: {path: {prefix: /a}}"), Principal::UrlPath(StringMatcher::prefix("/a")));
    assert_eq!(asking("metadata: {filter: f}"), Principal::Metadata { invert: false });
    assert_eq!(
        asking("sourced_metadata: {metadata_matcher: {invert: true}}"),
        Principal::Metadata { invert: true }
    );
}

#[test]
fn rules_that_cannot_be_evaluated_are_refused() {
    refused_at("", http, &[("matcher: {}", ".matcher: is not supported")]);
    refused_at(
        ".rules",
        rules,
        &[
            ("action: 9", ".action: 9 is not a known value"),
            (
                "audit_logging_options: {logger_configs: [{is_optional: true}, {}]}",
                ".audit_logging_options.logger_configs[1]: is not supported",
            ),
        ],
    );
    let both = "permissions: [{any: true}], principals: [{any: true}]";
    refused_at(
        ".rules.policies[\"p\"]",
        policy,
        &[
            ("", ".permissions: must not be empty"),
            ("permissions: [{any: true}]", ".principals: must not be empty"),
            (&format!("{both}, condition: {{}}"), ".condition: is not supported"),
            (&format!("{both}, checked_condition: {{}}"), ".checked_condition: is not supported"),
            (&format!("{both}, cel_config: {{}}"), ".cel_config: is not supported"),
        ],
    );
}

#[test]
fn a_permission_that_is_not_known_is_refused_however_deep_it_is() {
    refused_at(
        ".rules.policies[\"p\"].permissions[0]",
        permission,
        &[
            ("", ": is required"),
            ("any: false", ".any: \"false\" is not supported"),
            ("matcher: {name: a}", ".matcher: is not supported"),
            ("uri_template: {name: a}", ".uri_template: is not supported"),
            ("and_rules: {}", ".and_rules.rules: must not be empty"),
            ("or_rules: {}", ".or_rules.rules: must not be empty"),
            ("not_rule: {matcher: {name: a}}", ".not_rule.matcher: is not supported"),
            ("not_rule: {}", ".not_rule: is required"),
            (
                "and_rules: {rules: [{any: true}, {or_rules: {rules: [{not_rule: {uri_template: {name: a}}}]}}]}",
                ".and_rules.rules[1].or_rules.rules[0].not_rule.uri_template: is not supported",
            ),
            ("destination_port: 65536", ".destination_port: 65536 is not within 0..=65535"),
            (
                "destination_port_range: {start: -1, end: 2}",
                ".destination_port_range: ports are not negative",
            ),
            (
                "destination_port_range: {start: 2, end: 2}",
                ".destination_port_range: must be start < end <= 65536",
            ),
            (
                "destination_port_range: {start: 2, end: 65537}",
                ".destination_port_range: must be start < end <= 65536",
            ),
            ("destination_ip: {address_prefix: a}", ".destination_ip: \"a\" is not an IP address"),
            (
                "destination_ip: {address_prefix: 10.0.0.1, prefix_len: 33}",
                ".destination_ip: prefix length 33 is longer than the address",
            ),
            ("url_path: {}", ".url_path: is required"),
            ("url_path: {path: {}}", ".url_path.path: is required"),
            (
                "header: {name: ':scheme'}",
                ".header.name: \":scheme\" is not a header name that can be matched",
            ),
            (
                "header: {name: Grpc-Status}",
                ".header.name: \"Grpc-Status\" is not a header name that can be matched",
            ),
            ("header: {name: a, prefix_match: ''}", ".header.prefix_match: must not be empty"),
            ("requested_server_name: {}", ".requested_server_name: is required"),
            (
                "sourced_metadata: {metadata_source: ROUTE}",
                ".sourced_metadata.metadata_source: is not supported",
            ),
            ("sourced_metadata: {}", ".sourced_metadata.metadata_matcher: is required"),
        ],
    );
}

#[test]
fn a_principal_that_is_not_known_is_refused_however_deep_it_is() {
    refused_at(
        ".rules.policies[\"p\"].principals[0]",
        principal,
        &[
            ("", ": is required"),
            ("any: false", ".any: \"false\" is not supported"),
            ("filter_state: {}", ".filter_state: is not supported"),
            ("custom: {name: a}", ".custom: is not supported"),
            ("and_ids: {}", ".and_ids.ids: must not be empty"),
            (
                "or_ids: {ids: [{not_id: {custom: {name: a}}}]}",
                ".or_ids.ids[0].not_id.custom: is not supported",
            ),
            ("not_id: {filter_state: {}}", ".not_id.filter_state: is not supported"),
            ("source_ip: {address_prefix: a}", ".source_ip: \"a\" is not an IP address"),
            ("direct_remote_ip: {address_prefix: ''}", ".direct_remote_ip: \"\" is not an IP address"),
            (
                "remote_ip: {address_prefix: '::1', prefix_len: 129}",
                ".remote_ip: prefix length 129 is longer than the address",
            ),
            ("authenticated: {principal_name: {}}", ".authenticated.principal_name: is required"),
            (
                "header: {name: grpc-timeout}",
                ".header.name: \"grpc-timeout\" is not a header name that can be matched",
            ),
            ("url_path: {}", ".url_path: is required"),
            (
                "sourced_metadata: {metadata_source: ROUTE}",
                ".sourced_metadata.metadata_source: is not supported",
            ),
        ],
    );
}

#[test]
fn a_network_filter_decides_on_the_connection_alone() {
    let found = server(&network(
        "stat_prefix: s, enforcement_type: CONTINUOUS, rules: {action: DENY, policies: {p: {permissions: [{destination_port: 80}], principals: [{direct_remote_ip: {address_prefix: 10.0.0.1, prefix_len: 32}}]}}}",
    ));
    let [rbac] = found.chains[0].network_rbac.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (rbac.action, &rbac.policies[0].permissions[0]),
        (RbacAction::Deny, &Permission::DestinationPort(80))
    );
    let open = server(&network("stat_prefix: s"));
    assert_eq!(open.chains[0].network_rbac[0].action, RbacAction::Deny);
    let at = "filter_chains[0].filters[0].typed_config";
    let within = |permission: &str| {
        network(&format!(
            "rules: {{policies: {{p: {{permissions: [{{{permission}}}], principals: [{{any: true}}]}}}}}}"
        ))
    };
    let as_principal = |id: &str| {
        network(&format!(
            "rules: {{policies: {{p: {{permissions: [{{any: true}}], principals: [{{{id}}}]}}}}}}"
        ))
    };
    let why = "a connection has no headers and no path";
    for (rule, field) in [("header: {name: a}", "header"), ("url_path: {path: {exact: /}}", "url_path")] {
        let of = |list: &str| format!("{at}.rules.policies[\"p\"].{list}[0].{field}: {why}");
        refusals(Kind::Listener, within, &[(rule, &of("permissions"))]);
        refusals(Kind::Listener, as_principal, &[(rule, &of("principals"))]);
    }
    refusals(Kind::Listener, network, &[("matcher: {}", &format!("{at}.matcher: is not supported"))]);
    not_applied(
        Kind::Listener,
        network,
        &[
            ("shadow_rules: {}", &format!("{at}.shadow_rules")),
            ("shadow_matcher: {}", &format!("{at}.shadow_matcher")),
            ("delay_deny: 1s", &format!("{at}.delay_deny")),
        ],
    );
}

#[test]
fn shadow_rules_and_optional_loggers_are_listed() {
    not_applied(
        Kind::Listener,
        http,
        &[
            ("shadow_rules: {}", &format!("{AT}.shadow_rules")),
            ("shadow_matcher: {}", &format!("{AT}.shadow_matcher")),
            (
                "rules: {audit_logging_options: {audit_condition: ON_DENY, logger_configs: [{is_optional: true}]}}",
                &format!("{AT}.rules.audit_logging_options.logger_configs[0]"),
            ),
        ],
    );
    let quiet = http("rules_stat_prefix: a, shadow_rules_stat_prefix: b, track_per_rule_stats: true");
    assert!(unapplied(Kind::Listener, &quiet).is_empty());
}
