//! Errors by resource (xDS TP3): the control plane says why there is no value.

use super::*;

fn error(name: &str, is_data_error: bool) -> ResourceError {
    ResourceError { name: name.into(), is_data_error, reason: "no".into() }
}

fn respond(script: &mut Script, nonce: &str, resources: &[(&str, Verdict)], errors: &[ResourceError]) {
    script.respond_with_errors(empty(Kind::Cluster, "1", nonce), resources, errors);
}

fn failed(name: &str, is_data_error: bool) -> Update<&'static str> {
    Update::Failed { kind: Kind::Cluster, error: error(name, is_data_error) }
}

#[test]
fn an_error_ends_the_wait_is_told_once_and_is_no_refusal() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        respond(&mut script, "n1", &[], &[error("a", false)]);
        assert_eq!(script.updates(), [failed("a", false)]);
        assert_eq!(script.ads.poll_timeout(), None, "nothing is waited for");
        assert_eq!(script.request().refusal, None);
        respond(&mut script, "n2", &[], &[error("a", false)]);
        assert_eq!(script.updates(), []);
        respond(&mut script, "n3", &[("a", Ok("v"))], &[]);
        assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
        respond(&mut script, "n4", &[], &[error("a", false)]);
        assert_eq!(script.updates(), [failed("a", false)], "a value in between makes it news again");
    }
}

#[test]
fn an_error_is_no_deletion_and_silence_after_it_is_one_in_a_full_response() {
    let mut script = Script::watching(SotW, Kind::Cluster, &["a", "b"]);
    respond(&mut script, "n1", &[("a", Ok("v")), ("b", Ok("w"))], &[]);
    script.updates();
    respond(&mut script, "n2", &[("b", Ok("w"))], &[error("a", true)]);
    assert_eq!(script.updates(), [changed(Kind::Cluster, "b", "1", "w"), failed("a", true)]);
    respond(&mut script, "n3", &[("b", Ok("w"))], &[]);
    assert!(script.updates().contains(&deleted(Kind::Cluster, "a")));
}

#[test]
fn a_value_and_an_error_of_one_name_are_refused_and_the_value_is_used() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        respond(&mut script, "n1", &[("a", Ok("v"))], &[error("a", true)]);
        assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "1", "v")]);
        assert!(script.request().refusal.is_some_and(|text| text.contains("an error beside it")));
    }
}

#[test]
fn an_error_of_what_is_not_watched_is_nobodys() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a"]);
        respond(&mut script, "n1", &[], &[error("b", true)]);
        assert_eq!((script.updates(), script.request().refusal), (vec![], None));
    }
}
