//! A directory of resource files (YAML or JSON), kept in step with the control plane.
//!
//! Each file is taken or refused as a whole. A refused file leaves what it last said in force, and concerns no other
//! file; a file that is gone takes its resources with it. Where two files name the same resource, the one whose name
//! sorts first has it, and the other is refused.
//!
//! Files are looked at in intervals and compared by content, so it works on every file system, network mounts and
//! atomically swapped symlinks included. Names that begin with a dot are skipped, as is every extension but `yaml`, `yml`
//! and `json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::control::ControlPlane;
use super::resource::{InvalidResource, Resource};
use crate::ads::Kind;
use crate::resource_json::{self, Format, InvalidText};

/// Resource files of one directory. What it put into the control plane it also takes out; resources that were set by
/// other means it leaves alone, unless a file names them.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    control: ControlPlane,
    files: BTreeMap<PathBuf, File>,
    published: BTreeSet<Key>,
    errors: watch::Sender<Vec<Arc<FileError>>>,
}

/// Why a file, or the directory, is not in force as it stands.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
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
    /// It does not hold resources; the text gives the place and the field.
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
    /// A resource has no name.
    #[error("{place}: the resource has no name")]
    Nameless {
        /// Where in the file.
        place: String,
    },
    /// Another file has the same resource.
    #[error("{kind} {name:?} is in {} already", other.display())]
    Duplicate {
        /// Kind of the resource.
        kind: Kind,
        /// Its name.
        name: Arc<str>,
        /// The file that has it.
        other: PathBuf,
    },
}

/// What names a resource.
type Key = (Kind, Arc<str>);

#[derive(Debug, Default)]
struct File {
    /// The content last looked at, to tell whether it changed.
    seen: Option<Vec<u8>>,
    good: Vec<Resource>,
    error: Option<Arc<FileError>>,
}

// === impl Directory ===

impl Directory {
    /// A directory whose files feed a control plane. Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, control: ControlPlane) -> Self {
        Self {
            path: path.into(),
            control,
            files: BTreeMap::new(),
            published: BTreeSet::new(),
            errors: watch::Sender::default(),
        }
    }

    /// The files that are refused at the moment, and why.
    #[must_use]
    pub fn errors(&self) -> watch::Receiver<Vec<Arc<FileError>>> {
        self.errors.subscribe()
    }

    /// Looks at every file once and publishes what changed, all of it in one step. Blocks on file IO.
    pub fn scan(&mut self) {
        let mut errors = Vec::new();
        match list(&self.path) {
            Ok(paths) => {
                self.files.retain(|path, _| paths.contains(path));
                for path in paths {
                    let file = self.files.entry(path.clone()).or_default();
                    file.read(&path);
                    errors.extend(file.error.clone());
                }
            }
            // Without a list nothing is known to be gone: everything stays.
            Err(error) => errors.push(self.listing_failed(error)),
        }
        self.publish(&mut errors);
        self.errors.send_if_modified(|before| {
            let same = before.len() == errors.len() && before.iter().zip(&errors).all(|(a, b)| is_same(a, b));
            for error in errors.iter().filter(|error| !before.iter().any(|old| is_same(old, error))) {
                tracing::warn!(%error, "resource file refused; its last good content stays");
            }
            *before = errors;
            !same
        });
    }

    /// Scans in intervals, until dropped.
    ///
    /// # Panics
    /// If `interval` is zero.
    pub async fn watch(mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let scanned = tokio::task::spawn_blocking(move || {
                self.scan();
                self
            });
            match scanned.await {
                Ok(directory) => self = directory,
                Err(error) => {
                    tracing::error!(%error, "the resource directory is no longer watched");
                    return;
                }
            }
        }
    }

    fn listing_failed(&self, error: io::Error) -> Arc<FileError> {
        Arc::new(FileError { path: self.path.clone(), problem: FileProblem::Io(error) })
    }

    fn publish(&mut self, errors: &mut Vec<Arc<FileError>>) {
        let mut owners: BTreeMap<Key, &Path> = BTreeMap::new();
        let mut accepted: Vec<Resource> = Vec::new();
        for (path, file) in &self.files {
            let taken = file.good.iter().find_map(|resource| {
                let owner = owners.get(&key(resource))?;
                Some((resource, owner.to_path_buf()))
            });
            if let Some((resource, other)) = taken {
                let (kind, name) = key(resource);
                let problem = FileProblem::Duplicate { kind, name, other };
                errors.push(Arc::new(FileError { path: path.clone(), problem }));
                continue;
            }
            owners.extend(file.good.iter().map(|resource| (key(resource), path.as_path())));
            accepted.extend(file.good.iter().cloned());
        }
        let published = accepted.iter().map(key).collect();
        self.control.edit(|edit| {
            for (kind, name) in self.published.difference(&published) {
                edit.remove(*kind, name);
            }
            edit.set(accepted);
        });
        self.published = published;
    }
}

// === impl File ===

impl File {
    fn read(&mut self, path: &Path) {
        let content = match content(path) {
            Ok(content) => content,
            Err(problem) => {
                self.seen = None;
                self.error = Some(Arc::new(FileError { path: path.into(), problem }));
                return;
            }
        };
        if self.seen.as_ref() == Some(&content) {
            return;
        }
        match resources(path, &content) {
            Ok(resources) => {
                self.good = resources;
                self.error = None;
            }
            Err(problem) => self.error = Some(Arc::new(FileError { path: path.into(), problem })),
        }
        self.seen = Some(content);
    }
}

/// The resource files of a directory, sorted by name.
fn list(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let known =
            path.extension().and_then(OsStr::to_str).is_some_and(|extension| EXTENSIONS.contains(&extension));
        if known && !hidden && path.is_file() {
            paths.insert(path);
        }
    }
    Ok(paths)
}

fn content(path: &Path) -> Result<Vec<u8>, FileProblem> {
    let size = fs::metadata(path).map_err(FileProblem::Io)?.len();
    if size > resource_json::MAX_TEXT_BYTES as u64 {
        return Err(FileProblem::TooLarge(size));
    }
    fs::read(path).map_err(FileProblem::Io)
}

fn resources(path: &Path, content: &[u8]) -> Result<Vec<Resource>, FileProblem> {
    let text = std::str::from_utf8(content).map_err(|_| FileProblem::NotText)?;
    let encoded = resource_json::parse(text, Format::of_path(path)).map_err(FileProblem::Text)?;
    let mut seen = BTreeSet::new();
    let mut resources = Vec::new();
    for one in encoded {
        let resource = Resource::decode(&one.type_url, &one.value)
            .map_err(|source| FileProblem::Resource { place: one.place.clone(), source })?;
        if resource.name().is_empty() {
            return Err(FileProblem::Nameless { place: one.place });
        }
        let (kind, name) = key(&resource);
        if !seen.insert((kind, Arc::clone(&name))) {
            return Err(FileProblem::Duplicate { kind, name, other: path.into() });
        }
        resources.push(resource);
    }
    Ok(resources)
}

fn key(resource: &Resource) -> Key {
    (resource.kind(), Arc::clone(resource.name()))
}

/// Errors hold foreign types that cannot be compared; what the operator reads can.
fn is_same(a: &FileError, b: &FileError) -> bool {
    a.to_string() == b.to_string()
}

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
