//! Routes by name, as the listeners that take them judge them: which overrides have no effect, and which routes are none
//! for a server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ads::Name;
use crate::deferred::{Deferred, runs_with};
use crate::graph::{Graph, Key, Role};
use crate::invalid::{Invalid, Unapplied};
use crate::rows::Rows;
use crate::store::Store;

/// The routes of which something is left to judge.
#[derive(Debug, Default)]
pub(super) struct JudgedRoutes {
    deferred: BTreeMap<Name, Arc<Deferred>>,
    /// Their listeners or they themselves have changed.
    open: BTreeSet<Name>,
}

// === impl JudgedRoutes ===

impl JudgedRoutes {
    /// A value came into use.
    pub(super) fn put(&mut self, name: &Name, deferred: &Arc<Deferred>) {
        let before = if deferred.is_empty() {
            self.deferred.remove(name)
        } else {
            self.deferred.insert(name.clone(), deferred.clone())
        };
        if before.as_ref() != Some(deferred) {
            self.open.insert(name.clone());
        }
    }

    pub(super) fn forget(&mut self, name: &Name) {
        self.deferred.remove(name);
        self.open.remove(name);
    }

    /// A listener that names these has changed.
    pub(super) fn judge_again<'k>(&mut self, keys: impl IntoIterator<Item = &'k Key>) {
        let names = keys.into_iter().filter(|(role, _)| matches!(role, Role::Route | Role::ServerRoute));
        let open = names.filter(|(_, name)| self.deferred.contains_key(name));
        self.open.extend(open.map(|(_, name)| name.clone()));
    }

    /// Lists the overrides without effect of what is open. Returns what a server takes and refuses.
    pub(super) fn judge(&mut self, store: &Store, graph: &Graph, rows: &Rows) -> Vec<(Name, Invalid)> {
        let mut refused = Vec::new();
        for name in std::mem::take(&mut self.open) {
            let Some(deferred) = self.deferred.get(&name) else {
                rows.note_overrides(&name, Unapplied::default());
                continue;
            };
            rows.note_overrides(&name, deferred.without_effect(|filter| is_run(store, graph, &name, filter)));
            refused.extend(refusal(graph, &name, deferred).map(|invalid| (name.clone(), invalid.clone())));
        }
        refused
    }
}

/// Why routes are refused, if they are: because a server takes them.
pub(super) fn refusal<'d>(graph: &Graph, name: &Name, deferred: &'d Deferred) -> Option<&'d Invalid> {
    let is_of_server = || graph.referrers(&(Role::ServerRoute, name.clone())).next().is_some();
    deferred.refused_by_servers().filter(|_| is_of_server())
}

/// Whether any listener that takes these routes runs a filter.
fn is_run(store: &Store, graph: &Graph, routes: &Name, filter: &str) -> bool {
    [Role::Route, Role::ServerRoute].iter().any(|role| {
        graph.referrers(&(*role, routes.clone())).any(|(_, listener)| {
            store.listener(listener).is_ok_and(|listener| runs_with(&listener.config, routes, filter))
        })
    })
}
