//! One resource file: read, parsed, and judged as a client would judge it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use prost::Name as _;

use super::claims::Claimant;
use super::{Checks, Place};
use crate::ads::Kind;
use crate::invalid::{Invalid, Reason};
use crate::resource::{Accepted, Decoded, Rules, decode};
use crate::resource_json::{self, EncodedResource, Format, InvalidText, Position, locate};
use crate::server::resource::{InvalidResource, Resource};

/// Why a file, or the directory, is not in force as it stands.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// Where in the file, as far as that is known.
    pub position: Option<Position>,
    /// What is wrong with it.
    pub problem: FileProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// It is too large.
    #[error("{0} bytes are more than the limit of {limit}", limit = resource_json::MAX_TEXT_BYTES)]
    TooLarge(u64),
    /// It is not UTF-8.
    #[error("the text is not UTF-8")]
    NotText,
    /// It does not hold resources; the text gives the field.
    #[error(transparent)]
    Text(InvalidText),
    /// One of its resources is none that the control plane serves.
    #[error("{place}: {source}")]
    Resource {
        /// Where in the file.
        place: String,
        /// Why.
        source: InvalidResource,
    },
    /// One of its resources is one that clients refuse.
    #[error("{kind} {name:?}: {field}: {reason}")]
    Invalid {
        /// Kind of the resource.
        kind: Kind,
        /// Its name.
        name: Arc<str>,
        /// The field, from the top of the file.
        field: String,
        /// Why.
        reason: Box<Reason>,
    },
    /// A resource has no name.
    #[error("{place}: the resource has no name")]
    Nameless {
        /// Where in the file.
        place: String,
    },
    /// Another file, or an earlier place of this one, has the same resource.
    #[error("{kind} {name:?} is in {} already{}", other.display(), of_restart(*after_restart))]
    Duplicate {
        /// Kind of the resource.
        kind: Kind,
        /// Its name.
        name: Arc<str>,
        /// The file that has it.
        other: PathBuf,
        /// Whether this file would be in force if the control plane started anew, when names alone decide.
        after_restart: bool,
    },
}

/// A file and what is known of it.
#[derive(Debug, Default)]
pub(super) struct File {
    /// The content last looked at, to tell whether it changed.
    seen: Option<Vec<u8>>,
    /// What it has in the control plane.
    pub(super) in_force: Vec<Resource>,
    /// What it says now, where that is valid and not in force.
    pub(super) wanted: Option<Vec<Resource>>,
    /// Why what it says now is not in force.
    pub(super) error: Option<Arc<FileError>>,
}

/// A text with the file that it is from.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

// === impl File ===

impl File {
    /// Reads it again. True where it says something else than before.
    pub(super) fn read(&mut self, path: &Path, checks: Checks) -> bool {
        let content = match content(path) {
            Ok(content) => content,
            Err(problem) => {
                self.seen = None;
                self.error = Some(Arc::new(FileError { path: path.into(), position: None, problem }));
                return self.wanted.take().is_some();
            }
        };
        if self.seen.as_ref() == Some(&content) {
            return false;
        }
        match resources(path, &content, checks) {
            Ok(resources) => {
                self.wanted = Some(resources);
                self.error = None;
            }
            Err(error) => {
                self.wanted = None;
                self.error = Some(Arc::new(error));
            }
        }
        self.seen = Some(content);
        true
    }

    pub(super) fn claimant<'a>(&'a self, place: &'a Place) -> Claimant<'a> {
        Claimant { place, in_force: &self.in_force, wanted: self.wanted.as_deref() }
    }

    /// The same, if the control plane had just started: what a file says that is refused for itself, nobody knows then.
    pub(super) fn claimant_after_start<'a>(&'a self, place: &'a Place) -> Claimant<'a> {
        let is_good = self.wanted.is_none() && self.error.is_none();
        let wanted = if is_good { Some(&self.in_force[..]) } else { self.wanted.as_deref() };
        Claimant { place, in_force: &[], wanted }
    }

    /// What it says now is in force.
    pub(super) fn enforce(&mut self) {
        if let Some(wanted) = self.wanted.take() {
            self.in_force = wanted;
            self.error = None;
        }
    }

    /// What it says now is not in force; it goes on saying it.
    pub(super) fn refuse(&mut self, error: FileError) {
        self.error = Some(Arc::new(error));
    }
}

/// Where names alone would decide otherwise than what is in force does, that has to be said before it happens.
fn of_restart(after_restart: bool) -> &'static str {
    if after_restart { ", and in force; after a restart this file would be, by its name" } else { "" }
}

fn content(path: &Path) -> Result<Vec<u8>, FileProblem> {
    let size = fs::metadata(path).map_err(FileProblem::Io)?.len();
    if size > resource_json::MAX_TEXT_BYTES as u64 {
        return Err(FileProblem::TooLarge(size));
    }
    fs::read(path).map_err(FileProblem::Io)
}

fn resources(path: &Path, content: &[u8], checks: Checks) -> Result<Vec<Resource>, FileError> {
    let Ok(text) = std::str::from_utf8(content) else {
        return Err(FileError { path: path.into(), position: None, problem: FileProblem::NotText });
    };
    let source = Source { path, text };
    let encoded = resource_json::parse(text, Format::of_path(path)).map_err(|mut error| FileError {
        path: path.into(),
        position: error.position.take(),
        problem: FileProblem::Text(error),
    })?;
    let mut rules = Rules::default();
    let mut seen = BTreeSet::new();
    let mut resources = Vec::new();
    for one in encoded {
        let resource = Resource::decode(&one.type_url, &one.value).map_err(|reason| {
            source.error(&one.place, FileProblem::Resource { place: one.place.clone(), source: reason })
        })?;
        if resource.name().is_empty() {
            return Err(source.error(&one.place, FileProblem::Nameless { place: one.place.clone() }));
        }
        let (kind, name) = (resource.kind(), Arc::clone(resource.name()));
        if !seen.insert((kind, Arc::clone(&name))) {
            let problem = FileProblem::Duplicate { kind, name, other: path.into(), after_restart: false };
            return Err(source.error(&one.place, problem));
        }
        if checks == Checks::AsClient {
            verdict(&resource, &mut rules).1.map_err(|invalid| source.refused(&one, &resource, &invalid))?;
        }
        resources.push(resource);
    }
    Ok(resources)
}

/// What a client would say, and by which name it knows the resource. Which certificate providers there are is told by
/// its bootstrap, which is not known here: any that is named counts as one.
pub(super) fn verdict(resource: &Resource, rules: &mut Rules) -> (Arc<str>, Result<Accepted, Invalid>) {
    let kind = resource.kind();
    loop {
        let Decoded { name, verdict } = decode(kind, kind.type_url(), resource.bytes(), rules);
        let name = name.unwrap_or_else(|| Arc::clone(resource.name()));
        match verdict.as_ref().map_err(Invalid::reason) {
            Err(Reason::UnknownProvider(provider))
                if !provider.is_empty() && rules.certificate_providers.insert(provider.as_str().into()) => {}
            _ => return (name, verdict),
        }
    }
}

// === impl Source ===

impl Source<'_> {
    fn error(&self, field: &str, problem: FileProblem) -> FileError {
        FileError { path: self.path.into(), position: locate(self.text, field), problem }
    }

    fn refused(&self, one: &EncodedResource, resource: &Resource, invalid: &Invalid) -> FileError {
        let within = if one.type_url == discovery::Resource::type_url() { "resource" } else { "" };
        let parts = [one.place.as_str(), within, invalid.path().as_str()];
        let field = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        let problem = FileProblem::Invalid {
            kind: resource.kind(),
            name: Arc::clone(resource.name()),
            field: field.clone(),
            reason: Box::new(invalid.reason().clone()),
        };
        self.error(&field, problem)
    }
}

// === impl FileError ===

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, position, problem } = self;
        write!(f, "{}: ", path.display())?;
        if let Some(Position { line, column }) = position {
            write!(f, "line {line}, column {column}: ")?;
        }
        problem.fmt(f)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}
