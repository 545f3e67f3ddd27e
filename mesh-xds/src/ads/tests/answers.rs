//! ACK and NACK: versions, nonces, texts, repetitions.

use super::*;

#[test]
fn an_ack_carries_the_version_and_nonce_of_the_response() {
    let mut script = Script::watching(SotW, Kind::Listener, &["l"]);
    script.respond(Kind::Listener, "7", "n1", &[("l", Ok("v"))]);
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce, &request.refusal), ("7", "n1", &None));
    assert_eq!(script.updates(), [changed(Kind::Listener, "l", "7", "v")]);
    assert_eq!(script.requests(), [], "one response is answered once");
}

#[test]
fn an_empty_response_is_accepted() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["e"]);
    script.respond(Kind::Endpoints, "1", "n1", &[]);
    assert_eq!((version(&script.request()), script.updates()), ("1", vec![]));
}

#[test]
fn a_nack_of_the_first_response_has_no_version_and_the_new_nonce() {
    let mut script = Script::watching(SotW, Kind::Listener, &["l"]);
    script.respond(Kind::Listener, "1", "n1", &[("l", Err("api_listener: missing"))]);
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce), ("", "n1"));
    assert_eq!(
        request.refusal.as_deref(),
        Some("1 of 1 resources refused; listener \"l\": api_listener: missing")
    );
    assert_eq!(script.updates(), [refused(Kind::Listener, "l", "1", "api_listener: missing")]);
}

#[test]
fn nack_keeps_the_last_good_version_and_the_next_good_one_is_accepted() {
    let mut script = Script::watching(SotW, Kind::Route, &["r"]);
    script.respond(Kind::Route, "1", "n1", &[("r", Ok("good"))]);
    assert_eq!(version(&script.request()), "1");
    script.respond(Kind::Route, "2", "n2", &[("r", Err("bad"))]);
    let nack = script.request();
    assert_eq!((version(&nack), &*nack.nonce, nack.refusal.is_some()), ("1", "n2", true));
    script.respond(Kind::Route, "3", "n3", &[("r", Ok("better"))]);
    let ack = script.request();
    assert_eq!((version(&ack), &*ack.nonce, ack.refusal.clone()), ("3", "n3", None));
    assert_eq!(
        script.updates(),
        [
            changed(Kind::Route, "r", "1", "good"),
            refused(Kind::Route, "r", "2", "bad"),
            changed(Kind::Route, "r", "3", "better"),
        ]
    );
}

#[test]
fn a_nack_names_every_bad_resource_and_the_valid_ones_are_used() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a", "b", "c"]);
        let resources =
            [("a", Err("x.y: bad")), ("b", Ok("good")), ("", Err("not decodable")), ("c", Err("z"))];
        script.respond(Kind::Cluster, "1", "n1", &resources);
        assert_eq!(
            script.request().refusal.as_deref(),
            Some(
                "3 of 4 resources refused; cluster \"a\": x.y: bad; resources[2]: not decodable; cluster \"c\": z"
            )
        );
        assert_eq!(
            script.updates(),
            [
                refused(Kind::Cluster, "a", "1", "x.y: bad"),
                changed(Kind::Cluster, "b", "1", "good"),
                nameless(Kind::Cluster, "1", "resources[2]: not decodable"),
                refused(Kind::Cluster, "c", "1", "z"),
            ]
        );
    }
}

#[test]
fn a_name_that_comes_twice_is_refused_and_its_first_value_used() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("first")), ("a", Ok("second"))]);
        assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "first")]);
        let text = script.request().refusal.unwrap();
        assert!(text.ends_with("cluster \"a\": is in the response more than once"), "{text}");
    }
}

#[test]
fn a_valid_value_without_name_is_refused() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("", Ok("v"))]);
        assert!(script.request().refusal.unwrap().ends_with("resources[0]: has no name"));
    }
}

#[test]
fn a_bad_resource_that_nobody_watches_is_in_the_nack_and_in_no_update() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v")), ("other", Err("bad"))]);
        assert!(script.request().refusal.unwrap().contains("cluster \"other\": bad"));
        assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
    }
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        let long: &'static str = String::leak("é".repeat(2_000));
        script.respond(Kind::Cluster, "1", "n1", &[("a", Err(long))]);
        let text = script.request().refusal.unwrap();
        assert!(text.len() < 1_100 && text.ends_with('é'), "{} bytes", text.len());
    }
}

#[test]
fn the_same_refusal_again_is_reported_once_and_its_nack_held_back() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Err("bad"))]);
        assert_eq!(&*script.request().nonce, "n1");
        assert_eq!(script.updates().len(), 1);
        let mut waited = Vec::new();
        for nonce in ["n2", "n3", "n4", "n5", "n6", "n7", "n8"] {
            script.respond(Kind::Cluster, "1", nonce, &[("a", Err("bad"))]);
            assert_eq!(script.requests(), [], "held back");
            let due = script.ads.poll_timeout().unwrap();
            waited.push((due - script.now).as_millis());
            script.advance(due - script.now - Duration::from_nanos(1));
            assert_eq!(script.requests(), [], "not yet");
            script.advance(Duration::from_nanos(1));
            assert_eq!(&*script.request().nonce, nonce);
        }
        assert_eq!(waited, [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
        assert_eq!(script.updates(), []);
    }
}

#[test]
fn another_refusal_is_told_at_once() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Err("bad"))]);
        script.requests();
        script.respond(Kind::Cluster, "2", "n2", &[("a", Err("worse"))]);
        assert!(script.request().refusal.unwrap().ends_with("worse"));
        assert_eq!(script.updates().len(), 2);
    }
}

#[test]
fn a_correction_is_accepted_at_once_while_a_nack_is_held_back() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    for nonce in ["n1", "n2"] {
        script.respond(Kind::Cluster, "1", nonce, &[("a", Err("bad"))]);
        script.requests();
    }
    script.respond(Kind::Cluster, "2", "n3", &[("a", Ok("good"))]);
    let ack = script.request();
    assert_eq!((version(&ack), &*ack.nonce, ack.refusal.clone()), ("2", "n3", None));
    assert_eq!(script.ads.poll_timeout(), None);
}

#[test]
fn names_that_change_while_a_nack_is_due_follow_in_a_request_of_their_own() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a"]);
    for nonce in ["n1", "n2"] {
        script.respond(Kind::Cluster, "1", nonce, &[("a", Err("bad"))]);
        script.ads.watch(Kind::Cluster, nonce);
        let requests = script.requests();
        let [nack, change] = requests.as_slice() else { panic!("{requests:?}") };
        assert!(nack.refusal.is_some() && !names(nack).contains(&nonce));
        assert!(change.refusal.is_none() && names(change).contains(&nonce));
        assert_eq!((&*nack.nonce, &*change.nonce, version(change)), (nonce, nonce, ""));
    }
}

#[test]
fn only_the_latest_of_several_responses_is_answered_when_the_stream_is_slow() {
    let mut script = Script::watching(SotW, Kind::Endpoints, &["e"]);
    for i in 1..=100 {
        script.respond(Kind::Endpoints, &i.to_string(), &format!("n{i}"), &[("e", Ok("v"))]);
    }
    let request = script.request();
    assert_eq!((version(&request), &*request.nonce), ("100", "n100"));
}

#[test]
fn a_response_to_a_type_that_was_never_asked_for_leaves_no_answer_and_no_timer() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        for verdict in [Err("bad"), Ok("good")] {
            script.respond(Kind::Route, "1", "n1", &[("s", verdict)]);
            assert!(script.ads.poll_timeout().is_none_or(|at| at > script.now));
            assert!(!script.ads.wants_transmit(script.now));
        }
        script.ads.watch(Kind::Route, "s");
        let first = script.request();
        assert_eq!((names(&first), &first.refusal), (vec!["s"], &None));
    }
}
