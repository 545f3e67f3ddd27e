//! Several control planes, without runtime: authorities (gRFC A47), fallback (A71), and whose rules count (A88).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::snapshot::{ClientSnapshot, Resolution, Subscription};
use serde_json::json;

use super::super::engine::Engine;
use super::super::reports::Reports;
use super::super::targets::Targets;
use super::engine::{cluster, endpoints, listener, route};
use crate::ads::{ABSENT_AFTER, ABSENT_AFTER_TRANSIENT, Ask, Kind, Received, Response};
use crate::authority::{Authorities, ServerIx};
use crate::bootstrap::Bootstrap;
use crate::resolve::Resolver;
use crate::resource::{Accepted, Checked};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// An engine over several control planes, and what each of them was last asked for.
struct Lab {
    engine: Engine,
    targets: Arc<Targets>,
    now: Instant,
    nonce: u64,
    asked: BTreeMap<(usize, Kind), Vec<String>>,
    versions: BTreeMap<(usize, Kind), String>,
}

impl Lab {
    /// Control planes `a`, `b`, … of the top level, in this order.
    fn with(servers: usize, features: &[&str]) -> Self {
        let server = |i: usize| {
            let uri = format!("{}:1", char::from(b'a' + u8::try_from(i).unwrap()));
            json!({"server_uri": uri, "channel_creds": [{"type": "insecure"}], "server_features": features})
        };
        let servers: Vec<_> = (0..servers).map(server).collect();
        Self::of(&json!({"xds_servers": servers, "node": {"id": "n"}}))
    }

    fn of(bootstrap: &serde_json::Value) -> Self {
        let bootstrap: Bootstrap = bootstrap.to_string().parse().unwrap();
        let node: Arc<str> = bootstrap.node().id().into();
        #[expect(clippy::disallowed_methods, reason = "the origin of a clock that is moved by hand")]
        let now = Instant::now();
        Self {
            engine: Engine::new(Authorities::new(&bootstrap), node.clone(), Reports::default()),
            targets: Targets::new(Resolver::new(Arc::new(bootstrap), node)),
            now,
            nonce: 0,
            asked: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    fn client(&mut self, target: &str) -> Subscription<ClientSnapshot> {
        let subscription = self.targets.client(target);
        self.sync();
        subscription
    }

    fn sync(&mut self) {
        self.engine.sync(self.targets.open());
        self.turn();
    }

    fn turn(&mut self) {
        self.engine.settle();
        for server in [A, B, C] {
            while let Some(request) = self.engine.poll_transmit(ServerIx::of_test(server), self.now) {
                let names = request.names().iter().map(ToString::to_string).collect();
                self.asked.insert((server, request.kind), names);
                if let Ask::All { version, .. } = &request.ask {
                    self.versions.insert((server, request.kind), version.to_string());
                }
            }
        }
    }

    fn asked(&self, server: usize, kind: Kind) -> Vec<&str> {
        self.asked.get(&(server, kind)).into_iter().flatten().map(String::as_str).collect()
    }

    fn connect(&mut self, server: usize) {
        self.engine.handle_connected(ServerIx::of_test(server), self.now);
        self.turn();
    }

    /// A connection that fails, or a stream that ends.
    fn lose(&mut self, server: usize) {
        let why = ["a:1: refused", "b:1: refused", "c:1: refused"][server];
        self.engine.handle_disconnected(ServerIx::of_test(server), self.now, &why.into());
        self.turn();
    }

    fn respond(&mut self, server: usize, kind: Kind, good: Vec<(&str, Checked)>) {
        self.respond_with(server, kind, good, &[]);
    }

    fn respond_with(&mut self, server: usize, kind: Kind, good: Vec<(&str, Checked)>, bad: &[&str]) {
        self.nonce += 1;
        let received =
            |name: &str, verdict| Received { name: Some(name.into()), version: None, ttl: None, verdict };
        let good = good.into_iter().map(|(name, resource)| {
            received(
                name,
                Ok(Accepted { resource, unapplied: Arc::default(), deferred: Arc::default(), bytes: None }),
            )
        });
        let bad = bad.iter().map(|name| received(name, Err("bad".into())));
        let response = Response {
            kind,
            version: self.nonce.to_string().into(),
            nonce: self.nonce.to_string().into(),
            resources: good.chain(bad).collect(),
            heartbeats: Vec::new(),
            removed: Vec::new(),
            errors: Vec::new(),
        };
        self.engine.handle_response(ServerIx::of_test(server), self.now, response);
        self.turn();
    }

    /// Everything of target `l`: routes `r` to cluster `a` with one endpoint at this port.
    fn serve(&mut self, server: usize, port: u16) {
        self.respond(server, Kind::Listener, vec![("l", listener("r"))]);
        self.respond(server, Kind::Route, vec![("r", route("r", &["a"]))]);
        self.respond(server, Kind::Cluster, vec![("a", cluster("a"))]);
        self.respond(server, Kind::Endpoints, vec![("eds-a", endpoints([port]))]);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.engine.handle_timeout(self.now);
        self.turn();
    }

    fn is_in_use(&self, server: usize) -> bool {
        self.engine.is_in_use(ServerIx::of_test(server))
    }
}

/// The ports of everything that a target can reach, or what is in the way.
fn shows(target: &Subscription<ClientSnapshot>) -> String {
    match &*target.cell().load() {
        Resolution::Pending(error) => format!("pending: {error}"),
        Resolution::Failed(error) => format!("failed: {error}"),
        Resolution::Ready(snapshot) => {
            let clusters = snapshot.clusters.iter().map(|entry| match &entry.cluster {
                Ok(cluster) => {
                    let ports = cluster.endpoints.iter().map(|endpoint| endpoint.address.to_string());
                    ports.collect::<Vec<_>>().join(" ").replace("127.0.0.1:", "")
                }
                Err(error) => error.to_string(),
            });
            clusters.collect::<Vec<_>>().join(", ")
        }
    }
}

#[test]
fn a_first_that_cannot_be_reached_at_the_start_is_replaced_by_the_next() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    assert!(!lab.is_in_use(B));
    lab.lose(A);
    assert!(lab.is_in_use(B) && shows(&target).starts_with("pending"), "{}", shows(&target));
    lab.connect(B);
    assert_eq!(lab.asked(B, Kind::Listener), ["l"]);
    lab.serve(B, 2);
    assert_eq!(shows(&target), "2");
}

#[test]
fn one_that_is_lost_while_everything_is_cached_is_not_replaced_until_something_is_wanted() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.connect(A);
    lab.serve(A, 1);
    lab.lose(A);
    lab.lose(A);
    assert!(!lab.is_in_use(B), "all is cached");
    assert_eq!(shows(&target), "1");
    let other = lab.client("m");
    assert!(lab.is_in_use(B));
    lab.connect(B);
    assert_eq!(lab.asked(B, Kind::Listener), ["l", "m"], "it is asked for everything");
    lab.respond(B, Kind::Listener, vec![("l", listener("r")), ("m", listener("r"))]);
    assert_eq!((shows(&target), shows(&other)), ("1".to_owned(), "1".to_owned()), "what is cached serves");
    lab.serve(B, 2);
    assert_eq!(shows(&target), "2", "and what the other one says replaces it");
}

#[test]
fn a_stream_that_ends_after_a_response_is_no_reason_to_fall_back() {
    let mut lab = Lab::with(2, &[]);
    let _target = lab.client("l");
    lab.connect(A);
    lab.respond(A, Kind::Listener, vec![("l", listener("r"))]);
    lab.lose(A);
    assert!(!lab.is_in_use(B), "the route is missing, but nothing has failed");
    lab.lose(A);
    assert!(lab.is_in_use(B));
}

#[test]
fn what_does_not_exist_counts_as_cached() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.connect(A);
    lab.respond(A, Kind::Listener, vec![]);
    lab.advance(ABSENT_AFTER);
    assert!(shows(&target).contains("does not exist"));
    lab.lose(A);
    lab.lose(A);
    assert!(!lab.is_in_use(B));
}

#[test]
fn one_that_never_said_anything_has_not_said_that_something_does_not_exist() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.connect(A);
    lab.advance(ABSENT_AFTER);
    assert!(shows(&target).contains("does not exist"));
    lab.lose(A);
    assert!(lab.is_in_use(B));
    lab.connect(B);
    lab.serve(B, 2);
    assert_eq!(shows(&target), "2");
}

#[test]
fn the_first_that_answers_again_takes_over_and_closes_the_other() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.lose(A);
    lab.connect(B);
    lab.serve(B, 2);
    lab.connect(A);
    assert!(lab.is_in_use(B), "connected is not answered");
    lab.respond(A, Kind::Listener, vec![("l", listener("r"))]);
    assert!(!lab.is_in_use(B));
    assert_eq!(shows(&target), "2", "what is cached serves until the first has sent its own");
    lab.respond(A, Kind::Endpoints, vec![("eds-a", endpoints([1]))]);
    assert_eq!(shows(&target), "1");
}

/// grpc-go stays on the endpoints of the fallback, because it never subscribes to them again.
#[test]
fn one_that_comes_back_is_asked_for_what_the_other_one_served_and_sends_it_again() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.connect(A);
    lab.serve(A, 1);
    let version = lab.versions[&(A, Kind::Endpoints)].clone();
    assert_ne!(version, "");
    lab.lose(A);
    lab.lose(A);
    let _other = lab.client("m");
    lab.connect(B);
    lab.serve(B, 2);
    assert_eq!(shows(&target), "2");
    lab.connect(A);
    for (kind, names) in [(Kind::Route, ["r"]), (Kind::Cluster, ["a"]), (Kind::Endpoints, ["eds-a"])] {
        assert_eq!(lab.asked(A, kind), names);
        assert_eq!(lab.versions[&(A, kind)], "", "its own version is not what is in force");
    }
    lab.serve(A, 3);
    assert_eq!(shows(&target), "3");
}

#[test]
fn everybody_failed_is_told_once_nobody_is_left() {
    let mut lab = Lab::with(3, &[]);
    let target = lab.client("l");
    for server in [A, B] {
        lab.lose(server);
        assert!(shows(&target).starts_with("pending"), "{}", shows(&target));
    }
    lab.lose(C);
    let text = shows(&target);
    assert!(
        text.starts_with("failed") && text.contains("a:1: refused; b:1: refused; c:1: refused"),
        "{text}"
    );
    lab.connect(B);
    lab.serve(B, 2);
    assert_eq!(shows(&target), "2");
    assert!(lab.is_in_use(A) && !lab.is_in_use(C));
}

#[test]
fn what_the_other_one_sent_is_cached_for_the_first_so_that_no_timer_takes_it_away() {
    for features in [&[][..], &["fail_on_data_errors"]] {
        let mut lab = Lab::with(2, features);
        let target = lab.client("l");
        lab.lose(A);
        lab.connect(B);
        lab.serve(B, 2);
        lab.connect(A);
        lab.respond(A, Kind::Listener, vec![("l", listener("r"))]);
        lab.advance(ABSENT_AFTER);
        assert_eq!(
            shows(&target),
            "2",
            "the first has no such route, which says nothing about what is cached"
        );
    }
}

#[test]
fn what_the_first_does_not_have_is_deleted_when_it_takes_over() {
    let mut lab = Lab::with(2, &["fail_on_data_errors"]);
    let target = lab.client("l");
    lab.lose(A);
    lab.connect(B);
    lab.serve(B, 2);
    lab.connect(A);
    lab.respond(A, Kind::Cluster, vec![]);
    assert!(shows(&target).contains(r#"cluster "a" does not exist"#), "{}", shows(&target));
}

#[test]
fn a_response_that_is_still_in_the_pipe_of_a_closed_one_changes_nothing() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.lose(A);
    lab.connect(B);
    lab.serve(B, 2);
    lab.connect(A);
    lab.serve(A, 1);
    lab.respond(B, Kind::Endpoints, vec![("eds-a", endpoints([9]))]);
    assert_eq!(shows(&target), "1");
}

#[test]
fn a_lost_first_is_replaced_in_the_middle_of_an_update() {
    let mut lab = Lab::with(2, &[]);
    let target = lab.client("l");
    lab.connect(A);
    lab.serve(A, 1);
    lab.respond(A, Kind::Route, vec![("r", route("r", &["new"]))]);
    lab.lose(A);
    lab.lose(A);
    assert!(lab.is_in_use(B), "the new cluster is not cached");
    assert_eq!(shows(&target), "1");
    lab.connect(B);
    lab.serve(B, 2);
    assert_eq!(shows(&target), "2");
}

fn federated() -> Lab {
    let server = |uri: &str, features: &[&str]| {
        json!({
            "server_uri": uri, "channel_creds": [{"type": "insecure"}], "server_features": features
        })
    };
    Lab::of(&json!({
        "xds_servers": [server("a:1", &[])],
        "authorities": {
            "one": {"xds_servers": [server("b:1", &["fail_on_data_errors"])]},
            "two": {"xds_servers": [server("c:1", &["resource_timer_is_transient_error"])]},
        },
        "node": {"id": "n"},
    }))
}

const LISTENER: &str = "xdstp://one/envoy.config.listener.v3.Listener/shop";
const ROUTE: &str = "xdstp://one/envoy.config.route.v3.RouteConfiguration/r";
const CLUSTER: &str = "xdstp://two/envoy.config.cluster.v3.Cluster/c";

#[test]
fn each_name_is_asked_of_its_authority_and_one_target_is_made_of_all() {
    let mut lab = federated();
    let target = lab.client("xds://one/shop");
    for server in [A, B, C] {
        lab.connect(server);
    }
    assert_eq!((lab.asked(A, Kind::Listener), lab.asked(B, Kind::Listener)), (vec![], vec![LISTENER]));
    lab.respond(B, Kind::Listener, vec![(LISTENER, listener(ROUTE))]);
    lab.respond(B, Kind::Route, vec![(ROUTE, route(ROUTE, &[CLUSTER, "local"]))]);
    assert_eq!((lab.asked(A, Kind::Cluster), lab.asked(C, Kind::Cluster)), (vec!["local"], vec![CLUSTER]));
    lab.respond(A, Kind::Cluster, vec![("local", cluster("local"))]);
    lab.respond(C, Kind::Cluster, vec![(CLUSTER, cluster("far"))]);
    lab.respond(A, Kind::Endpoints, vec![("eds-local", endpoints([1])), ("eds-far", endpoints([3]))]);
    let mut ports: Vec<String> = shows(&target).split(", ").map(str::to_owned).collect();
    ports.sort();
    assert_eq!(ports, ["1", "3"]);
}

/// A resource that never was valid is an error to those who want it later as well, at once, as in grpc-go.
#[test]
fn who_wants_later_what_was_refused_or_does_not_exist_is_told_at_once() {
    let mut lab = Lab::with(1, &[]);
    let _first = lab.client("l");
    lab.connect(A);
    lab.respond(A, Kind::Listener, vec![("l", listener("r")), ("m", listener("r"))]);
    lab.respond(A, Kind::Route, vec![("r", route("r", &["absent", "refused"]))]);
    lab.respond_with(A, Kind::Cluster, vec![], &["refused"]);
    lab.advance(ABSENT_AFTER);
    let later = lab.client("m");
    lab.respond(A, Kind::Listener, vec![("l", listener("r")), ("m", listener("r"))]);
    let text = shows(&later);
    assert!(text.contains("\"absent\" does not exist") && text.contains("\"refused\" is invalid"), "{text}");
}

/// gRFC A53 and A88: with both features the legacy one is not looked at.
#[test]
fn a_deleted_resource_stays_in_use_unless_the_control_plane_wants_it_dropped() {
    for (features, is_dropped) in [
        (&[][..], false),
        (&["ignore_resource_deletion"], false),
        (&["fail_on_data_errors"], true),
        (&["ignore_resource_deletion", "fail_on_data_errors"], true),
    ] {
        let mut lab = Lab::with(1, features);
        let target = lab.client("l");
        lab.connect(A);
        lab.serve(A, 1);
        lab.respond(A, Kind::Cluster, vec![]);
        lab.respond(A, Kind::Listener, vec![]);
        assert_eq!(shows(&target) != "1", is_dropped, "{features:?}: {}", shows(&target));
        lab.serve(A, 2);
        assert_eq!(shows(&target), "2", "{features:?}");
    }
}

#[test]
fn an_unknown_authority_is_an_error_of_that_resource_alone() {
    let mut lab = federated();
    let target = lab.client("l");
    lab.connect(A);
    lab.respond(A, Kind::Listener, vec![("l", listener("r"))]);
    let unknown = "xdstp://nobody/envoy.config.cluster.v3.Cluster/c";
    lab.respond(A, Kind::Route, vec![("r", route("r", &["a", unknown]))]);
    lab.respond(A, Kind::Cluster, vec![("a", cluster("a"))]);
    lab.respond(A, Kind::Endpoints, vec![("eds-a", endpoints([1]))]);
    let text = shows(&target);
    assert!(text.starts_with("1, ") && text.contains("\"nobody\"") && text.contains("add it to"), "{text}");
    assert_eq!(lab.asked(A, Kind::Cluster), ["a"], "nobody is asked for it");
}

#[test]
fn an_authority_that_is_down_is_an_error_of_its_own_resources() {
    let mut lab = federated();
    let (far, near) = (lab.client("xds://one/shop"), lab.client("l"));
    lab.connect(A);
    lab.lose(B);
    assert!(shows(&far).contains("b:1: refused"), "{}", shows(&far));
    lab.serve(A, 1);
    assert_eq!(shows(&near), "1");
}

#[test]
fn the_features_of_the_control_plane_that_a_resource_comes_from_count() {
    let mut lab = federated();
    let target = lab.client("xds://one/shop");
    for server in [A, B, C] {
        lab.connect(server);
    }
    lab.respond(B, Kind::Listener, vec![(LISTENER, listener(ROUTE))]);
    lab.respond(B, Kind::Route, vec![(ROUTE, route(ROUTE, &["local", CLUSTER]))]);
    lab.respond(A, Kind::Cluster, vec![("local", cluster("local"))]);
    lab.respond(A, Kind::Endpoints, vec![("eds-local", endpoints([1]))]);
    lab.advance(ABSENT_AFTER);
    assert!(shows(&target).starts_with("pending"), "the timer of C is longer: {}", shows(&target));
    lab.advance(ABSENT_AFTER_TRANSIENT - ABSENT_AFTER);
    let text = shows(&target);
    assert!(text.contains("1, cluster") && text.contains("c:1: it did not answer within 30 s"), "{text}");
    lab.respond(A, Kind::Cluster, vec![]);
    assert_eq!(shows(&target), text, "A keeps what it deleted");
    lab.respond_with(B, Kind::Listener, vec![], &[LISTENER]);
    assert!(shows(&target).starts_with("failed"), "B does not: {}", shows(&target));
}
