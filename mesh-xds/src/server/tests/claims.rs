//! Several files with the same resource: what is in force stays in force.

use std::fs;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use prost::Message as _;

use super::directory::Fixture;
use crate::ads::Kind;
use crate::server::{Directory, Oddity, Resource};

/// Static clusters, each with a name and a port that tells one content from another.
fn clusters(clusters: &[(&str, u16)]) -> String {
    let one = |(name, port): &(&str, u16)| {
        format!(
            r#"{{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "{name}", "type": "STATIC",
            "loadAssignment": {{"clusterName": "{name}", "endpoints": [{{"lbEndpoints": [{{"endpoint": {{"address":
            {{"socketAddress": {{"address": "127.0.0.1", "portValue": {port}}}}}}}}}]}}]}}}}"#
        )
    };
    format!("[{}]", clusters.iter().map(one).collect::<Vec<_>>().join(","))
}

impl Fixture {
    /// Writes files with clusters, and scans once.
    fn put(&mut self, files: &[(&str, &[(&str, u16)])]) -> Vec<String> {
        for (file, content) in files {
            self.write(file, &clusters(content));
        }
        self.scan()
    }

    fn scan(&mut self) -> Vec<String> {
        self.directory.scan().iter().map(ToString::to_string).collect()
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.root.path().join(from), self.root.path().join(to)).unwrap();
    }

    /// What is in force of these files, as `name:port`.
    fn in_force(&self) -> Vec<String> {
        let one = |resource: &Resource| {
            let cluster = Cluster::decode(resource.bytes()).unwrap();
            let endpoint = cluster.load_assignment.unwrap().endpoints.remove(0).lb_endpoints.remove(0);
            let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else {
                panic!("an endpoint")
            };
            let Some(Address::SocketAddress(address)) = endpoint.address.unwrap().address else {
                panic!("a socket")
            };
            let Some(PortSpecifier::PortValue(port)) = address.port_specifier else { panic!("a port") };
            format!("{}:{port}", cluster.name)
        };
        self.control.resources(Kind::Cluster).iter().map(one).collect()
    }

    fn refused(&self) -> Vec<String> {
        let file = |error: &std::sync::Arc<crate::server::FileError>| {
            error.path.file_name().unwrap().to_string_lossy().into_owned()
        };
        self.directory.errors().borrow().iter().map(file).collect()
    }
}

#[test]
fn a_newcomer_that_sorts_first_takes_nothing_away() {
    let mut fixture = Fixture::new();
    fixture.put(&[("m.json", &[("x", 4), ("y", 4), ("z", 4)])]);
    let version = fixture.control.version();
    for newcomer in ["a.json", "z.json"] {
        assert_eq!(fixture.put(&[(newcomer, &[("x", 4)])]), Vec::<String>::new());
        assert_eq!(fixture.clusters(), ["x", "y", "z"]);
        assert_eq!(fixture.control.version(), version, "clients are told nothing");
        assert_eq!(fixture.refused(), [newcomer]);
        fs::remove_file(fixture.root.path().join(newcomer)).unwrap();
        fixture.scan();
        assert!(fixture.errors().is_empty());
    }
}

#[test]
fn a_refusal_says_whether_a_restart_would_decide_otherwise_and_a_restart_does_so() {
    let mut fixture = Fixture::new();
    fixture.put(&[("m.json", &[("x", 4), ("y", 4)])]);
    fixture.put(&[("a.json", &[("x", 4), ("w", 4)]), ("z.json", &[("y", 4)])]);
    let errors = fixture.errors();
    assert!(
        errors[0].contains("a.json: cluster \"x\" is in ") && errors[0].contains("m.json already"),
        "{errors:?}"
    );
    assert!(errors[0].contains("after a restart"), "its name sorts first: {errors:?}");
    // After a restart a.json has x, m.json is refused for it, so that y is free for z.json.
    assert!(
        errors[1].contains("z.json: cluster \"y\"") && errors[1].contains("after a restart"),
        "{errors:?}"
    );

    for _ in 0..2 {
        let control = crate::server::ControlPlane::new();
        let mut restarted = Directory::new(fixture.root.path(), control.clone());
        restarted.scan();
        let names: Vec<_> = control.resources(Kind::Cluster).iter().map(|r| r.name().to_string()).collect();
        assert_eq!(names, ["w", "x", "y"]);
        let errors: Vec<_> = restarted.errors().borrow().iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains("m.json: cluster \"x\" is in "), "{errors:?}");
        assert!(!errors[0].contains("after a restart"), "{errors:?}");
    }
}

#[test]
fn an_edit_that_takes_a_resource_of_another_file_leaves_both_as_they_were() {
    let mut fixture = Fixture::new();
    fixture.put(&[("a.json", &[("x", 1)]), ("b.json", &[("y", 1)])]);
    fixture.put(&[("a.json", &[("x", 2), ("y", 2)])]);
    assert_eq!(fixture.in_force(), ["x:1", "y:1"], "the edit is refused as a whole");
    assert_eq!(fixture.refused(), ["a.json"]);
    // As soon as the other lets go, it is in force, without being touched.
    fixture.put(&[("b.json", &[("w", 1)])]);
    assert_eq!(fixture.in_force(), ["w:1", "x:2", "y:2"]);
    assert!(fixture.errors().is_empty());
}

#[test]
fn a_resource_moves_and_two_are_swapped_in_one_step() {
    let mut fixture = Fixture::new();
    fixture.put(&[("a.json", &[("x", 1), ("y", 1)]), ("b.json", &[("z", 1)])]);
    let version = fixture.control.version();
    assert_eq!(
        fixture.put(&[("a.json", &[("x", 1)]), ("b.json", &[("z", 1), ("y", 2)])]),
        ["cluster \"y\" changed"]
    );
    fixture.put(&[("a.json", &[("z", 1)]), ("b.json", &[("x", 1), ("y", 2)])]);
    assert!(fixture.errors().is_empty(), "{:?}", fixture.errors());
    assert_eq!(fixture.control.version(), version + 1, "the swap changes nothing for clients");
}

#[test]
fn a_renamed_file_keeps_what_it_has_whatever_its_new_name() {
    for name in ["a.json", "z.json"] {
        let mut fixture = Fixture::new();
        fixture.put(&[("m.json", &[("x", 1), ("y", 1)])]);
        fixture.put(&[("c.json", &[("x", 1)])]);
        let version = fixture.control.version();
        fixture.rename("m.json", name);
        assert_eq!(fixture.scan(), Vec::<String>::new());
        assert_eq!(fixture.refused(), ["c.json"], "it was refused before, and is now");
        assert_eq!(fixture.control.version(), version);
    }
}

#[test]
fn a_file_that_is_renamed_and_edited_at_once_goes_on_from_what_it_had() {
    let mut fixture = Fixture::new();
    fixture.put(&[("m.json", &[("x", 1), ("y", 1)])]);
    fixture.put(&[("c.json", &[("x", 2)])]);
    fixture.rename("m.json", "z.json");
    fixture.put(&[("z.json", &[("x", 1), ("y", 3)])]);
    assert_eq!(fixture.in_force(), ["x:1", "y:3"]);
    assert_eq!(fixture.refused(), ["c.json"]);

    // Its new content is refused: what it had under its old name is in force under the new one.
    fixture.put(&[("q.json", &[("q", 1)])]);
    fixture.rename("z.json", "n.json");
    fixture.put(&[("n.json", &[("x", 1), ("y", 3), ("q", 2)])]);
    assert_eq!(fixture.in_force(), ["q:1", "x:1", "y:3"]);
    assert_eq!(fixture.refused(), ["c.json", "n.json"]);
}

#[test]
fn a_file_that_is_gone_leaves_its_resources_to_the_one_that_waited() {
    let mut fixture = Fixture::new();
    fixture.put(&[("m.json", &[("x", 1), ("y", 1)])]);
    fixture.put(&[("a.json", &[("x", 2), ("w", 1)])]);
    fs::remove_file(fixture.root.path().join("m.json")).unwrap();
    let mut changes = fixture.scan();
    changes.sort();
    assert_eq!(changes, ["cluster \"w\" added", "cluster \"x\" changed", "cluster \"y\" removed"]);
}

#[test]
fn a_broken_file_keeps_its_resources_from_others() {
    let mut fixture = Fixture::new();
    fixture.put(&[("m.json", &[("x", 1)])]);
    fixture.write("m.json", "[{");
    fixture.put(&[("a.json", &[("x", 2)])]);
    assert_eq!(fixture.in_force(), ["x:1"]);
    assert_eq!(fixture.refused(), ["a.json", "m.json"]);
    assert!(fixture.errors()[0].contains("after a restart"), "{:?}", fixture.errors());
}

#[test]
fn who_lost_to_a_file_that_is_refused_itself_is_in_force() {
    let mut fixture = Fixture::new();
    fixture.put(&[
        ("a.json", &[("p", 1), ("q", 1)]),
        ("b.json", &[("q", 1), ("r", 1)]),
        ("c.json", &[("r", 1)]),
    ]);
    assert_eq!(fixture.clusters(), ["p", "q", "r"]);
    assert_eq!(fixture.refused(), ["b.json"]);
}

#[test]
fn an_edit_is_in_force_whole_or_changes_nothing() {
    use mesh_core::rng::{Rng as _, Xoshiro};
    let mut rng = Xoshiro::seeded(7);
    for _ in 0..40 {
        let mut fixture = Fixture::new();
        for version in 1..7 {
            let before = fixture.in_force();
            let file = ["a.json", "b.json", "c.json"][(rng.next_u64() % 3) as usize];
            let content: Vec<(&str, u16)> = ["x", "y", "z"]
                .into_iter()
                .filter(|_| rng.next_u64().is_multiple_of(2))
                .map(|name| (name, version))
                .collect();
            fixture.put(&[(file, &content)]);
            // An edit that is refused is as if it had not been made; one that is not is in force whole.
            let after = fixture.in_force();
            if fixture.refused().contains(&file.to_owned()) {
                assert_eq!(after, before);
            } else {
                assert!(
                    content.iter().all(|(name, _)| after.contains(&format!("{name}:{version}"))),
                    "{after:?}"
                );
            }
        }
    }
}

fn route(name: &str, cluster: &str) -> String {
    format!(
        r#"{{"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "{name}", "virtualHosts":
        [{{"name": "all", "domains": ["*"], "routes": [{{"match": {{"prefix": "/"}}, "route": {{"cluster": "{cluster}"}}}}]}}]}}"#
    )
}

fn listener(name: &str, route: &str) -> String {
    const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    format!(
        r#"{{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "{name}", "apiListener":
        {{"apiListener": {{"@type": "{HTTP}", "rds": {{"routeConfigName": "{route}", "configSource": {{"ads": {{}}}}}},
        "httpFilters": [{{"name": "router", "typedConfig":
        {{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}]}}}}}}"#
    )
}

fn eds(name: &str, service: &str) -> String {
    format!(
        r#"{{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "{name}", "type": "EDS",
        "edsClusterConfig": {{"edsConfig": {{"ads": {{}}}}, "serviceName": "{service}"}}}}"#
    )
}

fn endpoints(name: &str) -> String {
    format!(
        r#"{{"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "clusterName": "{name}"}}"#
    )
}

impl Fixture {
    fn findings(&mut self) -> Vec<String> {
        self.directory.scan();
        assert_eq!(self.errors(), Vec::<String>::new());
        let root = format!("{}/", self.root.path().display());
        self.directory.findings().iter().map(|finding| finding.to_string().replace(&root, "")).collect()
    }
}

#[test]
fn what_names_nothing_is_found_at_every_step() {
    let mut fixture = Fixture::new();
    fixture.write("listener.json", &listener("shop", "shop-routes"));
    assert_eq!(
        fixture.findings(),
        ["listener.json: listener \"shop\" names route \"shop-routes\", which is not there"]
    );
    fixture.write("route.json", &route("shop-routes", "v1"));
    assert_eq!(
        fixture.findings(),
        ["route.json: route \"shop-routes\" names cluster \"v1\", which is not there"]
    );
    fixture.write("cluster.json", &eds("v1", "v1-pods"));
    assert_eq!(
        fixture.findings(),
        ["cluster.json: cluster \"v1\" names endpoints \"v1-pods\", which is not there"]
    );
    fixture.write("endpoints.json", &endpoints("v1-pods"));
    assert_eq!(fixture.findings(), Vec::<String>::new());
}

#[test]
fn what_only_some_views_have_is_missing_for_the_others() {
    let mut fixture = Fixture::new();
    for view in ["canary", "stable"] {
        fs::create_dir(fixture.root.path().join(view)).unwrap();
    }
    fixture.write("route.json", &route("shop", "v1"));
    fixture.write("canary/v1.json", &clusters(&[("v1", 1)]));
    fixture.write("stable/other.json", &clusters(&[("other", 1)]));
    assert_eq!(
        fixture.findings(),
        [
            "route.json: route \"shop\" names cluster \"v1\", which is not there for clients without a view, view \"stable\""
        ]
    );
    // A view that has a route of its own does not see that of everybody; it sees everybody's clusters.
    fixture.write("stable/route.json", &route("shop", "v3"));
    fixture.write("v3.json", &clusters(&[("v3", 1)]));
    assert_eq!(
        fixture.findings(),
        ["route.json: route \"shop\" names cluster \"v1\", which is not there for clients without a view"]
    );
}

#[test]
fn names_of_other_authorities_are_not_judged() {
    let mut fixture = Fixture::new();
    let elsewhere = "xdstp://elsewhere/envoy.config.cluster.v3.Cluster/v1";
    fixture.write("route.json", &route("shop", elsewhere));
    assert_eq!(fixture.findings(), Vec::<String>::new());
    let here = elsewhere.replace("v1", "v2");
    fixture.write("cluster.json", &clusters(&[(&here, 1)]));
    assert_eq!(fixture.findings().len(), 1);
}

#[test]
fn fields_without_effect_are_found_where_the_clients_are_ours() {
    let mut fixture = Fixture::new();
    let text = eds("v1", "v1").replace("\"EDS\"", "\"EDS\", \"outlierDetection\": {\"consecutive5xx\": 3}");
    fixture.write("v1.json", &format!("[{text}, {}]", endpoints("v1")));
    fixture.directory.scan();
    let findings = fixture.directory.findings();
    assert!(
        matches!(&findings[..], [finding] if matches!(&finding.oddity, Oddity::Unapplied { fields, total: 1 }
            if fields[0].contains("outlier_detection"))),
        "{findings:?}"
    );
    let Fixture { root, control: _, directory } = fixture;
    let mut directory = directory.checks(crate::server::Checks::Syntax);
    directory.scan();
    assert!(directory.findings().is_empty());
    drop(root);
}
