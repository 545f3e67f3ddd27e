//! What an assignment of endpoints says, inline in a cluster and by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mesh_core::telemetry::event::{EventSink, RequestEvent};
use mesh_tests::backend::{App, Backend};
use mesh_tests::fault::{BadPeer, Manner};
use mesh_tests::wait::{beside, soon};
use mesh_tower::MeshBuilder;

use crate::{Answer, ask, builder, channel, cluster, count, endpoint, mesh, servers, to};

/// The weights of localities count, whoever names them.
const WEIGHTED: &str = "common_lb_config: {locality_weighted_lb_config: {}}";

/// The resources of a cluster with these fields of its assignment: inline, and by another name over EDS.
fn both(fields: &str) -> [Vec<String>; 2] {
    let inline =
        format!("@envoy.config.cluster.v3.Cluster, name: main, {WEIGHTED}, load_assignment: {{{fields}}}");
    let eds = format!(
        "@envoy.config.cluster.v3.Cluster, name: main, {WEIGHTED}, type: EDS, eds_cluster_config: {{service_name: of-main, eds_config: {{ads: {{}}}}}}"
    );
    let assignment = |name: &str, fields: &str| {
        format!("@envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: {name}, {fields}")
    };
    let decoy = assignment("main", "endpoints: []");
    [vec![to("main"), inline], vec![to("main"), eds, decoy, assignment("of-main", fields)]]
}

/// A locality of its own zone, of weight 1, with these endpoints (with their braces).
fn zone(name: &str, endpoints: &str) -> String {
    format!("{{locality: {{zone: {name}}}, load_balancing_weight: 1, lb_endpoints: [{endpoints}]}}")
}

fn of(backend: &Backend, fields: &str) -> String {
    format!("{{{}{fields}}}", endpoint(backend.address()))
}

/// How many of 200 requests `a` serves, inline and over EDS.
async fn share_of_a(fields: &str) -> [usize; 2] {
    let mut shares = [0; 2];
    for (share, resources) in shares.iter_mut().zip(both(fields)) {
        let mesh = mesh(&resources);
        let channel = channel(&mesh);
        // Whatever is to be used is connected before anything is counted.
        servers(&channel, 20).await;
        *share = count(&servers(&channel, 200).await, "a");
    }
    shares
}

#[track_caller]
fn within(shares: [usize; 2], least: usize, most: usize, what: &str) {
    assert!(shares.iter().all(|share| (least..=most).contains(share)), "{what}: {shares:?} of 200");
}

#[tokio::test]
async fn addresses() {
    let a = Backend::start("a");
    within(share_of_a(&format!("endpoints: [{}]", zone("z", &of(&a, "")))).await, 200, 200, "a socket");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let router = App::new("a").router();
    let running = beside(async move { axum::serve(listener, router).await });
    let pipe = format!("{{endpoint: {{address: {{pipe: {{path: {}}}}}}}}}", path.display());
    within(share_of_a(&format!("endpoints: [{}]", zone("z", &pipe))).await, 200, 200, "a pipe");
    running.abort();
}

#[tokio::test]
async fn health() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for (status, least, most) in [
        ("UNKNOWN", 90, 110),
        ("HEALTHY", 90, 110),
        ("UNHEALTHY", 0, 0),
        ("DRAINING", 0, 0),
        ("TIMEOUT", 0, 0),
        ("DEGRADED", 0, 0),
    ] {
        let list = format!(
            "{}, {}",
            of(&a, &format!(", health_status: {status}")),
            of(&b, ", health_status: HEALTHY")
        );
        within(share_of_a(&format!("endpoints: [{}]", zone("z", &list))).await, least, most, status);
    }
}

#[tokio::test]
async fn weights() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let list = format!("{}, {}", of(&a, ", load_balancing_weight: 9"), of(&b, ", load_balancing_weight: 1"));
    within(share_of_a(&format!("endpoints: [{}]", zone("z", &list))).await, 160, 199, "endpoints");
    let heavy = zone("a", &of(&a, "")).replace("load_balancing_weight: 1", "load_balancing_weight: 9");
    within(
        share_of_a(&format!("endpoints: [{heavy}, {}]", zone("b", &of(&b, "")))).await,
        160,
        199,
        "localities",
    );
}

#[tokio::test]
async fn priorities() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let second = |locality: String| locality.replace("{locality", "{priority: 1, locality");
    let first_is_b = format!("endpoints: [{}, {}]", second(zone("a", &of(&a, ""))), zone("b", &of(&b, "")));
    within(share_of_a(&first_is_b).await, 0, 0, "b is first");
    let nobody = BadPeer::start(Manner::Refuse);
    let dead = zone("x", &format!("{{{}}}", endpoint(nobody.address())));
    within(
        share_of_a(&format!("endpoints: [{dead}, {}]", second(zone("a", &of(&a, ""))))).await,
        200,
        200,
        "the first is dead",
    );
}

#[tokio::test]
async fn endpoints_in_a_message_of_their_own() {
    let a = Backend::start("a");
    let list = format!(
        "{{locality: {{zone: z}}, load_balancing_weight: 1, load_balancer_endpoints: {{lb_endpoints: [{}]}}}}",
        of(&a, "")
    );
    within(share_of_a(&format!("endpoints: [{list}]")).await, 200, 200, "load_balancer_endpoints");
}

/// Over EDS a locality stands there once: those that differ in any part of their name are two.
#[tokio::test]
async fn localities_are_told_apart_by_each_part_of_their_name() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for part in ["region", "zone", "sub_zone"] {
        let of = |value: &str, backend: &Backend| {
            zone("z", &of(backend, "")).replace("{zone: z}", &format!("{{{part}: {value}}}"))
        };
        let fields = format!("endpoints: [{}, {}]", of("one", &a), of("two", &b));
        within(share_of_a(&fields).await, 50, 150, part);
    }
}

#[tokio::test]
async fn drops() {
    let a = Backend::start("a");
    for (share, least, most) in [
        ("numerator: 0", 200, 200),
        ("numerator: 100", 0, 0),
        ("numerator: 50", 50, 150),
        ("numerator: 5000, denominator: TEN_THOUSAND", 50, 150),
        ("numerator: 500000, denominator: MILLION", 50, 150),
    ] {
        let policy = format!("policy: {{drop_overloads: [{{category: lb, drop_percentage: {{{share}}}}}]}}");
        let fields = format!("{policy}, endpoints: [{}]", zone("z", &of(&a, "")));
        within(share_of_a(&fields).await, least, most, share);
        if most == 0 {
            for resources in both(&fields) {
                let (status, reason) = refusal(builder(&resources)).await;
                assert!(status == 503 && reason.contains("lb"), "{status} {reason}");
            }
        }
    }
}

/// The status of a request that the mesh itself refuses, and its reason in full.
async fn refusal(builder: MeshBuilder) -> (u16, String) {
    let mesh = builder.build().expect("a mesh");
    let response =
        soon(tower::ServiceExt::oneshot(channel(&mesh), crate::request("GET /"))).await.expect("a response");
    let error = response.extensions().get::<mesh_tower::Error>().map(|error| format!("{error}: {error:?}"));
    (response.status().as_u16(), error.unwrap_or_default())
}

/// The labels that each request was told of with.
#[derive(Debug, Clone, Default)]
struct Labels(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

impl EventSink for Labels {
    fn record(&self, event: &RequestEvent<'_>) {
        let mut labels =
            BTreeMap::from([("route", event.route.to_owned()), ("cluster", event.cluster.to_owned())]);
        if let Some(of) = event.upstream_workload {
            labels.insert("workload", of.workload.to_string());
        }
        if let Some(of) = event.service {
            labels.insert("service", of.name.to_string());
        }
        self.0.lock().expect("no panic under the lock").push(labels);
    }
}

#[tokio::test]
async fn labels_of_endpoints_clusters_and_routes_are_told_with_each_request() {
    let a = Backend::start("a");
    let workload = ", metadata: {filter_metadata: {istio: {workload: w;n;s;r;c}}}";
    let fields = format!("endpoints: [{}]", zone("z", &of(&a, workload)));
    for metadata in [
        "metadata: {filter_metadata: {istio: {services: [{host: h, name: shop, namespace: n}]}}}",
        "metadata: {filter_metadata: {com.google.csm.telemetry_labels: {service_name: shop}}}",
    ] {
        for mut resources in both(&fields) {
            resources[0] = crate::routed("{name: the-route, match: {prefix: /}, route: {cluster: main}}");
            resources[1] = format!("{}, {metadata}", resources[1]);
            let labels = Labels::default();
            let mesh = builder(&resources).event_sink(Arc::new(labels.clone())).build().expect("a mesh");
            let _: Answer = ask(&channel(&mesh), "GET /").await;
            let told = soon(async {
                loop {
                    if let Some(told) = labels.0.lock().expect("no panic under the lock").pop() {
                        return told;
                    }
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let expected =
                [("cluster", "main"), ("route", "the-route"), ("service", "shop"), ("workload", "w")];
            assert_eq!(told, expected.map(|(name, value)| (name, value.to_owned())).into());
        }
    }
}

#[tokio::test]
async fn a_cluster_without_endpoints_serves_nobody() {
    let mesh = mesh(&[to("main"), cluster("main", "", "")]);
    assert_eq!(ask(&channel(&mesh), "GET /").await.0, 503);
}
