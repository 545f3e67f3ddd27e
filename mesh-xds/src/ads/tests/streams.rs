//! Reconnection: what is kept, what starts over, what is reported.

use super::*;

#[test]
fn a_new_stream_keeps_the_versions_and_forgets_the_nonces() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "7", "n1", &[("a", Ok("v"))]);
    script.disconnect();
    script.connect();
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce, names(&request)), ("7", "", vec!["a"]));
}

#[test]
fn a_new_stream_asks_for_each_type_that_is_watched() {
    for protocol in BOTH {
        let mut script = Script::new(protocol);
        for kind in [Kind::Listener, Kind::Cluster] {
            script.ads.watch(kind, "x");
        }
        for _ in 0..3 {
            script.connect();
            let kinds: Vec<_> = script.requests().iter().map(|r| r.kind).collect();
            assert_eq!(kinds, [Kind::Listener, Kind::Cluster]);
            script.disconnect();
        }
    }
}

#[test]
fn an_answer_that_was_due_on_the_old_stream_is_not_sent_on_the_new_one() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Err("bad"))]);
    script.disconnect();
    script.connect();
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce, &request.refusal), ("", "", &None));
}

#[test]
fn a_stream_that_ends_before_any_response_is_an_error_to_all() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.disconnect();
        assert_eq!(script.updates(), [Update::Unreachable]);
        script.disconnect();
        assert_eq!(
            script.updates(),
            [Update::Unreachable],
            "a connection that failed to open is another error"
        );
    }
}

#[test]
fn a_stream_that_ends_after_a_response_is_no_error() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[]);
        script.disconnect();
        assert_eq!(script.updates(), []);
    }
}

#[test]
fn nobody_hears_of_a_lost_stream_when_nothing_is_watched() {
    for protocol in BOTH {
        let mut script = Script::new(protocol);
        script.connect();
        script.disconnect();
        assert_eq!(script.updates(), []);
    }
}

#[test]
fn what_is_cached_stays_present_over_streams_and_can_still_be_deleted() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.disconnect();
    script.connect();
    script.requests();
    script.updates();
    script.respond(Kind::Cluster, "2", "m1", &[]);
    assert_eq!(script.updates(), [Update::Deleted { kind: Kind::Cluster, name: "a".into() }]);
}

#[test]
fn a_control_plane_that_comes_back_with_a_lower_version_is_believed() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "100", "n1", &[("a", Ok("new"))]);
    script.disconnect();
    script.connect();
    script.requests();
    script.respond(Kind::Cluster, "1", "m1", &[("a", Ok("old"))]);
    assert_eq!(version(&script.request()), "1");
    assert_eq!(script.updates().last(), Some(&changed(Kind::Cluster, "a", "1", "old")));
}

#[test]
fn a_response_that_comes_after_the_end_is_ignored() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.disconnect();
        script.updates();
        script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
        assert_eq!((script.updates(), script.requests()), (vec![], vec![]));
    }
}
