//! Everything of a kind: asked for only where somebody wants it.

use super::*;

fn everything(protocol: Protocol) -> Script {
    let mut script = Script::watching(protocol, Kind::Cluster, &[WILDCARD]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v")), ("b", Ok("w"))]);
    script.requests();
    assert_eq!(
        script.updates(),
        [changed(Kind::Cluster, "a", "1", "v"), changed(Kind::Cluster, "b", "1", "w")]
    );
    script
}

#[test]
fn what_comes_is_watched_and_asked_for_by_the_wildcard_alone() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &[WILDCARD]);
        assert_eq!(script.ads.poll_timeout(), None, "nothing in particular is waited for");
        script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
        assert_eq!(script.request().refusal, None);
        assert!(script.ads.is_watched(Kind::Cluster, "a"));
        script.disconnect();
        script.connect();
        assert_eq!(names(&script.request()), [WILDCARD]);
    }
}

#[test]
fn what_is_gone_is_deleted_and_forgotten() {
    let mut script = everything(SotW);
    script.respond(Kind::Cluster, "2", "n2", &[("b", Ok("w"))]);
    let mut other = everything(Incremental);
    other.remove(Kind::Cluster, "n2", &["a"]);
    assert_eq!(script.updates(), [changed(Kind::Cluster, "b", "2", "w"), deleted(Kind::Cluster, "a")]);
    assert_eq!(other.updates(), [deleted(Kind::Cluster, "a")]);
    for script in [script, other] {
        assert!(!script.ads.is_watched(Kind::Cluster, "a"));
    }
}

#[test]
fn an_incremental_stream_says_which_of_everything_is_held() {
    let mut script = everything(Incremental);
    script.disconnect();
    script.connect();
    let Ask::Changes { subscribe, held, .. } = script.request().ask else { panic!("incremental") };
    assert_eq!(subscribe, [Name::from(WILDCARD)]);
    assert_eq!(held, [("a", "1"), ("b", "1")].map(|(name, version)| (name.into(), version.into())));
}

#[test]
fn the_end_of_the_wildcard_forgets_all_but_what_is_watched_by_name() {
    for protocol in BOTH {
        let mut script = everything(protocol);
        script.ads.watch(Kind::Cluster, "b");
        script.requests();
        script.ads.unwatch(Kind::Cluster, WILDCARD);
        assert!(!script.ads.is_watched(Kind::Cluster, "a") && script.ads.is_watched(Kind::Cluster, "b"));
        match script.request().ask {
            Ask::All { names, .. } => assert_eq!(names, [Name::from("b")]),
            Ask::Changes { unsubscribe, .. } => assert_eq!(unsubscribe, [Name::from(WILDCARD)]),
        }
        script.respond(Kind::Cluster, "2", "n2", &[("a", Ok("x")), ("b", Ok("y"))]);
        assert_eq!(script.updates(), [changed(Kind::Cluster, "b", "2", "y")]);
    }
}

#[test]
fn a_refused_resource_of_everything_is_told() {
    for protocol in BOTH {
        let mut script = everything(protocol);
        script.respond(Kind::Cluster, "2", "n2", &[("a", Ok("v")), ("b", Err("bad")), ("c", Err("bad"))]);
        assert!(script.request().refusal.is_some());
        let expected = [
            changed(Kind::Cluster, "a", "2", "v"),
            refused(Kind::Cluster, "b", "2", "bad"),
            refused(Kind::Cluster, "c", "2", "bad"),
        ];
        assert_eq!(script.updates(), expected);
    }
}

#[test]
fn a_resource_that_is_called_as_the_wildcard_is_nobodys() {
    for protocol in BOTH {
        let mut script = everything(protocol);
        let own = [("a", Ok("v")), ("b", Ok("w")), (WILDCARD, Ok("x"))];
        script.respond(Kind::Cluster, "2", "n2", &own);
        assert_eq!(script.updates().len(), 2);
        script.remove(Kind::Cluster, "n3", &[WILDCARD]);
        assert!(script.ads.is_watched(Kind::Cluster, WILDCARD));
    }
}
