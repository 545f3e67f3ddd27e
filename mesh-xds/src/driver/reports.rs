//! What a source says of its configuration beside serving it.

use crate::ads::{Kind, Name};
use crate::last_good::LastGood;
use crate::rows::Rows;

/// Where it is said. A clone of the rows is what others ask.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// What is known of each resource.
    pub(crate) rows: Rows,
    /// What an earlier run used, and who writes down what this one uses.
    pub(crate) last_good: LastGood,
}

// === impl Reports ===

impl Reports {
    /// A resource is no longer in use.
    pub(super) fn forget(&mut self, kind: Kind, name: &Name) {
        self.rows.forget(kind, name);
        self.last_good.forget(kind, name);
    }
}
