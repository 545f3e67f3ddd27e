//! Valid resources that together use every message the validators know: where mutations and probes start from.

use crate::ads::Kind;

const PREFIX: &str = "type.googleapis.com/envoy.extensions";

/// A client listener, a server listener, a cluster, routes and endpoints, as the YAML of their fields.
pub(crate) fn seeds() -> Vec<(Kind, String)> {
    let hcm = format!("\"@type\": {PREFIX}.filters.network.http_connection_manager.v3.HttpConnectionManager");
    let router =
        format!("{{name: router, typed_config: {{\"@type\": {PREFIX}.filters.http.router.v3.Router}}}}");
    let rules = "rules: {audit_logging_options: {logger_configs: [{is_optional: true}]}, policies: {p: {permissions: [{destination_port: 9}], principals: [{authenticated: {principal_name: {exact: a}}}]}}}";
    let http_rbac =
        format!("{{name: rbac, typed_config: {{\"@type\": {PREFIX}.filters.http.rbac.v3.RBAC, {rules}}}}}");
    let network_rbac = format!(
        "{{name: rbac, typed_config: {{\"@type\": {PREFIX}.filters.network.rbac.v3.RBAC, {rules}}}}}"
    );
    let common = "tls_certificate_provider_instance: {instance_name: default}, combined_validation_context: {default_validation_context: {ca_certificate_provider_instance: {instance_name: default}}}";
    let downstream = format!(
        "{{name: tls, typed_config: {{\"@type\": {PREFIX}.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{{common}}}}}}}"
    );
    let upstream = format!(
        "{{name: tls, typed_config: {{\"@type\": {PREFIX}.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{{common}}}}}}}"
    );
    let options = format!(
        "{{\"@type\": {PREFIX}.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {{}}, upstream_http_protocol_options: {{}}, explicit_http_config: {{http2_protocol_options: {{connection_keepalive: {{interval: 1s, timeout: 1s}}}}}}}}"
    );
    let manager = |routes: &str| {
        format!(
            "{{{hcm}, {routes}, common_http_protocol_options: {{}}, http2_protocol_options: {{}}, http_filters: [{http_rbac}, {router}]}}"
        )
    };
    let client_manager = manager("rds: {route_config_name: r, config_source: {ads: {}}}")
        .replace(&format!("{http_rbac}, "), "");
    let routes = "
virtual_hosts:
- name: v
  domains: [a]
  routes:
  - match:
      path: /
      headers: [{name: a, exact_match: b}]
      query_parameters: [{name: a, string_match: {exact: b}}]
      runtime_fraction: {default_value: {numerator: 5}}
    route:
      weighted_clusters: {clusters: [{name: c, weight: 1}]}
      max_stream_duration: {}
      retry_policy: {retry_back_off: {base_interval: 1s}}
  - {match: {prefix: /a}, direct_response: {status: 200, body: {inline_string: a}}}
";
    vec![
        (Kind::Listener, format!("name: l\napi_listener: {{api_listener: {client_manager}}}")),
        (
            Kind::Listener,
            format!(
                "name: l\naddress: {{socket_address: {{address: 10.0.0.1, port_value: 80}}}}\nfilter_chains: [{{name: c, transport_socket: {downstream}, filter_chain_match: {{}}, filters: [{network_rbac}, {{name: hcm, typed_config: {}}}]}}]",
                manager("route_config: {}")
            ),
        ),
        (
            Kind::Cluster,
            format!(
                "name: c\ntype: EDS\neds_cluster_config: {{eds_config: {{ads: {{}}}}}}\ncommon_lb_config: {{}}\ntransport_socket: {upstream}\ncircuit_breakers: {{thresholds: [{{retry_budget: {{}}}}], per_host_thresholds: [{{}}]}}\ntyped_extension_protocol_options: {{o: {options}}}"
            ),
        ),
        (Kind::Route, format!("name: r\n{routes}")),
        (
            Kind::Endpoints,
            "
cluster_name: c
policy: {drop_overloads: [{category: a, drop_percentage: {numerator: 5}}]}
endpoints:
- locality: {zone: z}
  load_balancing_weight: 1
  lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]
"
            .to_owned(),
        ),
    ]
}
