//! Resources in the shape in which istiod sends them to proxyless workloads: accepted whole, and what is not applied is
//! only what is known not to be.

use mesh_core::config::cluster::{Discovery, LbPolicy};
use mesh_core::config::filter::FilterConfig;
use mesh_core::config::listener::RouteSource;
use mesh_core::config::retry::RetryOn;
use mesh_core::config::route::{ClusterSpecifier, RouteAction};
use mesh_core::config::security::TrustAnchors;
use mesh_core::rbac::{Permission, Principal, RbacAction};

use super::*;

const ROUTER: &str = r#"{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#;
const FAULT: &str = r#"{name: envoy.filters.http.fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}"#;
const HCM: &str = r#""@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"#;
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// Both spellings of the certificate providers, as istiod writes them since 1.29.
fn common_tls(sans: &str) -> String {
    format!(
        "common_tls_context:
        tls_certificate_provider_instance: {{instance_name: default, certificate_name: default}}
        tls_certificate_certificate_provider_instance: {{instance_name: default, certificate_name: default}}
        combined_validation_context:
          default_validation_context:
            ca_certificate_provider_instance: {{instance_name: default, certificate_name: ROOTCA}}
            {sans}
          validation_context_certificate_provider_instance: {{instance_name: default, certificate_name: ROOTCA}}"
    )
}

#[test]
fn an_outbound_listener_leads_to_routes_by_name() {
    let yaml = format!(
        "
name: reviews.shop.svc.cluster.local:9080
address: {{socket_address: {{address: 10.96.0.7, port_value: 9080}}}}
api_listener:
  api_listener:
    {HCM}
    rds: {{config_source: {{ads: {{}}, resource_api_version: V3}}, route_config_name: 'outbound|9080||reviews.shop.svc.cluster.local'}}
    http_filters: [{FAULT}, {ROUTER}]
"
    );
    let found = client(&yaml);
    assert_eq!(found.routes, RouteSource::Rds("outbound|9080||reviews.shop.svc.cluster.local".into()));
    assert_eq!(found.filters.len(), 1);
    assert_eq!(unapplied(Kind::Listener, &yaml), ["api_listener.api_listener.http_filters[0]"]);
}

#[test]
fn an_outbound_route_keeps_its_canary_and_its_retries() {
    let yaml = "
name: outbound|9080||reviews.shop.svc.cluster.local
validate_clusters: false
virtual_hosts:
- name: reviews.shop.svc.cluster.local:9080
  domains: [reviews.shop.svc.cluster.local, 'reviews.shop.svc.cluster.local:9080', reviews, 'reviews:9080', reviews.shop]
  routes:
  - name: canary
    match: {prefix: /, case_sensitive: true, headers: [{name: end-user, string_match: {exact: jason}}]}
    decorator: {operation: 'reviews.shop.svc.cluster.local:9080/*'}
    metadata: {filter_metadata: {istio: {config: /apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews}}}
    route:
      weighted_clusters:
        clusters:
        - {name: 'outbound|9080|v1|reviews.shop.svc.cluster.local', weight: 90}
        - {name: 'outbound|9080|v2|reviews.shop.svc.cluster.local', weight: 10}
      max_stream_duration: {max_stream_duration: 3s, grpc_timeout_header_max: 3s}
      retry_policy:
        retry_on: connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes
        num_retries: 2
        retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]
        host_selection_retry_max_attempts: 5
        retriable_status_codes: [503]
  - {match: {prefix: /}, route: {cluster: 'outbound|9080||reviews.shop.svc.cluster.local', timeout: 0s}}
";
    let found = routes(yaml);
    let [canary, rest] = found.virtual_hosts[0].routes.as_slice() else { panic!("{found:?}") };
    let RouteAction::Forward(forward) = &canary.action else { panic!("{canary:?}") };
    let ClusterSpecifier::Weighted(clusters) = &forward.cluster else { panic!("{forward:?}") };
    assert_eq!(clusters.iter().map(|c| c.weight.get()).collect::<Vec<_>>(), [90, 10]);
    let retry = forward.retry.as_ref().unwrap();
    assert!(retry.on.intersects(RetryOn::UNAVAILABLE) && retry.on.intersects(RetryOn::CONNECT_FAILURE));
    assert_eq!((retry.num_retries, retry.retriable_status_codes.len()), (2, 1));
    let RouteAction::Forward(forward) = &rest.action else { panic!("{rest:?}") };
    assert_eq!(forward.timeout, Some(std::time::Duration::ZERO), "no timeout, which is not the implicit one");
    let at = "virtual_hosts[0].routes[0].route.retry_policy";
    assert_eq!(
        unapplied(Kind::Route, yaml),
        [format!("{at}.retry_host_predicate"), format!("{at}.host_selection_retry_max_attempts")]
    );
}

#[test]
fn an_outbound_cluster_speaks_mutual_tls_to_the_accounts_of_the_service() {
    let tls = common_tls("match_subject_alt_names: [{exact: 'spiffe://cluster.local/ns/shop/sa/reviews'}]");
    let yaml = format!(
        "
name: outbound|9080|v1|reviews.shop.svc.cluster.local
type: EDS
eds_cluster_config:
  eds_config: {{ads: {{}}, resource_api_version: V3, initial_fetch_timeout: 0s}}
  service_name: outbound|9080|v1|reviews.shop.svc.cluster.local
lb_policy: LEAST_REQUEST
circuit_breakers: {{thresholds: [{{max_requests: 100}}]}}
metadata: {{filter_metadata: {{istio: {{services: [{{host: reviews.shop.svc.cluster.local, name: reviews, namespace: shop}}]}}}}}}
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
      \"@type\": {TLS}.UpstreamTlsContext
      sni: outbound_.9080_.v1_.reviews.shop.svc.cluster.local
      {tls}
"
    );
    let found = cluster(&yaml);
    assert_eq!(found.lb, LbPolicy::LeastRequest { choices: 2 });
    assert!(
        matches!(&found.discovery, Discovery::Eds { service } if service.starts_with("outbound|9080|v1|"))
    );
    let tls = found.tls.as_ref().unwrap();
    assert!(tls.identity.is_some() && tls.sans.len() == 1 && tls.sni.is_some());
    assert!(matches!(&tls.roots, TrustAnchors::Provider(p) if &*p.certificate == "ROOTCA"));
    let labels = found.telemetry.as_ref().unwrap();
    assert_eq!((&*labels.name, &*labels.namespace), ("reviews", "shop"));
    assert!(unapplied(Kind::Cluster, &yaml).is_empty());
}

#[test]
fn an_assignment_carries_labels_and_failover_priorities() {
    let endpoint = |address: &str, version: &str| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: 9080}}}}}}, health_status: HEALTHY, load_balancing_weight: 1,
      metadata: {{filter_metadata: {{envoy.transport_socket_match: {{tlsMode: istio}}, istio: {{workload: 'reviews-{version};shop;reviews;{version};Kubernetes'}}}}}}}}"
        )
    };
    let yaml = format!(
        "
cluster_name: outbound|9080||reviews.shop.svc.cluster.local
endpoints:
- {{locality: {{region: r1, zone: z1}}, load_balancing_weight: 2, lb_endpoints: [{}, {}]}}
- {{locality: {{region: r2, zone: z1}}, load_balancing_weight: 1, priority: 1, lb_endpoints: [{}]}}
",
        endpoint("10.1.0.1", "v1"),
        endpoint("10.1.0.2", "v2"),
        endpoint("10.2.0.1", "v1")
    );
    let found = endpoints(&yaml);
    assert_eq!(found.priorities.iter().map(|p| p.localities.len()).collect::<Vec<_>>(), [1, 1]);
    let versions: Vec<_> = found
        .iter()
        .map(|e| e.extra.as_ref().unwrap().workload.as_ref().unwrap().canonical_revision.to_string())
        .collect();
    assert_eq!(versions, ["v1", "v2", "v1"]);
    assert!(unapplied(Kind::Endpoints, &yaml).is_empty());
}

#[test]
fn an_inbound_listener_under_strict_mtls_denies_before_it_allows() {
    let deny = r#"{name: envoy.filters.http.rbac.DENY, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
        rules: {action: DENY, policies: {"shop-deny-0": {
          permissions: [{and_rules: {rules: [{or_rules: {rules: [{url_path: {path: {prefix: /admin}}}]}}]}}],
          principals: [{and_ids: {ids: [{not_id: {or_ids: {ids: [{authenticated: {principal_name: {safe_regex: {regex: ".*/ns/shop/.*"}}}}]}}}]}}]}}}}}"#;
    let allow = r#"{name: envoy.filters.http.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
        rules: {policies: {"shop-allow-0": {
          permissions: [{and_rules: {rules: [{or_rules: {rules: [{header: {name: ":method", string_match: {exact: GET}}}]}}]}}],
          principals: [{and_ids: {ids: [{or_ids: {ids: [{authenticated: {principal_name: {exact: "spiffe://cluster.local/ns/shop/sa/productpage"}}}]}}]}}]}}}}}"#;
    let tls = common_tls("");
    let yaml = format!(
        "
name: xds.istio.io/grpc/lds/inbound/0.0.0.0:9080
traffic_direction: INBOUND
address: {{socket_address: {{address: 0.0.0.0, port_value: 9080}}}}
filter_chains:
- name: inbound-mtls
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      \"@type\": {TLS}.DownstreamTlsContext
      require_client_certificate: true
      {tls}
  filters:
  - name: inbound-hcm
    typed_config:
      {HCM}
      route_config: {{name: inbound, virtual_hosts: [{{domains: ['*'], routes: [{{match: {{prefix: /}}, decorator: {{operation: '*'}}, non_forwarding_action: {{}}}}]}}]}}
      http_filters:
      - {deny}
      - {allow}
      - {ROUTER}
"
    );
    let found = server(&yaml);
    let [chain] = found.chains.as_slice() else { panic!("{found:?}") };
    let tls = chain.tls.as_ref().unwrap();
    assert!(tls.require_client_certificate && tls.client_roots.is_some() && tls.client_sans.is_empty());
    let rules = chain.http.filters.iter().filter_map(|f| match &f.config {
        FilterConfig::Rbac(rbac) => Some(rbac.clone()),
        FilterConfig::Router => None,
    });
    let rules: Vec<_> = rules.collect();
    assert_eq!(rules.iter().map(|r| r.action).collect::<Vec<_>>(), [RbacAction::Deny, RbacAction::Allow]);
    assert!(matches!(rules[0].policies[0].permissions[0], Permission::And(_)));
    assert!(matches!(rules[1].policies[0].principals[0], Principal::And(_)));
    assert!(unapplied(Kind::Listener, &yaml).is_empty());
}

#[test]
fn an_inbound_chain_that_matches_by_alpn_is_left_out() {
    let chain = |name: &str, matches: &str| {
        format!(
            "{{name: {name}, filter_chain_match: {{{matches}}}, filters: [{{name: hcm, typed_config: {{{HCM}, route_config: {{}}, http_filters: [{ROUTER}]}}}}]}}"
        )
    };
    let yaml = format!(
        "name: l\naddress: {{socket_address: {{address: 0.0.0.0, port_value: 9080}}}}\nfilter_chains: [{}, {}]",
        chain("mtls", "application_protocols: [istio, istio-h2], transport_protocol: tls"),
        chain("plain", "transport_protocol: raw_buffer")
    );
    let found = server(&yaml);
    assert_eq!(found.chains.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["plain"]);
    assert!(found.chains[0].matches.raw_buffer);
    let at = "filter_chains[0].filter_chain_match";
    assert_eq!(
        unapplied(Kind::Listener, &yaml),
        [format!("{at}.transport_protocol"), format!("{at}.application_protocols")]
    );
}
