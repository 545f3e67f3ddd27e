//! Texts and the resources they hold.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use prost::Message;

use super::*;

const YAML: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  clusters:
  - name: ratings
    connect_timeout: 0.25s
    type: STATIC
    lb_policy: LEAST_REQUEST
    circuit_breakers: {thresholds: [{max_requests: 7}]}
"#;

fn refused(text: &str, format: Format) -> String {
    parse(text, format).unwrap_err().to_string()
}

#[test]
fn envoys_static_resources_are_read_as_envoy_writes_them() {
    let found = parse(YAML, Format::Yaml).unwrap();
    let [cluster] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(cluster.place, "static_resources.clusters[0]");
    assert_eq!(cluster.name.as_deref(), Some("ratings"));
    assert_eq!(cluster.type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    let pb = Cluster::decode(cluster.value.as_slice()).unwrap();
    assert_eq!(pb.connect_timeout.map(|d| d.nanos), Some(250_000_000));
    assert_eq!(pb.lb_policy, 1);
    assert_eq!(pb.circuit_breakers.unwrap().thresholds[0].max_requests.unwrap().value, 7);
}

#[test]
fn json_and_yaml_give_the_same_bytes_in_every_form() {
    let type_url = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    let one = format!(r#"{{"@type": "{type_url}", "cluster_name": "a"}}"#);
    // The type may stand last, as a map's order has no meaning.
    let turned = format!("cluster_name: a\n\"@type\": {type_url}\n");
    let list = format!("[{one}]");
    let under = format!(r#"{{"version_info": "7", "resources": [{one}]}}"#);
    let first = parse(&one, Format::Json).unwrap().remove(0);
    assert_eq!((first.place.as_str(), first.name.as_deref()), ("", Some("a")));
    for (text, place) in [(&turned, ""), (&list, "[0]"), (&under, "resources[0]")] {
        let again = parse(text, Format::Yaml).unwrap().remove(0);
        assert_eq!((&again.value, again.place.as_str()), (&first.value, place), "{text}");
    }
    assert_eq!(parse(&under, Format::Json).unwrap().remove(0).value, first.value);
}

#[test]
fn enumerations_and_switches_are_read_as_envoys_loader_reads_them() {
    let of = |fields: &str, format| {
        let text = match format {
            Format::Yaml => format!("static_resources: {{clusters: [{{name: c, {fields}}}]}}"),
            Format::Json => {
                format!("{{\"static_resources\": {{\"clusters\": [{{\"name\": \"c\", {fields}}}]}}}}")
            }
        };
        Cluster::decode(parse(&text, format).unwrap_or_else(|e| panic!("{e}: {text}"))[0].value.as_slice())
            .unwrap()
    };
    for policy in ["LEAST_REQUEST", "least_request", "Least_Request", "least-request", "1", "'1'"] {
        assert_eq!(of(&format!("lb_policy: {policy}"), Format::Yaml).lb_policy, 1, "{policy}");
    }
    for policy in ["\"least_request\"", "\"1\"", "1"] {
        assert_eq!(of(&format!("\"lbPolicy\": {policy}"), Format::Json).lb_policy, 1, "{policy}");
    }
    // Within lists, maps and extensions, whatever the spelling of the fields.
    for list in [
        "circuit_breakers: {thresholds: [{priority: high}]}",
        "circuitBreakers: {thresholds: [{priority: 1}]}",
    ] {
        assert_eq!(of(list, Format::Yaml).circuit_breakers.unwrap().thresholds[0].priority, 1, "{list}");
    }
    let policy = "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
    let extension = |fields: &str| {
        of(
            &format!(
                "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: n, typed_config: {{{fields}}}}}}}]}}"
            ),
            Format::Yaml,
        )
    };
    let exact = extension(&format!("'@type': {policy}, selection_method: FULL_SCAN"));
    assert_eq!(extension(&format!("'@type': {policy}, selection_method: full_scan")), exact);
    assert_eq!(
        extension(&format!("selectionMethod: full_scan, '@type': {policy}")),
        exact,
        "the type may stand last"
    );
    let exact =
        of("track_cluster_stats: {timeout_budgets: true}, ignore_health_on_host_removal: true", Format::Yaml);
    let texts = "track_cluster_stats: {timeout_budgets: 'true'}, ignore_health_on_host_removal: 'true'";
    assert_eq!(of(texts, Format::Yaml), exact);
    // Numbers as texts, in messages that hold one and as they are.
    let sizes = |n: &str| {
        format!("per_connection_buffer_limit_bytes: {n}, ring_hash_lb_config: {{minimum_ring_size: {n}}}")
    };
    assert_eq!(of(&sizes("'7'"), Format::Yaml), of(&sizes("7"), Format::Yaml));
}

#[test]
fn what_no_case_makes_a_value_is_refused_where_it_is() {
    let yaml = |fields: &str| {
        refused(&format!("static_resources:\n  clusters:\n  - name: c\n    {fields}\n"), Format::Yaml)
    };
    let exact = yaml("lb_policy: LEAST_REQUESTS");
    assert!(exact.contains("LEAST_REQUESTS") && exact.starts_with("line "), "{exact}");
    let lower = yaml("lb_policy: least_requests");
    assert!(lower.contains("least_requests") && lower.starts_with("line "), "{lower}");
    // The first error was that of another case: the one that is left has no place.
    let other = yaml("lb_policy: least_request\n    connect_timeuot: 1s");
    assert!(other.contains("connect_timeuot"), "{other}");
}

#[test]
fn an_extension_within_an_extension_is_encoded() {
    let text = r#"
"@type": type.googleapis.com/envoy.config.listener.v3.Listener
name: shop
api_listener:
  api_listener:
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    rds: {route_config_name: shop, config_source: {ads: {}}}
    http_filters:
    - name: router
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;
    let found = parse(text, Format::Yaml).unwrap().remove(0);
    let rules = crate::resource::Rules::default();
    let decoded = crate::resource::decode(crate::ads::Kind::Listener, &found.type_url, &found.value, &rules);
    assert!(decoded.verdict.is_ok(), "{decoded:?}");
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_column() {
    let unknown = YAML.replace("lb_policy", "lb_polcy");
    let text = refused(&unknown, Format::Yaml);
    assert_eq!(text, "line 5, column 5: unrecognized field name 'lb_polcy'");
    let text = refused("{\"resources\": [\n{\"@type\": \"a/b.C\"}]}", Format::Json);
    assert!(text.starts_with("line 2, column ") && text.contains("'b.C' not found"), "{text}");
    let text = refused("resources: [", Format::Yaml);
    assert!(text.starts_with("line 1, column "), "{text}");
    assert!(refused("{", Format::Json).starts_with("line 1, column "));
}

#[test]
fn a_text_that_holds_something_else_is_refused() {
    assert!(refused("layers: 3", Format::Yaml).contains(r#""layers" has no meaning here"#));
    // What is served is resources, and they are passed on whole: nothing is left out.
    assert!(
        refused("layered_runtime: {}", Format::Yaml).contains(r#""layered_runtime" has no meaning here"#)
    );
    assert!(refused("admin: {}", Format::Yaml).contains("neither resources nor static_resources"));
    assert!(refused("7", Format::Yaml).contains("a resource, a list of resources"));
    assert!(
        refused("static_resources: {secrets: [{name: a}]}", Format::Yaml)
            .contains("secrets is not supported")
    );
    let long = " ".repeat(MAX_TEXT_BYTES + 1);
    assert!(refused(&long, Format::Yaml).contains("more than the limit"));
}

#[test]
fn a_resource_of_a_kind_that_is_not_asked_for_keeps_its_type() {
    let text =
        r#"{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "s"}"#;
    let found = parse(text, Format::Json).unwrap().remove(0);
    assert_eq!(found.type_url, "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret");
    assert_eq!(found.name.as_deref(), Some("s"));
}

#[test]
fn the_format_of_a_file_is_told_by_its_name() {
    let of = |name: &str| Format::of_path(std::path::Path::new(name));
    assert_eq!(
        (of("a.json"), of("a.JSON"), of("a.yaml"), of("a")),
        (Format::Json, Format::Json, Format::Yaml, Format::Yaml)
    );
}
