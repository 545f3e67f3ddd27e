//! What is asked for: coalescing, unsubscribing, never an empty list first.

use super::*;

#[test]
fn a_thousand_watches_of_each_kind_are_four_requests() {
    for protocol in BOTH {
        let mut script = Script::new(protocol);
        script.connect();
        for kind in Kind::ALL {
            for i in 0..1_000 {
                script.ads.watch(kind, format!("r{i}"));
            }
        }
        let requests = script.requests();
        assert_eq!(requests.iter().map(|r| r.kind).collect::<Vec<_>>(), Kind::ALL);
        assert!(requests.iter().all(|r| r.names().len() == 1_000));
        assert!(!script.ads.wants_transmit(script.now));
    }
}

#[test]
fn only_the_first_request_of_a_stream_carries_the_node() {
    for protocol in BOTH {
        let mut script = Script::new(protocol);
        script.ads.watch(Kind::Listener, "l");
        script.ads.watch(Kind::Cluster, "c");
        script.connect();
        assert_eq!(script.requests().iter().map(|r| r.first).collect::<Vec<_>>(), [true, false]);
        script.disconnect();
        script.connect();
        assert_eq!(script.requests().iter().map(|r| r.first).collect::<Vec<_>>(), [true, false]);
    }
}

#[test]
fn nothing_is_sent_before_there_is_a_stream() {
    for protocol in BOTH {
        let mut script = Script::new(protocol);
        script.ads.watch(Kind::Listener, "l");
        assert!(!script.ads.wants_transmit(script.now));
        assert_eq!(script.requests(), []);
    }
}

#[test]
fn a_request_carries_all_names_sorted() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["b"]);
    script.ads.watch(Kind::Cluster, "a");
    let request = script.request();
    assert_eq!(names(&request), ["a", "b"]);
    assert_eq!((version(&request), &*request.nonce, &request.refusal), ("", "", &None));
}

#[test]
fn watching_twice_asks_once_and_one_unwatch_ends_it() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a", "b"]);
    script.ads.watch(Kind::Cluster, "a");
    assert_eq!(script.requests(), []);
    script.ads.unwatch(Kind::Cluster, "a");
    assert_eq!(names(&script.request()), ["b"]);
}

#[test]
fn a_watch_that_is_taken_back_at_once_is_never_told() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.ads.watch(Kind::Cluster, "b");
        script.ads.unwatch(Kind::Cluster, "b");
        assert_eq!(script.requests(), []);
    }
}

#[test]
fn the_last_unwatch_of_a_type_sends_an_empty_list() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.ads.unwatch(Kind::Cluster, "a");
    assert_eq!(names(&script.request()), [""; 0]);
    assert!(script.ads.is_idle());
}

#[test]
fn an_empty_list_is_never_the_first_of_its_type_on_a_stream() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.ads.unwatch(Kind::Cluster, "a");
    script.disconnect();
    script.connect();
    assert_eq!(script.requests(), []);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    assert_eq!(script.requests(), [], "an answer with an empty list would ask for everything");
}

#[test]
fn a_response_to_a_type_that_is_no_longer_watched_is_answered() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    script.ads.unwatch(Kind::Cluster, "a");
    script.requests();
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce, names(&request).len()), ("1", "n1", 0));
    assert_eq!(script.updates(), [], "nobody watches it");
}

#[test]
fn a_resource_that_was_not_asked_for_is_tolerated_and_not_kept() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Endpoints, &["a"]);
        script.respond(Kind::Endpoints, "1", "n1", &[("other", Ok("x")), ("a", Ok("v"))]);
        assert_eq!(script.updates(), [changed(Kind::Endpoints, "a", "1", "v")]);
        assert_eq!(script.request().refusal, None);
    }
}

#[test]
fn a_change_of_names_and_an_answer_are_one_request() {
    let mut script = Script::watching(SotW, Kind::Route, &["a"]);
    script.respond(Kind::Route, "1", "n1", &[("a", Ok("v"))]);
    script.ads.watch(Kind::Route, "b");
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce, names(&request)), ("1", "n1", vec!["a", "b"]));
}

/// Otherwise a server that never saw it go would not send it again, and it would count as absent.
#[test]
fn a_name_that_is_dropped_and_wanted_again_is_told_as_dropped_first() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a", "b"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
    script.requests();
    script.ads.unwatch(Kind::Endpoints, "a");
    script.ads.watch(Kind::Endpoints, "a");
    let requests = script.requests();
    let [without, with] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((names(without), names(with)), (vec!["b"], vec!["a", "b"]));
    assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER), "it is waited for");
}

/// The response was under way when the names were told, so that they had an old nonce and were not looked at.
#[test]
fn a_name_that_is_wanted_again_is_told_again_after_a_response_that_crossed_it() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a", "b"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
    script.requests();
    script.ads.unwatch(Kind::Endpoints, "a");
    script.ads.watch(Kind::Endpoints, "a");
    script.requests();
    script.respond(Kind::Endpoints, "2", "n2", &[("b", Ok("x"))]);
    let requests = script.requests();
    let told: Vec<_> = requests.iter().map(|request| (names(request), &*request.nonce)).collect();
    assert_eq!(told, [(vec!["b"], "n2"), (vec!["a", "b"], "n2")]);
    script.respond(Kind::Endpoints, "3", "n3", &[("a", Ok("v"))]);
    assert_eq!(script.requests().len(), 1, "it came");
}

#[test]
fn a_name_whose_drop_was_crossed_by_a_response_is_told_as_dropped_again_when_it_is_wanted() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a", "b"]);
    script.ads.unwatch(Kind::Endpoints, "a");
    assert_eq!(names(&script.request()), ["b"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v"))]);
    script.ads.watch(Kind::Endpoints, "a");
    let requests = script.requests();
    assert_eq!(requests.iter().map(names).collect::<Vec<_>>(), [vec!["b"], vec!["a", "b"]]);
}

#[test]
fn a_name_that_is_wanted_again_and_does_not_exist_is_told_again_a_few_times() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a", "b"]);
    script.ads.unwatch(Kind::Endpoints, "a");
    script.ads.watch(Kind::Endpoints, "a");
    script.requests();
    let count = (0..10).map(|i| {
        script.respond(Kind::Endpoints, "1", &format!("n{i}"), &[]);
        script.requests().len()
    });
    assert_eq!(count.collect::<Vec<_>>(), [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
}
