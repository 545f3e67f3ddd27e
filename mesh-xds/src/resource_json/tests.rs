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
    assert_eq!(
        text,
        "line 8, column 5: static_resources.clusters[0].lb_polcy: there is no such field in envoy.config.cluster.v3.Cluster"
    );
    let text = refused("{\"resources\": [\n{\"@type\": \"a/b.C\"}]}", Format::Json);
    assert!(text.starts_with("line 2, column "), "{text}");
    assert!(text.ends_with(": resources[0]: extension \"a/b.C\" is not known"), "{text}");
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
    for nothing in ["7", "", "# nothing\n\n", "~"] {
        assert!(
            refused(nothing, Format::Yaml).contains("neither resources nor static_resources"),
            "{nothing}"
        );
    }
    assert_eq!(
        refused("static_resources: {secrets: [{name: a}]}", Format::Yaml),
        "line 1, column 20: static_resources.secrets: is not supported"
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

/// What an application is told of a text, without lines and columns; each has one.
fn problems(text: &str) -> Vec<String> {
    let invalid = parse_own(text, Format::Yaml).unwrap_or_else(|e| panic!("{e}: {text}")).invalid;
    let told = |invalid: &InvalidText| {
        assert!(invalid.position.is_some(), "{invalid}");
        InvalidText { position: None, ..invalid.clone() }.to_string()
    };
    invalid.iter().map(told).collect()
}

#[test]
fn a_field_that_is_given_twice_is_refused_in_whatever_spelling() {
    let json = |text: &str| {
        let told = refused(text, Format::Json);
        told.split_once(": ").map(|(_, told)| told.to_owned()).unwrap_or(told)
    };
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    for (text, told) in [
        (r#"{"static_resources": {}, "static_resources": {}}"#, r#""static_resources" is given twice"#),
        (r#"{"static_resources": {}, "staticResources": {}}"#, r#""static_resources" is given twice"#),
        (
            r#"{"static_resources": {"clusters": [{"name": "a", "name": "b"}]}}"#,
            r#"static_resources.clusters[0]: "name" is given twice"#,
        ),
        (
            r#"{"static_resources": {"clusters": [{"name": "a", "lbPolicy": "RANDOM", "lb_policy": "MAGLEV"}]}}"#,
            r#"static_resources.clusters[0].lb_policy: "lb_policy" is given twice"#,
        ),
        (
            &format!(
                r#"{{"resources": [{{"@type": "{cluster}", "lbPolicy": null, "lb_policy": "MAGLEV"}}]}}"#
            ),
            r#"resources[0].lb_policy: "lb_policy" is given twice"#,
        ),
    ] {
        assert_eq!(json(text), told, "{text}");
    }
    let twice = "static_resources:\n  clusters:\n  - name: a\n    name: b\n";
    let told = "line 4, column 5: static_resources.clusters[0]: \"name\" is given twice";
    assert_eq!(refused(twice, Format::Yaml), told);
    // Keys of maps are no names of fields.
    let keys = "static_resources: {clusters: [{name: a, metadata: {filter_metadata: {a_b: {c_d: 1, cD: 2}, aB: {}}}}]}";
    let found = parse(keys, Format::Yaml).unwrap();
    let metadata = Cluster::decode(found[0].value.as_slice()).unwrap().metadata.unwrap().filter_metadata;
    assert_eq!((metadata.len(), metadata["a_b"].fields.len()), (2, 2));
}

#[test]
fn everything_that_is_wrong_is_told_by_its_path_and_the_rest_is_read() {
    let text = r#"
static_resources:
  clusters:
  - name: a
    conect_timeout: 1s
    lb_policy: RINGHASH
    circuit_breakers: {thresholds: [{}, {max_requests: -1, priority: [high]}]}
  - name: b
    connect_timeout: 1x
    typed_extension_protocol_options: {a.b: {'@type': type.googleapis.com/envoy.config.cluster.v3.Filter, named: x}}
  - {name: c, lb_policy: least_request}
  - name: d
    transport_socket: {name: tls, typed_config: {sni: x}}
    load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: a}, socket_address: {}}}}]}]}
  listenrs: []
"#;
    let at = |path: &str| format!("static_resources.{path}");
    let of = |message: &str| format!("there is no such field in envoy.config.{message}");
    assert_eq!(
        problems(text),
        [
            at(&format!("clusters[0].conect_timeout: {}", of("cluster.v3.Cluster"))),
            at("clusters[0].lb_policy: unrecognized enum value 'RINGHASH'"),
            at("clusters[0].circuit_breakers.thresholds[1].max_requests: is out of range"),
            at(
                "clusters[0].circuit_breakers.thresholds[1].priority: invalid type: sequence, expected a string or integer"
            ),
            at("clusters[1].connect_timeout: is not a duration, such as \"0.25s\""),
            at(&format!(
                "clusters[1].typed_extension_protocol_options[\"a.b\"].named: {}",
                of("cluster.v3.Filter")
            )),
            at("clusters[3].transport_socket.typed_config: has no @type that says what it is"),
            at(
                "clusters[3].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address: multiple fields provided for oneof 'address'"
            ),
            at(&format!("listenrs: {}", of("bootstrap.v3.Bootstrap.StaticResources"))),
        ]
    );
    let read = parse_own(text, Format::Yaml).unwrap().resources;
    let [third] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((third.place.as_str(), third.name.as_deref()), ("static_resources.clusters[2]", Some("c")));
    // A control plane serves a text whole or not at all.
    assert!(refused(text, Format::Yaml).contains("clusters[0].conect_timeout"));
}

#[test]
fn one_element_stands_for_a_list_as_with_envoys_loader() {
    let text = "resources: {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: c, circuit_breakers: {thresholds: {max_requests: 7, priorty: 1}}}";
    assert_eq!(
        problems(text),
        [
            "resources[0].circuit_breakers.thresholds[0].priorty: there is no such field in envoy.config.cluster.v3.CircuitBreakers.Thresholds"
        ]
    );
    let found = parse(&text.replace(", priorty: 1", ""), Format::Yaml).unwrap();
    let breakers = Cluster::decode(found[0].value.as_slice()).unwrap().circuit_breakers.unwrap();
    assert_eq!(breakers.thresholds[0].max_requests.unwrap().value, 7);
    assert_eq!(found[0].place, "resources[0]");
}

#[test]
fn sections_are_read_in_both_spellings_and_may_be_empty() {
    let found = parse("staticResources: {clusters: [{name: a}], listeners: }", Format::Yaml).unwrap();
    assert_eq!(found[0].name.as_deref(), Some("a"));
    assert_eq!(parse("static_resources: ~\nresources: ~\nadmin: ~", Format::Yaml), Ok(Vec::new()));
}

#[test]
fn anchors_and_merge_keys_are_read_and_bounded() {
    let found = parse(
        "static_resources: {clusters: [&c {name: a, lb_policy: RANDOM}, {<<: *c, name: b}, *c]}",
        Format::Yaml,
    );
    let names = |found: &EncodedResource| {
        let pb = Cluster::decode(found.value.as_slice()).unwrap();
        (pb.name, pb.lb_policy)
    };
    let found = found.unwrap().iter().map(names).collect::<Vec<_>>();
    assert_eq!(found, [("a".to_owned(), 3), ("b".to_owned(), 3), ("a".to_owned(), 3)]);
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let repeated = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{repeated}]\n"));
    }
    for (text, told) in [
        ("static_resources: &a\n  clusters: *a\n", "static_resources.clusters: an anchor holds itself"),
        ("resources: []\n---\nresources: []\n", "line 3, column 1: there is more than one document"),
        (&bomb, "repeats more by anchors than is read"),
    ] {
        assert!(refused(text, Format::Yaml).ends_with(told), "{}", refused(text, Format::Yaml));
    }
}

#[test]
fn what_is_written_as_a_number_is_the_text_that_it_is_beside_what_is_corrected() {
    for policy in ["RANDOM", "random"] {
        let text = format!(
            "static_resources: {{clusters: [{{name: 0x50, lb_policy: {policy}, load_assignment: {{cluster_name: 1.10}}}}]}}"
        );
        let found = parse(&text, Format::Yaml).unwrap();
        let pb = Cluster::decode(found[0].value.as_slice()).unwrap();
        assert_eq!((pb.name.as_str(), pb.lb_policy), ("0x50", 3), "{text}");
        assert_eq!(pb.load_assignment.unwrap().cluster_name, "1.10");
    }
}

#[test]
fn what_is_tagged_to_be_ignored_holds_anchors_alone() {
    let of = |limits: &str| {
        format!(
            "
!ignore policies: [&random RANDOM, {{unknown: field}}]
admin: {{address: ~}}
static_resources:
  clusters:
  - name: a
    lb_policy: *random
    {limits}
"
        )
    };
    let limits = "{thresholds: [{max_requests: 7}]}";
    for text in [
        of(&format!("circuit_breakers: {limits}")),
        of(&format!("!ignore note: &limits {limits}\n    circuit_breakers: *limits")),
    ] {
        for found in [parse(&text, Format::Yaml).unwrap(), parse_own(&text, Format::Yaml).unwrap().resources]
        {
            let pb = Cluster::decode(found[0].value.as_slice()).unwrap();
            assert_eq!((found.len(), pb.name.as_str(), pb.lb_policy), (1, "a", 3), "{text}");
            assert_eq!(pb.circuit_breakers.unwrap().thresholds[0].max_requests.unwrap().value, 7);
        }
        let told = refused(&text.replace("!ignore policies", "policies"), Format::Yaml);
        assert!(told.contains("\"policies\" has no meaning here"), "{told}");
    }
}
