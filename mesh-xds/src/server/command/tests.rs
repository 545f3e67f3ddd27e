//! The command line, and what is said before the first client.

use std::ffi::OsString;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::bootstrap::Bootstrap;

fn parse(args: &[&str]) -> Result<Command, InvalidCommand> {
    Command::parse(args.iter().map(OsString::from))
}

/// Runs a command to its end.
fn run(args: &[&str]) -> (Result<(), String>, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let output =
        Output::new(move |line| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ran = runtime.block_on(parse(args).unwrap().run(output, std::future::ready(())));
    drop(runtime);
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (ran.map_err(|error| error.to_string()), lines)
}

#[test]
fn the_version_is_said_by_each_of_its_names() {
    for args in [["--version"], ["-V"], ["-v"]] {
        let expected = format!("mesh-control {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(run(&args), (Ok(()), vec![expected]), "{args:?}");
    }
    assert!(parse(&["-v", "dir"]).unwrap().is_verbose());
    assert!(!parse(&["dir"]).unwrap().is_verbose());
}

#[test]
fn what_is_no_command_line_is_refused() {
    for (args, expected) in [
        (&["--loud", "dir"][..], "--loud is not an option"),
        (&["dir", "other"], "more than one directory"),
        (&["--check"], "which directory?"),
        (&["--check", "-v"], "which directory?"),
        (&["--listen"], "--listen needs a value"),
        (&["--listen", "here", "dir"], "--listen: \"here\" cannot be used"),
        (&["--cert", "a", "dir"], "--cert and --key belong together, and --client-ca needs them"),
    ] {
        assert_eq!(parse(args).unwrap_err().to_string(), expected, "{args:?}");
    }
    let (ran, _) = run(&["no-such-directory"]);
    assert_eq!(ran, Err("no-such-directory is not a directory".to_owned()));
}

#[test]
fn an_address_that_is_printed_can_be_connected_to() {
    for (listen, printed) in [
        ("127.0.0.1:18000", "127.0.0.1:18000"),
        ("0.0.0.0:18000", "127.0.0.1:18000"),
        ("[::]:18000", "[::1]:18000"),
        ("192.0.2.7:1", "192.0.2.7:1"),
    ] {
        assert_eq!(reachable(listen.parse().unwrap()).to_string(), printed);
    }
    let outward = outward(([0, 0, 0, 0], 7).into());
    assert!(
        outward.is_none_or(|address| address.port() == 7 && !address.ip().is_unspecified()),
        "{outward:?}"
    );

    let directory = tempfile::tempdir().unwrap();
    let (ran, lines) = run(&["--listen", "0.0.0.0:0", directory.path().to_str().unwrap()]);
    assert_eq!(ran, Ok(()));
    let printed = lines
        .iter()
        .find_map(|line| line.strip_prefix("a client or server finds it by GRPC_XDS_BOOTSTRAP_CONFIG='"));
    let printed = printed.unwrap().strip_suffix('\'').unwrap();
    assert!(printed.contains("\"127.0.0.1:") && !printed.contains("0.0.0.0"), "{printed}");
}

#[test]
fn the_printed_bootstrap_serves_both_sides() {
    let text = bootstrap(([127, 0, 0, 1], 18_000).into());
    let bootstrap = text.parse::<Bootstrap>().unwrap();
    let template = bootstrap.server_listener_template().expect("a server needs it");
    assert_eq!(
        template.for_address(&SocketAddr::from(([127, 0, 0, 1], 50_051)).into()),
        "grpc/server?xds.resource.listening_address=127.0.0.1:50051"
    );
}

const CLUSTER: &str = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "b", "type": "EDS",
    "edsClusterConfig": {"edsConfig": {"ads": {}}}}"#;
const ENDPOINTS: &str =
    r#"{"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "clusterName": "b"}"#;

#[test]
fn a_check_says_what_serving_would_refuse_and_what_leads_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();

    write("b.json", CLUSTER);
    write("endpoints.json", ENDPOINTS);
    let (ran, lines) = run(&["--check", path]);
    assert_eq!(ran, Ok(()), "{lines:?}");
    assert_eq!(lines, [format!("checked {path}: 0 listener, 0 route, 1 cluster, 1 endpoints for everybody")]);

    fs::remove_file(directory.path().join("endpoints.json")).unwrap();
    write("c.json", CLUSTER);
    write("d.json", "[{");
    write(
        "e.json",
        &CLUSTER.replace("\"b\"", "\"e\"").replace("\"EDS\"", "\"EDS\", \"outlierDetection\": {}"),
    );
    write("e-endpoints.json", &ENDPOINTS.replace("\"b\"", "\"e\""));
    let (ran, lines) = run(&["--check", path]);
    assert_eq!(ran, Err("4 found".to_owned()), "{lines:?}");
    for expected in [
        "c.json: cluster \"b\" is in",
        "d.json: line 1",
        "cluster \"b\" names endpoints \"b\", which is not there",
        "cluster \"e\" has fields without effect: outlier_detection",
    ] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:?}");
    }

    // Each alone is enough for the exit status.
    for (kept, found) in [("c.json", 2), ("d.json", 2), ("e.json", 2)] {
        let one = tempfile::tempdir().unwrap();
        for name in ["b.json", kept] {
            fs::copy(directory.path().join(name), one.path().join(name)).unwrap();
        }
        let (ran, lines) = run(&["--check", one.path().to_str().unwrap()]);
        let found = if kept == "e.json" { found + 1 } else { found };
        assert_eq!(ran, Err(format!("{found} found")), "{kept}: {lines:?}");
    }
}

#[test]
fn a_check_of_syntax_alone_judges_no_field() {
    let directory = tempfile::tempdir().unwrap();
    let text = CLUSTER.replace("\"EDS\"", "\"ORIGINAL_DST\"");
    fs::write(directory.path().join("b.json"), text).unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(run(&["--check", path]).0, Err("1 found".to_owned()));
    assert_eq!(run(&["--check", "--syntax-only", path]).0, Ok(()));
}

/// A server listener has no name in such a file, and which certificate providers there are is the application's.
const FILE: &str = "
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 80}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          route_config: {}
          http_filters: [{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
      transport_socket:
        name: tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {tls_certificate_provider_instance: {instance_name: anywhere}}
  clusters:
  - name: ratings
    type: STATIC
    load_assignment: {endpoints: []}
";

/// What a check of a file of this text says.
fn of_file(text: &str) -> (Result<(), String>, Vec<String>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    fs::write(path, text).unwrap();
    let (ran, lines) = run(&["--check", path]);
    (ran, lines.into_iter().map(|line| line.replace(path, "FILE")).collect())
}

#[test]
fn a_check_of_a_file_says_what_an_application_that_loads_it_would() {
    let all = "checked FILE: it loads, with 1 listener, 0 route, 1 cluster, 0 endpoints".to_owned();
    assert_eq!(of_file(FILE), (Ok(()), vec![all.clone()]));

    // It loads, and not everything in it comes true.
    let odd = format!(
        "{}layered_runtime: {{}}\n",
        FILE.replace(
            "type: STATIC\n    load_assignment: {endpoints: []}",
            "type: EDS\n    eds_cluster_config: {eds_config: {ads: {}}}\n    outlier_detection: {}"
        )
    );
    assert_eq!(
        of_file(&odd),
        (
            Err("3 found".to_owned()),
            vec![
                "FILE: section \"layered_runtime\" has no effect".to_owned(),
                "FILE: cluster \"ratings\" names endpoints \"ratings\", which is not there".to_owned(),
                "FILE: cluster \"ratings\" has fields without effect: outlier_detection".to_owned(),
                all,
            ]
        )
    );
}

#[test]
fn a_check_of_a_file_that_does_not_load_says_each_problem_with_its_place() {
    let bad = FILE
        .replace("STATIC", "ORIGINAL_DST")
        .replace("route_config: {}", "route_config: {virtual_hosts: [{}]}");
    let (ran, lines) = of_file(&bad);
    assert_eq!(ran, Err("2 found".to_owned()), "{lines:?}");
    let [listener, cluster, last] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(listener.starts_with("refused FILE: line 10, column "), "{listener}");
    assert!(
        listener.contains(
            ": static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config."
        ),
        "{listener}"
    );
    assert_eq!(
        cluster,
        "refused FILE: line 19, column 5: static_resources.clusters[0].type: \"ORIGINAL_DST\" is not supported (in \"ratings\")"
    );
    assert_eq!(last, "checked FILE: it does not load");

    let (ran, lines) = of_file("static_resources: [");
    assert_eq!(ran, Err("1 found".to_owned()));
    assert!(lines[0].starts_with("refused FILE: line 1, column "), "{lines:?}");
    let missing = "no-such-directory/mesh.yaml";
    let (ran, lines) = run(&["--check", missing]);
    assert_eq!(
        (ran, lines[0].as_str()),
        (Err("1 found".to_owned()), "refused no-such-directory/mesh.yaml: cannot be read: entity not found")
    );
    // Of a file no field goes unjudged, and none is served.
    for args in [&["--check", "--syntax-only", missing][..], &[missing]] {
        assert_eq!(run(args).0, Err(format!("{missing} is not a directory")), "{args:?}");
    }
}
