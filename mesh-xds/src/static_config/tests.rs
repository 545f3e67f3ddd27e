//! Files and texts as a source of snapshots: opening, reloading, refusing.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_core::snapshot::{ConfigProblem, Resolution};
use mesh_core::status::UnappliedFields;

use super::*;

const HCM: &str = "\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "http_filters: [{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]";

/// A client listener `shop` whose routes lead to the cluster `ratings`, a server on port 80, and these clusters.
fn text(clusters: &str) -> String {
    format!(
        "
static_resources:
  listeners:
  - name: shop
    api_listener: {{api_listener: {{{HCM}, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: ratings}}}}]}}]}}, {ROUTER}}}}}
  - name: inbound
    address: {{socket_address: {{address: 0.0.0.0, port_value: 80}}}}
    filter_chains: [{{filters: [{{name: hcm, typed_config: {{{HCM}, route_config: {{}}, {ROUTER}}}}}]}}]
  clusters: [{clusters}]
"
    )
}

fn cluster(fields: &str) -> String {
    format!(
        "{{name: ratings, load_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9080}}}}}}}}]}}]}}{fields}}}"
    )
}

fn source(text: &str) -> StaticSource {
    StaticSource::from_text(text, Format::Yaml, Rules::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// What is wrong with a text, but for lines and columns.
fn refusal(text: &str) -> String {
    let error = StaticSource::from_text(text, Format::Yaml, Rules::default()).unwrap_err();
    without_positions(&error)
}

fn without_positions(error: &InvalidFile) -> String {
    let text = error.to_string();
    let mut parts = text.split("line ").map(|part| match part.split_once(": ") {
        Some((position, rest)) if position.contains(", column ") => rest,
        _ => part,
    });
    parts.by_ref().collect()
}

fn ready<S>(target: &Subscription<S>) -> Arc<S> {
    match &*target.cell().load() {
        Resolution::Ready(snapshot) => snapshot.clone(),
        Resolution::Pending(error) | Resolution::Failed(error) => panic!("{error}"),
    }
}

fn failure<S>(target: &Subscription<S>) -> String {
    match &*target.cell().load() {
        Resolution::Failed(error) => error.to_string(),
        Resolution::Ready(_) | Resolution::Pending(_) => panic!("not failed"),
    }
}

#[test]
fn a_target_has_its_snapshot_as_soon_as_it_is_opened() {
    let source = source(&text(&cluster("")));
    for name in ["shop", "xds:///shop", "xds:shop"] {
        let snapshot = ready(&source.client(name));
        let resolved = snapshot.clusters[0].cluster.as_ref().unwrap();
        assert_eq!((resolved.endpoints.iter().count(), &resolved.note), (1, &None), "{name}");
    }
    let on = |address: &str| source.server(&Address::Socket(address.parse().unwrap()));
    assert_eq!(ready(&on("0.0.0.0:80")).routes.len(), 1);
    // A socket of one address is served by the listener of every address.
    assert_eq!(ready(&on("127.0.0.1:80")).routes.len(), 1);
    // Whoever binds elsewhere is told where.
    for address in ["127.0.0.1:81", "[::1]:80", "[::]:80", "0.0.0.0:81"] {
        let text = failure(&on(address));
        assert!(text.starts_with(&format!("listener \"{address}\" is invalid: no listener has")), "{text}");
        assert!(text.contains("there is one for 0.0.0.0:80: bind the socket to that address"), "{text}");
    }
}

#[test]
fn a_unix_socket_is_served_by_the_listener_of_its_path() {
    let unix = |path: &str| Address::from(Path::new(path));
    let piped = |path: &str| {
        let socket = "{socket_address: {address: 0.0.0.0, port_value: 80}}";
        text("").replace(socket, &format!("{{pipe: {{path: '{path}'}}}}"))
    };
    for path in ["/run/shop.sock", "@shop"] {
        let source = source(&piped(path));
        assert_eq!(ready(&source.server(&unix(path))).routes.len(), 1);
        let text = failure(&source.server(&unix("/run/other.sock")));
        let expected = format!(
            "listener \"unix:/run/other.sock\" is invalid: no listener has the address unix:/run/other.sock; \
             there is one for unix:{path}: bind the socket to that address"
        );
        assert!(text.starts_with(&expected), "{text}");
        assert!(failure(&source.server(&Address::Socket("0.0.0.0:80".parse().unwrap()))).contains("unix:"));
    }
    assert_eq!(
        refusal(&piped(&"x".repeat(108))),
        "static_resources.listeners[1].address.pipe.path: 108 bytes are more than the limit of 107 (in \"inbound\")"
    );
    let second = piped("/a").split("  - name: inbound").nth(1).unwrap().replace("  clusters: []", "");
    let twice = format!("{}  - name: again{second}", piped("/a").replace("  clusters: []", ""));
    assert_eq!(refusal(&twice), "static_resources.listeners[2]: another listener has the address unix:/a");
}

#[test]
fn routes_and_endpoints_by_name_come_from_the_same_text() {
    let found = source(&format!(
        "
resources:
- {{\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener, name: shop, api_listener: {{api_listener: {{{HCM}, rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}, {ROUTER}}}}}}}
- {{\"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}}}]}}]}}
- {{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: c, type: EDS, eds_cluster_config: {{service_name: e, eds_config: {{ads: {{}}}}}}}}
- {{\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: e, endpoints: [{{locality: {{zone: z}}, load_balancing_weight: 1, lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}}}}}]}}]}}
"
    ));
    let snapshot = ready(&found.client("shop"));
    assert_eq!(&*snapshot.routes.config().name, "r");
    assert_eq!(snapshot.clusters[0].cluster.as_ref().unwrap().endpoints.iter().count(), 1);
}

#[test]
fn what_is_named_and_not_there_is_an_error_of_its_requests_alone() {
    let source = source(&text(""));
    let snapshot = ready(&source.client("shop"));
    let error = snapshot.clusters[0].cluster.as_ref().unwrap_err();
    assert_eq!(error.problem, ConfigProblem::DoesNotExist);
    assert_eq!(error.to_string(), "cluster \"ratings\" does not exist (node \"static configuration\")");
    assert!(failure(&source.client("other")).starts_with("listener \"other\" does not exist"));
    assert!(failure(&source.client("inbound")).contains("it serves servers and not clients"));
}

#[test]
fn a_listener_of_a_server_needs_no_name_and_one_of_a_client_does() {
    let inbound = |port: u16| {
        format!(
            "  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: {{{HCM}, route_config: {{}}, {ROUTER}}}}}]}}]\n"
        )
    };
    let text = |listeners: &str| format!("static_resources:\n  listeners:\n{listeners}");
    let found = source(&text(&(inbound(80) + &inbound(81))));
    for port in [80, 81] {
        assert_eq!(ready(&found.server(&Address::Socket(([127, 0, 0, 1], port).into()))).routes.len(), 1);
    }
    let why = refusal(&text(&(inbound(80) + &inbound(80))));
    assert!(
        why.contains("static_resources.listeners[1]: another listener has the address 127.0.0.1:80"),
        "{why}"
    );
    let broken = inbound(80).replace("filter_chains", "transparent: true\n    filter_chains");
    assert_eq!(refusal(&text(&broken)), "static_resources.listeners[0].transparent: is not supported");
    let client = format!("  - api_listener: {{api_listener: {{{HCM}, route_config: {{}}, {ROUTER}}}}}\n");
    assert_eq!(refusal(&text(&client)), "static_resources.listeners[0].name: must not be empty");
}

#[test]
fn a_new_text_replaces_the_old_one_and_shares_what_did_not_change() {
    let source = source(&text(&cluster("")));
    let (shop, other) = (source.client("shop"), source.client("other"));
    let before = ready(&shop);
    source.replace(&text(&cluster("")), Format::Yaml).unwrap();
    assert!(Arc::ptr_eq(&before, &ready(&shop)), "an equal text changes nothing");
    source.replace(&text(&cluster(", lb_policy: RANDOM")), Format::Yaml).unwrap();
    let after = ready(&shop);
    assert!(after.version > before.version);
    assert!(Arc::ptr_eq(&before.listener, &after.listener) && Arc::ptr_eq(&before.routes, &after.routes));
    source.replace(&text("").replace("name: shop", "name: other"), Format::Yaml).unwrap();
    assert!(failure(&shop).contains("does not exist"));
    assert_eq!(ready(&other).clusters.len(), 1);
    // What was there once is not kept for a text that no longer has it.
    assert!(ready(&other).clusters[0].cluster.is_err());
}

#[test]
fn a_bad_text_is_refused_whole_with_every_field_that_is_wrong() {
    let source = source(&text(&cluster("")));
    let shop = source.client("shop");
    let before = ready(&shop);
    let bad = text(&cluster(", lb_policy: MAGLEV")).replace("prefix: /", "safe_regex: {regex: '('}");
    let error = source.replace(&bad, Format::Yaml).unwrap_err();
    assert_eq!(error.problems().len(), 2);
    assert_eq!(
        without_positions(&error),
        "static_resources.listeners[0].api_listener.api_listener.route_config.virtual_hosts[0].routes[0].match.safe_regex: \
         invalid regular expression: unclosed group (in \"shop\"); \
         static_resources.clusters[0].lb_policy: \"MAGLEV\" is not supported (in \"ratings\")"
    );
    assert!(Arc::ptr_eq(&before, &ready(&shop)));
    let unnamed = refusal("static_resources: {clusters: [{}]}");
    assert_eq!(unnamed, "static_resources.clusters[0].name: must not be empty");
    let many = ["{}"; 10].join(", ");
    assert!(refusal(&format!("static_resources: {{clusters: [{many}]}}")).ends_with("; and 2 more"));
}

#[test]
fn each_problem_is_told_with_its_line_and_column_in_every_form_of_a_text() {
    let yaml = "
static_resources:
  clusters:
  - name: a
    type: STATIC
    lb_policy: MAGLEV
  - {name: b, type: STATIC, lbPolicy: RING_HASH}
  - type: STATIC
";
    let at = |text: &str, format| -> Vec<_> {
        let error = StaticSource::from_text(text, format, Rules::default()).unwrap_err();
        let lines = error.problems().iter().map(|problem| {
            let text = problem.to_string();
            text.strip_prefix("line ").unwrap_or(&text).split(": ").take(2).collect::<Vec<_>>().join(" ")
        });
        lines.collect()
    };
    assert_eq!(
        at(yaml, Format::Yaml),
        [
            "6, column 5 static_resources.clusters[0].lb_policy",
            "7, column 29 static_resources.clusters[1].lb_policy",
            "8, column 5 static_resources.clusters[2].name"
        ]
    );
    let twice =
        "[{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b, load_assignment: {}},
        {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b, load_assignment: {}}]";
    assert_eq!(at(twice, Format::Yaml), ["2, column 9 [1]"]);
    let json = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a",
"lbPolicy": "MAGLEV"}"#;
    assert_eq!(at(json, Format::Json), ["2, column 1 lb_policy"]);
    // Beside something that is read as Envoy's loader reads it, too.
    assert_eq!(
        at(&yaml.replace("STATIC\n    lb", "static\n    lb"), Format::Yaml)[0],
        "6, column 5 static_resources.clusters[0].lb_policy"
    );
    // An error is found in the text as long as that costs little.
    let many = "\n  - {type: STATIC}".repeat(100);
    let located = at(&format!("static_resources:\n  clusters:{many}"), Format::Yaml);
    assert_eq!(
        (located.len(), located[63].as_str()),
        (100, "66, column 6 static_resources.clusters[63].name")
    );
    assert_eq!(located[64], "static_resources.clusters[64].name must not be empty");
}

#[test]
fn sections_of_envoys_file_that_have_no_effect_are_listed() {
    let bare = text(&cluster(""));
    let more =
        format!("{bare}layered_runtime: {{layers: [{{name: l}}]}}\nadmin: {{}}\nstatsFlushInterval: 5s\n");
    let source = source(&more);
    let listed = source.unapplied();
    let [UnappliedFields { kind: "file", fields, total: 2, .. }] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!(fields, &["layered_runtime", "stats_flush_interval"]);
    ready(&source.client("shop"));
    source.replace(&bare, Format::Yaml).unwrap();
    assert_eq!(source.unapplied(), []);
    // What holds further resources, and what is no section at all, is refused where it stands.
    assert_eq!(
        StaticSource::from_text(&format!("dynamicResources: {{}}\n{bare}"), Format::Yaml, Rules::default())
            .unwrap_err()
            .to_string(),
        "line 1, column 1: \"dynamic_resources\" is not supported: a file is all that there is; \
         what names a control plane is the bootstrap"
    );
    let typo =
        StaticSource::from_text(&format!("node: {{}}\nlayerd: 1\n{bare}"), Format::Yaml, Rules::default());
    let typo = typo.unwrap_err().to_string();
    assert!(typo.starts_with("line 2, column 1: \"layerd\" has no meaning here"), "{typo}");
}

#[test]
fn an_extension_of_an_unknown_type_is_judged_where_it_stands() {
    const CONTRIB: &str =
        "{\"@type\": type.googleapis.com/envoy.extensions.contrib.v3alpha.Odd, depth: 3, of: [{a: b}]}";
    let bare = text(&cluster(""));
    // Where it shapes traffic or telemetry it is listed, as it is when it comes over xDS.
    let logged = bare.replace(
        "route_config: {}",
        &format!("route_config: {{}}, access_log: [{{name: odd, typed_config: {CONTRIB}}}]"),
    );
    let source = source(&logged);
    ready(&source.server(&"0.0.0.0:80".parse::<SocketAddr>().unwrap().into()));
    assert_eq!(source.unapplied()[0].fields, ["filter_chains[0].filters[0].typed_config.access_log"]);
    // Where it may be what keeps somebody out, it is refused, beside everything else that is wrong.
    let filtered = bare.replacen(
        "http_filters: [",
        &format!("http_filters: [{{name: odd, typed_config: {CONTRIB}}}, "),
        2,
    );
    let refused = refusal(&filtered.replace("cluster: ratings}", "cluster: ratings, timeout: -1s}"));
    for problem in [
        "static_resources.listeners[0].api_listener.api_listener.",
        "static_resources.listeners[1].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: \
         extension \"type.googleapis.com/envoy.extensions.contrib.v3alpha.Odd\" is not supported (in \"inbound\")",
    ] {
        assert!(refused.contains(problem), "{refused}");
    }
    let whole = format!("resources: [{CONTRIB}]");
    assert!(refusal(&whole).ends_with("Odd\" is not a listener, route, cluster or endpoints"));
    // A name that no message can have is an error of the text.
    for name in [
        "",
        "Odd",
        "a..b",
        ".b",
        "b.",
        "a b.ü",
        "google.protobuf.Any.x",
        "envoy.config.cluster",
        "envoy.config.cluster.v3.Cluster.Odd.x",
    ] {
        let text = whole.replace("envoy.extensions.contrib.v3alpha.Odd", name);
        assert!(StaticSource::from_text(&text, Format::Yaml, Rules::default()).is_err(), "{name}");
    }
}

#[test]
fn a_text_that_contradicts_itself_is_refused() {
    let twice = text(&format!("{}, {}", cluster(""), cluster("")));
    assert_eq!(refusal(&twice), "static_resources.clusters[1]: cluster \"ratings\" is given twice");
    let inbound = text("").replace("  clusters: []", "").replace("name: shop", "name: second");
    let second = inbound.split("  - name: inbound").nth(1).unwrap();
    let both = format!("{inbound}  - name: again{second}");
    assert_eq!(refusal(&both), "static_resources.listeners[2]: another listener has the address 0.0.0.0:80");
    let secret = "\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\nname: s";
    assert!(refusal(secret).ends_with("is not a listener, route, cluster or endpoints"));
    let list = StaticSource::from_text("resources: 3", Format::Yaml, Rules::default()).unwrap_err();
    assert!(list.to_string().starts_with("line 1, column "), "{list}");
}

#[test]
fn what_does_not_read_is_told_beside_what_is_invalid_in_the_order_of_the_text() {
    let bad = text(&format!("{}, {}", cluster(", lb_policy: MAGLEV"), cluster(", lb_polcy: RANDOM")))
        .replace("name: v,", "nmae: v,");
    let refused = refusal(&bad);
    let mut told = refused.split("; ").map(|problem| problem.rsplit_once(": ").unwrap());
    let routes = "static_resources.listeners[0].api_listener.api_listener.route_config";
    assert_eq!(
        told.by_ref().map(|(path, _)| path).collect::<Vec<_>>(),
        [
            &*format!("{routes}.virtual_hosts[0].nmae"),
            "static_resources.clusters[0].lb_policy",
            "static_resources.clusters[1].lb_polcy"
        ],
        "{refused}"
    );
}

/// The last of two would be used in silence, and the filter of the first keeps nobody out.
#[test]
fn filters_that_are_given_in_both_spellings_are_refused() {
    let denied = "name: deny, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}";
    let inbound = format!("route_config: {{}}, {ROUTER}");
    let guarded = ROUTER.replace("http_filters: [", &format!("httpFilters: [{{{denied}}}, "));
    let with =
        |filters: &str| text(&cluster("")).replace(&inbound, &format!("route_config: {{}}, {filters}"));
    source(&with(&guarded));
    let both = with(&format!("{guarded}, {ROUTER}"));
    let path = "static_resources.listeners[1].filter_chains[0].filters[0].typed_config.http_filters";
    assert_eq!(refusal(&both), format!("{path}: \"http_filters\" is given twice"));
}

#[test]
fn fields_without_effect_are_listed_by_resource() {
    let source = source(&text(&cluster(", outlier_detection: {}")));
    let listed = source.unapplied();
    let [UnappliedFields { kind, name, fields, total: 1 }] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((*kind, &**name), ("cluster", "ratings"));
    assert_eq!(fields, &["outlier_detection"]);
    source.replace(&text(&cluster("")), Format::Yaml).unwrap();
    assert!(source.unapplied().is_empty());
}

#[test]
fn a_target_is_forgotten_with_its_last_holder() {
    let source = source(&text(""));
    let (first, second) = (source.client("shop"), source.client("shop"));
    assert!(Arc::ptr_eq(first.cell(), second.cell()));
    let servers = source.server(&Address::Socket("0.0.0.0:80".parse().unwrap()));
    drop((first, servers));
    assert_eq!(source.shared.state().open_targets(), 1);
    drop(second);
    assert_eq!(source.shared.state().open_targets(), 0);
}

#[test]
fn a_file_is_reloaded_when_its_content_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    std::fs::write(&path, text(&cluster(""))).unwrap();
    let source = StaticSource::from_file(&path, Rules::default()).unwrap();
    let shop = source.client("shop");
    let first = ready(&shop);
    assert_eq!(source.reload(), Ok(false));
    std::fs::write(&path, text(&cluster(", lb_policy: RANDOM"))).unwrap();
    assert_eq!(source.reload(), Ok(true));
    let second = ready(&shop);
    assert!(second.version > first.version);
    // A bad file, a file that is no text, and no file at all: the last good one stays.
    for (content, problem) in [
        (Some(text(&cluster(", lb_policy: MAGLEV")).into_bytes()), "static_resources.clusters[0].lb_policy"),
        (Some(vec![0xff]), "is not UTF-8"),
        (None, "cannot be read: entity not found"),
    ] {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        for _ in 0..2 {
            let error = without_positions(&source.reload().unwrap_err());
            assert!(error.starts_with(&format!("{}: {problem}", path.display())), "{error}");
        }
        assert_eq!(source.last_error().map(|e| e.to_string()), source.reload().err().map(|e| e.to_string()));
        assert!(Arc::ptr_eq(&second, &ready(&shop)));
    }
    std::fs::write(&path, text(&cluster(", lb_policy: RANDOM"))).unwrap();
    assert_eq!(source.reload(), Ok(true));
    assert_eq!(source.last_error(), None);
    assert!(Arc::ptr_eq(&second, &ready(&shop)), "the same content again is the same snapshot");
}

#[test]
fn a_file_that_is_bad_from_the_start_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.json");
    let error = StaticSource::from_file(&path, Rules::default()).unwrap_err().to_string();
    assert_eq!(error, format!("{}: cannot be read: entity not found", path.display()));
    std::fs::write(&path, "{\"resources\": [}").unwrap();
    let error = StaticSource::from_file(&path, Rules::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: line 1, column ", path.display())), "{error}");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_watched_file_is_looked_at_once_per_interval_until_the_source_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.yaml");
    std::fs::write(&path, text(&cluster(""))).unwrap();
    let mut source = StaticSource::from_file(&path, Rules::default()).unwrap();
    let shop = source.client("shop");
    let mut changes = shop.cell().subscribe();
    let _ = changes.changed().await;
    source.watch(Duration::from_secs(3600), &Handle::current());
    source.watch(Duration::from_secs(5), &Handle::current());
    let started = tokio::time::Instant::now();
    // The first look is at once; the change is made after it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::fs::write(&path, text(&cluster(", lb_policy: RANDOM"))).unwrap();
    let latest = changes.changed().await;
    assert!(matches!(&*latest, Resolution::Ready(s) if s.version == 2));
    assert!(started.elapsed() >= Duration::from_secs(5) && started.elapsed() < Duration::from_secs(6));
    let shared = Arc::downgrade(&source.shared);
    drop((source, shop));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shared.strong_count(), 0, "the watcher holds the source no longer");
}
