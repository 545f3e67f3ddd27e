//! The last accepted configuration on disk, for a process that starts while its control plane is down (opt-in).
//!
//! ```text
//! accepted resources ─► Record (what is in use) ─► Keeper (a task: debounced, one file, replaced whole) ─► FILE
//! FILE ─► read, checked, validated ─► Restored ─► store: fills in what nobody answers for
//! ```
//! Rules, in the spirit of gRFC A71 and A88 (cached resources outlive the control plane):
//!
//! * A restored resource is used only while no control plane has answered: its connection failed, or it kept silent for
//!   as long as a resource that does not exist would. It is replaced by the first value that comes, and from then on is
//!   like any cached one.
//! * The file is used whole or not at all. It is checked by length and SHA-256, belongs to one node and one list of
//!   control planes, and passes the validation that every resource passes. One that is refused is moved aside, to
//!   `FILE.refused`, with the reason in the log.
//! * It is replaced by renaming a complete, synced one over it: a crash leaves the old file or the new one.
//! * What an earlier run used and this one has not asked for yet stays in the file for [`KEPT_UNUSED`].
//!
//! The file holds what the control plane sent: guard it as you would the control plane's word (it is created with mode
//! 0600). One file belongs to one process.

pub(crate) mod file;
mod keeper;
mod record;
#[cfg(test)]
mod tests;

#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::file::Owner;
#[cfg(test)]
pub(crate) use self::file::{Entry, LastGoodError, LastGoodFile};
pub(crate) use self::keeper::restore;
use self::record::{Record, Restored};

use crate::ads::{Kind, Name};
use crate::resource::Accepted;

/// How long a resource stays in the file that no run has used.
pub(crate) const KEPT_UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The largest file that is read.
pub(crate) const MAX_FILE_BYTES: u64 = 512 << 20;

/// The engine's side: what it may restore, and whom it tells what is in use. By default there is no file, and nothing
/// happens.
#[derive(Debug, Default)]
pub(crate) struct LastGood {
    restored: Restored,
    record: Option<Record>,
}

// === impl LastGood ===

impl LastGood {
    fn new(restored: Restored, record: Record) -> Self {
        Self { restored, record: Some(record) }
    }

    /// Whether the bytes of resources are asked for.
    pub(crate) fn is_on(&self) -> bool {
        self.record.is_some()
    }

    /// The value of the last run for a resource that nobody answers for, if there is one.
    pub(crate) fn restore(&self, kind: Kind, name: &Name) -> Option<Accepted> {
        let accepted = self.restored.get(kind, name)?.clone();
        if let (Some(record), Some(bytes)) = (&self.record, &accepted.bytes) {
            record.put(kind, name, bytes);
        }
        tracing::debug!(%kind, name = &**name, "resource restored from disk");
        Some(accepted)
    }

    /// A control plane sent this value.
    pub(crate) fn put(&self, kind: Kind, name: &Name, accepted: &Accepted) {
        let Some(record) = &self.record else { return };
        if let Some(bytes) = &accepted.bytes {
            record.put(kind, name, bytes);
        }
    }

    /// A resource is no longer in use.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        if let Some(record) = &self.record {
            record.forget(kind, name);
        }
    }

    #[cfg(test)]
    pub(crate) fn of_test(
        values: impl IntoIterator<Item = ((Kind, Name), crate::resource::Checked)>,
    ) -> Self {
        let accepted = |(key, resource)| {
            (key, Accepted { resource, unapplied: Arc::default(), deferred: Arc::default(), bytes: None })
        };
        let owner = Owner { node: "node-1".to_owned(), servers: Vec::new() };
        let restored = Restored::new(values.into_iter().map(accepted).collect());
        Self::new(restored, Record::new(owner, Vec::new()))
    }
}
