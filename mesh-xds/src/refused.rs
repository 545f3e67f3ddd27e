//! Which resources are refused as they are now, and why; most of them have a last good value that goes on serving.
//!
//! Bounded by what is in use, and by [`MAX_REASON`] bytes of text for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::snapshot::{ConfigError, ConfigProblem, RefusedResource};

use crate::ads::{Kind, Name};
use crate::authority::ServerIx;

/// Longest text of why a resource is refused.
pub(crate) const MAX_REASON: usize = 1024;

/// The refused resources. Clones share it: one writer, and whoever asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    resources: BTreeMap<(Kind, Name), RefusedResource>,
    /// What the last response of a control plane about a kind had without a name, or the first of it.
    nameless: BTreeMap<(ServerIx, Kind), RefusedResource>,
    /// Valid resources that a target cannot use, by what it is opened by.
    targets: BTreeMap<String, RefusedResource>,
}

// === impl Refusals ===

impl Refusals {
    /// A resource is refused, or there is an error instead of it. True where that is news.
    pub(crate) fn refuse(
        &self,
        kind: Kind,
        name: &Name,
        version: &Arc<str>,
        reason: &str,
        is_serving: bool,
    ) -> bool {
        let refused = refused(kind, name.clone(), version, reason, is_serving);
        let before = self.lock().resources.insert((kind, name.clone()), refused.clone());
        before != Some(refused)
    }

    /// A resource is accepted, deleted, or no longer in use.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        self.lock().resources.remove(&(kind, name.clone()));
    }

    /// A resource is refused of which not even the name can be read.
    pub(crate) fn refuse_nameless(
        &self,
        server: ServerIx,
        kind: Kind,
        version: &Arc<str>,
        reason: &str,
        is_serving: bool,
    ) {
        let refused = refused(kind, Arc::from(""), version, reason, is_serving);
        self.lock().nameless.insert((server, kind), refused);
    }

    /// A control plane answers anew.
    pub(crate) fn forget_nameless(&self, server: ServerIx, kind: Kind) {
        self.lock().nameless.remove(&(server, kind));
    }

    /// What keeps a target from using its configuration as it is now, if anything does.
    pub(crate) fn set_target(&self, target: &str, error: Option<&ConfigError>) {
        let mut state = self.lock();
        match error {
            Some(ConfigError { kind, name, problem: ConfigProblem::Invalid(reason), node: _ }) => {
                let refused = RefusedResource {
                    kind,
                    name: name.clone(),
                    version: Arc::from(""),
                    reason: cut(reason).into(),
                    is_serving: true,
                };
                state.targets.insert(target.to_owned(), refused);
            }
            Some(_) | None => _ = state.targets.remove(target),
        }
    }

    /// Targets that are closed have nothing to say any more.
    pub(crate) fn retain_targets(&self, is_open: impl Fn(&str) -> bool) {
        self.lock().targets.retain(|target, _| is_open(target));
    }

    /// Every resource that is refused.
    pub(crate) fn list(&self) -> Vec<RefusedResource> {
        let state = self.lock();
        let told = |refused: &&RefusedResource| {
            let same = |one: &RefusedResource| one.kind == refused.kind && one.name == refused.name;
            !state.resources.values().any(same)
        };
        let targets = state.targets.values().filter(told);
        state.resources.values().chain(state.nameless.values()).chain(targets).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are inserted and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(kind: Kind, name: Name, version: &Arc<str>, reason: &str, is_serving: bool) -> RefusedResource {
    RefusedResource {
        kind: kind.noun(),
        name,
        version: version.clone(),
        reason: cut(reason).into(),
        is_serving,
    }
}

/// The beginning of a text, as long as is kept.
pub(crate) fn cut(reason: &str) -> &str {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).unwrap_or_default()
}
