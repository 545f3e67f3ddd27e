//! Resource TTL: a resource that the control plane does not speak of for a while is gone, in both protocols.

use super::*;

const TTL: Duration = Duration::from_secs(5);

fn respond(script: &mut Script, nonce: &str, ttl: Option<Duration>) {
    let version = (script.protocol == Incremental).then(|| "1".into());
    let resources = vec![Received { name: Some("a".into()), version, ttl, verdict: Ok("v") }];
    script.ads.handle_response(script.now, Response { resources, ..empty(Kind::Cluster, "1", nonce) });
}

fn heartbeat(script: &mut Script, names: &[&str]) {
    let heartbeats = names.iter().map(|name| Heartbeat { name: (*name).into(), ttl: TTL }).collect();
    script.ads.handle_response(script.now, Response { heartbeats, ..empty(Kind::Cluster, "1", "beat") });
}

/// Connected, and holds a resource with a time to live.
fn holding(protocol: Protocol) -> Script {
    let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
    respond(&mut script, "n1", Some(TTL));
    script.requests();
    assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
    script
}

#[test]
fn a_resource_is_deleted_at_the_end_of_its_time_to_live() {
    for protocol in BOTH {
        let mut script = holding(protocol);
        assert_eq!(script.ads.poll_timeout(), Some(script.now + TTL));
        script.advance(TTL - Duration::from_nanos(1));
        assert_eq!(script.updates(), []);
        script.advance(Duration::from_nanos(1));
        assert_eq!(script.updates(), [deleted(Kind::Cluster, "a")]);
        assert_eq!(script.ads.poll_timeout(), None);
    }
}

#[test]
fn a_heartbeat_or_a_value_begins_the_time_again_and_is_no_change_by_itself() {
    for protocol in BOTH {
        let mut script = holding(protocol);
        script.advance(Duration::from_secs(4));
        heartbeat(&mut script, &["a"]);
        assert_eq!((script.request().refusal, script.updates()), (None, vec![]));
        script.advance(Duration::from_secs(4));
        respond(&mut script, "n2", Some(TTL));
        assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
        script.advance(Duration::from_secs(4));
        assert_eq!(script.updates(), []);
        script.advance(Duration::from_secs(1));
        assert_eq!(script.updates(), [deleted(Kind::Cluster, "a")]);
    }
}

#[test]
fn a_value_without_a_time_to_live_or_an_unwatch_ends_the_time() {
    for protocol in BOTH {
        let mut script = holding(protocol);
        respond(&mut script, "n2", None);
        assert_eq!(script.ads.poll_timeout(), None);
        respond(&mut script, "n3", Some(TTL));
        script.ads.unwatch(Kind::Cluster, "a");
        assert_eq!(script.ads.poll_timeout(), None);
    }
}

#[test]
fn the_time_goes_on_without_a_stream_and_what_is_over_is_not_held() {
    for protocol in BOTH {
        let mut script = holding(protocol);
        script.disconnect();
        script.advance(TTL);
        assert_eq!(script.updates(), [deleted(Kind::Cluster, "a")]);
        script.connect();
        let request = script.request();
        assert_eq!(names(&request), ["a"]);
        assert!(!matches!(request.ask, Ask::Changes { held, .. } if !held.is_empty()));
    }
}

#[test]
fn a_heartbeat_that_comes_too_late_asks_for_the_value_again() {
    for protocol in BOTH {
        let mut script = holding(protocol);
        script.advance(TTL);
        heartbeat(&mut script, &["a", "unknown"]);
        assert_eq!(script.updates(), [deleted(Kind::Cluster, "a")]);
        let requests = script.requests();
        let last = requests.last().unwrap();
        assert_eq!((names(last), last.refusal.clone()), (vec!["a"], None));
        assert!(requests.iter().any(|request| match &request.ask {
            Ask::All { names, .. } => names.is_empty(),
            Ask::Changes { unsubscribe, .. } => unsubscribe.len() == 1,
        }));
        respond(&mut script, "n2", Some(TTL));
        assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
    }
}

#[test]
fn a_heartbeat_beside_its_value_is_refused() {
    for protocol in BOTH {
        let mut script = holding(protocol);
        heartbeat(&mut script, &["a", "a"]);
        assert!(script.request().refusal.unwrap().ends_with("is in the response more than once"));
    }
}

#[test]
fn a_resource_with_a_heartbeat_is_not_missing() {
    let mut script = holding(SotW);
    heartbeat(&mut script, &["a"]);
    assert_eq!(script.updates(), []);
}
