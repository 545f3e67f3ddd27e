//! What is missing from a response (gRFC A27, A88).

use super::*;

fn deleted(kind: Kind, name: &str) -> Update<&'static str> {
    Update::Deleted { kind, name: name.into() }
}

#[test]
fn a_cached_listener_or_cluster_that_is_missing_is_deleted_once() {
    for kind in [Kind::Listener, Kind::Cluster] {
        let mut script = Script::watching(kind, &["a", "b"]);
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
    for kind in [Kind::Route, Kind::Endpoints] {
        let mut script = Script::watching(kind, &["a", "b"]);
        script.respond(kind, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
        script.updates();
        script.respond(kind, "2", "n2", &[("a", Ok("v2"))]);
        assert_eq!(script.updates(), [changed(kind, "a", "2", "v2")]);
    }
}

#[test]
fn a_resource_that_never_came_is_not_deleted_but_waited_for() {
    let mut script = Script::watching(Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[]);
    assert_eq!(script.updates(), []);
    assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER));
}

#[test]
fn a_deleted_resource_that_comes_back_is_a_change_and_may_be_deleted_again() {
    let mut script = Script::watching(Kind::Cluster, &["a"]);
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
    let mut script = Script::watching(Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.updates();
    script.respond(Kind::Cluster, "2", "n2", &[("a", Err("bad"))]);
    assert_eq!(script.updates(), [refused(Kind::Cluster, "a", "2", "bad")]);
}

#[test]
fn nothing_is_deleted_by_a_response_with_a_resource_of_unknown_name() {
    let mut script = Script::watching(Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.updates();
    script.respond(Kind::Cluster, "2", "n2", &[("", Err("not decodable"))]);
    assert_eq!(script.updates(), []);
}

#[test]
fn names_that_the_control_plane_calls_removed_are_deleted_or_absent() {
    let mut script = Script::watching(Kind::Endpoints, &["a", "b"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v"))]);
    script.updates();
    let removed = ["a", "b", "unknown"].map(Name::from).to_vec();
    let response = Response { removed, ..empty(Kind::Endpoints, "2", "n2") };
    script.ads.handle_response(script.now, response);
    let absent = Update::Absent { kind: Kind::Endpoints, name: "b".into() };
    assert_eq!(script.updates(), [deleted(Kind::Endpoints, "a"), absent]);
    assert_eq!(script.ads.poll_timeout(), None, "an answer ends the wait");
}
