//! What a source says of its configuration beside serving it.

use crate::ads::{Kind, Name};
use crate::last_good::LastGood;
use crate::refused::Refusals;
use crate::unapplied::Ledger;

/// Where it is said. Clones of its parts are what others ask.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Fields without effect.
    pub(crate) unapplied: Ledger,
    /// What is refused as it is now.
    pub(crate) refused: Refusals,
    /// What an earlier run used, and who writes down what this one uses.
    pub(crate) last_good: LastGood,
}

// === impl Reports ===

impl Reports {
    /// A resource is no longer in use.
    pub(super) fn forget(&mut self, kind: Kind, name: &Name) {
        self.unapplied.forget(kind, name);
        self.refused.forget(kind, name);
        self.last_good.forget(kind, name);
    }
}
