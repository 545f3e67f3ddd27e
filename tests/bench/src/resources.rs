//! The configuration of the xDS peers, one text for all of them: several virtual hosts and routes, a retry policy,
//! circuit breakers, mTLS with a SAN match, one endpoint (one connection, as every other peer has).

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::certs::SERVER_ID;

/// Node id in bootstraps and control plane.
pub(crate) const NODE: &str = "bench-client";
/// Certificate-provider instance name in bootstraps and contexts.
pub(crate) const PROVIDER: &str = "bench";
/// What the channel asks for.
pub(crate) const TARGET: &str = "xds:///echo.bench.svc:443";

const LISTENER: &str = "echo.bench.svc:443";
const CLUSTER: &str = "echo";
const DECOYS: usize = 8;

/// Listener, cluster and endpoints of the client's target.
pub(crate) fn client(server: SocketAddr) -> Vec<Value> {
    vec![listener(), cluster(), endpoints(server)]
}

fn listener() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": LISTENER,
        "api_listener": {"api_listener": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "route_config": {"name": "bench", "virtual_hosts": virtual_hosts()},
            "http_filters": [router()],
        }},
    })
}

/// The router filter, last in every chain.
pub(crate) fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    })
}

fn virtual_hosts() -> Vec<Value> {
    let mut hosts: Vec<_> = (0..DECOYS)
        .map(|n| {
            json!({
                "name": format!("other-{n}"),
                "domains": [format!("other-{n}.bench.svc"), format!("other-{n}.bench.svc:443")],
                "routes": [route(&format!("/other.v{n}.Service/"))],
            })
        })
        .collect();
    let mut routes: Vec<_> = (0..DECOYS).map(|n| route(&format!("/bench.v1.Other{n}/"))).collect();
    routes.push(route("/bench.v1.Echo/"));
    routes.push(route("/"));
    hosts.push(json!({"name": "echo", "domains": [LISTENER, "echo.bench.svc", "*"], "routes": routes}));
    hosts
}

fn route(prefix: &str) -> Value {
    json!({
        "match": {"prefix": prefix},
        "route": {
            "cluster": CLUSTER,
            "retry_policy": {
                "retry_on": "unavailable,resource-exhausted,cancelled",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            },
        },
    })
}

fn cluster() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": CLUSTER,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [{
            "max_connections": 64, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 16,
        }]},
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": common_tls(SERVER_ID),
            },
        },
    })
}

fn endpoints(server: SocketAddr) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{
            "locality": {"region": "here", "zone": "a"},
            "load_balancing_weight": 1,
            "lb_endpoints": [{
                "endpoint": {"address": {"socket_address": {
                    "address": server.ip().to_string(), "port_value": server.port(),
                }}},
                "health_status": "HEALTHY",
                "load_balancing_weight": 1,
            }],
        }],
    })
}

fn common_tls(peer: &str) -> Value {
    json!({
        "alpn_protocols": ["h2"],
        "tls_certificate_provider_instance": {"instance_name": PROVIDER},
        "validation_context": {
            "ca_certificate_provider_instance": {"instance_name": PROVIDER},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    })
}
