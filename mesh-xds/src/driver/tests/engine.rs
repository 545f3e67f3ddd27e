//! From events to published snapshots, without runtime (gRFC A74, A46, A88).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::config::cluster::{ClusterConfig, Discovery};
use mesh_core::config::listener::{
    ChainMatch, FilterChain, HttpConfig, ListenerConfig, RouteSource, ServerListener,
};
use mesh_core::snapshot::{
    ClientSnapshot, ConfigProblem, Resolution, ServerSnapshot, SnapshotCell, Subscription,
};
use mesh_core::testing;

use super::super::engine::Engine;
use super::super::reports::Reports;
use super::super::targets::Targets;
use crate::ads::{ABSENT_AFTER, Ask, Kind, Received, ResourceError, Response};
use crate::authority::{Authorities, ServerIx};
use crate::bootstrap::{Bootstrap, ServerConfig, ServerFeatures};
use crate::last_good::LastGood;
use crate::resolve::Resolver;
use crate::resource::{Accepted, Checked};
use crate::store::OnDataError;

/// An engine with its targets and clock, and what the control plane was last asked for.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) targets: Arc<Targets>,
    pub(super) now: Instant,
    asked: BTreeMap<Kind, Vec<String>>,
    /// The version that the last request of a type claimed.
    claimed: BTreeMap<Kind, Arc<str>>,
    nonce: u64,
}

pub(super) type Bad = (&'static str, &'static str);

impl World {
    pub(super) fn new() -> Self {
        Self::with(OnDataError::Keep)
    }

    pub(super) fn with(on_data_error: OnDataError) -> Self {
        Self::build(on_data_error, LastGood::default())
    }

    pub(super) fn build(on_data_error: OnDataError, last_good: LastGood) -> Self {
        let features = ServerFeatures {
            fail_on_data_errors: on_data_error == OnDataError::Drop,
            ..ServerFeatures::default()
        };
        let bootstrap = Bootstrap::builder("node-1")
            .server(ServerConfig::insecure("xds:1").unwrap().with_features(features))
            .server_listener_template("servers/%s")
            .build()
            .unwrap();
        let node: Arc<str> = "node-1".into();
        #[expect(clippy::disallowed_methods, reason = "the origin of a clock that is moved by hand")]
        let now = Instant::now();
        let mut world = Self {
            engine: Engine::new(
                Authorities::new(&bootstrap),
                node.clone(),
                Reports { last_good, ..Reports::default() },
            ),
            targets: Targets::new(Resolver::new(Arc::new(bootstrap), node)),
            now,
            asked: BTreeMap::new(),
            claimed: BTreeMap::new(),
            nonce: 0,
        };
        world.engine.handle_connected(ServerIx::of_test(0), world.now);
        world
    }

    pub(super) fn client(&mut self, target: &str) -> Subscription<ClientSnapshot> {
        let subscription = self.targets.client(target);
        self.sync();
        subscription
    }

    pub(super) fn server(&mut self, address: SocketAddr) -> Subscription<ServerSnapshot> {
        let subscription = self.targets.server(&address.into());
        self.sync();
        subscription
    }

    pub(super) fn sync(&mut self) {
        self.engine.sync(self.targets.open());
        self.turn();
    }

    pub(super) fn turn(&mut self) {
        self.engine.settle();
        while let Some(request) = self.engine.poll_transmit(ServerIx::of_test(0), self.now) {
            self.asked.insert(request.kind, request.names().iter().map(ToString::to_string).collect());
            if let Ask::All { version, .. } = request.ask {
                self.claimed.insert(request.kind, version);
            }
        }
    }

    pub(super) fn asked(&self, kind: Kind) -> Vec<&str> {
        self.asked.get(&kind).into_iter().flatten().map(String::as_str).collect()
    }

    pub(super) fn claims(&self, kind: Kind) -> &str {
        self.claimed.get(&kind).map_or("", |version| version)
    }

    pub(super) fn respond(&mut self, kind: Kind, good: Vec<(&str, Checked)>, bad: &[Bad]) {
        let received =
            |name: &str, verdict| Received { name: Some(name.into()), version: None, ttl: None, verdict };
        let good = good.into_iter().map(|(name, resource)| {
            received(
                name,
                Ok(Accepted { resource, unapplied: Arc::default(), deferred: Arc::default(), bytes: None }),
            )
        });
        let bad = bad.iter().map(|(name, reason)| received(name, Err((*reason).into())));
        let resources = good.chain(bad).collect();
        self.tell(kind, resources, Vec::new());
    }

    /// Resources as they were judged.
    pub(super) fn respond_whole(&mut self, kind: Kind, good: Vec<(&str, Accepted)>) {
        let received = |(name, accepted): (&str, Accepted)| Received {
            name: Some(name.into()),
            version: None,
            ttl: None,
            verdict: Ok(accepted),
        };
        let resources = good.into_iter().map(received).collect();
        self.tell(kind, resources, Vec::new());
    }

    /// A resource of which not even the name can be read.
    pub(super) fn respond_nameless(&mut self, kind: Kind, reason: &str) {
        let received = Received { name: None, version: None, ttl: None, verdict: Err(reason.into()) };
        self.tell(kind, vec![received], Vec::new());
    }

    /// The control plane has an error instead of a resource.
    pub(super) fn respond_error(&mut self, kind: Kind, name: &str, is_data_error: bool) {
        let reason = if is_data_error { "NotFound: no" } else { "Unavailable: no" };
        let error = ResourceError { name: name.into(), is_data_error, reason: reason.into() };
        self.tell(kind, Vec::new(), vec![error]);
    }

    fn tell(&mut self, kind: Kind, resources: Vec<Received<Accepted>>, errors: Vec<ResourceError>) {
        self.nonce += 1;
        let response = Response {
            kind,
            version: self.nonce.to_string().into(),
            nonce: self.nonce.to_string().into(),
            resources,
            heartbeats: Vec::new(),
            removed: Vec::new(),
            errors,
        };
        self.engine.handle_response(ServerIx::of_test(0), self.now, response);
        self.turn();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.engine.handle_timeout(self.now);
        self.turn();
    }

    pub(super) fn disconnect(&mut self, why: &str) {
        self.engine.handle_disconnected(ServerIx::of_test(0), self.now, &why.into());
        self.turn();
    }

    pub(super) fn connect(&mut self) {
        self.engine.handle_connected(ServerIx::of_test(0), self.now);
        self.turn();
    }

    /// Listener `l` with routes `r`, one virtual host to `clusters`.
    pub(super) fn routes(&mut self, clusters: &[&str]) {
        self.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
        self.respond(Kind::Route, vec![("r", route("r", clusters))], &[]);
    }
}

pub(super) fn listener(route: &str) -> Checked {
    let http = HttpConfig::new(RouteSource::Rds(route.into()));
    Checked::Listener(Arc::new(ListenerConfig::Client(http)))
}

pub(super) fn route(name: &str, clusters: &[&str]) -> Checked {
    let prefixes: Vec<String> = clusters.iter().map(|cluster| format!("/{cluster}")).collect();
    let routes = prefixes.iter().zip(clusters).map(|(prefix, cluster)| testing::route(prefix, cluster));
    let host = testing::virtual_host(&["*"], routes.collect());
    Checked::Route(Arc::new(testing::route_config(name, vec![host])))
}

pub(super) fn cluster(name: &str) -> Checked {
    let discovery = Discovery::Eds { service: format!("eds-{name}").into() };
    Checked::Cluster(Arc::new(ClusterConfig::new(name, discovery)))
}

pub(super) fn endpoints(ports: impl IntoIterator<Item = u16>) -> Checked {
    Checked::Endpoints(Arc::new(testing::endpoints(ports)))
}

pub(super) fn ready<S>(subscription: &Subscription<S>) -> Arc<S> {
    match &*subscription.cell().load() {
        Resolution::Ready(snapshot) => snapshot.clone(),
        Resolution::Pending(error) => panic!("pending: {error}"),
        Resolution::Failed(error) => panic!("failed: {error}"),
    }
}

fn pending<S>(subscription: &Subscription<S>) -> String {
    match &*subscription.cell().load() {
        Resolution::Pending(error) => error.to_string(),
        Resolution::Ready(_) => panic!("ready"),
        Resolution::Failed(error) => panic!("failed: {error}"),
    }
}

pub(super) fn failed<S>(subscription: &Subscription<S>) -> String {
    match &*subscription.cell().load() {
        Resolution::Failed(error) => error.to_string(),
        Resolution::Ready(_) => panic!("ready"),
        Resolution::Pending(error) => panic!("pending: {error}"),
    }
}

/// The ports of each cluster, or its error.
pub(super) fn summary(snapshot: &ClientSnapshot) -> Vec<String> {
    let entry = |entry: &mesh_core::snapshot::ClusterEntry| match &entry.cluster {
        Ok(cluster) => {
            let ports: Vec<String> = cluster
                .endpoints
                .iter()
                .map(|endpoint| endpoint.address.to_string().replace("127.0.0.1:", ""))
                .collect();
            let note = cluster.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            format!("{}: {}{note}", entry.name, ports.join(" "))
        }
        Err(error) => format!("{}: {error}", entry.name),
    };
    snapshot.clusters.iter().map(entry).collect()
}

/// How many values a cell has had, as a reader that looks after each turn sees it.
fn is_new<S>(changes: &mut mesh_core::snapshot::Changes<S>) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    changes.poll_changed(&mut cx).is_ready()
}

#[test]
fn a_target_is_ready_when_all_that_it_reaches_is_there() {
    let mut world = World::new();
    let target = world.client("l");
    assert_eq!(pending(&target), r#"listener "l" has not arrived from the control plane (node "node-1")"#);
    assert_eq!(world.asked(Kind::Listener), ["l"]);
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    assert!(pending(&target).starts_with(r#"route "r" has not arrived"#));
    world.respond(Kind::Route, vec![("r", route("r", &["a", "b"]))], &[]);
    assert!(pending(&target).starts_with(r#"cluster "b" has not arrived"#));
    assert_eq!(world.asked(Kind::Cluster), ["a", "b"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    assert_eq!(world.asked(Kind::Endpoints), ["eds-a", "eds-b"]);
    world.respond(Kind::Endpoints, vec![("eds-b", endpoints([2]))], &[]);
    assert!(pending(&target).starts_with(r#"endpoints "eds-a" has not arrived"#));
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    let snapshot = ready(&target);
    assert_eq!(summary(&snapshot), ["a: 1", "b: 2"]);
    assert_eq!(snapshot.version, 1);
}

#[test]
fn routes_within_the_listener_need_no_route_resource() {
    let mut world = World::new();
    let target = world.client("l");
    let Checked::Route(routes) = route("r", &["a"]) else { unreachable!("route() makes routes") };
    let http = HttpConfig::new(RouteSource::Inline(routes));
    let listener = Checked::Listener(Arc::new(ListenerConfig::Client(http)));
    world.respond(Kind::Listener, vec![("l", listener)], &[]);
    let fixed = Checked::Cluster(Arc::new(testing::cluster("a", testing::endpoints([7]))));
    world.respond(Kind::Cluster, vec![("a", fixed)], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 7"]);
    assert_eq!(world.asked(Kind::Route), [""; 0]);
    assert_eq!(world.asked(Kind::Endpoints), [""; 0]);
}

#[test]
fn a_missing_listener_or_route_fails_the_target_and_names_it() {
    let mut world = World::new();
    let target = world.client("l");
    world.advance(ABSENT_AFTER);
    assert_eq!(failed(&target), r#"listener "l" does not exist (node "node-1")"#);
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    assert!(pending(&target).starts_with(r#"route "r" has not arrived"#), "there is hope again");
    world.advance(ABSENT_AFTER);
    assert_eq!(failed(&target), r#"route "r" does not exist (node "node-1")"#);
}

#[test]
fn a_refused_listener_fails_the_target_with_the_field() {
    let mut world = World::new();
    let target = world.client("l");
    world.respond(Kind::Listener, vec![], &[("l", "api_listener: is required")]);
    assert_eq!(failed(&target), r#"listener "l" is invalid: api_listener: is required (node "node-1")"#);
}

#[test]
fn a_cluster_that_failed_is_an_error_of_that_cluster_alone() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["absent", "good", "refused"]);
    world.respond(Kind::Cluster, vec![("good", cluster("good"))], &[("refused", "lb_policy: 99")]);
    world.respond(Kind::Endpoints, vec![("eds-good", endpoints([1]))], &[]);
    world.advance(ABSENT_AFTER);
    assert_eq!(
        summary(&ready(&target)),
        [
            r#"absent: cluster "absent" does not exist (node "node-1")"#,
            "good: 1",
            r#"refused: cluster "refused" is invalid: lb_policy: 99 (node "node-1")"#,
        ]
    );
}

#[test]
fn missing_or_empty_endpoints_leave_the_cluster_with_a_note() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a", "b"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([]))], &[]);
    world.advance(ABSENT_AFTER);
    let [a, b] = summary(&ready(&target)).try_into().unwrap();
    assert!(a.starts_with("a:  (endpoints") && a.contains("contains no endpoints"), "{a}");
    assert_eq!(b, r#"b:  (endpoints "eds-b" does not exist (node "node-1"))"#);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1])), ("eds-b", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 1", "b: 2"]);
}

#[test]
fn a_bad_update_of_anything_leaves_what_serves() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    let before = ready(&target);
    world.respond(Kind::Listener, vec![], &[("l", "bad")]);
    world.respond(Kind::Route, vec![], &[("r", "bad")]);
    world.respond(Kind::Cluster, vec![], &[("a", "bad")]);
    world.respond(Kind::Endpoints, vec![], &[("eds-a", "bad")]);
    world.respond(Kind::Listener, vec![], &[]);
    assert!(Arc::ptr_eq(&before, &ready(&target)), "nothing was published");
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 2"], "and good updates still come through");
}

#[test]
fn fail_on_data_errors_drops_what_was_refused_or_deleted() {
    let mut world = World::with(OnDataError::Drop);
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    world.respond(Kind::Cluster, vec![], &[]);
    assert_eq!(summary(&ready(&target)), [r#"a: cluster "a" does not exist (node "node-1")"#]);
    world.respond(Kind::Listener, vec![], &[("l", "bad")]);
    assert!(failed(&target).contains("is invalid: bad"));
}

#[test]
fn an_error_of_the_control_plane_fails_what_is_not_cached_and_leaves_what_is() {
    let mut world = World::new();
    let target = world.client("l");
    world.respond_error(Kind::Listener, "l", true);
    let message = r#"listener "l" is not available: control plane says: NotFound: no (node "node-1")"#;
    assert_eq!(failed(&target), message);
    world.routes(&["a", "b"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    world.respond_error(Kind::Endpoints, "eds-b", false);
    let before = ready(&target);
    assert!(summary(&before)[1].contains("control plane says: Unavailable: no"), "{:?}", summary(&before));
    world.respond_error(Kind::Route, "r", true);
    world.respond_error(Kind::Endpoints, "eds-a", true);
    assert!(Arc::ptr_eq(&before, &ready(&target)), "nothing was published");
}

#[test]
fn fail_on_data_errors_drops_what_an_error_of_the_control_plane_is_about() {
    let mut world = World::with(OnDataError::Drop);
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    world.respond_error(Kind::Route, "r", false);
    assert_eq!(summary(&ready(&target)), ["a: 1"], "an error for a while");
    world.respond_error(Kind::Route, "r", true);
    assert!(failed(&target).contains("control plane says"));
    world.respond(Kind::Route, vec![("r", route("r", &[]))], &[]);
    assert_eq!(summary(&ready(&target)), [""; 0]);
}

#[test]
fn an_equal_update_publishes_nothing() {
    let mut world = World::new();
    let target = world.client("l");
    let mut changes = target.cell().subscribe();
    let all = |world: &mut World| {
        world.routes(&["a"]);
        world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
        world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    };
    all(&mut world);
    assert!(is_new(&mut changes));
    all(&mut world);
    assert!(!is_new(&mut changes));
}

#[test]
fn one_response_is_one_snapshot_and_what_did_not_change_is_shared() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a", "b"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1])), ("eds-b", endpoints([2]))], &[]);
    let before = ready(&target);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([3])), ("eds-b", endpoints([2]))], &[]);
    let after = ready(&target);
    assert_eq!((before.version, after.version), (1, 2));
    assert!(Arc::ptr_eq(&before.listener, &after.listener) && Arc::ptr_eq(&before.routes, &after.routes));
    let cluster = |snapshot: &ClientSnapshot, i: usize| snapshot.clusters[i].cluster.clone().unwrap();
    assert!(Arc::ptr_eq(&cluster(&before, 0).config, &cluster(&after, 0).config));
    assert!(Arc::ptr_eq(&cluster(&before, 1).endpoints, &cluster(&after, 1).endpoints));
    assert_eq!(summary(&after), ["a: 3", "b: 2"]);
}

#[test]
fn the_old_snapshot_serves_until_the_new_one_is_complete() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    world.respond(Kind::Route, vec![("r", route("r", &["b"]))], &[]);
    assert_eq!(world.asked(Kind::Cluster), ["a", "b"], "what serves stays subscribed");
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
    world.respond(Kind::Endpoints, vec![("eds-b", endpoints([2]))], &[]);
    assert_eq!(summary(&ready(&target)), ["b: 2"]);
}

#[test]
fn a_listener_that_moves_to_routes_that_do_not_come_keeps_what_serves() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&[]);
    let before = ready(&target);
    world.respond(Kind::Listener, vec![("l", listener("elsewhere"))], &[]);
    world.advance(ABSENT_AFTER);
    assert!(Arc::ptr_eq(&before, &ready(&target)));
    world.respond(Kind::Route, vec![("elsewhere", route("elsewhere", &[]))], &[]);
    assert_eq!(&*ready(&target).routes.config().name, "elsewhere");
}

/// The nearest peer kept the endpoints of the first time for ever.
#[test]
fn a_cluster_removed_and_added_a_hundred_times_never_has_old_endpoints() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a", "x"]);
    world.respond(Kind::Cluster, vec![("x", cluster("x")), ("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-x", endpoints([9])), ("eds-a", endpoints([100]))], &[]);
    for port in 101..201 {
        world.respond(Kind::Route, vec![("r", route("r", &["x"]))], &[]);
        assert_eq!(summary(&ready(&target)), ["x: 9"]);
        assert_eq!(world.asked(Kind::Endpoints), ["eds-x"]);
        world.respond(Kind::Route, vec![("r", route("r", &["a", "x"]))], &[]);
        assert_eq!(summary(&ready(&target)), ["x: 9"], "not before the new endpoints are there");
        world.respond(Kind::Cluster, vec![("x", cluster("x")), ("a", cluster("a"))], &[]);
        world.respond(Kind::Endpoints, vec![("eds-a", endpoints([port]))], &[]);
        assert_eq!(summary(&ready(&target)), [format!("a: {port}"), "x: 9".to_owned()]);
    }
}

#[test]
fn a_control_plane_that_cannot_be_reached_is_an_error_until_it_can() {
    let mut world = World::new();
    world.disconnect("first");
    let early = world.client("l");
    world.disconnect("xds:1: connect failed: refused");
    let text = r#"listener "l" is not available: control plane unreachable: xds:1: connect failed: refused"#;
    assert!(failed(&early).starts_with(text), "{}", failed(&early));
    let late = world.client("m");
    assert!(failed(&late).contains("refused"), "a target opened later is told at once");
    world.connect();
    world.routes(&[]);
    ready(&early);
    world.advance(ABSENT_AFTER);
    assert!(failed(&late).contains("does not exist"));
}

#[test]
fn a_control_plane_that_is_lost_changes_nothing_that_serves() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    let before = ready(&target);
    world.respond(Kind::Route, vec![("r", route("r", &["a", "b"]))], &[]);
    world.disconnect("ended");
    world.disconnect("refused");
    assert!(Arc::ptr_eq(&before, &ready(&target)), "b is unreachable, which is waited out");
    world.connect();
    assert_eq!(world.asked(Kind::Cluster), ["a", "b"]);
    world.advance(ABSENT_AFTER);
    assert_eq!(ready(&target).clusters.len(), 2, "b does not exist, which is known");
}

#[test]
fn what_no_open_target_reaches_is_unsubscribed_and_forgotten() {
    let mut world = World::new();
    let first = world.client("l");
    let again = world.client("l");
    let other = world.client("m");
    world.respond(Kind::Listener, vec![("l", listener("r")), ("m", listener("s"))], &[]);
    world.respond(Kind::Route, vec![("r", route("r", &["a", "x"])), ("s", route("s", &["x"]))], &[]);
    assert_eq!(world.asked(Kind::Cluster), ["a", "x"]);
    drop(first);
    world.sync();
    assert_eq!(world.asked(Kind::Listener), ["l", "m"], "somebody still holds it");
    drop(again);
    world.sync();
    assert_eq!((world.asked(Kind::Listener), world.asked(Kind::Route)), (vec!["m"], vec!["s"]));
    assert_eq!(world.asked(Kind::Cluster), ["x"]);
    drop(other);
    world.sync();
    assert!(world.engine.is_idle(ServerIx::of_test(0)));
    let fresh = world.client("l");
    assert!(pending(&fresh).starts_with("listener"), "nothing old is left");
}

#[test]
fn a_target_closed_and_opened_between_two_turns_is_served_in_its_new_cell() {
    let mut world = World::new();
    let target = world.client("l");
    world.routes(&[]);
    ready(&target);
    let old = target.cell().clone();
    drop(target);
    let target = world.client("l");
    assert!(!Arc::ptr_eq(&old, target.cell()));
    ready(&target);
}

#[test]
fn targets_share_the_parts_that_they_have_in_common() {
    let mut world = World::new();
    let (first, second) = (world.client("l"), world.client("m"));
    world.respond(Kind::Listener, vec![("l", listener("r")), ("m", listener("r"))], &[]);
    world.respond(Kind::Route, vec![("r", route("r", &[]))], &[]);
    assert!(Arc::ptr_eq(&ready(&first).routes, &ready(&second).routes));
}

pub(super) fn chain(name: &str, route: &str) -> FilterChain {
    FilterChain {
        name: name.into(),
        matches: ChainMatch::default(),
        tls: None,
        network_rbac: Vec::new(),
        http: HttpConfig::new(RouteSource::Rds(route.into())),
    }
}

#[test]
fn a_server_is_ready_with_the_routes_of_each_chain_or_their_error() {
    let mut world = World::new();
    let address: SocketAddr = "127.0.0.1:9080".parse().unwrap();
    let target = world.server(address);
    assert_eq!(world.asked(Kind::Listener), ["servers/127.0.0.1:9080"]);
    let chains = vec![chain("one", "r"), chain("two", "absent")];
    let listener =
        ServerListener { address: address.into(), chains, default_chain: Some(chain("rest", "r")) };
    let listener = Checked::Listener(Arc::new(ListenerConfig::Server(listener)));
    world.respond(Kind::Listener, vec![("servers/127.0.0.1:9080", listener)], &[]);
    world.respond(Kind::Route, vec![("r", route("r", &[]))], &[]);
    assert!(pending(&target).starts_with(r#"route "absent""#));
    world.advance(ABSENT_AFTER);
    let snapshot = ready(&target);
    let chains: Vec<_> = snapshot
        .chains()
        .map(|(chain, routes)| {
            (chain.name.to_string(), routes.as_ref().map_err(|e| e.problem.clone()).is_ok())
        })
        .collect();
    let expected = [("one", true), ("two", false), ("rest", true)].map(|(name, ok)| (name.to_owned(), ok));
    assert_eq!(chains, expected);
}

#[test]
fn a_listener_of_the_other_side_fails_the_target() {
    let mut world = World::new();
    let address: SocketAddr = "127.0.0.1:9080".parse().unwrap();
    let (server, client) = (world.server(address), world.client("c"));
    let of_server = ServerListener { address: address.into(), chains: Vec::new(), default_chain: None };
    let of_server = Checked::Listener(Arc::new(ListenerConfig::Server(of_server)));
    world.respond(Kind::Listener, vec![("servers/127.0.0.1:9080", listener("r")), ("c", of_server)], &[]);
    assert!(failed(&server).contains("it is an api_listener"));
    assert!(failed(&client).contains("it has no api_listener"));
}

#[test]
fn an_error_that_stays_the_same_is_published_once() {
    let mut world = World::new();
    let target = world.client("l");
    let mut changes = target.cell().subscribe();
    assert!(is_new(&mut changes));
    world.disconnect("refused");
    assert!(is_new(&mut changes));
    world.disconnect("refused");
    assert!(!is_new(&mut changes));
    let cell: &Arc<SnapshotCell<_>> = target.cell();
    assert!(
        matches!(&*cell.load(), Resolution::Failed(e) if matches!(e.problem, ConfigProblem::Unreachable(_)))
    );
}
