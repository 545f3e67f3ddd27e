//! The incremental conversation: what changed of the names, one answer for each response, what is held.

use super::super::refusal::REPEAT_FIRST;
use super::*;

/// Subscribed, unsubscribed, held, nonce.
type Said<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<(&'a str, &'a str)>, &'a str);

fn said(request: &Request) -> Said<'_> {
    let Ask::Changes { subscribe, unsubscribe, held } = &request.ask else { panic!("{request:?}") };
    let held = held.iter().map(|(name, version)| (&**name, &**version)).collect();
    (plain(subscribe), plain(unsubscribe), held, &request.nonce)
}

fn plain(names: &[Name]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

fn nonces(requests: &[Request]) -> Vec<(&str, bool)> {
    requests.iter().map(|request| (&*request.nonce, request.refusal.is_some())).collect()
}

#[test]
fn the_first_request_of_a_type_carries_all_names_and_later_ones_what_changed() {
    let mut script = Script::new(Incremental);
    script.ads.watch(Kind::Cluster, "b");
    script.ads.watch(Kind::Cluster, "a");
    script.connect();
    assert_eq!(said(&script.request()), (vec!["a", "b"], vec![], vec![], ""));
    script.ads.watch(Kind::Cluster, "c");
    script.ads.unwatch(Kind::Cluster, "a");
    assert_eq!(said(&script.request()), (vec!["c"], vec!["a"], vec![], ""));
    assert_eq!(script.requests(), []);
}

#[test]
fn the_last_unwatch_is_told_and_the_next_watch_as_well() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    script.ads.unwatch(Kind::Cluster, "a");
    assert_eq!(said(&script.request()), (vec![], vec!["a"], vec![], ""));
    assert!(script.ads.is_idle());
    script.ads.watch(Kind::Cluster, "b");
    assert_eq!(said(&script.request()), (vec!["b"], vec![], vec![], ""));
}

#[test]
fn an_unwatch_that_is_taken_back_is_told_as_dropped_first() {
    let mut script = Script::watching(Incremental, Kind::Endpoints, &["a", "b"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
    script.requests();
    script.ads.unwatch(Kind::Endpoints, "a");
    script.ads.watch(Kind::Endpoints, "a");
    script.ads.watch(Kind::Endpoints, "c");
    let requests = script.requests();
    let [without, with] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(said(without), (vec!["c"], vec!["a"], vec![], ""));
    assert_eq!(said(with), (vec!["a"], vec![], vec![], ""));
    assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER), "it is waited for");
}

#[test]
fn a_removed_name_that_is_told_as_dropped_is_subscribed_to_again_once_and_after_it() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.requests();
    // The stream has no room until the name is due to be asked for again; by then it was spoken of as if it were held.
    script.remove(Kind::Cluster, "n2", &["a"]);
    let heartbeats = vec![Heartbeat { name: "a".into(), ttl: Duration::from_secs(5) }];
    script.ads.handle_response(script.now, Response { heartbeats, ..empty(Kind::Cluster, "1", "n3") });
    script.advance(REPEAT_FIRST);
    let requests = script.requests();
    let [.., without, with] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(nonces(&requests), [("n2", false), ("n3", false), ("", false), ("", false)]);
    assert_eq!(said(without), (vec![], vec!["a"], vec![], ""));
    assert_eq!(said(with), (vec!["a"], vec![], vec![], ""));
}

#[test]
fn a_name_that_goes_comes_and_goes_in_one_turn_is_dropped() {
    let mut script = Script::watching(Incremental, Kind::Endpoints, &["a"]);
    script.ads.unwatch(Kind::Endpoints, "a");
    script.ads.watch(Kind::Endpoints, "a");
    script.ads.unwatch(Kind::Endpoints, "a");
    assert_eq!(said(&script.request()), (vec![], vec!["a"], vec![], ""));
    assert_eq!(script.requests(), []);
}

#[test]
fn each_response_is_answered_by_its_nonce_in_order_and_apart_from_names() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.respond(Kind::Cluster, "2", "n2", &[("a", Err("bad"))]);
    script.respond(Kind::Cluster, "3", "n3", &[("a", Ok("w"))]);
    script.ads.watch(Kind::Cluster, "b");
    let requests = script.requests();
    assert_eq!(nonces(&requests), [("n1", false), ("n2", true), ("n3", false), ("", false)]);
    assert_eq!(said(&requests[1]), (vec![], vec![], vec![], "n2"));
    assert_eq!(said(&requests[3]), (vec!["b"], vec![], vec![], ""));
}

#[test]
fn answers_that_wait_for_room_are_bounded_and_the_latest_stay() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    for i in 1..=1_000 {
        script.respond(Kind::Cluster, "1", &format!("n{i}"), &[("a", Ok("v"))]);
    }
    let requests = script.requests();
    assert_eq!((requests.len(), &*requests[63].nonce), (64, "n1000"));
}

#[test]
fn a_new_stream_says_what_is_held() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a", "b", "c", "d", "e"]);
    script.respond(
        Kind::Cluster,
        "1",
        "n1",
        &[("a", Ok("v")), ("b", Ok("v")), ("c", Ok("v")), ("d", Err("bad"))],
    );
    script.respond(Kind::Cluster, "2", "n2", &[("b", Ok("w"))]);
    script.respond(Kind::Cluster, "3", "n3", &[("a", Err("bad"))]);
    script.respond(Kind::Cluster, "", "n4", &[("e", Ok("v"))]);
    script.remove(Kind::Cluster, "n5", &["c"]);
    script.disconnect();
    script.connect();
    let requests = script.requests();
    let held = vec![("a", "1"), ("b", "2")];
    assert_eq!(
        said(&requests[0]),
        (vec!["a", "b", "c", "d", "e"], vec![], held, ""),
        "the last good ones alone"
    );
    assert_eq!(requests.len(), 1);
    script.ads.watch(Kind::Cluster, "f");
    assert_eq!(said(&script.request()), (vec!["f"], vec![], vec![], ""), "said once");
}

#[test]
fn what_was_dropped_or_forgotten_is_not_held() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a", "b", "c"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v")), ("b", Ok("v")), ("c", Ok("v"))]);
    script.ads.unwatch(Kind::Cluster, "a");
    script.ads.watch(Kind::Cluster, "a");
    script.ads.forget_value(Kind::Cluster, &"b".into());
    script.disconnect();
    script.connect();
    assert_eq!(said(&script.request()), (vec!["a", "b", "c"], vec![], vec![("c", "1")], ""));
    script.ads.forget_versions();
    script.disconnect();
    script.connect();
    assert_eq!(said(&script.request()), (vec!["a", "b", "c"], vec![], vec![], ""));
}

/// Envoy tracked whatever it was sent, and claimed it on the next stream, so that it was never sent to whoever wanted it
/// then (envoyproxy/envoy#18292, #22418).
#[test]
fn what_came_for_nobody_or_crossed_its_drop_is_neither_held_nor_asked_for_on_the_next_stream() {
    let mut script = Script::watching(Incremental, Kind::Endpoints, &["a", "b", "c"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("b", Ok("v")), ("stray", Ok("v"))]);
    script.ads.unwatch(Kind::Endpoints, "b");
    script.requests();
    script.respond(Kind::Endpoints, "2", "n2", &[("b", Ok("w"))]);
    script.requests();
    script.disconnect();
    script.ads.watch(Kind::Endpoints, "stray");
    script.connect();
    assert_eq!(said(&script.request()), (vec!["a", "c", "stray"], vec![], vec![("a", "1")], ""));
    script.ads.watch(Kind::Endpoints, "b");
    let wanted = script.requests().pop().unwrap();
    assert_eq!(said(&wanted).0, ["b"]);
    script.respond(Kind::Endpoints, "2", "n1", &[("b", Ok("w")), ("stray", Ok("v"))]);
    script.disconnect();
    script.connect();
    let held = vec![("a", "1"), ("b", "2"), ("stray", "2")];
    assert_eq!(said(&script.request()), (vec!["a", "b", "c", "stray"], vec![], held, ""));
}

/// What the next stream says is for the control plane that lost the first: parents that are gone take their children with
/// them (envoyproxy/envoy#17980).
#[test]
fn what_was_removed_and_is_wanted_no_more_is_not_asked_for_on_the_next_stream() {
    let mut script = Script::watching(Incremental, Kind::Route, &["a", "b"]);
    script.respond(Kind::Route, "1", "n1", &[("a", Ok("v")), ("b", Ok("v"))]);
    script.remove(Kind::Route, "n2", &["a"]);
    script.disconnect();
    script.ads.unwatch(Kind::Route, "a");
    script.connect();
    assert_eq!(said(&script.request()), (vec!["b"], vec![], vec![("b", "1")], ""));
    assert_eq!(script.ads.poll_timeout(), None);
}

#[test]
fn what_is_held_is_not_waited_for_on_a_new_stream_that_stays_silent() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.disconnect();
    script.connect();
    script.requests();
    script.updates();
    script.advance(Duration::from_secs(3_600));
    assert_eq!((script.updates(), script.ads.poll_timeout()), (vec![], None));
}

#[test]
fn names_go_ahead_of_a_nack_that_is_held_back_and_another_response_ends_its_wait() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    for nonce in ["n1", "n2"] {
        script.respond(Kind::Cluster, "1", nonce, &[("a", Err("bad"))]);
    }
    assert_eq!(script.requests(), [], "the same again takes the place of the first");
    script.ads.watch(Kind::Cluster, "b");
    assert_eq!(said(&script.request()), (vec!["b"], vec![], vec![], ""));
    script.respond(Kind::Cluster, "2", "n3", &[("b", Ok("v"))]);
    assert_eq!(nonces(&script.requests()), [("n2", true), ("n3", false)]);
    assert_eq!(script.ads.poll_timeout(), None);
}

#[test]
fn an_update_tells_the_version_of_its_resource() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a", "b"]);
    let received = |name: &str, version: &str| Received {
        name: Some(name.into()),
        version: Some(version.into()),
        ttl: None,
        verdict: Ok("v"),
    };
    let resources = vec![received("a", "a1"), received("b", "b7")];
    script.ads.handle_response(script.now, Response { resources, ..empty(Kind::Cluster, "9", "n1") });
    let expected = [changed(Kind::Cluster, "a", "a1", "v"), changed(Kind::Cluster, "b", "b7", "v")];
    assert_eq!(script.updates(), expected);
}
