//! Which kinds of field without effect the log has been told of: one line for each, with how many there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::ads::{Kind, Name};
use crate::invalid::Unapplied;

/// Kinds of field that the log is told. Beyond that, keys of maps are at work, and the rows have them.
pub(super) const MAX_TOLD: usize = 512;

/// What the log knows, and what it will be told next.
#[derive(Debug, Default)]
pub(super) struct Told {
    told: BTreeSet<(Kind, String)>,
    /// What came since the log was told last.
    fresh: BTreeMap<(Kind, String), Fresh>,
}

/// A kind of field that the log does not know yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fresh {
    /// In how many places it is set.
    pub(super) count: usize,
    /// A resource that has it.
    pub(super) example: Name,
}

// === impl Told ===

impl Told {
    /// Remembers kinds of field that the log has not been told.
    pub(super) fn hear_of(&mut self, kind: Kind, name: &Name, unapplied: &Unapplied) {
        for field in unapplied.iter() {
            let key = (kind, without_indices(field.as_str()));
            if self.told.len() < MAX_TOLD && !self.told.contains(&key) {
                let fresh = self.fresh.entry(key);
                fresh.or_insert_with(|| Fresh { count: 0, example: name.clone() }).count += 1;
            }
        }
    }

    /// What came since the last time. It counts as told.
    pub(super) fn take_fresh(&mut self) -> BTreeMap<(Kind, String), Fresh> {
        let fresh = std::mem::take(&mut self.fresh);
        self.told.extend(fresh.keys().cloned());
        fresh
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }
}

/// What kind of field a path is of: `routes[2].route.cors` and `routes[7].route.cors` are of one.
fn without_indices(path: &str) -> String {
    let mut kind = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        kind.push_str(before);
        let index = after.find(|c: char| !c.is_ascii_digit());
        rest = match index.and_then(|end| after.split_at_checked(end)) {
            Some((digits, end)) if !digits.is_empty() && end.starts_with(']') => {
                kind.push_str("[]");
                end.strip_prefix(']').unwrap_or(end)
            }
            // A key of a map tells one field from another.
            _ => {
                kind.push('[');
                after
            }
        };
    }
    kind.push_str(rest);
    kind
}
