//! Which resources are refused as they are now, and why; most of them have a last good value that goes on serving.
//!
//! Bounded by what is in use, and by [`MAX_REASON`] bytes of text for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::snapshot::{ConfigError, ConfigProblem, RefusedResource};

use crate::ads::{Kind, Name};

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
        let refused = RefusedResource {
            kind: kind.noun(),
            name: name.clone(),
            version: version.clone(),
            reason: cut(reason).into(),
            is_serving,
        };
        let before = self.lock().resources.insert((kind, name.clone()), refused.clone());
        before != Some(refused)
    }

    /// A resource is accepted, deleted, or no longer in use.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        self.lock().resources.remove(&(kind, name.clone()));
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
        state.resources.values().chain(state.targets.values().filter(told)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are inserted and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a text, as long as is kept.
pub(crate) fn cut(reason: &str) -> &str {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).unwrap_or_default()
}
