//! What serves goes on whole until its successor is complete (gRFC A74), and a deleted cluster keeps its endpoints (A88).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::cluster::{ClusterConfig, Discovery};
use mesh_core::config::listener::{ListenerConfig, ServerListener};

use super::engine::{World, chain, cluster, endpoints, listener, ready, route, summary};
use crate::ads::{ABSENT_AFTER, Kind};
use crate::resource::Checked;

/// A client whose route goes to `a`, which has one endpoint.
pub(super) fn serving() -> (World, mesh_core::snapshot::Subscription<mesh_core::snapshot::ClientSnapshot>) {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
    (world, target)
}

#[test]
fn what_serves_is_followed_until_its_successor_is_complete_and_then_let_go() {
    let (mut world, target) = serving();
    world.respond(Kind::Route, vec![("r", route("r", &["b"]))], &[]);
    assert_eq!(world.asked(Kind::Cluster), ["a", "b"]);
    assert_eq!(world.asked(Kind::Endpoints), ["eds-a"]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2"], "its endpoints move meanwhile");
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    assert_eq!(world.asked(Kind::Endpoints), ["eds-a", "eds-b"]);
    world.respond(Kind::Endpoints, vec![("eds-b", endpoints([3]))], &[]);
    assert_eq!(summary(&ready(&target)), ["b: 3"]);
    assert_eq!((world.asked(Kind::Cluster), world.asked(Kind::Endpoints)), (vec!["b"], vec!["eds-b"]));
}

#[test]
fn a_cluster_whose_endpoints_are_to_be_found_elsewhere_keeps_the_old_ones_until_they_come() {
    let (mut world, target) = serving();
    let elsewhere = ClusterConfig::new("a", Discovery::Eds { service: "elsewhere".into() });
    let elsewhere = Checked::Cluster(Arc::new(elsewhere));
    world.respond(Kind::Cluster, vec![("a", elsewhere)], &[]);
    assert_eq!(world.asked(Kind::Endpoints), ["eds-a", "elsewhere"]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2"]);
    world.respond(Kind::Endpoints, vec![("elsewhere", endpoints([3]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 3"]);
    assert_eq!(world.asked(Kind::Endpoints), ["elsewhere"]);
}

#[test]
fn a_listener_that_moves_to_other_routes_keeps_the_old_ones_subscribed_until_they_come() {
    let (mut world, target) = serving();
    world.respond(Kind::Listener, vec![("l", listener("s"))], &[]);
    assert_eq!(world.asked(Kind::Route), ["r", "s"]);
    assert_eq!(world.asked(Kind::Cluster), ["a"]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2"]);
    world.respond(Kind::Route, vec![("s", route("s", &["b"]))], &[]);
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-b", endpoints([3]))], &[]);
    assert_eq!(summary(&ready(&target)), ["b: 3"]);
    assert_eq!((world.asked(Kind::Route), world.asked(Kind::Cluster)), (vec!["s"], vec!["b"]));
}

/// The new routes are known not to exist, so the old ones stay in use, and so does all that they need.
#[test]
fn what_stays_in_use_for_want_of_a_successor_is_followed_as_long() {
    let (mut world, target) = serving();
    world.respond(Kind::Listener, vec![("l", listener("nowhere"))], &[]);
    world.advance(ABSENT_AFTER);
    world.advance(ABSENT_AFTER);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2"]);
}

#[test]
fn a_target_that_is_closed_while_its_successor_is_awaited_lets_go_of_everything() {
    let (mut world, target) = serving();
    world.respond(Kind::Route, vec![("r", route("r", &["b"]))], &[]);
    drop(target);
    world.sync();
    for kind in Kind::ALL {
        assert_eq!(world.engine.watched(kind), 0, "{kind}");
    }
}

/// istiod answers for a subset that it no longer knows with the endpoints of all of them.
#[test]
fn a_deleted_cluster_keeps_its_endpoints_and_takes_no_others() {
    let (mut world, target) = serving();
    let before = ready(&target);
    world.respond(Kind::Cluster, vec![], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1, 2, 3]))], &[]);
    assert!(Arc::ptr_eq(&before, &ready(&target)), "nothing was published");
    // It is back: what was not taken is asked for.
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
    assert_eq!(world.asked(Kind::Endpoints), ["eds-a"]);
    assert_eq!(world.claims(Kind::Endpoints), "", "no version of them is held");
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([4]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 4"]);
}

#[test]
fn a_deleted_cluster_that_is_back_and_refused_has_the_endpoints_that_it_had_until_others_come() {
    let (mut world, target) = serving();
    world.respond(Kind::Cluster, vec![], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([9]))], &[]);
    world.respond(Kind::Cluster, vec![], &[("a", "bad")]);
    world.advance(ABSENT_AFTER * 4);
    assert_eq!(summary(&ready(&target)), ["a: 1"], "no timer empties it");
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2"], "it exists, so its endpoints are heard");
}

#[test]
fn endpoints_that_another_cluster_names_as_well_are_heard() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a", "b"]);
    let shared = |name: &str| {
        Checked::Cluster(Arc::new(ClusterConfig::new(name, Discovery::Eds { service: "shared".into() })))
    };
    world.respond(Kind::Cluster, vec![("a", shared("a")), ("b", shared("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("shared", endpoints([1]))], &[]);
    world.respond(Kind::Cluster, vec![("b", shared("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("shared", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2", "b: 2"]);
}

/// They are the server's own routes: it sends nothing to their clusters.
#[test]
fn a_server_asks_for_no_clusters_unless_a_client_has_the_same_routes() {
    let mut world = World::new();
    let address: SocketAddr = "127.0.0.1:9080".parse().unwrap();
    let server = world.server(address);
    let config = ServerListener {
        address: address.into(),
        chains: Vec::new(),
        default_chain: Some(chain("all", "r")),
    };
    let config = Checked::Listener(Arc::new(ListenerConfig::Server(config)));
    let both = || vec![("servers/127.0.0.1:9080", config.clone()), ("l", listener("r"))];
    world.respond(Kind::Listener, both(), &[]);
    world.respond(Kind::Route, vec![("r", route("r", &["a"]))], &[]);
    assert_eq!(ready(&server).routes.len(), 1);
    assert_eq!(world.engine.watched(Kind::Cluster), 0);

    let client = world.client("l");
    world.respond(Kind::Listener, both(), &[]);
    assert_eq!(world.asked(Kind::Cluster), ["a"], "the routes are there already");
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    assert_eq!(summary(&ready(&client)), ["a: 1"]);
    drop(client);
    world.sync();
    assert_eq!([Kind::Route, Kind::Cluster].map(|kind| world.engine.watched(kind)), [1, 0]);
    assert_eq!(ready(&server).routes.len(), 1);
}

/// A proxy that takes an equal cluster for settled never asks for its endpoints again, and its cluster stays in warming
/// (envoyproxy/envoy#46383, #21425, istio/istio#38709).
#[test]
fn a_cluster_that_is_announced_again_without_endpoints_is_served_as_soon_as_they_come() {
    let (mut world, target) = serving();
    world.respond(Kind::Route, vec![("r", route("r", &["b"]))], &[]);
    let both = || vec![("a", cluster("a")), ("b", cluster("b"))];
    world.respond(Kind::Cluster, both(), &[]);
    for _ in 0..3 {
        world.respond(Kind::Cluster, both(), &[]);
        assert_eq!(world.asked(Kind::Endpoints), ["eds-a", "eds-b"]);
        assert_eq!(summary(&ready(&target)), ["a: 1"], "the old serves");
    }
    world.advance(ABSENT_AFTER);
    let [told] = summary(&ready(&target)).try_into().expect("one cluster");
    assert!(told.starts_with("b:  (endpoints \"eds-b\" does not exist"), "{told}");
    for _ in 0..3 {
        world.respond(Kind::Cluster, both(), &[]);
        assert!(world.asked(Kind::Endpoints).contains(&"eds-b"));
    }
    world.respond(Kind::Endpoints, vec![("eds-b", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["b: 2"]);
    // The same cluster in another shape keeps the endpoints that it has: nobody sends them again.
    let mut changed = ClusterConfig::new("b", Discovery::Eds { service: "eds-b".into() });
    changed.connect_timeout = Duration::from_secs(1);
    let changed = Checked::Cluster(Arc::new(changed));
    world.respond(Kind::Cluster, vec![("b", changed)], &[]);
    assert_eq!(summary(&ready(&target)), ["b: 2"]);
}

/// An idle channel lets go of all that it had and wants it back later; a control plane that goes by versions must not think
/// that it is still there (grpc/grpc-java#9632, envoyproxy/java-control-plane#339).
#[test]
fn a_target_that_is_opened_again_claims_nothing_that_was_let_go() {
    let (mut world, target) = serving();
    let other = world.client("m");
    world.respond(Kind::Listener, vec![("l", listener("r")), ("m", listener("r"))], &[]);
    drop(target);
    world.sync();
    drop(other);
    world.sync();
    let target = world.client("l");
    assert_eq!((world.asked(Kind::Listener), world.claims(Kind::Listener)), (vec!["l"], ""));
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    assert_eq!((world.asked(Kind::Route), world.claims(Kind::Route)), (vec!["r"], ""));
    world.respond(Kind::Route, vec![("r", route("r", &["a"]))], &[]);
    assert_eq!((world.asked(Kind::Cluster), world.claims(Kind::Cluster)), (vec!["a"], ""));
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    assert_eq!((world.asked(Kind::Endpoints), world.claims(Kind::Endpoints)), (vec!["eds-a"], ""));
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
}

/// A response for the callers of a process that names its own listener no longer (grpc/grpc-go#5354).
#[test]
fn a_server_whose_listener_is_missing_from_a_response_goes_on() {
    let mut world = World::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 9080));
    let (server, client) = (world.server(address), world.client("l"));
    let chains = vec![chain("c", "r")];
    let of_server = ServerListener { address: address.into(), chains, default_chain: None };
    let of_server = Checked::Listener(Arc::new(ListenerConfig::Server(of_server)));
    world.respond(Kind::Listener, vec![("servers/127.0.0.1:9080", of_server), ("l", listener("r"))], &[]);
    world.respond(Kind::Route, vec![("r", route("r", &["a"]))], &[]);
    let before = ready(&server);
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    world.advance(ABSENT_AFTER);
    assert!(Arc::ptr_eq(&before, &ready(&server)));
    assert_eq!(world.asked(Kind::Listener), ["l", "servers/127.0.0.1:9080"]);
    drop(client);
}
