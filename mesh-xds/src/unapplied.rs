//! Which resources in use have fields without effect: told once in the log, listed for as long as they are in use.
//!
//! `ARCHITECTURE.md`, "Unsupported configuration": traffic fields that are not implemented are accepted, counted and
//! listed. Bounded by what is in use, and by [`Unapplied::MAX`] fields of each resource.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::snapshot::UnappliedFields;

use crate::ads::{Kind, Name};
use crate::invalid::{FieldPath, Unapplied};

/// The fields without effect, by resource. Clones share it: one writer, and whoever asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    entries: Arc<Mutex<Entries>>,
}

type Entries = BTreeMap<(Kind, Name), Arc<Unapplied>>;

// === impl Ledger ===

impl Ledger {
    /// A resource came into use, or another value of it did.
    pub(crate) fn note(&self, kind: Kind, name: &Name, unapplied: &Arc<Unapplied>) {
        let mut entries = self.lock();
        let key = (kind, name.clone());
        if unapplied.is_empty() {
            entries.remove(&key);
            return;
        }
        let before = entries.insert(key, unapplied.clone());
        let is_new = |field: &&FieldPath| !before.as_deref().is_some_and(|b| b.iter().any(|f| f == *field));
        for field in unapplied.iter().filter(is_new) {
            let field = field.as_str();
            tracing::warn!(%kind, name = &**name, field, "the field has no effect here");
        }
    }

    /// A resource is no longer in use.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        self.lock().remove(&(kind, name.clone()));
    }

    /// Every resource that has such fields.
    pub(crate) fn list(&self) -> Vec<UnappliedFields> {
        let one = |((kind, name), unapplied): (&(Kind, Name), &Arc<Unapplied>)| UnappliedFields {
            kind: kind.noun(),
            name: name.clone(),
            fields: unapplied.iter().map(ToString::to_string).collect(),
            total: unapplied.len(),
        };
        self.lock().iter().map(one).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Entries are inserted and removed whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid::Place;

    fn fields(names: &[&'static str]) -> Arc<Unapplied> {
        let ((), unapplied) = Place::root(|at| {
            for name in names {
                at.at(name).unapplied();
            }
            Ok(())
        })
        .unwrap();
        Arc::new(unapplied)
    }

    #[test]
    fn what_is_in_use_is_listed_until_it_is_corrected_or_gone() {
        let ledger = Ledger::default();
        let (a, b): (Name, Name) = ("a".into(), "b".into());
        ledger.note(Kind::Cluster, &a, &fields(&["outlier_detection", "upstream_config"]));
        ledger.note(Kind::Route, &b, &fields(&["vhds"]));
        let listed: Vec<_> = ledger.list().into_iter().map(|e| (e.kind, e.name, e.fields, e.total)).collect();
        let expected = [
            ("route", b.clone(), vec!["vhds".to_owned()], 1),
            ("cluster", a.clone(), vec!["outlier_detection".to_owned(), "upstream_config".to_owned()], 2),
        ];
        assert_eq!(listed, expected);
        ledger.note(Kind::Cluster, &a, &fields(&[]));
        ledger.forget(Kind::Route, &b);
        assert_eq!(ledger.list(), []);
    }
}
