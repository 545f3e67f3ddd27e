//! Resource files: one bad file never takes down the rest.

use std::fs;

use crate::ads::Kind;
use crate::server::{ControlPlane, Directory};

const CLUSTER_A: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  type: EDS
"#;
const CLUSTER_B: &str = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "b"}"#;

struct Fixture {
    root: tempfile::TempDir,
    control: ControlPlane,
    directory: Directory,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let control = ControlPlane::new();
        let directory = Directory::new(root.path(), control.clone());
        Self { root, control, directory }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.path().join(name), text).unwrap();
    }

    fn clusters(&self) -> Vec<String> {
        self.control.resources(Kind::Cluster).iter().map(|resource| resource.name().to_string()).collect()
    }

    fn errors(&self) -> Vec<String> {
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
