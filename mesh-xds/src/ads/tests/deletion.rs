//! What is missing from a response (gRFC A27, A88).

use super::*;

#[test]
fn a_cached_listener_or_cluster_that_is_missing_is_deleted_once() {
    for kind in [Kind::Listener, Kind::Cluster] {
        let mut script = Script::watching(SotW, kind, &["a", "b"]);
        script.respond(kind, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
        script.updates();
        script.respond(kind, "2", "n2", &[("a", Ok("v"))]);
        assert_eq!(script.updates(), [changed(kind, "a", "2", "v"), deleted(kind, "b")]);
        script.respond(kind, "3", "n3", &[]);
        assert_eq!(script.updates(), [deleted(kind, "a")]);
        assert_eq!(script.request().refusal, None, "a deletion is no reason to refuse");
    }
}

#[test]
fn a_cached_route_or_assignment_that_is_missing_stays() {
    for protocol in BOTH {
        for kind in [Kind::Route, Kind::Endpoints] {
            let mut script = Script::watching(protocol, kind, &["a", "b"]);
            script.respond(kind, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
            script.updates();
            script.respond(kind, "2", "n2", &[("a", Ok("v2"))]);
            assert_eq!(script.updates(), [changed(kind, "a", "2", "v2")]);
        }
    }
}

#[test]
fn a_resource_that_never_came_is_not_deleted_but_waited_for() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[]);
        assert_eq!(script.updates(), []);
        assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER));
    }
}

#[test]
fn a_deleted_resource_that_comes_back_is_a_change_and_may_be_deleted_again() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    for version in ["1", "2"] {
        script.respond(Kind::Cluster, version, version, &[("a", Ok("v"))]);
        script.respond(Kind::Cluster, version, version, &[]);
        assert_eq!(
            script.updates(),
            [changed(Kind::Cluster, "a", version, "v"), deleted(Kind::Cluster, "a")]
        );
    }
}

#[test]
fn a_refused_resource_exists() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
        script.updates();
        script.respond(Kind::Cluster, "2", "n2", &[("a", Err("bad"))]);
        assert_eq!(script.updates(), [refused(Kind::Cluster, "a", "2", "bad")]);
    }
}

#[test]
fn nothing_is_deleted_by_a_response_with_a_resource_of_unknown_name() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
        script.updates();
        script.respond(Kind::Cluster, "2", "n2", &[("", Err("not decodable"))]);
        assert_eq!(script.updates(), [nameless(Kind::Cluster, "2", "resources[0]: not decodable")]);
    }
}

#[test]
fn names_that_the_control_plane_calls_removed_are_deleted_or_absent() {
    let mut script = Script::watching(Incremental, Kind::Endpoints, &["a", "b", "c"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("c", Err("bad"))]);
    script.updates();
    script.remove(Kind::Endpoints, "n2", &["a", "b", "c", "unknown"]);
    let gone = [deleted(Kind::Endpoints, "a"), absent(Kind::Endpoints, "b"), absent(Kind::Endpoints, "c")];
    assert_eq!(script.updates(), gone);
    script.advance(ABSENT_AFTER);
    assert_eq!(script.updates(), [], "an answer ends the wait");
    script.remove(Kind::Endpoints, "n3", &["a", "b", "c"]);
    assert_eq!(script.updates(), [], "once");
}

#[test]
fn what_is_missing_from_an_incremental_response_stays() {
    for kind in Kind::ALL {
        let mut script = Script::watching(Incremental, kind, &["a", "b"]);
        script.respond(kind, "1", "n1", &[("a", Ok("v")), ("b", Err("bad"))]);
        script.updates();
        script.respond(kind, "2", "n2", &[]);
        assert_eq!(script.updates(), []);
    }
}

#[test]
fn a_resource_that_a_response_brings_and_removes_stays_and_the_response_is_refused() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    let resources =
        vec![Received { name: Some("a".into()), version: Some("1".into()), ttl: None, verdict: Ok("v") }];
    let response = Response { resources, removed: vec!["a".into()], ..empty(Kind::Cluster, "1", "n1") };
    script.ads.handle_response(script.now, response);
    assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
    let text = script.request().refusal.unwrap();
    assert!(text.ends_with("cluster \"a\": is in the response and removed by it"), "{text}");
}

#[test]
fn a_refused_resource_that_is_missing_is_absent() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Err("bad"))]);
    script.updates();
    script.respond(Kind::Cluster, "2", "n2", &[]);
    assert_eq!(script.updates(), [absent(Kind::Cluster, "a")]);
}
