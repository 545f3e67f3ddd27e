//! One row for each resource that is wanted: what serves, since when and in which version, what is refused of it and why,
//! and which of its fields have no effect. What [`status`](mesh_core::status) and its views show is here and nowhere else.
//!
//! Written by the one who settles resources, read by whoever asks. Bounded by what is wanted, by [`Unapplied::MAX`] fields
//! of each resource, by [`MAX_REASON`] bytes of text for each, and for the log by `MAX_TOLD` kinds of field.

mod told;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use mesh_core::snapshot::{ConfigError, ConfigProblem};
use mesh_core::status::{Origin, Refusal, ResourceState, ResourceStatus};

use self::told::{Fresh, Told};
use crate::ads::{Kind, Name};
use crate::authority::ServerIx;
use crate::invalid::Unapplied;

/// Longest text of why a resource is refused.
pub(crate) const MAX_REASON: usize = 1024;

/// The rows of one source. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    state: Arc<Mutex<State>>,
    clock: fn() -> SystemTime,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<(Kind, Name), Row>,
    /// How many of them are of an earlier run.
    restored: usize,
    /// What the last response of a control plane about a kind had without a name, or the first of it.
    nameless: BTreeMap<(ServerIx, Kind), Refusal>,
    /// Valid resources that a target cannot use, by what it is opened by.
    targets: BTreeMap<String, (&'static str, Name, Refusal)>,
    told: Told,
}

/// What is known of one resource.
#[derive(Debug, Default)]
struct Row {
    state: ResourceState,
    good: Option<Good>,
    refused: Option<Box<Refusal>>,
    /// Overrides of filters that no listener runs, of a route configuration.
    overrides: Option<Box<Unapplied>>,
}

/// The value that serves.
#[derive(Debug)]
struct Good {
    version: Arc<str>,
    accepted_at: SystemTime,
    origin: Origin,
    unapplied: Arc<Unapplied>,
}

// === impl Rows ===

impl Rows {
    /// Nothing is wanted yet.
    pub(crate) fn new(clock: fn() -> SystemTime) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// The time that rows are written with.
    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// A resource is wanted.
    pub(crate) fn want(&self, kind: Kind, name: &Name) {
        self.lock().rows.entry((kind, name.clone())).or_default();
    }

    /// A resource is not wanted any more.
    pub(crate) fn forget(&self, kind: Kind, name: &Name) {
        let mut state = self.lock();
        if state.rows.remove(&(kind, name.clone())).is_some_and(|row| row.is_restored()) {
            state.count_restored(-1);
        }
    }

    /// A valid value serves from now on. Nothing is logged before [`Self::tell`].
    pub(crate) fn accept(
        &self,
        kind: Kind,
        name: &Name,
        version: &Arc<str>,
        unapplied: &Arc<Unapplied>,
        origin: Origin,
    ) {
        let accepted_at = (self.clock)();
        let mut state = self.lock();
        let State { rows, told, .. } = &mut *state;
        let row = rows.entry((kind, name.clone())).or_default();
        if row.good.as_ref().is_none_or(|good| good.unapplied != *unapplied) {
            told.hear_of(kind, name, unapplied);
        }
        let change = i32::from(origin == Origin::LastRun) - i32::from(row.is_restored());
        let (version, unapplied) = (version.clone(), unapplied.clone());
        row.good = Some(Good { version, accepted_at, origin, unapplied });
        (row.state, row.refused) = (ResourceState::Accepted, None);
        state.count_restored(change);
    }

    /// The overrides of a route configuration that have no effect in the listeners that take it.
    pub(crate) fn note_overrides(&self, route: &Name, unapplied: Unapplied) {
        let mut state = self.lock();
        let State { rows, told, .. } = &mut *state;
        let Some(row) = rows.get_mut(&(Kind::Route, route.clone())) else { return };
        if row.overrides.as_deref() != Some(&unapplied) {
            told.hear_of(Kind::Route, route, &unapplied);
            row.overrides = (!unapplied.is_empty()).then(|| Box::new(unapplied));
        }
    }

    /// A resource is refused (or there is an error in its place, as `state` says), and whether its last good value goes
    /// on serving. True where that is news.
    pub(crate) fn refuse(
        &self,
        (kind, name): (Kind, &Name),
        state: ResourceState,
        version: &Arc<str>,
        reason: &str,
        is_serving: bool,
    ) -> bool {
        let refusal = self.refusal(version, reason, is_serving);
        let mut rows = self.lock();
        let Some(row) = rows.rows.get_mut(&(kind, name.clone())) else { return false };
        let is_news = row.refused.as_deref().is_none_or(|before| !before.is_same(&refusal));
        row.state = state;
        if is_news {
            row.refused = Some(Box::new(refusal));
        }
        rows.drop_unless(is_serving, kind, name);
        is_news
    }

    /// There is no such resource, or none came in time; whether its last good value goes on serving.
    pub(crate) fn miss(&self, kind: Kind, name: &Name, is_serving: bool) {
        let mut state = self.lock();
        if let Some(row) = state.rows.get_mut(&(kind, name.clone())) {
            (row.state, row.refused) = (ResourceState::DoesNotExist, None);
        }
        state.drop_unless(is_serving, kind, name);
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
        let refusal = self.refusal(version, reason, is_serving);
        self.lock().nameless.insert((server, kind), refusal);
    }

    /// A control plane answers anew.
    pub(crate) fn forget_nameless(&self, server: ServerIx, kind: Kind) {
        self.lock().nameless.remove(&(server, kind));
    }

    /// What keeps a target that serves from using its configuration as it is now, if anything does.
    pub(crate) fn set_target(&self, target: &str, error: Option<&ConfigError>) {
        let mut state = self.lock();
        match error {
            Some(ConfigError { kind, name, problem: ConfigProblem::Invalid(reason), node: _ }) => {
                let refusal = self.refusal(&Arc::from(""), reason, true);
                state.targets.insert(target.to_owned(), (kind, name.clone(), refusal));
            }
            Some(_) | None => _ = state.targets.remove(target),
        }
    }

    /// Targets that are closed have nothing to say any more.
    pub(crate) fn retain_targets(&self, is_open: impl Fn(&str) -> bool) {
        self.lock().targets.retain(|target, _| is_open(target));
    }

    /// Logs what came since the last time: one line for each kind of field that has not been told yet.
    pub(crate) fn tell(&self) {
        let fresh = self.lock().told.take_fresh();
        for ((kind, field), Fresh { count, example }) in fresh {
            tracing::warn!(%kind, field, count, example = &*example, "the field has no effect here");
        }
    }

    /// Every row, and what is refused and has none.
    pub(crate) fn status(&self) -> Vec<ResourceStatus> {
        let state = self.lock();
        let mut all: Vec<_> = state.rows.iter().map(|((kind, name), row)| row.status(*kind, name)).collect();
        let nameless = state.nameless.iter().map(|((_, kind), refusal)| {
            let mut status = ResourceStatus::new(kind.noun(), Arc::from(""));
            (status.state, status.refused) = (ResourceState::Refused, Some(refusal.clone()));
            status
        });
        all.extend(nameless);
        for (kind, name, refusal) in state.targets.values() {
            let row = all.iter_mut().find(|one| one.kind == *kind && one.name == *name);
            if let Some(row) = row.filter(|row| row.refused.is_none()) {
                row.refused = Some(refusal.clone());
            }
        }
        all
    }

    fn refusal(&self, version: &Arc<str>, reason: &str, is_serving: bool) -> Refusal {
        Refusal { version: version.clone(), reason: cut(reason).into(), at: (self.clock)(), is_serving }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Rows are written whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Rows {
    #[expect(
        clippy::disallowed_methods,
        reason = "when a resource came is told to people, and decides nothing"
    )]
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

// === impl State ===

impl State {
    /// Takes the value that serves out of a row, unless it goes on.
    fn drop_unless(&mut self, is_serving: bool, kind: Kind, name: &Name) {
        let Some(row) = self.rows.get_mut(&(kind, name.clone())).filter(|_| !is_serving) else { return };
        let change = -i32::from(row.is_restored());
        (row.good, row.overrides) = (None, None);
        self.count_restored(change);
    }

    /// Tells in the log when there are first any of an earlier run, and when there are none any more.
    fn count_restored(&mut self, change: i32) {
        let before = self.restored;
        self.restored = before.saturating_add_signed(change as isize);
        match (before, self.restored) {
            (0, 1..) => {
                tracing::warn!(
                    "no control plane answers: configuration of the last run is in use, from disk"
                );
            }
            (1.., 0) => tracing::info!("nothing of the last run's configuration is in use any more"),
            (_, _) => {}
        }
    }
}

// === impl Row ===

impl Row {
    fn is_restored(&self) -> bool {
        self.good.as_ref().is_some_and(|good| good.origin == Origin::LastRun)
    }

    fn status(&self, kind: Kind, name: &Name) -> ResourceStatus {
        let Self { state, good, refused, overrides } = self;
        let mut status = ResourceStatus::new(kind.noun(), name.clone());
        status.state = *state;
        status.refused = refused.as_deref().cloned();
        if let Some(Good { version, accepted_at, origin, unapplied }) = good {
            let all = || [&**unapplied].into_iter().chain(overrides.as_deref());
            status.version = version.clone();
            status.accepted_at = Some(*accepted_at);
            status.origin = *origin;
            status.unapplied = all().flat_map(Unapplied::iter).map(ToString::to_string).collect();
            status.unapplied_total = all().map(Unapplied::len).sum();
        }
        status
    }
}

/// The beginning of a text, as long as is kept.
pub(crate) fn cut(reason: &str) -> &str {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).unwrap_or_default()
}
