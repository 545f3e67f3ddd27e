//! Fields that change the value and no behaviour.

use super::Row;

pub(super) const SAME: &[Row] = &[
    ("as `UNKNOWN`", "inline", "envoy.config.endpoint.v3.LbEndpoint", &["health_status=HEALTHY"]),
    ("as `UNKNOWN`", "endpoints", "envoy.config.endpoint.v3.LbEndpoint", &["health_status=HEALTHY"]),
    (
        "the cluster is named by itself",
        "inline",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        &["cluster_name"],
    ),
    (
        "localities within a cluster need no names, and may share one",
        "inline",
        "envoy.config.core.v3.Locality",
        &["region", "zone", "sub_zone"],
    ),
    ("there once in its chain, which is checked", "server", "envoy.config.listener.v3.Filter", &["name"]),
    ("a name for logs", "server", "envoy.config.listener.v3.FilterChain", &["name"]),
    ("a name for logs", "route", "envoy.config.route.v3.VirtualHost", &["name"]),
    (
        "plaintext, as without a transport socket",
        "cluster",
        "envoy.config.core.v3.TransportSocket",
        &["typed_config=envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"],
    ),
    (
        "plaintext, as without a transport socket",
        "server",
        "envoy.config.core.v3.TransportSocket",
        &["typed_config=envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"],
    ),
];
