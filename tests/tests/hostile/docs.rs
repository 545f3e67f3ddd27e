//! Good resources, as documents: rich in what can be broken, and good enough to carry traffic.

use std::net::SocketAddr;

use mesh_xds::testing::parse;
use mesh_xds::{Format, Kind};
use serde_json::{Value, json};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What a document describes. Both kinds of listeners are of the same type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// A listener with an `api_listener`.
    Client,
    /// A listener with filter chains.
    Server,
    Route,
    Cluster,
    Endpoints,
}

/// A good resource.
#[derive(Debug, Clone)]
pub(crate) struct Doc {
    pub(crate) shape: Shape,
    pub(crate) name: String,
    pub(crate) json: Value,
}

// === impl Shape ===

impl Shape {
    pub(crate) const ALL: [Self; 5] =
        [Self::Client, Self::Server, Self::Route, Self::Cluster, Self::Endpoints];

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Client | Self::Server => Kind::Listener,
            Self::Route => Kind::Route,
            Self::Cluster => Kind::Cluster,
            Self::Endpoints => Kind::Endpoints,
        }
    }
}

// === impl Doc ===

impl Doc {
    /// A client listener whose routes are of another name. `seconds` makes it another value.
    pub(crate) fn client(name: &str, routes: &str, seconds: u32) -> Self {
        let json = json!({
            "name": name,
            "api_listener": {"api_listener": {
                "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "s",
                "rds": {"route_config_name": routes, "config_source": {"ads": {}}},
                "common_http_protocol_options": {
                    "max_stream_duration": format!("{seconds}s"),
                    "idle_timeout": "300s",
                },
                "http2_protocol_options": {"max_concurrent_streams": 100},
                "http_filters": [router()],
            }},
        });
        Self { shape: Shape::Client, name: name.to_owned(), json }
    }

    /// A server listener that lets everybody in.
    pub(crate) fn server(name: &str, address: SocketAddr, tls: bool) -> Self {
        let everybody = json!({
            "policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}]}}
        });
        let mut chain = json!({
            "name": "c",
            "filter_chain_match": {},
            "filters": [
                {"name": "rbac", "typed_config": {
                    "@type": format!("{FILTERS}.network.rbac.v3.RBAC"), "stat_prefix": "s", "rules": everybody,
                }},
                {"name": "hcm", "typed_config": {
                    "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "s",
                    "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                        {"match": {"prefix": "/"}, "non_forwarding_action": {}},
                    ]}]},
                    "common_http_protocol_options": {},
                    "http2_protocol_options": {"max_concurrent_streams": 1000},
                    "http_filters": [
                        {"name": "rbac", "typed_config": {
                            "@type": format!("{FILTERS}.http.rbac.v3.RBAC"), "rules": everybody,
                        }},
                        router(),
                    ],
                }},
            ],
        });
        if tls {
            chain["transport_socket"] = socket("DownstreamTlsContext");
        }
        let json = json!({
            "name": name,
            "address": {"socket_address": {
                "address": address.ip().to_string(), "port_value": address.port(),
            }},
            "filter_chains": [chain],
        });
        Self { shape: Shape::Server, name: name.to_owned(), json }
    }

    /// Routes of which one is for everything, to one cluster. `tag` makes it another value.
    pub(crate) fn route(name: &str, cluster: &str, tag: u32) -> Self {
        let json = json!({
            "name": name,
            "virtual_hosts": [
                {"name": "v", "domains": ["*"], "routes": [
                    {
                        "match": {
                            "path": "/never",
                            "headers": [{"name": "x-a", "string_match": {"exact": format!("tag-{tag}")}}],
                            "query_parameters": [{"name": "q", "string_match": {"exact": "b"}}],
                            "runtime_fraction": {"default_value": {"numerator": 5}},
                        },
                        "route": {
                            "weighted_clusters": {"clusters": [{"name": cluster, "weight": 1}]},
                            "max_stream_duration": {"max_stream_duration": "5s"},
                            "retry_policy": {
                                "retry_on": "unavailable", "retry_back_off": {"base_interval": "1s"},
                            },
                        },
                    },
                    {
                        "match": {"prefix": "/teapot"},
                        "direct_response": {"status": 418, "body": {"inline_string": "short and stout"}},
                    },
                    {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
                ]},
                {"name": "w", "domains": ["other.test"]},
            ],
        });
        Self { shape: Shape::Route, name: name.to_owned(), json }
    }

    /// An EDS cluster of HTTP/2. `seconds` makes it another value.
    pub(crate) fn cluster(name: &str, tls: bool, seconds: u32) -> Self {
        let mut json = json!({
            "name": name,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": {"ads": {}}},
            "connect_timeout": format!("{seconds}s"),
            "lb_policy": "ROUND_ROBIN",
            "common_lb_config": {"healthy_panic_threshold": {"value": 50.0}},
            "circuit_breakers": {
                "thresholds": [{"max_requests": 1000, "retry_budget": {"budget_percent": {"value": 20.0}}}],
                "per_host_thresholds": [{"max_connections": 100}],
            },
            "typed_extension_protocol_options": {OPTIONS: {
                "@type": format!("type.googleapis.com/{OPTIONS}"),
                "common_http_protocol_options": {},
                "upstream_http_protocol_options": {},
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "300s", "timeout": "60s"},
                }},
            }},
        });
        if tls {
            json["transport_socket"] = socket("UpstreamTlsContext");
        }
        Self { shape: Shape::Cluster, name: name.to_owned(), json }
    }

    /// One endpoint.
    pub(crate) fn endpoints(name: &str, address: SocketAddr) -> Self {
        let json = json!({
            "cluster_name": name,
            "policy": {"drop_overloads": [{"category": "a", "drop_percentage": {"numerator": 0}}]},
            "endpoints": [{
                "locality": {"zone": "z"},
                "load_balancing_weight": 1,
                "lb_endpoints": [{
                    "endpoint": {"address": {"socket_address": {
                        "address": address.ip().to_string(), "port_value": address.port(),
                    }}},
                    "health_status": "HEALTHY",
                    "load_balancing_weight": 1,
                }],
            }],
        });
        Self { shape: Shape::Endpoints, name: name.to_owned(), json }
    }

    /// A document of each shape, with all that can be broken.
    pub(crate) fn rich(shape: Shape, name: &str) -> Self {
        let nowhere = SocketAddr::from(([10, 0, 0, 1], 80));
        match shape {
            Shape::Client => Self::client(name, name, 60),
            Shape::Server => Self::server(name, nowhere, true),
            Shape::Route => Self::route(name, name, 0),
            Shape::Cluster => Self::cluster(name, true, 5),
            Shape::Endpoints => Self::endpoints(name, nowhere),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.shape.kind()
    }

    /// The message's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        encode(self.kind(), &self.json).unwrap_or_else(|error| panic!("{error}\n{:#}", self.json))
    }
}

/// The bytes of a document, if it is one of the Envoy API.
pub(crate) fn encode(kind: Kind, json: &Value) -> Result<Vec<u8>, String> {
    let mut json = json.clone();
    json["@type"] = kind.type_url().into();
    let found = parse(&json.to_string(), Format::Json).map_err(|error| error.to_string())?;
    found.into_iter().next().map(|found| found.value).ok_or_else(|| "no resource".to_owned())
}

fn router() -> Value {
    json!({"name": "router", "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")}})
}

fn socket(context: &str) -> Value {
    json!({"name": "tls", "typed_config": {
        "@type": format!("{TLS}.{context}"),
        "common_tls_context": {
            "tls_certificate_provider_instance": {"instance_name": "default"},
            "combined_validation_context": {"default_validation_context": {
                "ca_certificate_provider_instance": {"instance_name": "default"},
            }},
        },
    }})
}
