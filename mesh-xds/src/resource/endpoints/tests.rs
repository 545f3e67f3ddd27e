//! What of a `ClusterLoadAssignment` is accepted, and what is refused where.

use mesh_core::config::endpoints::{Address, HealthStatus};
use mesh_core::config::units::PerMillion;

use crate::ads::Kind;
use crate::resource::tests::{cluster, endpoints, not_applied, refusals, unapplied};

const ADDRESS: &str = "address: {socket_address: {address: 10.0.0.1, port_value: 80}}";

/// One locality with these fields besides its id.
fn locality(fields: &str) -> String {
    format!("cluster_name: c\nendpoints:\n- locality: {{zone: z}}\n  {fields}")
}

/// One endpoint with these fields, in a locality of weight 1.
fn endpoint(fields: &str) -> String {
    locality(&format!("load_balancing_weight: 1\n  lb_endpoints:\n  - {{{fields}}}"))
}

fn address(fields: &str) -> String {
    endpoint(&format!("endpoint: {{address: {{{fields}}}}}"))
}

fn socket(fields: &str) -> String {
    address(&format!("socket_address: {{{fields}}}"))
}

#[test]
fn an_assignment_is_sorted_by_priority() {
    let found = endpoints(
        "
cluster_name: c
endpoints:
- {priority: 1, load_balancing_weight: 3, locality: {region: r, zone: z, sub_zone: s}, lb_endpoints: [
    {endpoint: {address: {socket_address: {address: 10.0.0.2, port_value: 80}}}}]}
- {load_balancing_weight: 2, locality: {zone: a}, lb_endpoints: [
    {endpoint: {address: {socket_address: {address: '::1', port_value: 81}}, hostname: h},
     health_status: DRAINING, load_balancing_weight: 5},
    {endpoint: {address: {pipe: {path: /run/a.sock}}}}]}
- {load_balancing_weight: 1, locality: {zone: b}}
",
    );
    assert_eq!(&*found.name, "c");
    let [first, second] = found.priorities.as_slice() else { panic!("{found:?}") };
    let [a, b] = first.localities.as_slice() else { panic!("{first:?}") };
    assert_eq!((a.weight.get(), &*a.id.zone, b.endpoints.len()), (2, "a", 0));
    let [one, two] = a.endpoints.as_slice() else { panic!("{a:?}") };
    assert_eq!(one.address.to_string(), "[::1]:81");
    assert_eq!((one.weight.get(), one.health), (5, HealthStatus::Draining));
    assert_eq!(one.extra.as_ref().unwrap().hostname.as_deref(), Some("h"));
    assert!(matches!(two.address, Address::Unix(_)));
    assert_eq!((two.weight.get(), two.health, &two.extra), (1, HealthStatus::Unknown, &None));
    let id = &second.localities[0].id;
    assert_eq!((&*id.region, &*id.zone, &*id.sub_zone), ("r", "z", "s"));
}

#[test]
fn nothing_at_all_is_an_empty_assignment() {
    let found = endpoints("cluster_name: c");
    assert!(found.priorities.is_empty() && found.drops.is_empty());
}

#[test]
fn health_is_kept_as_the_control_plane_says() {
    for (text, health) in [
        ("UNKNOWN", HealthStatus::Unknown),
        ("HEALTHY", HealthStatus::Healthy),
        ("UNHEALTHY", HealthStatus::Unhealthy),
        ("TIMEOUT", HealthStatus::Unhealthy),
        ("DRAINING", HealthStatus::Draining),
        ("DEGRADED", HealthStatus::Degraded),
    ] {
        let found = endpoints(&endpoint(&format!("endpoint: {{{ADDRESS}}}, health_status: {text}")));
        assert_eq!(found.iter().next().unwrap().health, health, "{text}");
    }
}

#[test]
fn drops_keep_their_order_and_are_scaled() {
    let found = endpoints(
        "
cluster_name: c
policy: {drop_overloads: [
  {category: lb, drop_percentage: {numerator: 5}},
  {category: throttle, drop_percentage: {numerator: 5, denominator: TEN_THOUSAND}},
  {category: all, drop_percentage: {numerator: 1000000, denominator: MILLION}}]}
",
    );
    let drops: Vec<_> = found.drops.iter().map(|d| (&*d.category, d.share)).collect();
    let share = |n| PerMillion::new(n).unwrap();
    assert_eq!(drops, [("lb", share(50_000)), ("throttle", share(500)), ("all", PerMillion::ALL)]);
}

#[test]
fn istios_workload_labels_are_read() {
    let labels = |text: &str| {
        let fields = format!(
            "endpoint: {{{ADDRESS}}}, metadata: {{filter_metadata: {{istio: {{workload: '{text}'}}}}}}"
        );
        let found = endpoints(&endpoint(&fields));
        let extra = found.iter().next().unwrap().extra.clone().unwrap();
        extra.workload.clone().unwrap()
    };
    let full = labels("reviews-v1;shop;reviews;v1;Kubernetes");
    let parts =
        [&full.workload, &full.namespace, &full.canonical_service, &full.canonical_revision, &full.cluster];
    assert_eq!(parts.map(|p| p.to_string()), ["reviews-v1", "shop", "reviews", "v1", "Kubernetes"]);
    let short = labels("reviews-v1;;reviews");
    assert_eq!(
        (&*short.namespace, &*short.canonical_service, &*short.cluster),
        ("unknown", "reviews", "unknown")
    );
}

#[test]
fn a_locality_without_weight_takes_no_traffic_over_eds_and_is_not_checked() {
    for fields in ["load_balancing_weight: 0", "priority: 3", "lb_endpoints: [{}]"] {
        let yaml = locality(fields);
        assert_eq!(endpoints(&yaml).priorities.len(), 0, "{fields}");
        assert_eq!(unapplied(Kind::Endpoints, &yaml), ["endpoints[0].load_balancing_weight"]);
    }
}

#[test]
fn an_inline_assignment_may_leave_out_id_and_weight() {
    let one = format!("{{lb_endpoints: [{{endpoint: {{{ADDRESS}}}}}]}}");
    let other = one.replace("10.0.0.1", "10.0.0.2");
    let found = cluster(&format!("name: c\nload_assignment: {{endpoints: [{one}, {other}]}}"));
    let mesh_core::config::cluster::Discovery::Static(found) = &found.discovery else { panic!("{found:?}") };
    assert_eq!((&*found.name, found.priorities[0].localities.len(), found.iter().count()), ("c", 2, 2));
    assert_eq!(found.priorities[0].localities[0].weight.get(), 1);
}

#[test]
fn inline_localities_are_weighted_where_that_is_asked_for_and_they_have_weights() {
    let locality = |ip: &str, weight: &str| {
        format!("{{lb_endpoints: [{{endpoint: {{{}}}}}]{weight}}}", ADDRESS.replace("10.0.0.1", ip))
    };
    let of = |fields: &str, weights: [&str; 2]| {
        let [a, b] = weights;
        let list = format!("{}, {}", locality("10.0.0.1", a), locality("10.0.0.2", b));
        let yaml = format!("name: c\nload_assignment: {{endpoints: [{list}]}}\n{fields}");
        let found = cluster(&yaml);
        let mesh_core::config::cluster::Discovery::Static(inline) = &found.discovery else {
            panic!("{found:?}")
        };
        let weights: Vec<_> = inline.priorities[0].localities.iter().map(|l| l.weight.get()).collect();
        (found.locality_weighted, weights, unapplied(Kind::Cluster, &yaml))
    };
    let none: Vec<String> = Vec::new();
    let asked = "common_lb_config: {locality_weighted_lb_config: {}}";
    let wrr = "load_balancing_policy: {policies: [{typed_extension_config: {name: n, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality, endpoint_picking_policy: {policies: [{typed_extension_config: {name: n, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}]}}}}]}";
    let (three, five) = (", load_balancing_weight: 3", ", load_balancing_weight: 5");
    let at = |i: usize| format!("load_assignment.endpoints[{i}].load_balancing_weight");
    // By endpoints, as in Envoy, whatever the policy; weights that nobody asked for are listed.
    for policy in ["", "lb_policy: LEAST_REQUEST", "lb_policy: RANDOM"] {
        assert_eq!(of(policy, ["", ""]), (false, vec![1, 1], none.clone()), "{policy}");
        assert_eq!(of(policy, [three, five]), (false, vec![1, 1], vec![at(0), at(1)]), "{policy}");
        assert_eq!(of(policy, [three, ""]), (false, vec![1, 1], vec![at(0)]), "{policy}");
    }
    for policy in [asked, wrr] {
        assert_eq!(of(policy, [three, five]), (true, vec![3, 5], none.clone()), "{policy}");
        // Without a weight it takes nothing.
        assert_eq!(of(policy, [three, ""]), (true, vec![3], vec![at(1)]), "{policy}");
        // Without any there is nothing to weigh.
        assert_eq!(of(policy, ["", ""]), (false, vec![1, 1], none.clone()), "{policy}");
    }
}

#[test]
fn a_broken_assignment_is_refused_at_its_field() {
    refusals(
        Kind::Endpoints,
        str::to_owned,
        &[
            (
                "cluster_name: c\nendpoints: [{load_balancing_weight: 1}]",
                "endpoints[0].locality: is required",
            ),
            (
                "cluster_name: c\nendpoints: [{load_balancing_weight: 1, locality: {zone: z}}, {load_balancing_weight: 1, locality: {zone: z}}]",
                "endpoints[1].locality: \"/z/\" is given twice",
            ),
            (
                "cluster_name: c\nendpoints: [{load_balancing_weight: 1, locality: {zone: z}, priority: 1}]",
                "endpoints: priority 0 is missing",
            ),
            (
                "cluster_name: c\nendpoints: [{load_balancing_weight: 1, locality: {zone: z}}, {load_balancing_weight: 1, locality: {zone: z}, priority: 3}, {load_balancing_weight: 1, locality: {zone: z}, priority: 1}]",
                "endpoints: priority 2 is missing",
            ),
            (
                "cluster_name: c\nendpoints: [{load_balancing_weight: 4294967295, locality: {zone: a}}, {load_balancing_weight: 1, locality: {zone: b}}]",
                "endpoints[1].load_balancing_weight: the weights add up to 4294967296, which is not within 1..=4294967295",
            ),
            (
                "cluster_name: c\npolicy: {drop_overloads: [{drop_percentage: {}}]}",
                "policy.drop_overloads[0].category: must not be empty",
            ),
            (
                "cluster_name: c\npolicy: {drop_overloads: [{category: a}]}",
                "policy.drop_overloads[0].drop_percentage: is required",
            ),
            (
                "cluster_name: c\npolicy: {drop_overloads: [{category: a, drop_percentage: {denominator: 3}}]}",
                "policy.drop_overloads[0].drop_percentage.denominator: 3 is not a known value",
            ),
        ],
    );
    refusals(
        Kind::Endpoints,
        |fields| locality(&format!("load_balancing_weight: 1\n  {fields}")),
        &[
            (
                "leds_cluster_locality_config: {}",
                "endpoints[0].leds_cluster_locality_config: is not supported",
            ),
            (
                "load_balancer_endpoints: {lb_endpoints: [{}]}",
                "endpoints[0].load_balancer_endpoints[0].endpoint: is required",
            ),
        ],
    );
}

#[test]
fn a_broken_endpoint_is_refused_at_its_field() {
    const AT: &str = "endpoints[0].lb_endpoints[0]";
    let table = [
        ("", "endpoint: is required"),
        ("endpoint_name: e", "endpoint_name: is not supported"),
        ("endpoint: {}", "endpoint.address: is required"),
        ("health_status: 9", "health_status: 9 is not a known value"),
        ("load_balancing_weight: 0", "load_balancing_weight: 0 is not within 1..=4294967295"),
    ];
    let table = table.map(|(fragment, rest)| (fragment, format!("{AT}.{rest}")));
    let borrowed: Vec<_> = table.iter().map(|(a, b)| (*a, b.as_str())).collect();
    refusals(Kind::Endpoints, endpoint, &borrowed);
    let e = format!("{{endpoint: {{{ADDRESS}}}}}");
    let heavy =
        format!("{{endpoint: {{{}}}, load_balancing_weight: 4294967295}}", ADDRESS.replace(".1", ".9"));
    refusals(
        Kind::Endpoints,
        |list| locality(&format!("load_balancing_weight: 1\n  lb_endpoints: [{list}]")),
        &[
            (
                &format!("{e}, {e}"),
                "endpoints[0].lb_endpoints[1].endpoint.address: \"10.0.0.1:80\" is given twice",
            ),
            (
                &format!("{e}, {heavy}"),
                "endpoints[0].lb_endpoints[1].load_balancing_weight: the weights add up to 4294967296, which is not within 1..=4294967295",
            ),
        ],
    );
}

#[test]
fn an_address_that_cannot_be_connected_to_is_refused() {
    const AT: &str = "endpoints[0].lb_endpoints[0].endpoint.address";
    let check = |within: &dyn Fn(&str) -> String, table: &[(&str, &str)]| {
        for (fragment, rest) in table {
            refusals(Kind::Endpoints, within, &[(fragment, &format!("{AT}{rest}"))]);
        }
    };
    check(
        &address,
        &[
            ("", ": is required"),
            ("pipe: {path: ''}", ".pipe.path: must not be empty"),
            ("pipe: {path: \"/a\\0b\"}", ".pipe.path: \"/a\\0b\" must not hold a NUL"),
            (
                &format!("pipe: {{path: /{}}}", "a".repeat(107)),
                ".pipe.path: 108 bytes are more than the limit of 107",
            ),
            (
                "envoy_internal_address: {server_listener_name: a}",
                ".envoy_internal_address: is not supported",
            ),
        ],
    );
    check(
        &socket,
        &[
            ("address: 10.0.0.1", ".socket_address.port_value: is required"),
            ("address: 10.0.0.1, named_port: http", ".socket_address.named_port: is not supported"),
            (
                "address: 10.0.0.1, port_value: 65536",
                ".socket_address.port_value: 65536 is not within 0..=65535",
            ),
            ("address: a.test, port_value: 80", ".socket_address.address: \"a.test\" is not an IP address"),
            ("address: '', port_value: 80", ".socket_address.address: must not be empty"),
            (
                "address: 10.0.0.1, port_value: 80, protocol: UDP",
                ".socket_address.protocol: is not supported",
            ),
            (
                "address: 10.0.0.1, port_value: 80, resolver_name: r",
                ".socket_address.resolver_name: is not supported",
            ),
            (
                "address: 10.0.0.1, port_value: 80, network_namespace_filepath: /n",
                ".socket_address.network_namespace_filepath: is not supported",
            ),
        ],
    );
}

#[test]
fn an_additional_address_is_one_and_belongs_to_one_endpoint() {
    let socket = |ip: &str| format!("{{address: {{socket_address: {{address: '{ip}', port_value: 80}}}}}}");
    let (own, six, seven) = (socket("10.0.0.1"), socket("::6"), socket("::7"));
    let within = |list: &str| endpoint(&format!("endpoint: {{{ADDRESS}, additional_addresses: [{list}]}}"));
    let at = "endpoints[0].lb_endpoints[0].endpoint.additional_addresses";
    refusals(
        Kind::Endpoints,
        within,
        &[
            (&own, &format!("{at}[0].address: \"10.0.0.1:80\" is given twice")),
            (&format!("{six}, {six}"), &format!("{at}[1].address: \"[::6]:80\" is given twice")),
            ("{}", &format!("{at}[0].address: is required")),
            (
                &socket("a.test"),
                &format!("{at}[0].address.socket_address.address: \"a.test\" is not an IP address"),
            ),
        ],
    );
    assert_eq!(unapplied(Kind::Endpoints, &within(&format!("{six}, {seven}"))), [at]);
    // Of another endpoint, in another locality.
    let yaml = format!(
        "{}\n- locality: {{zone: y}}\n  load_balancing_weight: 1\n  lb_endpoints: [{{endpoint: {six}}}]",
        within(&six)
    );
    let why = "endpoints[1].lb_endpoints[0].endpoint.address: \"[::6]:80\" is given twice";
    refusals(Kind::Endpoints, str::to_owned, &[(&yaml, why)]);
}

#[test]
fn a_factor_of_zero_is_refused() {
    let why = "policy.overprovisioning_factor: 0 is not within 1..=4294967295";
    let with = |fields: &str| format!("cluster_name: c\npolicy: {{{fields}}}");
    refusals(Kind::Endpoints, with, &[("overprovisioning_factor: 0", why)]);
}

#[test]
fn traffic_fields_without_effect_are_listed() {
    not_applied(
        Kind::Endpoints,
        str::to_owned,
        &[
            ("cluster_name: c\nnamed_endpoints: {a: {}}", "named_endpoints"),
            ("cluster_name: c\npolicy: {overprovisioning_factor: 140}", "policy.overprovisioning_factor"),
            ("cluster_name: c\npolicy: {endpoint_stale_after: 1s}", "policy.endpoint_stale_after"),
            ("cluster_name: c\npolicy: {weighted_priority_health: true}", "policy.weighted_priority_health"),
        ],
    );
    not_applied(
        Kind::Endpoints,
        |fields| endpoint(&format!("endpoint: {{{ADDRESS}, {fields}}}")),
        &[
            ("health_check_config: {}", "endpoints[0].lb_endpoints[0].endpoint.health_check_config"),
            (
                "additional_addresses: [{address: {socket_address: {address: '::1', port_value: 80}}}]",
                "endpoints[0].lb_endpoints[0].endpoint.additional_addresses",
            ),
        ],
    );
}
