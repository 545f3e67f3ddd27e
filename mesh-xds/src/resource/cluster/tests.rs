//! What of a `Cluster` is accepted, with its defaults, and what is refused where.

use std::time::Duration;

use mesh_core::config::cluster::{
    BreakerConfig, ClusterConfig, Discovery, KeepaliveConfig, LbPolicy, RetryBudget, UpstreamProtocol,
};
use mesh_core::config::units::{Limit, PerMillion, Percent};

use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy};
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use prost::Message;

use crate::ads::Kind;
use crate::resource::decode;
use crate::resource::tests::{cluster, encoded, not_applied, refusals, rules, unapplied};

const HTTP: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const LB: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

/// An EDS cluster with these fields.
fn eds(fields: &str) -> String {
    format!("name: c\ntype: EDS\neds_cluster_config: {{eds_config: {{ads: {{}}}}}}\n{fields}")
}

fn http(fields: &str) -> String {
    eds(&format!(
        "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": {HTTP}, {fields}}}}}"
    ))
}

/// A list of balancing policies: the type's path and its fields.
fn lb(policies: &[(&str, &str)]) -> String {
    let one = |(name, fields): &(&str, &str)| {
        format!("{{typed_extension_config: {{name: n, typed_config: {{\"@type\": {LB}.{name}{fields}}}}}}}")
    };
    let list: Vec<_> = policies.iter().map(one).collect();
    eds(&format!("load_balancing_policy: {{policies: [{}]}}", list.join(", ")))
}

#[test]
fn a_cluster_with_a_name_alone_has_every_default() {
    let wanted = ClusterConfig {
        locality_weighted: true,
        ..ClusterConfig::new("c", Discovery::Eds { service: "c".into() })
    };
    assert_eq!(*cluster(&eds("")), wanted);
    assert!(unapplied(Kind::Cluster, &eds("")).is_empty());
}

#[test]
fn endpoints_come_from_eds_or_inline() {
    let found = cluster("name: c\ntype: EDS\neds_cluster_config: {service_name: s, eds_config: {self: {}}}");
    assert_eq!(found.discovery, Discovery::Eds { service: "s".into() });
    let found = cluster("name: c\nload_assignment: {cluster_name: other}");
    assert!(matches!(&found.discovery, Discovery::Static(e) if &*e.name == "other"), "{found:?}");
}

#[test]
fn a_cluster_whose_endpoints_cannot_be_found_is_refused() {
    refusals(
        Kind::Cluster,
        str::to_owned,
        &[
            ("name: c", "load_assignment: is required"),
            ("name: c\ntype: 9", "type: 9 is not a known value"),
            ("name: c\ntype: ORIGINAL_DST", "type: \"ORIGINAL_DST\" is not supported"),
            (
                "name: c\ncluster_type: {name: envoy.clusters.aggregate}",
                "cluster_type: extension \"envoy.clusters.aggregate\" is not supported",
            ),
            ("name: c\ntype: EDS", "eds_cluster_config: is required"),
            ("name: c\ntype: EDS\neds_cluster_config: {}", "eds_cluster_config.eds_config: is required"),
            (
                "name: c\ntype: EDS\neds_cluster_config: {eds_config: {}}",
                "eds_cluster_config.eds_config: is required",
            ),
            (
                "name: c\ntype: EDS\neds_cluster_config: {eds_config: {path: /e}}",
                "eds_cluster_config.eds_config: must be `ads` or `self`",
            ),
            (
                "name: c\nload_assignment: {endpoints: [{lb_endpoints: [{}]}]}",
                "load_assignment.endpoints[0].lb_endpoints[0].endpoint: is required",
            ),
        ],
    );
}

#[test]
fn the_older_field_chooses_the_balancing_policy() {
    let of = |fields: &str| {
        let found = cluster(&eds(fields));
        (found.lb, found.locality_weighted)
    };
    assert_eq!(of("lb_policy: ROUND_ROBIN"), (LbPolicy::RoundRobin, true));
    assert_eq!(of("lb_policy: RANDOM"), (LbPolicy::Random, false));
    assert_eq!(of("lb_policy: LEAST_REQUEST"), (LbPolicy::LeastRequest { choices: 2 }, false));
    let choices =
        |n| of(&format!("lb_policy: LEAST_REQUEST\nleast_request_lb_config: {{choice_count: {n}}}")).0;
    assert_eq!(choices(3), LbPolicy::LeastRequest { choices: 3 });
    assert_eq!(choices(99), LbPolicy::LeastRequest { choices: 10 });
    let weighted = "lb_policy: RANDOM\ncommon_lb_config: {locality_weighted_lb_config: {}}";
    assert_eq!(of(weighted), (LbPolicy::Random, true));
}

#[test]
fn the_first_known_policy_of_the_list_wins() {
    let of = |policies: &[(&str, &str)]| {
        let found = cluster(&lb(policies));
        (found.lb, found.locality_weighted)
    };
    assert_eq!(of(&[("round_robin.v3.RoundRobin", "")]), (LbPolicy::RoundRobin, false));
    assert_eq!(of(&[("maglev.v3.Maglev", ""), ("random.v3.Random", "")]), (LbPolicy::Random, false));
    let weighted = ", locality_lb_config: {locality_weighted_lb_config: {}}";
    assert_eq!(of(&[("random.v3.Random", weighted)]), (LbPolicy::Random, true));
    let choices = ", choice_count: 4";
    assert_eq!(of(&[("least_request.v3.LeastRequest", choices)]).0, LbPolicy::LeastRequest { choices: 4 });
    let inner = format!(
        "{{typed_extension_config: {{name: n, typed_config: {{\"@type\": {LB}.round_robin.v3.RoundRobin}}}}}}"
    );
    let around = format!(", endpoint_picking_policy: {{policies: [{inner}]}}");
    assert_eq!(of(&[("wrr_locality.v3.WrrLocality", &around)]), (LbPolicy::RoundRobin, true));
    // What is overridden is not looked at.
    let overridden = format!("{}\nlb_policy: MAGLEV", lb(&[("random.v3.Random", "")]));
    assert_eq!(cluster(&overridden).lb, LbPolicy::Random);
}

#[test]
fn a_policy_that_is_not_implemented_is_refused() {
    refusals(
        Kind::Cluster,
        eds,
        &[
            ("lb_policy: RING_HASH", "lb_policy: \"RING_HASH\" is not supported"),
            ("lb_policy: MAGLEV", "lb_policy: \"MAGLEV\" is not supported"),
            ("lb_policy: CLUSTER_PROVIDED", "lb_policy: \"CLUSTER_PROVIDED\" is not supported"),
            ("lb_policy: 4", "lb_policy: 4 is not a known value"),
            ("lb_policy: LOAD_BALANCING_POLICY_CONFIG", "load_balancing_policy: is required"),
            (
                "lb_policy: LEAST_REQUEST\nleast_request_lb_config: {choice_count: 1}",
                "least_request_lb_config.choice_count: 1 is not within 2..=4294967295",
            ),
            ("load_balancing_policy: {}", "load_balancing_policy.policies: must not be empty"),
            (
                "load_balancing_policy: {policies: [{}]}",
                "load_balancing_policy.policies[0].typed_extension_config: is required",
            ),
            (
                "load_balancing_policy: {policies: [{typed_extension_config: {name: n}}]}",
                "load_balancing_policy.policies[0].typed_extension_config.typed_config: is required",
            ),
        ],
    );
    let at = "load_balancing_policy.policies";
    let config = format!("{at}[0].typed_extension_config.typed_config");
    refusals(
        Kind::Cluster,
        str::to_owned,
        &[
            (
                &lb(&[("maglev.v3.Maglev", "")]),
                &format!("{at}: extension \"{LB}.maglev.v3.Maglev\" is not supported"),
            ),
            (
                &lb(&[("least_request.v3.LeastRequest", ", choice_count: 0")]),
                &format!("{config}.choice_count: 0 is not within 2..=4294967295"),
            ),
            (
                &lb(&[("wrr_locality.v3.WrrLocality", "")]),
                &format!("{config}.endpoint_picking_policy: is required"),
            ),
        ],
    );
}

#[test]
fn policies_are_not_nested_without_end() {
    let list = |policy: Any| LoadBalancingPolicy {
        policies: vec![Policy {
            typed_extension_config: Some(TypedExtensionConfig {
                name: "n".to_owned(),
                typed_config: Some(policy),
            }),
        }],
    };
    let nested = |depth: usize| {
        (0..depth).fold(list(pack_any(Random::default())), |inner, _| {
            list(pack_any(WrrLocality { endpoint_picking_policy: Some(inner) }))
        })
    };
    let verdict = |depth| {
        let found = encoded(Kind::Cluster, &eds(""));
        let mut pb = Cluster::decode(found.value.as_slice()).unwrap();
        pb.load_balancing_policy = Some(nested(depth));
        decode(Kind::Cluster, &found.type_url, &pb.encode_to_vec(), &rules()).verdict
    };
    assert!(verdict(15).is_ok());
    let text = verdict(16).unwrap_err().to_string();
    assert!(text.ends_with("endpoint_picking_policy: more than 16 entries"), "{text}");
}

#[test]
fn limits_come_from_the_default_priority() {
    let of = |fields: &str| cluster(&eds(&format!("circuit_breakers: {{{fields}}}"))).limits;
    assert_eq!(of(""), BreakerConfig::default());
    let full = of(
        "thresholds: [{priority: HIGH, max_requests: 1}, {max_connections: 2, max_pending_requests: 3, \
         max_requests: 0, max_retries: 5, retry_budget: {budget_percent: {value: 12.5}, min_retry_concurrency: 7}}], \
         per_host_thresholds: [{max_connections: 6}]",
    );
    let wanted = BreakerConfig {
        max_connections: Limit::new(2),
        max_pending_requests: Limit::new(3),
        max_requests: Limit::new(0),
        max_retries: Limit::new(5),
        retry_budget: Some(RetryBudget {
            budget: PerMillion::new(125_000).unwrap(),
            min_retry_concurrency: Limit::new(7),
        }),
        max_connections_per_endpoint: std::num::NonZeroU32::new(6),
    };
    assert_eq!(full, wanted);
    let budget = of("thresholds: [{retry_budget: {}}]").retry_budget.unwrap();
    assert_eq!((budget.budget.get(), budget.min_retry_concurrency.get()), (200_000, 3));
    assert_eq!(of("per_host_thresholds: [{}]"), BreakerConfig::default());
    let listed = unapplied(
        Kind::Cluster,
        &eds("circuit_breakers: {thresholds: [{priority: HIGH}, {}, {max_requests: 3}]}"),
    );
    assert_eq!(listed, ["circuit_breakers.thresholds[0]", "circuit_breakers.thresholds[2]"]);
    refusals(
        Kind::Cluster,
        |fields| eds(&format!("circuit_breakers: {{{fields}}}")),
        &[
            (
                "thresholds: [{priority: 7}]",
                "circuit_breakers.thresholds[0].priority: 7 is not a known value",
            ),
            (
                "thresholds: [{}, {priority: 7}]",
                "circuit_breakers.thresholds[1].priority: 7 is not a known value",
            ),
            (
                "thresholds: [{priority: HIGH}, {retry_budget: {budget_percent: {value: 101}}}]",
                "circuit_breakers.thresholds[1].retry_budget.budget_percent.value: 101 is not within 0..=100",
            ),
            (
                "thresholds: [{retry_budget: {budget_percent: {value: NaN}}}]",
                "circuit_breakers.thresholds[0].retry_budget.budget_percent.value: NaN is not within 0..=100",
            ),
            (
                "per_host_thresholds: [{max_connections: 0}]",
                "circuit_breakers.per_host_thresholds[0].max_connections: 0 is not within 1..=4294967295",
            ),
        ],
    );
}

#[test]
fn the_http_version_is_what_the_options_say() {
    let of = |yaml: &str| cluster(yaml).protocol;
    assert_eq!(of(&eds("")), UpstreamProtocol::Http1);
    assert_eq!(of(&eds("http2_protocol_options: {}")), UpstreamProtocol::Http2);
    assert_eq!(of(&http("explicit_http_config: {http_protocol_options: {}}")), UpstreamProtocol::Http1);
    assert_eq!(of(&http("explicit_http_config: {http2_protocol_options: {}}")), UpstreamProtocol::Http2);
    assert_eq!(of(&http("auto_config: {}")), UpstreamProtocol::Auto);
    assert_eq!(of(&http("use_downstream_protocol_config: {}")), UpstreamProtocol::Auto);
    // The newer message replaces the older field.
    let both = format!(
        "{}\nhttp2_protocol_options: {{}}",
        http("explicit_http_config: {http_protocol_options: {}}")
    );
    assert_eq!(of(&both), UpstreamProtocol::Http1);
    let at = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"]";
    for (fields, rest) in [
        ("http_filters: []", ".upstream_protocol_options: is required"),
        ("explicit_http_config: {}", ".explicit_http_config.protocol_config: is required"),
        (
            "explicit_http_config: {http3_protocol_options: {}}",
            ".explicit_http_config.http3_protocol_options: is not supported",
        ),
        ("auto_config: {}, http_filters: [{name: a}]", ".http_filters: is not supported"),
        (
            "auto_config: {}, upstream_http_protocol_options: {auto_san_validation: true}",
            ".upstream_http_protocol_options.auto_san_validation: is not supported",
        ),
    ] {
        refusals(Kind::Cluster, http, &[(fields, &format!("{at}{rest}"))]);
    }
    for (fields, rest) in [
        ("auto_config: {http3_protocol_options: {}}", ".auto_config.http3_protocol_options"),
        (
            "use_downstream_protocol_config: {http3_protocol_options: {}}",
            ".use_downstream_protocol_config.http3_protocol_options",
        ),
        (
            "auto_config: {}, common_http_protocol_options: {idle_timeout: 1s}",
            ".common_http_protocol_options.idle_timeout",
        ),
        (
            "auto_config: {}, upstream_http_protocol_options: {auto_sni: true}",
            ".upstream_http_protocol_options.auto_sni",
        ),
        (
            "auto_config: {http2_protocol_options: {initial_stream_window_size: 65535}}",
            ".auto_config.http2_protocol_options.initial_stream_window_size",
        ),
    ] {
        not_applied(Kind::Cluster, http, &[(fields, &format!("{at}{rest}"))]);
    }
}

#[test]
fn options_of_another_extension_are_listed() {
    let yaml =
        eds(&format!("typed_extension_protocol_options: {{other: {{\"@type\": {LB}.random.v3.Random}}}}"));
    assert_eq!(unapplied(Kind::Cluster, &yaml), ["typed_extension_protocol_options[\"other\"]"]);
}

#[test]
fn keepalive_needs_a_timeout_and_works_with_an_interval() {
    let with = |fields: &str| eds(&format!("http2_protocol_options: {{connection_keepalive: {{{fields}}}}}"));
    let found = cluster(&with("interval: 30s, timeout: 5s")).keepalive;
    assert_eq!(
        found,
        Some(KeepaliveConfig { interval: Duration::from_secs(30), timeout: Duration::from_secs(5) })
    );
    let explicit = http(
        "explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 3s, timeout: 1s}}}",
    );
    assert_eq!(cluster(&explicit).keepalive.unwrap().interval, Duration::from_secs(3));
    assert_eq!(cluster(&with("timeout: 5s")).keepalive, None);
    let at = "http2_protocol_options.connection_keepalive";
    refusals(
        Kind::Cluster,
        with,
        &[
            ("interval: 30s", &format!("{at}.timeout: is required")),
            ("interval: 0s, timeout: 1s", &format!("{at}.interval: must be at least 1 ms")),
            ("interval: 1s, timeout: 0s", &format!("{at}.timeout: must be at least 1 ms")),
        ],
    );
}

#[test]
fn the_panic_threshold_counts_where_it_is_set() {
    let of = |value: &str| cluster(&eds(&format!("common_lb_config: {{{value}}}"))).panic_threshold;
    assert_eq!(of(""), None);
    assert_eq!(of("healthy_panic_threshold: {}"), Some(Percent::new(0).unwrap()));
    assert_eq!(of("healthy_panic_threshold: {value: 33.9}"), Some(Percent::new(33).unwrap()));
    refusals(
        Kind::Cluster,
        |value| eds(&format!("common_lb_config: {{healthy_panic_threshold: {{value: {value}}}}}")),
        &[("100.5", "common_lb_config.healthy_panic_threshold.value: 100.5 is not within 0..=100")],
    );
}

#[test]
fn discovery_that_is_not_built_is_refused_by_its_field() {
    let named = |of_type: &str, host: &str| {
        format!(
            "name: c\n{of_type}\nload_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: 81}}}}}}}}]}}]}}"
        )
    };
    for of_type in ["STRICT_DNS", "LOGICAL_DNS", "ORIGINAL_DST"] {
        let why = format!("type: \"{of_type}\" is not supported");
        let given = format!("type: {of_type}");
        // Whatever else is there: with endpoints by name or by address, without any, with those of EDS.
        for yaml in [
            named(&given, "a.test"),
            named(&given, "10.0.0.1"),
            format!("name: c\n{given}"),
            format!("name: c\n{given}\neds_cluster_config: {{eds_config: {{ads: {{}}}}}}"),
            format!("{}\ndns_lookup_family: V4_ONLY\nrespect_dns_ttl: true", named(&given, "a.test")),
        ] {
            refusals(Kind::Cluster, str::to_owned, &[(&yaml, &why)]);
        }
    }
    for name in
        ["envoy.clusters.aggregate", "envoy.clusters.dynamic_forward_proxy", "envoy.clusters.redis", "mine"]
    {
        let why = format!("cluster_type: extension \"{name}\" is not supported");
        let yaml = named(&format!("cluster_type: {{name: {name}}}"), "10.0.0.1");
        refusals(Kind::Cluster, str::to_owned, &[(&yaml, &why)]);
    }
    // A host name is no address of a static cluster.
    let why = "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \"a.test\" is not an IP address";
    refusals(Kind::Cluster, str::to_owned, &[(&named("type: STATIC", "a.test"), why)]);
}

#[test]
fn what_belongs_to_another_type_is_refused_or_listed() {
    let why = "eds_cluster_config: has no meaning unless the type is EDS";
    let inline = "load_assignment: {endpoints: []}";
    let eds = "eds_cluster_config: {eds_config: {ads: {}}}";
    for of_type in ["", "type: STATIC\n"] {
        for fields in [eds, "eds_cluster_config: {}", "eds_cluster_config: {service_name: s}"] {
            let yaml = format!("name: c\n{of_type}{inline}\n{fields}");
            refusals(Kind::Cluster, str::to_owned, &[(&yaml, why)]);
        }
    }
    let both = format!("name: c\ntype: EDS\n{eds}\n{inline}");
    assert_eq!(unapplied(Kind::Cluster, &both), ["load_assignment"]);
}

#[test]
fn sizes_that_no_frame_holds_are_refused() {
    let of = |fields: &str| eds(&format!("http2_protocol_options: {{{fields}}}"));
    let at = "http2_protocol_options";
    refusals(
        Kind::Cluster,
        of,
        &[
            (
                "max_concurrent_streams: 0",
                &format!("{at}.max_concurrent_streams: 0 is not within 1..=2147483647"),
            ),
            (
                "max_concurrent_streams: 2147483648",
                &format!("{at}.max_concurrent_streams: 2147483648 is not within 1..=2147483647"),
            ),
            (
                "initial_stream_window_size: 65534",
                &format!("{at}.initial_stream_window_size: 65534 is not within 65535..=2147483647"),
            ),
            (
                "initial_connection_window_size: 2147483648",
                &format!("{at}.initial_connection_window_size: 2147483648 is not within 65535..=2147483647"),
            ),
        ],
    );
}

#[test]
fn the_connect_timeout_is_five_seconds_unless_set() {
    assert_eq!(cluster(&eds("connect_timeout: 0.25s")).connect_timeout, Duration::from_millis(250));
    refusals(
        Kind::Cluster,
        eds,
        &[
            ("connect_timeout: 0s", "connect_timeout: must be more than 0"),
            (
                "connect_timeout: -1s",
                "connect_timeout: duration of -1 s and 0 ns is negative or out of range",
            ),
        ],
    );
}

#[test]
fn service_labels_come_from_istio_then_from_gcp() {
    let of = |metadata: &str| {
        let found =
            cluster(&eds(&format!("metadata: {{filter_metadata: {{{metadata}}}}}"))).telemetry.clone();
        found.map(|l| [l.host.to_string(), l.name.to_string(), l.namespace.to_string()])
    };
    assert_eq!(of(""), None);
    let csm = "com.google.csm.telemetry_labels: {service_name: s, service_namespace: n}";
    assert_eq!(of(csm).unwrap(), ["unknown", "s", "n"]);
    let istio = "istio: {services: [{host: reviews.shop.svc, name: reviews, namespace: shop}]}";
    assert_eq!(of(&format!("{csm}, {istio}")).unwrap(), ["reviews.shop.svc", "reviews", "shop"]);
    for other in ["istio: {services: []}", "istio: {services: [a]}", "istio: {services: a}", "istio: {}"] {
        assert_eq!(of(other), None, "{other}");
    }
    assert_eq!(of("com.google.csm.telemetry_labels: {service_name: 7}").unwrap()[1], "unknown");
}

#[test]
fn whatever_else_could_change_who_is_spoken_to_is_refused() {
    refusals(
        Kind::Cluster,
        eds,
        &[
            ("transport_socket_matches: [{name: a}]", "transport_socket_matches: is not supported"),
            ("transport_socket_matcher: {}", "transport_socket_matcher: is not supported"),
            ("filters: [{name: a}]", "filters: is not supported"),
            ("upstream_config: {name: a}", "upstream_config: is not supported"),
            (
                "upstream_http_protocol_options: {auto_san_validation: true}",
                "upstream_http_protocol_options.auto_san_validation: is not supported",
            ),
        ],
    );
}

#[test]
fn traffic_fields_without_effect_are_listed() {
    not_applied(
        Kind::Cluster,
        eds,
        &[
            ("outlier_detection: {}", "outlier_detection"),
            ("health_checks: [{}]", "health_checks"),
            ("dns_refresh_rate: 1s", "dns_refresh_rate"),
            ("lrs_server: {self: {}}", "lrs_server"),
            ("common_lb_config: {zone_aware_lb_config: {}}", "common_lb_config.zone_aware_lb_config"),
            ("round_robin_lb_config: {slow_start_config: {}}", "round_robin_lb_config.slow_start_config"),
        ],
    );
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    for (name, fields, rest) in [
        ("round_robin.v3.RoundRobin", ", slow_start_config: {}", "slow_start_config"),
        ("least_request.v3.LeastRequest", ", enable_full_scan: true", "enable_full_scan"),
        ("least_request.v3.LeastRequest", ", selection_method: FULL_SCAN", "selection_method"),
        (
            "random.v3.Random",
            ", locality_lb_config: {zone_aware_lb_config: {}}",
            "locality_lb_config.zone_aware_lb_config",
        ),
    ] {
        assert_eq!(unapplied(Kind::Cluster, &lb(&[(name, fields)])), [format!("{at}.{rest}")]);
    }
}
