//! Every field of every message that is accepted is decided: setting it changes the value, refuses the resource, lists
//! the field as not applied, or is on the list of [`super::super::ignored`]. What changes the value names a test that
//! fails when the field is ignored ([`super::applied`]).
//!
//! The compiler asks for a decision on each field (destructuring without `..`); this asks whether the decision is real.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use super::applied::{ROWS, SAME};
use super::samples::{REFUSED, roots};
use super::walk::{Found, Verdict, extensions, is_ignored, judge, overlay, walk};
use crate::resource::ignored::IGNORED;

/// Reasons that name what is refused, whatever its value.
const BY_NAME: [&str; 5] = [
    "is not supported",
    "must be `ads` or `self`",
    "a connection has no headers and no path",
    "the application, which binds the socket",
    "access control belongs on the server's side",
];

static FOUND: LazyLock<Found> = LazyLock::new(|| {
    let mut found = Found::default();
    for (kind, scope, yaml) in roots() {
        walk(kind, scope, &yaml, &mut found);
    }
    found
});

#[test]
fn what_changes_nothing_is_on_the_list() {
    let mut seen = BTreeSet::new();
    let mut missing = Vec::new();
    for ((scope, message, leaf), verdict) in &FOUND.leaves {
        let field = leaf.split('=').next().unwrap();
        match verdict {
            Verdict::Ignored if is_ignored(message, field) => seen.insert((message.as_str(), field)),
            Verdict::Ignored if is_ignored(message, leaf) => seen.insert((message.as_str(), leaf.as_str())),
            Verdict::Ignored => {
                missing.push(format!("{scope}: {message}.{leaf}"));
                continue;
            }
            _ => continue,
        };
    }
    assert_eq!(missing, [""; 0], "ignored in silence");
    let listed = IGNORED.iter().flat_map(|(message, fields)| fields.iter().map(|field| (*message, *field)));
    let stale: Vec<_> = listed.filter(|leaf| !seen.contains(leaf)).collect();
    assert_eq!(stale, [], "on the list, and not ignored");
}

/// A sample that is refused for its value says nothing about the field.
#[test]
fn what_is_refused_is_refused_by_name() {
    let mut unknown = Vec::new();
    let mut seen = BTreeSet::new();
    for ((scope, message, leaf), verdict) in &FOUND.leaves {
        let Verdict::Refused(why) = verdict else { continue };
        let key = (*scope, message.as_str(), leaf.as_str());
        if REFUSED.contains(&key) {
            seen.insert(key);
        } else if !BY_NAME.iter().any(|reason| why.contains(reason)) {
            unknown.push(format!("{scope}: {message}.{leaf}: {why}"));
        }
    }
    assert_eq!(unknown, [""; 0], "needs a sample that is valid");
    assert!(REFUSED.iter().all(|key| seen.contains(key)), "{seen:?}");
}

#[test]
fn every_extension_that_is_known_is_walked() {
    let leaves: BTreeSet<_> = FOUND.leaves.keys().collect();
    let mut missing = Vec::new();
    for ((scope, message, field), types) in &FOUND.extensions {
        for name in types {
            let leaf = (*scope, message.clone(), format!("{field}={name}"));
            if !leaves.contains(&leaf) {
                missing.push(leaf);
            }
        }
    }
    assert_eq!(missing, []);
}

/// A client has no filter that acts but the router; those before it are listed, or refused for what they are.
#[test]
fn a_filter_of_a_client_is_listed_or_refused() {
    let (kind, _, yaml) = roots().remove(0);
    let verdict = |yaml: &str| judge(kind, &overlay("envoy.config.listener.v3.Listener", yaml));
    let base = verdict(&yaml).unwrap();
    let mut listed = 0;
    for name in extensions() {
        let filter = format!("http_filters: [{{name: x, typed_config: {{@{name}}}}}, ");
        match verdict(&yaml.replace("http_filters: [", &filter)) {
            Ok(found) => {
                assert_eq!((found.resource == base.resource, found.unapplied.len()), (true, 1), "{name}");
                listed += 1;
            }
            Err(why) => {
                let why = why.to_string();
                let of_type = ["extension \"", "access control belongs", "nothing may follow the router"];
                assert!(of_type.iter().any(|part| why.contains(part)), "{name}: {why}");
            }
        }
    }
    assert_eq!(listed, 4, "filters of traffic that are not implemented");
}

#[test]
fn what_is_applied_names_the_test_that_shows_it() {
    let applied = FOUND.leaves.iter().filter(|(_, verdict)| **verdict == Verdict::Applied);
    let applied: BTreeSet<String> =
        applied.map(|((scope, m, leaf), _)| format!("{scope}: {m}.{leaf}")).collect();
    let mut rows = BTreeMap::new();
    for (why, scope, message, fields) in ROWS.iter().copied().flatten().chain(SAME) {
        for field in *fields {
            let known = rows.insert(format!("{scope}: {message}.{field}"), why);
            assert!(known.is_none(), "{scope}: {message}.{field} stands there twice");
        }
    }
    let missing: Vec<_> = applied.iter().filter(|leaf| !rows.contains_key(*leaf)).collect();
    assert!(missing.is_empty(), "applied, and no row names its test: {missing:#?}");
    let stale: Vec<_> = rows.keys().filter(|leaf| !applied.contains(*leaf)).collect();
    assert_eq!(stale, [""; 0], "a row of what is not applied");
}

#[test]
fn every_test_that_a_row_names_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let tests: BTreeSet<&str> = ROWS.iter().copied().flatten().map(|(test, ..)| *test).collect();
    for test in tests {
        let (file, function) = test.split_once("::").unwrap();
        let path = workspace.join(file).with_extension("rs");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let at = text.find(&format!("fn {function}(")).unwrap_or_else(|| panic!("{test} does not exist"));
        let head = &text[..at];
        let attribute = head.rfind("#[").map(|from| &head[from..]).unwrap_or_default();
        assert!(
            attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test"),
            "{test} is no test"
        );
    }
}
