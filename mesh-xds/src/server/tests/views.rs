//! What a client sees depends on its node.

use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use crate::ads::Kind;
use crate::server::control::ControlPlane;
use crate::server::tests::{Sotw, resource};

struct Client(Sotw);

impl Client {
    fn new(control: &ControlPlane, node: Node) -> Self {
        let mut machine = Sotw::new(control);
        machine.handle(DiscoveryRequest {
            node: Some(node),
            type_url: Kind::Cluster.type_url().into(),
            ..Default::default()
        });
        Self(machine)
    }

    fn of_cluster(control: &ControlPlane, cluster: &str) -> Self {
        Self::new(control, Node { cluster: cluster.into(), ..Node::default() })
    }

    /// The bodies of the next response, which is acknowledged.
    fn next(&mut self, control: &ControlPlane) -> Option<Vec<String>> {
        let response = self.0.poll(control)?;
        self.0.handle(DiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        });
        Some(response.resources.into_iter().map(|any| String::from_utf8(any.value).unwrap()).collect())
    }
}

#[test]
fn without_views_everybody_sees_the_same() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Cluster, "a", "a"));
    for cluster in ["", "web", "db"] {
        assert_eq!(Client::of_cluster(&control, cluster).next(&control).unwrap(), ["a"]);
    }
}

#[test]
fn a_view_lies_above_what_everybody_sees() {
    let control = ControlPlane::new();
    control.edit(|edit| {
        edit.set([resource(Kind::Cluster, "a", "a"), resource(Kind::Cluster, "b", "b")]);
        edit.view("canary").set(resource(Kind::Cluster, "b", "b of canary"));
    });
    let mut stable = Client::of_cluster(&control, "stable");
    let mut canary = Client::of_cluster(&control, "canary");
    assert_eq!(stable.next(&control).unwrap(), ["a", "b"]);
    assert_eq!(canary.next(&control).unwrap(), ["a", "b of canary"]);

    control.set(resource(Kind::Cluster, "b", "b2"));
    assert_eq!(stable.next(&control).unwrap(), ["a", "b2"]);
    assert_eq!(canary.next(&control), None, "what is hidden changes nothing");

    control.edit(|edit| edit.view("canary").remove(Kind::Cluster, "b"));
    assert_eq!(canary.next(&control).unwrap(), ["a", "b2"], "what was hidden shows");
    assert_eq!(stable.next(&control), None);

    control.edit(|edit| edit.view("stable").set(resource(Kind::Cluster, "c", "c")));
    assert_eq!(stable.next(&control).unwrap(), ["a", "b2", "c"], "a view may begin later than its clients");
    assert_eq!(control.resources(Kind::Cluster).len(), 2);
    assert_eq!(control.resources_of_view("stable", Kind::Cluster).len(), 3);
}

#[test]
fn a_view_is_chosen_by_anything_that_a_node_says() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Cluster, "x", "far"));
    control.edit(|edit| edit.view("near").set(resource(Kind::Cluster, "x", "near")));
    control.assign_views(|node| (node.locality.zone == "z1").then(|| "near".to_owned()));
    let at = |zone: &str| Node {
        locality: Some(Locality { zone: zone.into(), ..Locality::default() }),
        ..Node::default()
    };
    assert_eq!(Client::new(&control, at("z1")).next(&control).unwrap(), ["near"]);
    assert_eq!(Client::new(&control, at("z2")).next(&control).unwrap(), ["far"]);
}
