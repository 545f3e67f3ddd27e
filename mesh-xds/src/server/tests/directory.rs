//! Resource files: one bad file never takes down the rest.

use std::fs;

use crate::ads::Kind;
use crate::server::{Checks, ControlPlane, Directory};

const CLUSTER_A: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  type: EDS
  edsClusterConfig: {edsConfig: {ads: {}}}
"#;
const CLUSTER_B: &str = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "b", "type": "EDS",
    "edsClusterConfig": {"edsConfig": {"ads": {}}}}"#;

pub(super) struct Fixture {
    pub(super) root: tempfile::TempDir,
    pub(super) control: ControlPlane,
    pub(super) directory: Directory,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let control = ControlPlane::new();
        let directory = Directory::new(root.path(), control.clone());
        Self { root, control, directory }
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.root.path().join(name), text).unwrap();
    }

    pub(super) fn clusters(&self) -> Vec<String> {
        self.control.resources(Kind::Cluster).iter().map(|resource| resource.name().to_string()).collect()
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.directory.errors().borrow().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn files_become_resources_and_go_with_their_file() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", CLUSTER_A);
    fixture.write("b.json", CLUSTER_B);
    fixture.write("notes.txt", "not a resource");
    fixture.write(".hidden.yaml", "not a resource");
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["a", "b"]);
    assert!(fixture.errors().is_empty());

    fs::remove_file(fixture.root.path().join("a.yaml")).unwrap();
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["b"]);
}

#[test]
fn a_bad_file_keeps_its_last_good_content_and_concerns_no_other() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", CLUSTER_A);
    fixture.write("b.json", CLUSTER_B);
    fixture.directory.scan();
    let version = fixture.control.version();

    fixture.write("a.yaml", &CLUSTER_A.replace("type: EDS", "tipe: EDS"));
    fixture.write("b.json", &CLUSTER_B.replace("\"b\"", "\"b2\""));
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["a", "b2"]);
    assert_eq!(fixture.control.version(), version + 1, "one step for all files");
    let errors = fixture.errors();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("a.yaml") && errors[0].contains("tipe") && errors[0].contains("line"),
        "{errors:?}"
    );

    fixture.write("a.yaml", CLUSTER_A);
    fixture.directory.scan();
    assert!(fixture.errors().is_empty());
}

#[test]
fn a_file_that_was_never_good_serves_nothing() {
    let mut fixture = Fixture::new();
    fixture.write("bad.yaml", "resources: [{");
    fixture.write("a.yaml", CLUSTER_A);
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["a"]);
    assert_eq!(fixture.errors().len(), 1);
}

#[test]
fn the_same_resource_in_two_files_is_refused_in_the_second() {
    let mut fixture = Fixture::new();
    fixture.write("1.json", CLUSTER_B);
    fixture.write("2.json", CLUSTER_B);
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["b"]);
    let errors = fixture.errors();
    assert!(errors[0].contains("2.json") && errors[0].contains("cluster \"b\""), "{errors:?}");

    fs::remove_file(fixture.root.path().join("1.json")).unwrap();
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["b"]);
    assert!(fixture.errors().is_empty());
}

#[test]
fn a_type_that_is_not_served_is_refused_with_its_place() {
    let mut fixture = Fixture::new();
    let other = r#"[{"@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost", "name": "v"}]"#;
    fixture.write("v.json", other);
    fixture.directory.scan();
    let errors = fixture.errors();
    assert!(errors[0].contains("v.json") && errors[0].contains("VirtualHost"), "{errors:?}");
}

#[test]
fn an_unreadable_directory_takes_nothing_away() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", CLUSTER_A);
    fixture.directory.scan();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(fixture.root.path(), elsewhere.path().join("moved")).unwrap();
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["a"]);
    assert_eq!(fixture.errors().len(), 1);
    fs::rename(elsewhere.path().join("moved"), fixture.root.path()).unwrap();
    fixture.directory.scan();
    assert!(fixture.errors().is_empty());
}

#[test]
fn resources_set_by_other_means_are_left_alone() {
    let mut fixture = Fixture::new();
    fixture.control.set(crate::server::Cluster::eds("mine"));
    fixture.write("a.yaml", CLUSTER_A);
    fixture.directory.scan();
    fs::remove_file(fixture.root.path().join("a.yaml")).unwrap();
    fixture.directory.scan();
    assert_eq!(fixture.clusters(), ["mine"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_within_an_interval() {
    let Fixture { root, control, directory } = Fixture::new();
    let mut watching = tokio::task::JoinSet::new();
    watching.spawn(directory.watch(std::time::Duration::from_secs(1)));
    fs::write(root.path().join("b.json"), CLUSTER_B).unwrap();
    control.wait_for(|_| control.version() == 1).await;
    fs::write(root.path().join("b.json"), CLUSTER_B.replace("\"b\"", "\"b2\"")).unwrap();
    control.wait_for(|_| control.version() == 2).await;
}

const ROUTES: &str = r#"resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  type: EDS
  edsClusterConfig: {edsConfig: {ads: {}}}
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: shop
  virtualHosts:
  - name: all
    domains: ["*"]
    routes:
    - match: {prefix: /}
      route: {cluster: a}
    - match:
        safeRegex: {regex: "("}
      route: {cluster: a}
"#;

#[test]
fn what_clients_would_refuse_is_refused_with_its_line_and_field() {
    let mut fixture = Fixture::new();
    fixture.write("good.yaml", &ROUTES.replace("\"(\"", "a+").replace("name: a\n", "name: b\n"));
    fixture.write("shop.yaml", ROUTES);
    fixture.directory.scan();
    let errors = fixture.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let expected = [
        "shop.yaml: line 15, column ",
        "route \"shop\": resources[1].virtual_hosts[0].routes[1].match.safe_regex: ",
    ];
    for part in expected {
        assert!(errors[0].contains(part), "{errors:?}");
    }
    assert_eq!(fixture.clusters(), ["b"], "the whole file is refused, and no other");
}

#[test]
fn clients_that_know_more_can_be_served_what_ours_would_refuse() {
    let Fixture { root, control, directory } = Fixture::new();
    fs::write(root.path().join("shop.yaml"), ROUTES).unwrap();
    let mut directory = directory.checks(Checks::Syntax);
    directory.scan();
    assert_eq!(control.resources(Kind::Route).len(), 1);
}

#[test]
fn any_certificate_provider_counts_as_known() {
    let mut fixture = Fixture::new();
    let tls = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "b", "type": "EDS",
      "edsClusterConfig": {"edsConfig": {"ads": {}}}, "transportSocket": {"name": "tls", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "commonTlsContext": {"validationContext": {"caCertificateProviderInstance": {"instanceName": "mine"}}}}}}"#;
    fixture.write("b.json", tls);
    fixture.directory.scan();
    assert_eq!(fixture.errors(), Vec::<String>::new());
    fixture.write("b.json", &tls.replace("mine", ""));
    fixture.directory.scan();
    assert!(fixture.errors()[0].contains("instance_name"), "{:?}", fixture.errors());
}

#[test]
fn a_sub_directory_is_a_view_above_what_everybody_sees() {
    let mut fixture = Fixture::new();
    fs::create_dir(fixture.root.path().join("canary")).unwrap();
    fs::create_dir(fixture.root.path().join(".hidden")).unwrap();
    fixture.write("b.json", CLUSTER_B);
    fixture.write(".hidden/x.json", "not a resource");
    let canary = CLUSTER_B.replace("\"type\"", "\"altStatName\": \"c\", \"type\"");
    fixture.write("canary/b.json", &canary);
    let changes: Vec<String> = fixture.directory.scan().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["cluster \"b\" added", "cluster \"b\" added for view \"canary\""]);
    assert!(fixture.errors().is_empty(), "no duplicate: {:?}", fixture.errors());
    let of = |control: &ControlPlane, view: &str| control.resources_of_view(view, Kind::Cluster);
    assert_ne!(of(&fixture.control, "canary"), of(&fixture.control, "other"));

    fs::remove_file(fixture.root.path().join("canary/b.json")).unwrap();
    let changes: Vec<String> = fixture.directory.scan().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["cluster \"b\" removed for view \"canary\""]);
    assert_eq!(of(&fixture.control, "canary"), of(&fixture.control, "other"));
    assert!(fixture.directory.scan().is_empty());
}

#[test]
fn a_time_to_live_is_written_in_the_wrapper() {
    let mut fixture = Fixture::new();
    let wrapped = format!(
        r#"{{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "ttl": "30s", "resource": {CLUSTER_B}}}"#
    );
    fixture.write("b.json", &wrapped);
    fixture.directory.scan();
    assert_eq!(fixture.errors(), Vec::<String>::new());
    let cluster = fixture.control.resources(Kind::Cluster).remove(0);
    assert_eq!((&**cluster.name(), cluster.ttl()), ("b", Some(std::time::Duration::from_secs(30))));

    fixture.write("b.json", &wrapped.replace("30s", "-1s"));
    fixture.directory.scan();
    assert!(fixture.errors()[0].contains("ttl"), "{:?}", fixture.errors());
    fixture.write("b.json", &wrapped.replace("EDS", "ORIGINAL_DST"));
    fixture.directory.scan();
    assert!(fixture.errors()[0].contains("resource.type"), "{:?}", fixture.errors());
}
