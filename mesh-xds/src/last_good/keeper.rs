//! Reads the file once, and writes it whenever what is in use has changed. The only IO here.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoy_types::pb::google::protobuf::Any;
use tokio::time::sleep;

use super::file::{Entry, LastGoodError, LastGoodFile, Owner};
use super::record::{Record, Restored};
use super::{LastGood, MAX_FILE_BYTES};
use crate::resource::{Accepted, Decoded, Rules, decode_within};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(100);

/// The least time between two writings.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a writing that failed waits for the next.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The task that keeps a file up to date. Aborting it leaves the file as it was last written.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    record: Record,
}

/// Reads a file for a process with this bootstrap. One that is not used is moved aside, and the reason logged.
pub(crate) fn restore(path: PathBuf, owner: Owner, rules: &Rules) -> (LastGood, Keeper) {
    let (restored, entries) = match read(&path, &owner, rules) {
        Ok(Some((restored, entries))) => {
            tracing::info!(file = %path.display(), resources = entries.len(), "last good configuration read");
            (restored, entries)
        }
        Ok(None) => {
            tracing::info!(file = %path.display(), "no last good configuration yet");
            (Restored::default(), Vec::new())
        }
        Err(error) => {
            let aside = with_suffix(&path, ".refused");
            let moved = std::fs::rename(&path, &aside);
            tracing::error!(
                file = %path.display(), %error, moved_to = moved.is_ok().then(|| tracing::field::display(aside.display())),
                "last good configuration refused: without a control plane nothing is served"
            );
            (Restored::default(), Vec::new())
        }
    };
    let record = Record::new(owner, entries);
    (LastGood::new(restored, record.clone()), Keeper { path, record })
}

type Contents = (Restored, Vec<Entry>);

fn read(path: &Path, owner: &Owner, rules: &Rules) -> Result<Option<Contents>, LastGoodError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LastGoodError::Read(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(LastGoodError::Read)?;
    let LastGoodFile { owner: _, entries } = LastGoodFile::decode(&bytes.into())?.owned_by(owner)?;
    let values = entries.iter().map(|entry| {
        let accepted = validate(entry, rules)?;
        Ok(((entry.kind, entry.name.clone()), accepted))
    });
    let values = values.collect::<Result<BTreeMap<_, _>, LastGoodError>>()?;
    Ok(Some((Restored::new(values), entries)))
}

fn validate(entry: &Entry, rules: &Rules) -> Result<Accepted, LastGoodError> {
    let Entry { kind, name, bytes, used_at: _ } = entry;
    let resource = Any { type_url: kind.type_url().to_owned(), value: bytes.to_vec() };
    let Decoded { verdict, .. } = decode_within(*kind, Some(name.clone()), Some(&resource), rules);
    match verdict {
        Ok(accepted) => Ok(Accepted { bytes: Some(Arc::new(bytes.clone())), ..accepted }),
        Err(invalid) => Err(LastGoodError::Invalid { kind: *kind, name: name.clone(), invalid }),
    }
}

// === impl Keeper ===

impl Keeper {
    /// Runs for ever; abort it to end.
    pub(crate) async fn run(self) {
        let Self { path, record } = self;
        let mut failing = false;
        loop {
            record.changed().await;
            sleep(GATHER).await;
            let Some(contents) = record.take(unix_now()) else { continue };
            let resources = contents.entries.len();
            let target = path.clone();
            let written = tokio::task::spawn_blocking(move || write(&target, &contents.encode())).await;
            match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                Ok(()) => {
                    failing = false;
                    tracing::debug!(file = %path.display(), resources, "last good configuration written");
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(file = %path.display(), %error, "last good configuration cannot be written");
                    }
                    record.put_back();
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// Replaces the file whole: whatever happens in between, it is the old one or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    // The name is in the directory, which has to reach the disk too.
    #[cfg(unix)]
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[expect(clippy::disallowed_methods, reason = "a driver: how old a resource is outlives the process")]
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
