//! Names of what came and was not kept.

use std::collections::BTreeSet;

use super::types::Name;

/// Resources that a control plane has sent, so that it may believe them to be held, and that are not held: they came
/// before they were wanted, or were thrown away.
///
/// A control plane may send what nobody asked for without end, so more than [`MOST`] names are as good as all names.
#[derive(Debug, Default)]
pub(super) struct Thrown {
    names: BTreeSet<Name>,
    /// There were too many.
    all: bool,
}

/// How many names are told apart.
const MOST: usize = 4_096;

// === impl Thrown ===

impl Thrown {
    pub(super) fn insert(&mut self, name: &Name) {
        if self.all || self.names.contains(name) {
            return;
        }
        if self.names.len() < MOST {
            self.names.insert(name.clone());
        } else {
            self.names.clear();
            self.all = true;
        }
    }

    pub(super) fn contains(&self, name: &Name) -> bool {
        self.all || self.names.contains(name)
    }

    /// It came, and is held, or was asked for in a way that makes it come again.
    pub(super) fn remove(&mut self, name: &Name) {
        self.names.remove(name);
    }
}
