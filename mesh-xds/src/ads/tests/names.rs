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

/// The last cluster goes, and its endpoints are pushed all the same. A control plane that goes by nonces looks at no
/// later request that lacks the newest (grpc/grpc-java#11232, envoyproxy/envoy#3355).
#[test]
fn a_push_that_crosses_the_end_of_all_names_is_answered_and_what_is_wanted_next_carries_its_nonce() {
    for next in ["a", "b"] {
        let mut script = Script::watching(SotW, Kind::Endpoints, &["a"]);
        script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v"))]);
        script.requests();
        script.ads.unwatch(Kind::Endpoints, "a");
        let told = |request: &Request| (request.nonce.to_string(), request.names().len());
        assert_eq!(told(&script.request()), ("n1".to_owned(), 0));
        for (nonce, pushed) in [("n2", &[("a", Ok("w"))][..]), ("n3", &[])] {
            script.respond(Kind::Endpoints, "2", nonce, pushed);
            let answer = script.request();
            assert_eq!((version(&answer), told(&answer)), ("2", (nonce.to_owned(), 0)));
        }
        script.ads.watch(Kind::Endpoints, next);
        let wanted = script.requests().pop().unwrap();
        assert_eq!((&*wanted.nonce, names(&wanted)), ("n3", vec![next]));
        // Nothing that came for nobody is claimed.
        assert_eq!(version(&wanted), if next == "a" { "" } else { "2" });
        assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER), "it is waited for");
    }
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

/// In one request the version would be claimed for a name that the response was not asked for.
#[test]
fn an_answer_carries_the_names_as_they_were_and_a_change_of_names_follows() {
    let mut script = Script::watching(SotW, Kind::Route, &["a"]);
    script.respond(Kind::Route, "1", "n1", &[("a", Ok("v"))]);
    script.ads.watch(Kind::Route, "b");
    script.ads.unwatch(Kind::Route, "a");
    let requests = script.requests();
    let told: Vec<_> = requests.iter().map(|r| (version(r), &*r.nonce, names(r))).collect();
    assert_eq!(told, [("1", "n1", vec!["a"]), ("1", "n1", vec!["b"])]);
}

/// A control plane that goes by versions would not send it again.
#[test]
fn what_came_before_it_was_wanted_is_not_claimed_to_be_held() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("early", Ok("w"))]);
    script.requests();
    script.ads.watch(Kind::Endpoints, "early");
    let request = script.request();
    assert_eq!((version(&request), names(&request)), ("", vec!["a", "early"]));
    script.respond(Kind::Endpoints, "1", "n2", &[("a", Ok("v")), ("early", Ok("w"))]);
    assert_eq!(version(&script.request()), "1", "it is held now");
    script.ads.watch(Kind::Endpoints, "new");
    assert_eq!(version(&script.request()), "1", "nothing was ever said of it");
}

/// go-control-plane up to 0.13 takes it for held as long as nothing else was sent.
#[test]
fn what_was_wanted_before_is_not_claimed_to_be_held_when_it_is_wanted_again() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a", "b"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
    script.requests();
    script.ads.unwatch(Kind::Endpoints, "b");
    assert_eq!(version(&script.request()), "1", "what is held is");
    script.ads.watch(Kind::Endpoints, "b");
    assert_eq!(version(&script.request()), "");
}

/// istiod looks at the names of no refusal, and what crosses a response is not looked at.
#[test]
fn names_that_changed_before_a_refused_response_are_told_again_after_the_refusal() {
    let mut script = Script::watching(SotW, Kind::Listener, &["l"]);
    script.respond(Kind::Listener, "1", "n1", &[("l", Ok("v"))]);
    script.requests();
    script.ads.watch(Kind::Listener, "m");
    assert_eq!(names(&script.request()), ["l", "m"]);
    script.respond(Kind::Listener, "2", "n2", &[("l", Err("bad"))]);
    let told: Vec<_> = script.requests().iter().map(|r| (r.refusal.is_some(), r.names().len())).collect();
    assert_eq!(told, [(true, 2), (false, 2)]);
    script.respond(Kind::Listener, "3", "n3", &[("l", Ok("v")), ("m", Ok("w"))]);
    assert_eq!(script.requests().len(), 1);
    script.respond(Kind::Listener, "4", "n4", &[("l", Err("bad"))]);
    assert_eq!(script.requests().len(), 1, "they are known");
}

#[test]
fn what_came_before_it_was_wanted_is_not_claimed_on_the_next_stream_either() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("early", Ok("w"))]);
    script.requests();
    script.disconnect();
    script.ads.watch(Kind::Endpoints, "early");
    script.connect();
    assert_eq!(version(&script.request()), "");
}

/// The control plane knows it as sent, so it is told as dropped first.
#[test]
fn what_came_before_it_was_wanted_is_told_as_dropped_in_incremental() {
    let mut script = Script::watching(Incremental, Kind::Endpoints, &["a"]);
    script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("early", Ok("w"))]);
    script.requests();
    script.ads.watch(Kind::Endpoints, "early");
    let [first, second] = script.requests().try_into().expect("two requests");
    let Ask::Changes { subscribe, unsubscribe, .. } = &first.ask else { panic!("{first:?}") };
    assert_eq!((subscribe.len(), unsubscribe.as_slice()), (0, &["early".into()][..]));
    assert_eq!(names(&second), ["early"]);
}

#[test]
fn a_control_plane_that_sends_what_nobody_asks_for_without_end_costs_no_memory_without_end() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["a"]);
    for i in 0..10_000 {
        script.respond(Kind::Endpoints, "1", "n1", &[(&format!("stray-{i}"), Ok("v"))]);
    }
    script.requests();
    script.ads.watch(Kind::Endpoints, "stray-9999");
    assert_eq!(version(&script.request()), "", "more than are told apart are as good as all");
}

#[test]
fn a_value_that_was_not_kept_is_asked_for_again() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Endpoints, &["a", "b"]);
        script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
        script.requests();
        script.ads.renew(Kind::Endpoints, &"a".into());
        let requests = script.requests();
        let [without, with] = requests.as_slice() else { panic!("{requests:?}") };
        match (&without.ask, &with.ask) {
            (Ask::All { names, .. }, Ask::All { version, names: all }) => {
                assert_eq!((names.len(), &**version, all.len()), (1, "", 2));
            }
            (Ask::Changes { unsubscribe, .. }, Ask::Changes { subscribe, .. }) => {
                assert_eq!(
                    (unsubscribe.as_slice(), subscribe.as_slice()),
                    (&["a".into()][..], &["a".into()][..])
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(script.updates().len(), 2, "it is not deleted meanwhile");
        assert_eq!(script.ads.poll_timeout(), None, "nor waited for: what is held stays");
    }
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
    assert_eq!(told, [(vec!["a", "b"], "n2"), (vec!["b"], "n2"), (vec!["a", "b"], "n2")]);
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
    assert_eq!(requests.iter().map(names).collect::<Vec<_>>(), [vec!["b"], vec!["b"], vec!["a", "b"]]);
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
    assert_eq!(count.collect::<Vec<_>>(), [3, 3, 3, 3, 1, 1, 1, 1, 1, 1]);
}
