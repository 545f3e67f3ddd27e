//! Policies, and the listeners that apply them, in Envoy's form and in ours.

use std::net::SocketAddr;

use mesh_core::rng::{Rng as _, Xoshiro};
use mesh_tests::ca::Identity;
use serde_json::{Value, json};

/// Rules of one or two policies.
pub(super) fn rules(rng: &mut Xoshiro) -> Value {
    let action = if rng.below(2) == 0 { "ALLOW" } else { "DENY" };
    let policies = 1 + rng.below(2);
    let policies: serde_json::Map<_, _> = (0..policies)
        .map(|number| {
            let policy = json!({ "permissions": [permission(rng, 2)], "principals": [principal(rng, 2)] });
            (format!("p{number}"), policy)
        })
        .collect();
    json!({ "action": action, "policies": policies })
}

fn permission(rng: &mut Xoshiro, depth: u64) -> Value {
    match rng.below(if depth == 0 { 8 } else { 11 }) {
        0 => json!({ "any": true }),
        1..=4 => json!({ "url_path": { "path": text(rng, &PATHS) } }),
        5..=7 => json!({ "header": header(rng) }),
        8 => json!({ "not_rule": permission(rng, depth - 1) }),
        9 => json!({ "and_rules": { "rules": [permission(rng, depth - 1), permission(rng, depth - 1)] } }),
        _ => json!({ "or_rules": { "rules": [permission(rng, depth - 1), permission(rng, depth - 1)] } }),
    }
}

fn principal(rng: &mut Xoshiro, depth: u64) -> Value {
    match rng.below(if depth == 0 { 9 } else { 12 }) {
        0 | 1 => json!({ "any": true }),
        2..=4 => json!({ "authenticated": { "principal_name": text(rng, &NAMES) } }),
        5 => json!({ "authenticated": {} }),
        6 => json!({ "header": header(rng) }),
        7 => json!({ "remote_ip": address(rng) }),
        8 => json!({ "direct_remote_ip": address(rng) }),
        9 => json!({ "not_id": principal(rng, depth - 1) }),
        10 => json!({ "and_ids": { "ids": [principal(rng, depth - 1), principal(rng, depth - 1)] } }),
        _ => json!({ "or_ids": { "ids": [principal(rng, depth - 1), principal(rng, depth - 1)] } }),
    }
}

fn address(rng: &mut Xoshiro) -> Value {
    let (prefix, length) = *pick(rng, &[("127.0.0.0", 8), ("10.0.0.0", 8), ("10.0.0.1", 32), ("0.0.0.0", 0)]);
    json!({ "address_prefix": prefix, "prefix_len": length })
}

fn header(rng: &mut Xoshiro) -> Value {
    let name = *pick(
        rng,
        &["x-role", "x-role", ":path", ":authority", ":method", "x-forwarded-proto", "cookie", "x-absent"],
    );
    let texts: &[&str] = match name {
        ":path" => &PATHS,
        ":authority" => &["shop.test", "evil", "evil.test", "shop.test:80", ""],
        ":method" => &["GET", "POST", "HEAD", "OPTIONS"],
        "x-forwarded-proto" => &["http", "https"],
        "cookie" => &["a=1; b=2", "a=1", "b=2"],
        _ => &["admin", "user", ""],
    };
    let mut matcher = match rng.below(4) {
        0 => json!({ "name": name, "present_match": true }),
        _ => json!({ "name": name, "string_match": text(rng, texts) }),
    };
    if rng.below(4) == 0 {
        matcher["invert_match"] = json!(true);
    }
    if rng.below(5) == 0 {
        matcher["treat_missing_header_as_empty"] = json!(true);
    }
    matcher
}

/// A matcher of one of these texts.
fn text(rng: &mut Xoshiro, texts: &[&str]) -> Value {
    let text = *pick(rng, texts);
    match rng.below(6) {
        // An empty one is refused.
        1 if !text.is_empty() => json!({ "prefix": text }),
        2 if !text.is_empty() => json!({ "suffix": text }),
        3 if !text.is_empty() => json!({ "contains": text }),
        4 => json!({ "safe_regex": { "google_re2": {}, "regex": *pick(rng, &REGEXES) } }),
        5 => json!({ "exact": text, "ignore_case": true }),
        _ => json!({ "exact": text }),
    }
}

pub(super) fn pick<'a, T>(rng: &mut Xoshiro, of: &'a [T]) -> &'a T {
    &of[rng.below(of.len() as u64) as usize]
}

/// A listener that admits everything its rules admit. Envoy answers what it admits, our application does.
pub(super) fn listener(
    at: SocketAddr,
    rules: &Value,
    trusts: bool,
    tls: Option<Value>,
    is_ours: bool,
) -> Value {
    let mut route = json!({ "match": { "safe_regex": { "google_re2": {}, "regex": ".*" } } });
    let action = if is_ours {
        ("non_forwarding_action", json!({}))
    } else {
        ("direct_response", json!({ "status": 200, "body": { "inline_string": "ok" } }))
    };
    route[action.0] = action.1;
    let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "verdicts",
        "use_remote_address": !trusts,
        "route_config": { "name": "all", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": [
            { "name": "rbac", "typed_config": { "@type": rbac, "rules": rules } },
            { "name": "router", "typed_config": { "@type": router } },
        ],
    });
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": manager }] });
    if let Some(tls) = tls {
        chain["transport_socket"] = json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls });
    }
    let socket = json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } });
    json!({ "name": format!("on-{}", at.port()), "address": socket, "filter_chains": [chain] })
}

const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

pub(super) fn envoy_tls(server: &Identity, tls: bool) -> Option<Value> {
    let file = |path: std::path::PathBuf| json!({ "filename": path });
    tls.then(|| {
        json!({
            "@type": DOWNSTREAM,
            "require_client_certificate": true,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": file(server.certificate_file()),
                    "private_key": file(server.key_file()),
                }],
                "validation_context": { "trusted_ca": file(server.ca_file()) },
            },
        })
    })
}

pub(super) fn our_tls(tls: bool) -> Option<Value> {
    tls.then(|| {
        json!({
            "@type": DOWNSTREAM,
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificate_provider_instance": { "instance_name": "default" },
                "validation_context": { "ca_certificate_provider_instance": { "instance_name": "default" } },
            },
        })
    })
}

pub(super) fn bootstrap(listeners: &[Value]) -> Value {
    json!({ "static_resources": { "listeners": listeners } })
}

const PATHS: [&str; 10] =
    ["/", "/admin", "/admin/", "/a", "*", "/ADMIN", "//admin", "/%61dmin", "/?q", "/admin?x"];
const NAMES: [&str; 9] = [
    "spiffe://td/ns/shop/sa/good",
    "spiffe://td/",
    "good.shop.test",
    ".shop.test",
    "CN=good",
    "good",
    "x.test",
    "",
    "bad",
];
const REGEXES: [&str; 9] = [".*", ".+", "a*", "/.*", "/admin.*", "admin ?", ".*good.*", "[a-z]+", "\\*|/a"];
