//! Versions, nonces, subscriptions: without IO.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};
use envoy_types::pb::google::rpc::Status;
use prost::Message as _;

use crate::ads::Kind;
use crate::server::control::ControlPlane;
use crate::server::subscriber::Received;
use crate::server::tests::{Sotw, resource};

fn ask(kind: Kind, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn ack(kind: Kind, names: &[&str], response: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..ask(kind, names)
    }
}

fn poll(subscriber: &mut Sotw, control: &ControlPlane) -> Option<DiscoveryResponse> {
    subscriber.poll(control)
}

fn bodies(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|any| String::from_utf8(any.value.clone()).unwrap()).collect()
}

#[test]
fn wildcard_gets_the_complete_set_and_each_change_of_it() {
    let control = ControlPlane::new();
    control.set([resource(Kind::Cluster, "a", "a1"), resource(Kind::Cluster, "b", "b1")]);
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Cluster, &[]));

    let first = poll(&mut subscriber, &control).unwrap();
    assert_eq!(bodies(&first), ["a1", "b1"]);
    assert!(poll(&mut subscriber, &control).is_none());

    subscriber.handle(ack(Kind::Cluster, &[], &first));
    assert!(poll(&mut subscriber, &control).is_none(), "nothing changed");

    control.set(resource(Kind::Cluster, "a", "a2"));
    let second = poll(&mut subscriber, &control).unwrap();
    assert_eq!(bodies(&second), ["a2", "b1"], "clusters are a complete set");
    assert_ne!(second.nonce, first.nonce);
    assert_ne!(second.version_info, first.version_info);

    subscriber.handle(ack(Kind::Cluster, &[], &second));
    control.remove(Kind::Cluster, "b");
    assert_eq!(bodies(&poll(&mut subscriber, &control).unwrap()), ["a2"]);
}

#[test]
fn an_empty_wildcard_is_answered_so_that_the_client_knows() {
    let control = ControlPlane::new();
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Listener, &["*"]));
    let response = poll(&mut subscriber, &control).unwrap();
    assert!(response.resources.is_empty());
}

#[test]
fn an_unknown_listener_by_name_is_answered_without_it() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Listener, "known", "l"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Listener, &["unknown"]));
    assert!(poll(&mut subscriber, &control).unwrap().resources.is_empty());
}

#[test]
fn an_unknown_route_is_met_with_silence_until_it_exists() {
    let control = ControlPlane::new();
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Route, &["r"]));
    assert!(poll(&mut subscriber, &control).is_none());
    control.set(resource(Kind::Route, "r", "r1"));
    assert_eq!(bodies(&poll(&mut subscriber, &control).unwrap()), ["r1"]);
}

#[test]
fn endpoints_are_sent_one_by_one() {
    let control = ControlPlane::new();
    control.set([resource(Kind::Endpoints, "a", "a1"), resource(Kind::Endpoints, "b", "b1")]);
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Endpoints, &["a", "b"]));
    let first = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Endpoints, &["a", "b"], &first));
    control.set(resource(Kind::Endpoints, "b", "b2"));
    let second = poll(&mut subscriber, &control).unwrap();
    assert_eq!(bodies(&second), ["b2"]);
    subscriber.handle(ack(Kind::Endpoints, &["a", "b"], &second));
    control.remove(Kind::Endpoints, "b");
    assert!(poll(&mut subscriber, &control).is_none(), "a removed load assignment is not announced");
    control.set(resource(Kind::Endpoints, "b", "b2"));
    assert_eq!(bodies(&poll(&mut subscriber, &control).unwrap()), ["b2"], "it came back");
}

#[test]
fn a_name_that_is_dropped_and_asked_for_again_is_sent_again() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Endpoints, "a", "a1"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Endpoints, &["a"]));
    let first = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Endpoints, &["a"], &first));
    subscriber.handle(ack(Kind::Endpoints, &[], &first));
    assert!(poll(&mut subscriber, &control).is_none());
    subscriber.handle(ack(Kind::Endpoints, &["a"], &first));
    assert_eq!(bodies(&poll(&mut subscriber, &control).unwrap()), ["a1"]);
}

#[test]
fn an_unchanged_subscription_is_not_answered_again() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Listener, "a", "a1"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Listener, &["a"]));
    let first = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Listener, &["a"], &first));
    subscriber.handle(ack(Kind::Listener, &["a"], &first));
    control.set(resource(Kind::Listener, "other", "x"));
    assert!(poll(&mut subscriber, &control).is_none(), "another listener is none of its business");
}

#[test]
fn a_listener_subscription_that_once_had_names_is_no_wildcard_when_it_is_empty() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Listener, "a", "a1"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Listener, &["a"]));
    let first = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Listener, &[], &first));
    let status = subscriber.status(&control);
    assert!(!status[0].wildcard && status[0].names.is_empty());
    control.set(resource(Kind::Listener, "a", "a2"));
    assert!(poll(&mut subscriber, &control).is_none_or(|response| response.resources.is_empty()));
}

#[test]
fn nothing_of_a_kind_is_sent_before_the_last_response_is_answered() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Cluster, "a", "a1"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Cluster, &[]));
    let first = poll(&mut subscriber, &control).unwrap();
    control.set(resource(Kind::Cluster, "a", "a2"));
    control.set(resource(Kind::Cluster, "a", "a3"));
    assert!(poll(&mut subscriber, &control).is_none());
    subscriber.handle(ack(Kind::Cluster, &[], &first));
    assert_eq!(bodies(&poll(&mut subscriber, &control).unwrap()), ["a3"], "versions in between are skipped");
}

#[test]
fn a_refusal_is_remembered_and_the_refused_version_not_sent_again() {
    let control = ControlPlane::new();
    let version = control.set(resource(Kind::Route, "r", "bad"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Route, &["r"]));
    let first = poll(&mut subscriber, &control).unwrap();
    let mut nack = ack(Kind::Route, &["r"], &first);
    nack.version_info = String::new();
    nack.error_detail = Some(Status { message: "r: no".into(), ..Default::default() });
    assert!(matches!(subscriber.handle(nack), Received::Nacked(Kind::Route, _)));
    assert!(poll(&mut subscriber, &control).is_none());
    let status = subscriber.status(&control).remove(0);
    assert_eq!(status.acked, None);
    assert_eq!(
        status.nack.as_ref().map(|nack| (nack.version, nack.message.as_str())),
        Some((version, "r: no"))
    );

    let version = control.set(resource(Kind::Route, "r", "good"));
    let second = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Route, &["r"], &second));
    let status = subscriber.status(&control).remove(0);
    assert_eq!((status.acked, status.nack), (Some(version), None));
    assert!(status.settled);
}

#[test]
fn a_request_with_an_older_nonce_is_stale() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Cluster, "a", "a1"));
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Cluster, &[]));
    let first = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Cluster, &[], &first));
    control.set(resource(Kind::Cluster, "a", "a2"));
    let _second = poll(&mut subscriber, &control).unwrap();
    assert_eq!(subscriber.handle(ack(Kind::Cluster, &[], &first)), Received::Stale(Kind::Cluster));
    let status = subscriber.status(&control).remove(0);
    assert_eq!(status.acked, Some(1), "the older answer says nothing about the newer response");
}

#[test]
fn kinds_are_sent_in_the_order_that_leaves_no_reference_open() {
    let control = ControlPlane::new();
    for kind in [Kind::Route, Kind::Listener, Kind::Endpoints, Kind::Cluster] {
        control.set(resource(kind, "x", "x"));
    }
    let mut subscriber = Sotw::new(&control);
    for kind in [Kind::Route, Kind::Listener, Kind::Endpoints, Kind::Cluster] {
        subscriber.handle(ask(kind, &["x"]));
    }
    let order: Vec<_> = std::iter::from_fn(|| poll(&mut subscriber, &control)).map(|r| r.type_url).collect();
    assert_eq!(order, [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route].map(Kind::type_url));
}

#[test]
fn setting_the_same_again_is_no_change() {
    let control = ControlPlane::new();
    let one = control.set(resource(Kind::Cluster, "a", "a1"));
    assert_eq!(control.set(resource(Kind::Cluster, "a", "a1")), one);
    assert_eq!(control.remove(Kind::Cluster, "absent"), one);
    assert_eq!(control.replace(resource(Kind::Cluster, "a", "a1")), one);
    assert_eq!(control.replace(resource(Kind::Cluster, "b", "b1")), one + 1);
    assert_eq!(control.resources(Kind::Cluster).len(), 1);
}

#[test]
fn a_type_that_is_not_served_is_ignored() {
    let control = ControlPlane::new();
    let mut subscriber = Sotw::new(&control);
    let request = DiscoveryRequest { type_url: "type.googleapis.com/x.Y".into(), ..Default::default() };
    assert_eq!(subscriber.handle(request), Received::UnknownType);
    assert!(poll(&mut subscriber, &control).is_none());
}

#[test]
fn what_is_gone_stays_in_the_set_until_what_replaces_it_is_answered() {
    let control = ControlPlane::new();
    control.set([resource(Kind::Cluster, "old", "old"), resource(Kind::Route, "r", "to old")]);
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Cluster, &[]));
    subscriber.handle(ask(Kind::Route, &["r"]));
    let clusters = poll(&mut subscriber, &control).unwrap();
    let route = poll(&mut subscriber, &control).unwrap();
    subscriber.handle(ack(Kind::Cluster, &[], &clusters));
    subscriber.handle(ack(Kind::Route, &["r"], &route));

    control.edit(|edit| {
        edit.remove(Kind::Cluster, "old");
        edit.set([resource(Kind::Cluster, "new", "new"), resource(Kind::Route, "r", "to new")]);
    });
    let clusters = poll(&mut subscriber, &control).unwrap();
    assert_eq!(bodies(&clusters), ["new", "old"]);
    let route = poll(&mut subscriber, &control).unwrap();
    assert_eq!(bodies(&route), ["to new"]);
    subscriber.handle(ack(Kind::Cluster, &[], &clusters));
    assert!(poll(&mut subscriber, &control).is_none(), "the route is not answered");
    subscriber.handle(ack(Kind::Route, &["r"], &route));
    assert_eq!(bodies(&poll(&mut subscriber, &control).unwrap()), ["new"]);
}

#[test]
fn endpoints_by_name_come_in_parts_that_any_client_takes() {
    let control = ControlPlane::new();
    let names: Vec<String> = (0..50).map(|i| format!("e{i:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    control.set(
        names.iter().map(|name| resource(Kind::Endpoints, name, &"x".repeat(100_000))).collect::<Vec<_>>(),
    );
    let mut subscriber = Sotw::new(&control);
    subscriber.handle(ask(Kind::Endpoints, &names));
    let mut sizes = Vec::new();
    while let Some(response) = poll(&mut subscriber, &control) {
        sizes.push(response.resources.len());
        subscriber.handle(ack(Kind::Endpoints, &names, &response));
    }
    assert_eq!(sizes, [20, 20, 10]);
}

#[test]
fn a_time_to_live_is_told_to_clients_that_know_the_wrapper_and_renewed_with_the_resource() {
    let control = ControlPlane::new();
    control.set([
        resource(Kind::Cluster, "short", "s").with_ttl(Duration::from_secs(10)),
        resource(Kind::Cluster, "forever", "f"),
    ]);
    for features in [&[][..], &["xds.config.resource-in-sotw"]] {
        let mut subscriber = Sotw::new(&control);
        let client_features = features.iter().map(|feature| (*feature).to_owned()).collect();
        let node = Some(Node { client_features, ..Node::default() });
        subscriber.handle(DiscoveryRequest { node, ..ask(Kind::Cluster, &[]) });
        let first = poll(&mut subscriber, &control).unwrap();
        subscriber.handle(ack(Kind::Cluster, &[], &first));
        if features.is_empty() {
            assert_eq!(bodies(&first), ["f", "s"]);
            assert_eq!(subscriber.0.subscriber.poll_timeout(), None);
            continue;
        }
        subscriber.0.now = subscriber.0.subscriber.poll_timeout().unwrap();
        let beat = poll(&mut subscriber, &control).unwrap();
        for response in [first, beat] {
            let [forever, short] = response.resources.as_slice() else { panic!("the complete set") };
            assert_eq!(forever.value, b"f");
            assert_eq!(short.type_url, "type.googleapis.com/envoy.service.discovery.v3.Resource");
            let short = Resource::decode(short.value.as_slice()).unwrap();
            assert_eq!((short.name.as_str(), short.ttl.unwrap().seconds), ("short", 10));
            assert_eq!(
                (short.version, short.resource.unwrap().value),
                (response.version_info, b"s".to_vec())
            );
        }
    }
}
