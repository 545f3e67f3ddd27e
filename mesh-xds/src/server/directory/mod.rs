//! A directory of resource files (YAML or JSON), kept in step with the control plane.
//!
//! Each file is taken or refused as a whole: parsed, and judged by the rules by which this mesh's clients judge what they
//! receive, so that what they would refuse is refused here, with the line and the field. A refused file leaves what it
//! last said in force, and concerns no other file; a file that is gone takes its resources with it, or, where it was only
//! renamed, leaves them to the file that came with them.
//!
//! Where two files name the same resource, what is in force stays in force and the newcomer is refused, whatever its name:
//! see `claims`. Nothing is in force at a start; then the file whose name sorts first has the resource. A refusal
//! says where the two would not come to the same. [`Directory::findings`] says what else is odd with what is in force.
//!
//! A file in the directory itself is for every client. A file in a sub-directory is for one view (see
//! [`Edit::view`](super::Edit::view)), named like the sub-directory: without other rules, for the clients whose
//! `node.cluster` it is. It may name a resource that is for every client as well, and then takes its place.
//!
//! ```text
//! DIR/shop.yaml           everybody
//! DIR/canary/shop.yaml    nodes of cluster "canary", above what everybody sees
//! ```
//!
//! Files are looked at in intervals and compared by content, so it works on every file system, network mounts and
//! atomically swapped symlinks included. Names that begin with a dot are skipped, as is every extension but `yaml`, `yml`
//! and `json`, and what lies deeper than one sub-directory.

mod claims;
mod file;
mod findings;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use self::claims::{Claimant, Lost, settle};
use self::file::File;
pub use self::file::{FileError, FileProblem};
pub use self::findings::{Finding, Oddity};
use super::control::ControlPlane;
use super::resource::Resource;
use crate::ads::Kind;

/// Resource files of one directory. What it put into the control plane it also takes out; resources that were set by
/// other means it leaves alone, unless a file names them.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    control: ControlPlane,
    checks: Checks,
    files: BTreeMap<Place, File>,
    published: BTreeMap<Key, Resource>,
    errors: watch::Sender<Vec<Arc<FileError>>>,
}

/// How a resource is judged before it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Checks {
    /// By the rules of this mesh's clients.
    #[default]
    AsClient,
    /// Its fields have to exist and to have the right types: for clients that know more than this mesh does.
    Syntax,
}

/// What a scan did to one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The view whose clients it concerns; none where it is everybody.
    pub view: Option<Arc<str>>,
    /// Kind of the resource.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// What was done.
    pub action: Action,
}

/// What was done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// It is new.
    Added,
    /// It has another content.
    Changed,
    /// It is gone.
    Removed,
}

type View = Option<Arc<str>>;

/// What names a resource.
type Key = (View, Kind, Arc<str>);

/// What names a file: those for everybody come first.
type Place = (View, PathBuf);

// === impl Directory ===

impl Directory {
    /// A directory whose files feed a control plane. Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, control: ControlPlane) -> Self {
        Self {
            path: path.into(),
            control,
            checks: Checks::default(),
            files: BTreeMap::new(),
            published: BTreeMap::new(),
            errors: watch::Sender::default(),
        }
    }

    /// Judges resources in another way.
    #[must_use]
    pub fn checks(self, checks: Checks) -> Self {
        Self { checks, ..self }
    }

    /// The files that are refused at the moment, and why.
    #[must_use]
    pub fn errors(&self) -> watch::Receiver<Vec<Arc<FileError>>> {
        self.errors.subscribe()
    }

    /// Looks at every file once and publishes what changed, all of it in one step. Blocks on file IO.
    pub fn scan(&mut self) -> Vec<Change> {
        let mut errors = Vec::new();
        match list(&self.path) {
            Ok(places) => {
                if self.read(&places) {
                    self.settle();
                }
            }
            // Without a list nothing is known to be gone: everything stays.
            Err(error) => errors.push(self.listing_failed(error)),
        }
        errors.extend(self.files.values().filter_map(|file| file.error.clone()));
        let changes = self.publish();
        self.errors.send_if_modified(|before| {
            let same = before.len() == errors.len() && before.iter().zip(&errors).all(|(a, b)| is_same(a, b));
            for error in errors.iter().filter(|error| !before.iter().any(|old| is_same(old, error))) {
                tracing::warn!(%error, "resource file refused; what is in force stays");
            }
            *before = errors;
            !same
        });
        changes
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
            let span = tracing::info_span!("resource_directory", path = %self.path.display());
            let scanned = tokio::task::spawn_blocking(move || {
                span.in_scope(|| self.scan());
                self
            });
            match scanned.await {
                Ok(directory) => self = directory,
                // The runtime ends.
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(%error, "the resource directory is no longer watched");
                    return;
                }
            }
        }
    }

    fn listing_failed(&self, error: io::Error) -> Arc<FileError> {
        Arc::new(FileError { path: self.path.clone(), position: None, problem: FileProblem::Io(error) })
    }

    /// Reads every file. True where anything is different from before.
    fn read(&mut self, places: &BTreeSet<Place>) -> bool {
        let known: BTreeSet<Place> = self.files.keys().cloned().collect();
        let mut is_different = known != *places;
        for place in places {
            is_different |= self.files.entry(place.clone()).or_default().read(&place.1, self.checks);
        }
        for gone in known.difference(places) {
            let Some(gone_file) = self.files.remove(gone) else { continue };
            let newcomers = places.difference(&known).filter(|place| place.0 == gone.0);
            if let Some(heir) = heir(&self.files, newcomers, &gone_file.in_force) {
                self.files.entry(heir).or_default().in_force.extend(gone_file.in_force);
            }
        }
        is_different
    }

    /// Puts in force what files say, as far as no two have the same resource.
    fn settle(&mut self) {
        let claimants: Vec<Claimant<'_>> =
            self.files.iter().map(|(place, file)| file.claimant(place)).collect();
        let after_start: Vec<Claimant<'_>> =
            self.files.iter().map(|(place, file)| file.claimant_after_start(place)).collect();
        let lost = settle(&claimants);
        let lost_after_start = if lost.is_empty() { BTreeMap::new() } else { settle(&after_start) };
        let refused = lost.into_iter().filter_map(|(index, Lost { kind, name, to })| {
            let place = claimants.get(index)?.place.clone();
            let after_restart = !lost_after_start.contains_key(&index);
            let problem = FileProblem::Duplicate { kind, name, other: to.1.clone(), after_restart };
            Some((place.clone(), FileError { path: place.1, position: None, problem }))
        });
        let mut refused: BTreeMap<Place, FileError> = refused.collect();
        for (place, file) in &mut self.files {
            match refused.remove(place) {
                Some(error) => file.refuse(error),
                None => file.enforce(),
            }
        }
    }

    fn publish(&mut self) -> Vec<Change> {
        let accepted: BTreeMap<Key, Resource> = self
            .files
            .iter()
            .flat_map(|((view, _), file)| {
                let key = |resource: &Resource| (view.clone(), resource.kind(), Arc::clone(resource.name()));
                file.in_force.iter().map(move |resource| (key(resource), resource.clone()))
            })
            .collect();
        let changes = changes(&self.published, &accepted);
        self.control.edit(|edit| {
            for ((view, kind, name), _) in
                self.published.iter().filter(|(key, _)| !accepted.contains_key(key))
            {
                match view {
                    None => edit.remove(*kind, name),
                    Some(view) => edit.view(view).remove(*kind, name),
                }
            }
            // All of them, in case somebody else took one away.
            for ((view, ..), resource) in &accepted {
                match view {
                    None => edit.set(resource.clone()),
                    Some(view) => edit.view(view).set(resource.clone()),
                }
            }
        });
        self.published = accepted;
        changes
    }
}

// === impl Change ===

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { view, kind, name, action } = self;
        let action = match action {
            Action::Added => "added",
            Action::Changed => "changed",
            Action::Removed => "removed",
        };
        write!(f, "{kind} {name:?} {action}")?;
        view.as_ref().map_or(Ok(()), |view| write!(f, " for view {view:?}"))
    }
}

fn changes(before: &BTreeMap<Key, Resource>, now: &BTreeMap<Key, Resource>) -> Vec<Change> {
    let change = |key: &Key, action| {
        let (view, kind, name) = key.clone();
        Change { view, kind, name, action }
    };
    let gone = before.keys().filter(|key| !now.contains_key(key)).map(|key| change(key, Action::Removed));
    let set = now.iter().filter_map(|(key, resource)| match before.get(key) {
        None => Some(change(key, Action::Added)),
        Some(old) if old != resource => Some(change(key, Action::Changed)),
        Some(_) => None,
    });
    set.chain(gone).collect()
}

/// The file that a gone one became: of those that came with this scan, the one that says most of what it said.
fn heir<'a>(
    files: &BTreeMap<Place, File>,
    newcomers: impl Iterator<Item = &'a Place>,
    in_force: &[Resource],
) -> Option<Place> {
    let names: BTreeSet<_> = in_force.iter().map(|resource| (resource.kind(), resource.name())).collect();
    let shared = |place: &Place| {
        let wanted = files.get(place)?.wanted.as_ref()?;
        let shared = wanted.iter().filter(|resource| names.contains(&(resource.kind(), resource.name())));
        let same = wanted.iter().filter(|resource| in_force.contains(resource));
        Some((same.count(), shared.count())).filter(|(_, shared)| *shared > 0)
    };
    let rated = newcomers.filter_map(|place| Some((shared(place)?, std::cmp::Reverse(place))));
    rated.max().map(|(_, std::cmp::Reverse(place))| place.clone())
}

/// The resource files of a directory and its sub-directories, sorted by name.
fn list(directory: &Path) -> io::Result<BTreeSet<Place>> {
    let mut places = BTreeSet::new();
    for path in entries(directory)? {
        if is_resource_file(&path) {
            places.insert((None, path));
        } else if let Some(view) = path.file_name().and_then(OsStr::to_str).filter(|_| path.is_dir()) {
            let view: Arc<str> = view.into();
            let files = entries(&path)?.into_iter().filter(|path| is_resource_file(path));
            places.extend(files.map(|file| (Some(Arc::clone(&view)), file)));
        }
    }
    Ok(places)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn is_resource_file(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && path.is_file()
}

/// Errors hold foreign types that cannot be compared; what the operator reads can.
fn is_same(a: &FileError, b: &FileError) -> bool {
    a.to_string() == b.to_string()
}

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
