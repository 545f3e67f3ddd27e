//! Which resources in use have fields without effect: told in the log once for each kind of field, with how many there
//! are, and listed for as long as they are in use.
//!
//! Unsupported configuration: traffic fields that are not implemented are accepted, counted and
//! listed. Bounded by what is in use, by [`Unapplied::MAX`] fields of each resource, and by `MAX_TOLD` kinds of field.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::snapshot::UnappliedFields;

use crate::ads::{Kind, Name};
use crate::invalid::Unapplied;

/// The fields without effect, by resource. Clones share it: one writer, and whoever asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<(Kind, Name), Arc<Unapplied>>,
    /// Overrides of routes, of filters that no listener runs.
    overrides: BTreeMap<Name, Unapplied>,
    /// Kinds of field that the log knows.
    told: BTreeSet<(Kind, String)>,
    /// What came since the log was told last.
    fresh: BTreeMap<(Kind, String), Fresh>,
}

/// A kind of field that the log does not know yet.
#[derive(Debug, PartialEq, Eq)]
struct Fresh {
    /// In how many places it is set.
    count: usize,
    /// A resource that has it.
    example: Name,
}

// === impl Ledger ===

impl Ledger {
    /// A resource came into use, or another value of it did. Nothing is logged before [`Ledger::tell`].
    pub(crate) fn note(&self, kind: Kind, name: &Name, unapplied: &Arc<Unapplied>) {
        let mut state = self.lock();
        let key = (kind, name.clone());
        if unapplied.is_empty() {
            state.entries.remove(&key);
            return;
        }
        let before = state.entries.insert(key, unapplied.clone());
        if before.as_ref().is_some_and(|before| before == unapplied) {
            return;
        }
        state.hear_of(kind, name, unapplied);
    }

    /// The overrides of a route that have no effect in the listeners that take it.
    pub(crate) fn note_overrides(&self, route: &Name, unapplied: Unapplied) {
        let mut state = self.lock();
        if unapplied.is_empty() {
            state.overrides.remove(route);
        } else if state.overrides.get(route) != Some(&unapplied) {
            state.hear_of(Kind::Route, route, &unapplied);
            state.overrides.insert(route.clone(), unapplied);
        }
    }

    /// Logs what came since the last time: one line for each kind of field that has not been told yet.
    pub(crate) fn tell(&self) {
        for ((kind, field), Fresh { count, example }) in self.take_fresh() {
            tracing::warn!(%kind, field, count, example = &*example, "the field has no effect here");
        }
    }

    /// A resource is no longer in use.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        let mut state = self.lock();
        state.entries.remove(&(kind, name.clone()));
        if kind == Kind::Route {
            state.overrides.remove(name);
        }
    }

    /// Every resource that has such fields.
    pub(crate) fn list(&self) -> Vec<UnappliedFields> {
        let state = self.lock();
        let mut all: BTreeMap<(Kind, &Name), Vec<&Unapplied>> = BTreeMap::new();
        for ((kind, name), unapplied) in &state.entries {
            all.entry((*kind, name)).or_default().push(unapplied);
        }
        for (name, unapplied) in &state.overrides {
            all.entry((Kind::Route, name)).or_default().push(unapplied);
        }
        let one = |((kind, name), unapplied): ((Kind, &Name), Vec<&Unapplied>)| UnappliedFields {
            kind: kind.noun(),
            name: name.clone(),
            fields: unapplied.iter().flat_map(|one| one.iter()).map(ToString::to_string).collect(),
            total: unapplied.iter().map(|one| one.len()).sum(),
        };
        all.into_iter().map(one).collect()
    }

    fn take_fresh(&self) -> BTreeMap<(Kind, String), Fresh> {
        let mut state = self.lock();
        let fresh = std::mem::take(&mut state.fresh);
        state.told.extend(fresh.keys().cloned());
        fresh
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are inserted and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers kinds of field that the log has not been told.
    fn hear_of(&mut self, kind: Kind, name: &Name, unapplied: &Unapplied) {
        for field in unapplied.iter() {
            let key = (kind, without_indices(field.as_str()));
            if self.told.len() < MAX_TOLD && !self.told.contains(&key) {
                let fresh = self.fresh.entry(key);
                fresh.or_insert_with(|| Fresh { count: 0, example: name.clone() }).count += 1;
            }
        }
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

/// Kinds of field that the log is told. Beyond that, keys of maps are at work, and the list has them.
const MAX_TOLD: usize = 512;

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

    fn told(ledger: &Ledger) -> Vec<String> {
        let one = |((kind, field), fresh): ((Kind, String), Fresh)| {
            format!("{kind} {field} {} ({})", fresh.count, fresh.example)
        };
        ledger.take_fresh().into_iter().map(one).collect()
    }

    #[test]
    fn a_kind_of_field_is_told_once_with_how_many_there_are() {
        let ledger = Ledger::default();
        let routes = |count: usize| {
            let ((), unapplied) = Place::root(|at| {
                for i in 0..count {
                    at.at("virtual_hosts").index(i).at("routes").index(3).at("cors").unapplied();
                }
                at.at("metadata").key("a[1]").unapplied();
                Ok(())
            })
            .unwrap();
            Arc::new(unapplied)
        };
        for name in ["r1", "r2", "r3"] {
            ledger.note(Kind::Route, &name.into(), &routes(4));
        }
        ledger.note(Kind::Cluster, &"c".into(), &fields(&["metadata"]));
        assert_eq!(
            told(&ledger),
            [
                "route metadata[\"a[]\"] 3 (r1)",
                "route virtual_hosts[].routes[].cors 12 (r1)",
                "cluster metadata 1 (c)"
            ]
        );
        // More of the same is no news: another resource, another value, one that comes back.
        ledger.note(Kind::Route, &"r4".into(), &routes(9));
        ledger.note(Kind::Route, &"r1".into(), &routes(5));
        ledger.forget(Kind::Cluster, &"c".into());
        ledger.note(Kind::Cluster, &"c".into(), &fields(&["metadata", "outlier_detection"]));
        assert_eq!(told(&ledger), ["cluster outlier_detection 1 (c)"]);
        assert_eq!(told(&ledger), Vec::<String>::new());
    }

    #[test]
    fn keys_of_maps_do_not_fill_the_log() {
        let ledger = Ledger::default();
        for i in 0..2 * MAX_TOLD {
            let key = format!("filter-{}", char::from_u32(0x4e00 + u32::try_from(i).unwrap()).unwrap());
            let ((), unapplied) = Place::root(|at| {
                at.at("typed_per_filter_config").key(&key).unapplied();
                Ok(())
            })
            .unwrap();
            ledger.note(Kind::Route, &"r".into(), &Arc::new(unapplied));
            ledger.take_fresh();
        }
        assert_eq!(ledger.lock().told.len(), MAX_TOLD);
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
