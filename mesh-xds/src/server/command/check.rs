//! `mesh-control --check`: of a directory, what serving it would refuse; of a file, what an application that loads it would.

use std::path::Path;

use super::{CommandError, Output, counts, load};
use crate::ads::Kind;
use crate::server::{Checks, Finding, Oddity};
use crate::static_config::of_any_application;

/// Checks a directory, or a file. What it has to say is said; that there was something is the error.
pub(super) fn check(path: &Path, checks: Checks, output: &Output) -> Result<(), CommandError> {
    match (path.is_dir(), checks) {
        (true, _) => directory(path, checks, output),
        (false, Checks::AsClient) => file(path, output),
        (false, Checks::Syntax) => Err(CommandError::NotADirectory(path.into())),
    }
}

fn directory(path: &Path, checks: Checks, output: &Output) -> Result<(), CommandError> {
    let (control, directory) = load(path, checks)?;
    let errors = directory.errors();
    let errors = errors.borrow();
    let findings = directory.findings();
    for error in errors.iter() {
        output.say(&format!("refused {error}"));
    }
    for finding in &findings {
        output.say(&finding.to_string());
    }
    output.say(&format!("checked {}: {} for everybody", path.display(), counts(&control)));
    found(errors.len() + findings.len())
}

fn file(path: &Path, output: &Output) -> Result<(), CommandError> {
    match of_any_application(path) {
        Ok(loaded) => {
            let overrides = loaded.overrides_without_effect();
            let resources = loaded.resources;
            let mut findings = Vec::new();
            for ((kind, name), accepted) in &resources {
                let finding = |oddity| Finding { path: path.into(), kind: *kind, name: name.clone(), oddity };
                let named = accepted.resource.references().into_iter();
                let dangling = named.filter(|key| !resources.contains_key(key));
                findings.extend(
                    dangling.map(|(kind, name)| {
                        finding(Oddity::Dangling { kind, name, missing_for: Vec::new() })
                    }),
                );
                let overrides = overrides.get(name).filter(|_| *kind == Kind::Route);
                findings.extend(Oddity::unapplied(accepted, overrides).map(finding));
            }
            for section in &loaded.without_effect {
                output.say(&format!("{}: section {section:?} has no effect", path.display()));
            }
            for finding in &findings {
                output.say(&finding.to_string());
            }
            let of = |kind| resources.keys().filter(|key| key.0 == kind).count();
            let counts = Kind::ALL.map(|kind| format!("{} {kind}", of(kind))).join(", ");
            output.say(&format!("checked {}: it loads, with {counts}", path.display()));
            found(loaded.without_effect.len() + findings.len())
        }
        Err(error) => {
            for problem in error.problems() {
                output.say(&format!("refused {}: {problem}", path.display()));
            }
            output.say(&format!("checked {}: it does not load", path.display()));
            found(error.problems().len())
        }
    }
}

fn found(count: usize) -> Result<(), CommandError> {
    if count == 0 { Ok(()) } else { Err(CommandError::Found(count)) }
}
