//! HTTP filters of a connection manager and their overrides on routes.

use mesh_core::config::filter::{FilterConfig, FilterOverride};
use mesh_core::rbac::RbacAction;

use crate::ads::Kind;
use crate::resource::tests::{client, refusals, refused_by_servers, routes, server, unapplied};

const PREFIX: &str = "type.googleapis.com/envoy.extensions.filters";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const ROUTER: &str = "{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

fn manager(filters: &str) -> String {
    manager_of("", filters)
}

fn manager_of(routes: &str, filters: &str) -> String {
    format!(
        "{{\"@type\": {PREFIX}.network.http_connection_manager.v3.HttpConnectionManager, route_config: {{{routes}}}, http_filters: [{filters}]}}"
    )
}

fn on_client(filters: &str) -> String {
    client_of(&manager(filters))
}

fn client_of(manager: &str) -> String {
    format!("name: l\napi_listener: {{api_listener: {manager}}}")
}

fn on_server(filters: &str) -> String {
    server_of(&manager(filters))
}

fn server_of(manager: &str) -> String {
    format!(
        "name: l\naddress: {{socket_address: {{address: 0.0.0.0, port_value: 80}}}}\nfilter_chains: [{{filters: [{{name: hcm, typed_config: {manager}}}]}}]"
    )
}

fn filter(kind: &str, fields: &str) -> String {
    format!("{{name: f, typed_config: {{\"@type\": {HTTP}.{kind}}}{fields}}}")
}

fn overriding(config: &str) -> String {
    format!("name: r\nvirtual_hosts: [{{name: v, domains: [a], typed_per_filter_config: {{f: {config}}}}}]")
}

#[test]
fn filters_keep_their_order_names_and_switches() {
    let found = server(&on_server(&format!("{}, {ROUTER}", filter("rbac.v3.RBAC", ", disabled: true"))));
    let filters = &found.chains[0].http.filters;
    assert_eq!(
        filters.iter().map(|f| (&*f.name, f.disabled)).collect::<Vec<_>>(),
        [("f", true), ("router", false)]
    );
    // No rules let everything pass: a denial of nothing.
    assert!(
        matches!(&filters[0].config, FilterConfig::Rbac(r) if r.action == RbacAction::Deny && r.policies.is_empty())
    );
    assert_eq!(filters[1].config, FilterConfig::Router);
}

#[test]
fn an_optional_or_traffic_only_filter_that_is_not_known_is_left_out_and_listed() {
    for text in [
        filter("jwt_authn.v3.JwtAuthentication", ", is_optional: true"),
        filter("fault.v3.HTTPFault", ""),
        filter("stateful_session.v3.StatefulSession", ""),
        filter("grpc_stats.v3.FilterConfig", ""),
        "{name: f, is_optional: true, config_discovery: {}}".to_owned(),
    ] {
        let yaml = on_client(&format!("{text}, {ROUTER}"));
        assert_eq!(client(&yaml).filters.len(), 1, "{text}");
        assert_eq!(unapplied(Kind::Listener, &yaml), ["api_listener.api_listener.http_filters[0]"], "{text}");
    }
    // Access control on the side that calls decides nothing, so it may be left out where it is optional.
    let yaml = on_client(&format!("{}, {ROUTER}", filter("rbac.v3.RBAC", ", is_optional: true")));
    assert_eq!(client(&yaml).filters.len(), 1);
}

#[test]
fn a_list_of_filters_that_cannot_be_honoured_is_refused() {
    let jwt = filter("jwt_authn.v3.JwtAuthentication", "");
    let rbac = filter("rbac.v3.RBAC", "");
    let fault = filter("fault.v3.HTTPFault", "");
    for (side, at) in [
        (&on_client as &dyn Fn(&str) -> String, "api_listener.api_listener.http_filters"),
        (&on_server, "filter_chains[0].filters[0].typed_config.http_filters"),
    ] {
        for (list, rest) in [
            (String::new(), ": the last filter must be the router"),
            (filter("fault.v3.HTTPFault", ""), ": the last filter must be the router"),
            (
                format!("{jwt}, {ROUTER}"),
                "[0].typed_config: extension \"type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication\" is not supported",
            ),
            (
                format!("{ROUTER}, {}", ROUTER.replace("name: router", "name: again")),
                "[1]: nothing may follow the router",
            ),
            (format!("{ROUTER}, {ROUTER}"), "[1].name: \"router\" is given twice"),
            // What is left out has a place before the router all the same, and a name of its own.
            (format!("{ROUTER}, {fault}"), "[1]: nothing may follow the router"),
            (
                format!(
                    "{ROUTER}, {}",
                    filter("x.v3.X", ", is_optional: true")
                        .replace("x.v3.X", "jwt_authn.v3.JwtAuthentication")
                ),
                "[1]: nothing may follow the router",
            ),
            (
                format!("{ROUTER}, {{name: e, is_optional: true, config_discovery: {{}}}}"),
                "[1]: nothing may follow the router",
            ),
            (format!("{fault}, {fault}, {ROUTER}"), "[1].name: \"f\" is given twice"),
            (ROUTER.replace("name: router", "name: ''"), "[0].name: must not be empty"),
            ("{name: a}".to_owned(), "[0].typed_config: is required"),
            ("{name: a, config_discovery: {}}".to_owned(), "[0].config_discovery: is not supported"),
            (
                ROUTER.replace("name: router", "name: r, disabled: true"),
                "[0].disabled: the router cannot be disabled",
            ),
            (
                ROUTER.replace("router.v3.Router", "router.v3.Router, upstream_http_filters: [{name: a}]"),
                "[0].typed_config.upstream_http_filters: is not supported",
            ),
        ] {
            refusals(Kind::Listener, side, &[(&list, &format!("{at}{rest}"))]);
        }
    }
    refusals(
        Kind::Listener,
        on_client,
        &[(
            &format!("{rbac}, {ROUTER}"),
            "api_listener.api_listener.http_filters[0]: access control belongs on the server's side",
        )],
    );
}

#[test]
fn options_of_the_router_are_listed() {
    let at = "api_listener.api_listener.http_filters[0].typed_config";
    for field in ["upstream_log: [{}]", "strict_check_headers: [a]", "respect_expected_rq_timeout: true"] {
        let yaml = on_client(&ROUTER.replace("router.v3.Router", &format!("router.v3.Router, {field}")));
        let name = field.split(':').next().unwrap();
        assert_eq!(unapplied(Kind::Listener, &yaml), [format!("{at}.{name}")]);
    }
}

#[test]
fn overrides_disable_enable_or_replace() {
    let of = |config: &str| {
        let found = routes(&overriding(config));
        found.virtual_hosts[0].overrides.find("f").cloned()
    };
    let wrapper = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let per_route = format!("\"@type\": {HTTP}.rbac.v3.RBACPerRoute");
    assert_eq!(of(&format!("{{{wrapper}, disabled: true}}")), Some(FilterOverride::Disabled));
    assert_eq!(of(&format!("{{{wrapper}}}")), Some(FilterOverride::Enabled));
    assert_eq!(of(&format!("{{{per_route}}}")), Some(FilterOverride::Rbac(None)));
    assert_eq!(of(&format!("{{{per_route}, rbac: {{}}}}")), Some(FilterOverride::Rbac(None)));
    for text in [
        format!("{{{per_route}, rbac: {{rules: {{}}}}}}"),
        format!("{{{wrapper}, config: {{{per_route}, rbac: {{rules: {{}}}}}}}}"),
    ] {
        let Some(FilterOverride::Rbac(Some(rules))) = of(&text) else { panic!("{text}") };
        // An allow list with nobody on it.
        assert_eq!((rules.action, rules.policies.len()), (RbacAction::Allow, 0));
    }
}

#[test]
fn an_override_that_is_not_known_is_for_clients_alone_unless_it_is_optional() {
    let jwt = format!("\"@type\": {HTTP}.jwt_authn.v3.PerRouteConfig");
    let wrapper = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let at = "virtual_hosts[0].typed_per_filter_config[\"f\"]";
    let why = format!("extension \"{HTTP}.jwt_authn.v3.PerRouteConfig\" is not supported");
    for (text, at) in [
        (format!("{{{jwt}}}"), at.to_owned()),
        (format!("{{{wrapper}, config: {{{jwt}}}}}"), format!("{at}.config")),
    ] {
        let yaml = overriding(&text);
        assert_eq!(refused_by_servers(&yaml), Some(format!("{at}: {why}")));
        assert!(routes(&yaml).virtual_hosts[0].overrides.is_empty());
        assert_eq!(unapplied(Kind::Route, &yaml), [at]);
    }
    // One that is known has to be valid, whoever takes it.
    let bad = format!("{{\"@type\": {HTTP}.rbac.v3.RBACPerRoute, rbac: {{rules: {{action: 9}}}}}}");
    let why = format!("{at}.rbac.rules.action: 9 is not a known value");
    refusals(Kind::Route, overriding, &[(&bad, &why)]);
    let optional = overriding(&format!("{{{wrapper}, is_optional: true, config: {{{jwt}}}}}"));
    assert!(routes(&optional).virtual_hosts[0].overrides.is_empty());
    assert_eq!(refused_by_servers(&optional), None);
    assert_eq!(unapplied(Kind::Route, &optional), [format!("{at}.config")]);
    let fault = overriding(&format!("{{\"@type\": {HTTP}.fault.v3.HTTPFault}}"));
    assert_eq!(unapplied(Kind::Route, &fault), [at]);
}

/// What a listener makes of overrides that it holds itself: of filters that it runs, leaves out, or does not have.
#[test]
fn a_listener_judges_the_overrides_within_it() {
    let per_route = format!("{{\"@type\": {HTTP}.rbac.v3.RBACPerRoute}}");
    let wrapper = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let cors = format!("{{\"@type\": {HTTP}.cors.v3.CorsPolicy}}");
    let rbac = filter("rbac.v3.RBAC", "");
    let on_host = |name: &str, change: &str| {
        format!("virtual_hosts: [{{name: v, domains: [a], typed_per_filter_config: {{{name}: {change}}}}}]")
    };
    let server_at = "filter_chains[0].filters[0].typed_config.route_config";
    let client_at = "api_listener.api_listener.route_config";
    let field = |at: &str, name: &str| format!("{at}.virtual_hosts[0].typed_per_filter_config[\"{name}\"]");
    for change in [per_route, format!("{{{wrapper}, disabled: true}}"), format!("{{{wrapper}}}")] {
        let listed = |yaml: &str| unapplied(Kind::Listener, yaml);
        let with = |name: &str| manager_of(&on_host(name, &change), &format!("{rbac}, {ROUTER}"));
        assert_eq!(listed(&server_of(&with("f"))), [""; 0], "{change}");
        for absent in ["g", "router"] {
            assert_eq!(listed(&server_of(&with(absent))), [field(server_at, absent)], "{change}");
        }
        let fault = filter("fault.v3.HTTPFault", "");
        let left_out = manager_of(&on_host("f", &change), &format!("{fault}, {ROUTER}"));
        assert!(listed(&server_of(&left_out)).contains(&field(server_at, "f")), "{change}");
        let on_client = client_of(&manager_of(&on_host("f", &change), ROUTER));
        assert_eq!(listed(&on_client), [field(client_at, "f")], "{change}");
    }
    // Of a type that is not known: a client does without it, a server does not.
    let yaml = client_of(&manager_of(&on_host("envoy.filters.http.cors", &cors), ROUTER));
    assert_eq!(unapplied(Kind::Listener, &yaml), [field(client_at, "envoy.filters.http.cors")]);
    let why = format!("{}: extension \"{HTTP}.cors.v3.CorsPolicy\" is not supported", field(server_at, "f"));
    for filters in [ROUTER.to_owned(), format!("{rbac}, {ROUTER}")] {
        let on_server = |change: &str| server_of(&manager_of(&on_host("f", change), &filters));
        refusals(Kind::Listener, on_server, &[(&cors, &why)]);
    }
}
