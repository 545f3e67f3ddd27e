//! Who may call: the rules of RBAC on requests and on connections, and what a route says instead.

use std::net::SocketAddr;

use mesh_tests::wait::soon;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{OPEN, Server, listening, manager};

const HTTP: &str = "@envoy.extensions.filters.http.rbac.v3.RBAC";
const NETWORK: &str = "@envoy.extensions.filters.network.rbac.v3.RBAC";

/// The status of a request over a connection of its own; none where the connection is closed without an answer.
pub(crate) async fn raw(at: SocketAddr, text: &str) -> Option<u16> {
    let tcp = soon(TcpStream::connect(at)).await.ok()?;
    answer(tcp, text).await
}

/// The status of a request on a connection, which ends with it.
pub(crate) async fn answer(mut io: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> Option<u16> {
    let mut words = text.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: server\r\nconnection: close\r\n");
    for header in words {
        let (name, value) = header.split_once(':').expect("a header");
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // A connection that is refused may be gone before the request is written.
    let _ = io.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(io.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer);
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Where rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Http,
    Network,
}

/// A server with these rules. `PORT` stands for its port, `NEXT` for the one after.
fn server(layer: Layer, rules: &str) -> Server {
    Server::start(|at| {
        let port = at.port();
        let rules =
            rules.replace("PORT", &port.to_string()).replace("NEXT", &(u32::from(port) + 1).to_string());
        let filters = match layer {
            Layer::Http => {
                let rbac = format!("{{name: rbac, typed_config: {{{HTTP}, rules: {{{rules}}}}}}}, ");
                manager(OPEN, &rbac)
            }
            Layer::Network => {
                format!(
                    "{{name: rbac, typed_config: {{{NETWORK}, rules: {{{rules}}}}}}}, {}",
                    manager(OPEN, "")
                )
            }
        };
        vec![listening(at, &format!("filter_chains: [{{filters: [{filters}]}}]"))]
    })
}

async fn is_let_in(layer: Layer, rules: &str, request: &str) -> bool {
    let server = server(layer, rules);
    let is_in = match (layer, raw(server.address, request).await) {
        (_, Some(200)) => true,
        (Layer::Http, Some(403)) | (Layer::Network, None) => false,
        (_, other) => panic!("{layer:?}: {rules}: {other:?}"),
    };
    assert_eq!(server.app.stats().requests, u64::from(is_in), "{layer:?}: {rules}");
    is_in
}

/// The rule of a permission, and whether a connection to 127.0.0.1 in plaintext has it.
const PERMISSIONS: &[(&str, bool)] = &[
    ("any: true", true),
    ("destination_ip: {address_prefix: 127.0.0.1, prefix_len: 32}", true),
    ("destination_ip: {address_prefix: 127.0.0.2, prefix_len: 32}", false),
    ("destination_ip: {address_prefix: 127.0.0.2, prefix_len: 8}", true),
    ("destination_port: PORT", true),
    ("destination_port: NEXT", false),
    ("destination_port_range: {start: PORT, end: NEXT}", true),
    ("destination_port_range: {start: 1, end: PORT}", false),
    ("destination_port_range: {start: NEXT, end: 65536}", false),
    ("destination_port_range: {start: 1, end: 65536}", true),
    ("requested_server_name: {exact: ''}", true),
    ("requested_server_name: {exact: a}", false),
    ("metadata: {filter: a, path: [{key: b}], value: {present_match: true}}", false),
    ("metadata: {filter: a, path: [{key: b}], value: {present_match: true}, invert: true}", true),
    ("sourced_metadata: {metadata_matcher: {invert: true}}", true),
    ("sourced_metadata: {metadata_matcher: {}}", false),
    ("and_rules: {rules: [{any: true}, {destination_port: PORT}]}", true),
    ("and_rules: {rules: [{any: true}, {destination_port: NEXT}]}", false),
    ("or_rules: {rules: [{destination_port: NEXT}, {any: true}]}", true),
    ("or_rules: {rules: [{destination_port: NEXT}]}", false),
    ("not_rule: {any: true}", false),
    ("not_rule: {destination_port: NEXT}", true),
];

/// The identifier of a principal, and whether a connection from 127.0.0.1 in plaintext has it.
const PRINCIPALS: &[(&str, bool)] = &[
    ("any: true", true),
    ("authenticated: {}", false),
    ("source_ip: {address_prefix: 127.0.0.1, prefix_len: 32}", true),
    ("source_ip: {address_prefix: 127.0.0.2, prefix_len: 32}", false),
    ("direct_remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}", true),
    ("direct_remote_ip: {address_prefix: 127.0.0.2, prefix_len: 32}", false),
    ("remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}", true),
    ("remote_ip: {address_prefix: 127.0.0.2, prefix_len: 32}", false),
    ("metadata: {filter: a, path: [{key: b}], value: {present_match: true}}", false),
    ("metadata: {filter: a, path: [{key: b}], value: {present_match: true}, invert: true}", true),
    ("sourced_metadata: {metadata_matcher: {invert: true}}", true),
    ("sourced_metadata: {metadata_matcher: {}}", false),
    ("and_ids: {ids: [{any: true}, {source_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}]}", true),
    ("and_ids: {ids: [{any: true}, {source_ip: {address_prefix: 127.0.0.2, prefix_len: 32}}]}", false),
    ("or_ids: {ids: [{authenticated: {}}, {any: true}]}", true),
    ("or_ids: {ids: [{authenticated: {}}]}", false),
    ("not_id: {any: true}", false),
    ("not_id: {authenticated: {}}", true),
];

async fn rules_of(layer: Layer) {
    for (rule, expected) in PERMISSIONS {
        let rules = format!("policies: {{p: {{permissions: [{{{rule}}}], principals: [{{any: true}}]}}}}");
        assert_eq!(is_let_in(layer, &rules, "GET /").await, *expected, "{layer:?}: {rule}");
    }
    for (rule, expected) in PRINCIPALS {
        let rules = format!("policies: {{p: {{permissions: [{{any: true}}], principals: [{{{rule}}}]}}}}");
        assert_eq!(is_let_in(layer, &rules, "GET /").await, *expected, "{layer:?}: {rule}");
    }
    for (action, has, expected) in [
        ("ALLOW", true, true),
        ("ALLOW", false, false),
        ("DENY", true, false),
        ("DENY", false, true),
        ("LOG", true, true),
        ("LOG", false, true),
    ] {
        let rule = if has { "any: true" } else { "not_rule: {any: true}" };
        let rules = format!(
            "action: {action}, policies: {{p: {{permissions: [{{{rule}}}], principals: [{{any: true}}]}}}}"
        );
        assert_eq!(is_let_in(layer, &rules, "GET /").await, expected, "{layer:?}: {action} {has}");
    }
}

#[tokio::test]
async fn rules_on_requests() {
    rules_of(Layer::Http).await;
}

#[tokio::test]
async fn rules_on_connections() {
    rules_of(Layer::Network).await;
}

/// The matcher of a header or path, a request that has it, and one that has it not.
const MATCHERS: &[(&str, &str, &str)] = &[
    ("header: {name: a}", "GET / a:x", "GET / b:x"),
    ("header: {name: a, exact_match: b}", "GET / a:b", "GET / a:c"),
    ("header: {name: a, safe_regex_match: {regex: 'b+'}}", "GET / a:bb", "GET / a:bc"),
    ("header: {name: a, range_match: {start: 5, end: 9}}", "GET / a:5", "GET / a:4"),
    ("header: {name: a, range_match: {start: 5, end: 9}}", "GET / a:8", "GET / a:9"),
    ("header: {name: a, present_match: true}", "GET / a:b", "GET /"),
    ("header: {name: a, present_match: false}", "GET /", "GET / a:b"),
    ("header: {name: a, prefix_match: b}", "GET / a:bc", "GET / a:cb"),
    ("header: {name: a, suffix_match: b}", "GET / a:cb", "GET / a:bc"),
    ("header: {name: a, contains_match: b}", "GET / a:cbc", "GET / a:c"),
    ("header: {name: a, string_match: {prefix: b}}", "GET / a:bc", "GET / a:cb"),
    ("header: {name: a, exact_match: b, invert_match: true}", "GET / a:c", "GET / a:b"),
    (
        "header: {name: a, string_match: {exact: ''}, treat_missing_header_as_empty: true}",
        "GET /",
        "GET / a:b",
    ),
    ("url_path: {path: {exact: /a}}", "GET /a?b", "GET /ab"),
    ("url_path: {path: {prefix: /a}}", "GET /ab", "GET /b"),
    ("url_path: {path: {suffix: a}}", "GET /ba", "GET /ab"),
    ("url_path: {path: {contains: a}}", "GET /bab", "GET /b"),
    ("url_path: {path: {safe_regex: {regex: '/[0-9]+'}}}", "GET /12", "GET /x"),
    ("url_path: {path: {exact: /A, ignore_case: true}}", "GET /a", "GET /b"),
];

#[tokio::test]
async fn headers_and_paths() {
    for (matcher, hit, miss) in MATCHERS {
        for (permission, principal) in [(*matcher, "any: true"), ("any: true", *matcher)] {
            let policy = format!("permissions: [{{{permission}}}], principals: [{{{principal}}}]");
            let server = server(Layer::Http, &format!("policies: {{p: {{{policy}}}}}"));
            assert_eq!(raw(server.address, hit).await, Some(200), "{policy}: {hit}");
            assert_eq!(raw(server.address, miss).await, Some(403), "{policy}: {miss}");
        }
    }
}

/// The filter `f` denies everybody; what is said of it on the way down to the route decides.
#[tokio::test]
async fn overrides() {
    let nobody = "policies: {p: {permissions: [{any: true}], principals: [{authenticated: {}}]}}";
    let everybody = "policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}";
    let per_route = |rules: &str| {
        format!("{{@envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {{rules: {{{rules}}}}}}}")
    };
    let wrapped = |fields: &str| format!("{{@envoy.config.route.v3.FilterConfig, {fields}}}");
    let rows = [
        ("", "f", String::new(), 403),
        ("", "f", per_route(everybody), 200),
        ("", "g", per_route(everybody), 403),
        ("", "f", wrapped("disabled: true"), 200),
        ("", "f", wrapped(&format!("config: {}", per_route(everybody))), 200),
        ("", "f", "{@envoy.extensions.filters.http.rbac.v3.RBACPerRoute}".to_owned(), 200),
        (", disabled: true", "f", String::new(), 200),
        (", disabled: true", "f", wrapped("disabled: false"), 403),
    ];
    for (disabled, name, change, expected) in rows {
        for level in 0..3 {
            let at = |wanted: usize| {
                if change.is_empty() || level != wanted {
                    String::new()
                } else {
                    format!(", typed_per_filter_config: {{{name}: {change}}}")
                }
            };
            let route = format!("{{match: {{prefix: /}}, non_forwarding_action: {{}}{}}}", at(2));
            let host = format!("{{name: all, domains: ['*'], routes: [{route}]{}}}", at(1));
            let config = format!("route_config: {{virtual_hosts: [{host}]{}}}", at(0));
            let filter = format!("{{name: f, typed_config: {{{HTTP}, rules: {{{nobody}}}}}{disabled}}}, ");
            let server = Server::start(|at| {
                vec![listening(at, &format!("filter_chains: [{{filters: [{}]}}]", manager(&config, &filter)))]
            });
            assert_eq!(
                raw(server.address, "GET /").await,
                Some(expected),
                "{disabled} {name}: {change} at {level}"
            );
        }
    }
}

/// Whose address `remote_ip` is: the one that the caller gives, unless the listener stands at the edge.
#[tokio::test]
async fn forwarded_addresses() {
    let rules = "policies: {p: {permissions: [{any: true}], principals: [{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}]}}";
    for (edge, expected) in [("false", 200), ("true", 403)] {
        let server = Server::start(|at| {
            let rbac = format!("{{name: rbac, typed_config: {{{HTTP}, rules: {{{rules}}}}}}}, ");
            let fields = format!("use_remote_address: {edge}, {OPEN}");
            vec![listening(at, &format!("filter_chains: [{{filters: [{}]}}]", manager(&fields, &rbac)))]
        });
        assert_eq!(raw(server.address, "GET / x-forwarded-for:10.1.1.1").await, Some(expected), "{edge}");
    }
}

/// An override of a type that is not known: no server can tell whom it keeps out.
#[tokio::test]
async fn overrides_of_unknown_types() {
    let unknown = "@envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
    let wrapped = |optional: bool| {
        format!("{{@envoy.config.route.v3.FilterConfig, config: {{{unknown}}}, is_optional: {optional}}}")
    };
    let hosts = |change: &str| {
        let route = format!(
            "{{match: {{prefix: /}}, non_forwarding_action: {{}}, typed_per_filter_config: {{f: {change}}}}}"
        );
        format!("virtual_hosts: [{{name: all, domains: ['*'], routes: [{route}]}}]")
    };
    // Within the listener, and by name.
    let inline = |at: SocketAddr, change: &str| {
        let fields = format!("route_config: {{{}}}", hosts(change));
        vec![listening(at, &format!("filter_chains: [{{filters: [{}]}}]", manager(&fields, "")))]
    };
    let named = |at: SocketAddr, change: &str| {
        let fields = "rds: {config_source: {ads: {}}, route_config_name: r}";
        vec![
            listening(at, &format!("filter_chains: [{{filters: [{}]}}]", manager(fields, ""))),
            format!("@envoy.config.route.v3.RouteConfiguration, name: r, {}", hosts(change)),
        ]
    };
    for is_named in [false, true] {
        let resources =
            |at: SocketAddr, change: &str| if is_named { named(at, change) } else { inline(at, change) };
        for change in [format!("{{{unknown}}}"), wrapped(false)] {
            let at = ([127, 0, 0, 1], 1).into();
            let refused = crate::source(&resources(at, &change)).expect_err("it is refused").to_string();
            let field = "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]";
            assert!(refused.contains(field) && refused.contains("jwt_authn.v3.PerRouteConfig"), "{refused}");
        }
        let server = Server::start(|at| resources(at, &wrapped(true)));
        assert_eq!(raw(server.address, "GET /").await, Some(200));
    }
}
