//! The incremental variant, without IO.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use proptest::prelude::*;

use crate::ads::Kind;
use crate::server::control::ControlPlane;
use crate::server::resource::Resource;
use crate::server::status::ResourceState;
use crate::server::subscriber::{MAX_NAMES, Received};
use crate::server::tests::{Delta, resource};

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn ask(kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: owned(subscribe),
        resource_names_unsubscribe: owned(unsubscribe),
        ..Default::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}

fn nack(response: &DeltaDiscoveryResponse, message: &str) -> DeltaDiscoveryRequest {
    let error_detail = Some(Status { message: message.into(), ..Default::default() });
    DeltaDiscoveryRequest { error_detail, ..ack(response) }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

fn body(response: &DeltaDiscoveryResponse, name: &str) -> String {
    let resource = response.resources.iter().find(|resource| resource.name == name).unwrap();
    String::from_utf8(resource.resource.clone().unwrap().value).unwrap()
}

fn versions(response: &DeltaDiscoveryResponse) -> HashMap<String, String> {
    response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect()
}

impl Delta {
    /// Polls, acknowledges, and gives what came.
    fn take(&mut self) -> Option<DeltaDiscoveryResponse> {
        let response = self.poll()?;
        self.handle(ack(&response));
        Some(response)
    }
}

fn clusters(names: &[&str]) -> ControlPlane {
    let control = ControlPlane::new();
    control.set(names.iter().map(|name| resource(Kind::Cluster, name, name)).collect::<Vec<_>>());
    control
}

#[test]
fn a_wildcard_gets_everything_once_and_then_what_changes() {
    for subscribe in [&[][..], &["*"]] {
        let control = clusters(&["a", "b", "c"]);
        let mut client = Delta::new(&control);
        client.handle(ask(Kind::Cluster, subscribe, &[]));
        assert_eq!(names(&client.take().unwrap()), ["a", "b", "c"]);
        assert!(client.poll().is_none());

        control.edit(|edit| {
            edit.set(resource(Kind::Cluster, "b", "b2"));
            edit.set(resource(Kind::Cluster, "d", "d"));
        });
        let change = client.take().unwrap();
        assert_eq!((names(&change), change.removed_resources.len()), (vec!["b", "d"], 0));
        assert_eq!(body(&change, "b"), "b2");

        control.remove(Kind::Cluster, "a");
        let change = client.take().unwrap();
        assert_eq!((names(&change), change.removed_resources.clone()), (vec![], owned(&["a"])));
        assert!(client.poll().is_none());
    }
}

#[test]
fn an_empty_wildcard_is_answered_so_that_the_client_knows() {
    let mut client = Delta::new(&ControlPlane::new());
    client.handle(ask(Kind::Listener, &[], &[]));
    assert!(client.take().unwrap().resources.is_empty());
    assert!(client.poll().is_none());
}

#[test]
fn an_empty_first_request_for_endpoints_asks_for_nothing() {
    let control = ControlPlane::new();
    control.set(resource(Kind::Endpoints, "a", "a"));
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Endpoints, &[], &[]));
    assert!(client.poll().is_none());
}

#[test]
fn an_unknown_name_is_answered_as_removed_and_sent_when_it_comes() {
    let control = ControlPlane::new();
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Endpoints, &["later"], &[]));
    assert_eq!(client.take().unwrap().removed_resources, ["later"]);
    assert!(client.poll().is_none(), "once");
    assert_eq!(client.resources(Kind::Endpoints)[0].state, ResourceState::Absent);
    control.set(resource(Kind::Endpoints, "later", "x"));
    assert_eq!(names(&client.take().unwrap()), ["later"]);
    control.remove(Kind::Endpoints, "later");
    assert_eq!(client.take().unwrap().removed_resources, ["later"]);
}

#[test]
fn names_come_and_go() {
    let control = clusters(&["a", "b", "c"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &["a"], &[]));
    assert_eq!(names(&client.take().unwrap()), ["a"]);
    client.handle(ask(Kind::Cluster, &["b"], &["a"]));
    assert_eq!(names(&client.take().unwrap()), ["b"]);
    control.set(resource(Kind::Cluster, "a", "a2"));
    control.remove(Kind::Cluster, "c");
    assert!(client.poll().is_none(), "neither is its business");
    client.handle(ask(Kind::Cluster, &["b"], &[]));
    assert_eq!(names(&client.take().unwrap()), ["b"], "asked for again, told again");
}

#[test]
fn what_a_client_brings_from_an_earlier_stream_is_not_sent_again() {
    let control = clusters(&["a", "b", "c", "gone"]);
    let mut before = Delta::new(&control);
    before.handle(ask(Kind::Cluster, &[], &[]));
    let has = versions(&before.take().unwrap());
    control.remove(Kind::Cluster, "gone");
    control.set(resource(Kind::Cluster, "b", "b2"));

    let mut after = Delta::new(&control);
    after.handle(DeltaDiscoveryRequest {
        initial_resource_versions: has.clone(),
        ..ask(Kind::Cluster, &[], &[])
    });
    assert_eq!(names(&after.take().unwrap()), ["b"]);
    assert_eq!(after.take().unwrap().removed_resources, ["gone"]);
    assert!(after.poll().is_none());

    // The same content in another process has the same version.
    let mut restarted = Delta::new(&clusters(&["z", "a", "c", "b", "gone"]));
    restarted.handle(DeltaDiscoveryRequest {
        initial_resource_versions: has,
        ..ask(Kind::Cluster, &["a", "b", "c", "gone"], &[])
    });
    assert!(restarted.poll().is_none(), "by name, all as before");
    assert!(restarted.status(Kind::Cluster).settled);
}

#[test]
fn versions_of_resources_that_are_not_subscribed_are_ignored() {
    let mut client = Delta::new(&clusters(&["a"]));
    let has = HashMap::from([("other".to_owned(), "1".to_owned())]);
    client
        .handle(DeltaDiscoveryRequest { initial_resource_versions: has, ..ask(Kind::Cluster, &["a"], &[]) });
    let response = client.take().unwrap();
    assert_eq!((names(&response), response.removed_resources.len()), (vec!["a"], 0));
    assert!(client.poll().is_none());
}

#[test]
fn a_name_outlives_the_wildcard_and_the_wildcard_a_name() {
    let control = clusters(&["a", "b"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &["*", "a"], &[]));
    assert_eq!(names(&client.take().unwrap()), ["a", "b"]);
    client.handle(ask(Kind::Cluster, &[], &["a"]));
    assert_eq!(names(&client.take().unwrap()), ["a"], "told again: the wildcard has it");
    client.handle(ask(Kind::Cluster, &["b"], &["*"]));
    assert_eq!(names(&client.take().unwrap()), ["b"]);
    control.set(resource(Kind::Cluster, "a", "a2"));
    assert!(client.poll().is_none());
    control.set(resource(Kind::Cluster, "b", "b2"));
    assert_eq!(names(&client.take().unwrap()), ["b"]);
}

#[test]
fn a_change_that_is_taken_back_before_it_is_sent_is_none() {
    let control = clusters(&["a"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    client.take().unwrap();
    control.set(resource(Kind::Cluster, "a", "other"));
    control.remove(Kind::Cluster, "a");
    control.set(resource(Kind::Cluster, "a", "a"));
    assert!(client.poll().is_none());
    assert!(client.status(Kind::Cluster).settled);
}

#[test]
fn nothing_of_a_kind_is_sent_before_the_last_response_is_answered() {
    let control = clusters(&["a"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    let first = client.poll().unwrap();
    for i in 0..10 {
        control.set(resource(Kind::Cluster, "a", &i.to_string()));
    }
    assert!(client.poll().is_none());
    client.handle(ack(&first));
    assert_eq!(body(&client.take().unwrap(), "a"), "9");
}

#[test]
fn a_refusal_is_remembered_by_resource_and_not_sent_again() {
    let control = clusters(&["a", "b"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    client.take().unwrap();
    let version = control.set(resource(Kind::Cluster, "a", "bad"));
    let push = client.poll().unwrap();
    let received = client.handle(nack(&push, "a: bad"));
    assert!(matches!(received, Received::Nacked(Kind::Cluster, _)), "{received:?}");
    assert!(client.poll().is_none());
    let status = client.status(Kind::Cluster);
    assert_eq!(status.nack.map(|nack| (nack.version, nack.message)), Some((version, "a: bad".to_owned())));
    let states: Vec<_> = client.resources(Kind::Cluster).into_iter().map(|one| one.state).collect();
    assert_eq!(states, [ResourceState::Refused, ResourceState::Acked]);

    control.set(resource(Kind::Cluster, "a", "good"));
    client.take().unwrap();
    assert_eq!(client.status(Kind::Cluster).nack, None);
}

#[test]
fn names_in_a_request_with_an_older_nonce_count() {
    let control = clusters(&["a", "b"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &["a"], &[]));
    let first = client.take().unwrap();
    control.set(resource(Kind::Cluster, "a", "a2"));
    let second = client.poll().unwrap();
    let late = DeltaDiscoveryRequest { resource_names_subscribe: owned(&["b"]), ..ack(&first) };
    assert_eq!(client.handle(late), Received::Stale(Kind::Cluster));
    client.handle(ack(&second));
    assert_eq!(names(&client.take().unwrap()), ["b"]);
}

#[test]
fn what_is_gone_is_told_after_everything_that_is_new_is_answered() {
    let control = clusters(&["old"]);
    control.set([resource(Kind::Route, "r", "to old"), resource(Kind::Endpoints, "old", "old")]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    client.handle(ask(Kind::Route, &["r"], &[]));
    client.handle(ask(Kind::Endpoints, &["old"], &[]));
    while client.take().is_some() {}

    control.edit(|edit| {
        edit.remove(Kind::Cluster, "old");
        edit.remove(Kind::Endpoints, "old");
        edit.set(resource(Kind::Cluster, "new", "new"));
        edit.set(resource(Kind::Route, "r", "to new"));
    });
    let cluster = client.poll().unwrap();
    assert_eq!((names(&cluster), cluster.removed_resources.len()), (vec!["new"], 0));
    let route = client.poll().unwrap();
    assert_eq!(body(&route, "r"), "to new");
    client.handle(ack(&cluster));
    assert!(client.poll().is_none(), "the route is not answered");
    client.handle(ack(&route));
    let first = client.take().unwrap();
    let second = client.take().unwrap();
    assert_eq!([&first.type_url, &second.type_url], [Kind::Endpoints, Kind::Cluster].map(Kind::type_url));
    assert_eq!((first.removed_resources, second.removed_resources), (owned(&["old"]), owned(&["old"])));
}

#[test]
fn a_route_waits_for_a_cluster_that_waits_for_an_answer() {
    let control = clusters(&["a"]);
    control.set(resource(Kind::Route, "r", "to a"));
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    client.handle(ask(Kind::Route, &["r"], &[]));
    let cluster = client.poll().unwrap();
    client.take().unwrap();
    control.set([resource(Kind::Cluster, "b", "b"), resource(Kind::Route, "r", "to b")]);
    assert!(client.poll().is_none());
    client.handle(ack(&cluster));
    assert_eq!(names(&client.take().unwrap()), ["b"]);
    assert_eq!(body(&client.take().unwrap(), "r"), "to b");
}

#[test]
fn a_large_set_comes_in_parts_that_any_client_takes() {
    let control = ControlPlane::new();
    let many = (0..100).map(|i| Resource::opaque(Kind::Cluster, format!("c{i:03}"), vec![b'x'; 100_000]));
    control.set(many.collect::<Vec<_>>());
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    let mut got = Vec::new();
    let mut parts = 0;
    while let Some(response) = client.take() {
        let bytes: usize =
            response.resources.iter().map(|one| one.resource.as_ref().unwrap().value.len()).sum();
        assert!(bytes <= 2 << 20, "{bytes}");
        got.extend(names(&response).into_iter().map(str::to_owned));
        parts += 1;
    }
    assert_eq!((got.len(), parts), (100, 5));
    assert!(got.is_sorted());
}

#[test]
fn one_change_among_many_resources_touches_one() {
    let control = ControlPlane::new();
    control.set((0..10_000).map(|i| resource(Kind::Endpoints, &i.to_string(), "x")).collect::<Vec<_>>());
    let mut client = Delta::new(&control);
    let wanted: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    client.handle(ask(Kind::Endpoints, &wanted.iter().map(String::as_str).collect::<Vec<_>>(), &[]));
    while client.take().is_some() {}
    // What a scan of everything would cost 10,000 times over: seconds in a debug build, if it were one.
    for i in 0..5_000 {
        control.set(resource(Kind::Endpoints, "5000", &i.to_string()));
        assert_eq!(names(&client.take().unwrap()), ["5000"]);
    }
}

#[test]
fn a_client_that_slept_through_the_log_looks_at_everything_once() {
    let control = clusters(&["a", "b"]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Cluster, &[], &[]));
    client.take().unwrap();
    control.set(resource(Kind::Cluster, "b", "b2"));
    control.set(resource(Kind::Cluster, "c", "c"));
    control.remove(Kind::Cluster, "a");
    for i in 0..10_000 {
        control.set(resource(Kind::Cluster, "c", &i.to_string()));
    }
    assert_eq!(names(&client.take().unwrap()), ["b", "c"]);
    assert_eq!(client.take().unwrap().removed_resources, ["a"]);
    assert!(client.poll().is_none());
}

#[test]
fn a_client_that_wants_too_many_names_is_refused() {
    let mut client = Delta::new(&ControlPlane::new());
    let names: Vec<String> = (0..=MAX_NAMES).map(|i| i.to_string()).collect();
    let half = MAX_NAMES / 2;
    let request = |names: &[String]| DeltaDiscoveryRequest {
        resource_names_subscribe: names.to_vec(),
        ..ask(Kind::Endpoints, &[], &[])
    };
    assert!(client.try_handle(request(&names[..half])).is_ok());
    assert!(client.try_handle(request(&names[..half])).is_ok(), "the same again is not more");
    let error = client.try_handle(request(&names[half..])).unwrap_err();
    assert!(error.to_string().contains("200000"), "{error}");
}

#[test]
fn a_time_to_live_is_told_and_renewed_without_the_resource() {
    let control = ControlPlane::new();
    control.set([
        resource(Kind::Endpoints, "short", "s").with_ttl(Duration::from_secs(10)),
        resource(Kind::Endpoints, "forever", "f"),
    ]);
    let mut client = Delta::new(&control);
    client.handle(ask(Kind::Endpoints, &["short", "forever"], &[]));
    let first = client.take().unwrap();
    let ttls: Vec<_> = first.resources.iter().map(|one| one.ttl.map(|ttl| ttl.seconds)).collect();
    assert_eq!(ttls, [None, Some(10)]);
    let due = client.0.subscriber.poll_timeout().unwrap();
    assert_eq!(due, client.0.now + Duration::from_secs(5));
    client.0.now = due - Duration::from_millis(1);
    assert!(client.poll().is_none());
    client.0.now = due;
    for _ in 0..2 {
        let beat = client.take().unwrap();
        assert_eq!(names(&beat), ["short"]);
        assert_eq!(beat.resources[0].resource, None);
        assert_eq!(beat.resources[0].version, versions(&first)["short"]);
        assert!(client.poll().is_none());
        client.0.now += Duration::from_secs(5);
    }
    control.set(resource(Kind::Endpoints, "short", "s"));
    assert_eq!(client.take().unwrap().resources[0].ttl, None);
    client.0.now += Duration::from_secs(60);
    assert!(client.poll().is_none(), "it lives forever now");
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    Subscribe(u8),
    Unsubscribe(u8),
    Star,
    Unstar,
    Read { refuse: bool },
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, 0..3u8).prop_map(|(name, body)| Step::Set(name, body)),
        2 => (0..6u8).prop_map(Step::Remove),
        3 => (0..6u8).prop_map(Step::Subscribe),
        2 => (0..6u8).prop_map(Step::Unsubscribe),
        1 => Just(Step::Star),
        1 => Just(Step::Unstar),
        5 => any::<bool>().prop_map(|refuse| Step::Read { refuse }),
        1 => Just(Step::Reconnect),
    ]
}

/// A client that believes what it is told, and nothing else.
struct Model {
    machine: Delta,
    wildcard: bool,
    names: std::collections::BTreeSet<String>,
    has: HashMap<String, (String, String)>,
}

impl Model {
    fn read(&mut self, refuse: bool) -> bool {
        let Some(response) = self.machine.poll() else { return false };
        for one in &response.resources {
            let body = String::from_utf8(one.resource.clone().unwrap().value).unwrap();
            self.has.insert(one.name.clone(), (one.version.clone(), body));
        }
        for name in &response.removed_resources {
            self.has.remove(name);
        }
        self.machine.handle(if refuse { nack(&response, "no") } else { ack(&response) });
        self.forget();
        true
    }

    fn forget(&mut self) {
        let (wildcard, names) = (self.wildcard, &self.names);
        self.has.retain(|name, _| wildcard || names.contains(name));
    }

    fn apply(&mut self, control: &ControlPlane, step: &Step) {
        let kind = Kind::Cluster;
        match step {
            Step::Set(name, body) => {
                control.set(resource(kind, &name.to_string(), &body.to_string()));
            }
            Step::Remove(name) => {
                control.remove(kind, &name.to_string());
            }
            Step::Subscribe(name) => {
                self.names.insert(name.to_string());
                self.machine.handle(ask(kind, &[&name.to_string()], &[]));
            }
            Step::Unsubscribe(name) => {
                self.names.remove(&name.to_string());
                self.machine.handle(ask(kind, &[], &[&name.to_string()]));
                self.forget();
            }
            Step::Star => {
                self.wildcard = true;
                self.machine.handle(ask(kind, &["*"], &[]));
            }
            Step::Unstar => {
                self.wildcard = false;
                self.machine.handle(ask(kind, &[], &["*"]));
                self.forget();
            }
            Step::Read { refuse } => {
                self.read(*refuse);
            }
            Step::Reconnect => {
                self.machine = Delta::new(control);
                let mut subscribe: Vec<String> = self.names.iter().cloned().collect();
                subscribe.extend(self.wildcard.then(|| "*".to_owned()));
                let has = self.has.iter().map(|(name, (version, _))| (name.clone(), version.clone()));
                if !subscribe.is_empty() {
                    self.machine.handle(DeltaDiscoveryRequest {
                        resource_names_subscribe: subscribe,
                        initial_resource_versions: has.collect(),
                        ..ask(kind, &[], &[])
                    });
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_client_that_reads_ends_with_what_it_may_see(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let control = ControlPlane::new();
        let machine = Delta::new(&control);
        let mut model = Model { machine, wildcard: false, names: Default::default(), has: HashMap::new() };
        // A name first: an empty first request would be the legacy wildcard.
        model.apply(&control, &Step::Subscribe(0));
        for step in &steps {
            model.apply(&control, step);
        }
        while model.read(false) {}
        let visible: HashMap<String, String> = control
            .resources(Kind::Cluster)
            .into_iter()
            .filter(|one| model.wildcard || model.names.contains(&**one.name()))
            .map(|one| (one.name().to_string(), String::from_utf8(one.bytes().to_vec()).unwrap()))
            .collect();
        let has: HashMap<String, String> =
            model.has.iter().map(|(name, (_, body))| (name.clone(), body.clone())).collect();
        prop_assert_eq!(has, visible);
        let asked = model.wildcard || !model.names.is_empty();
        prop_assert!(!asked || model.machine.0.subscriber.is_settled(&control.shared.resources()));
    }
}
