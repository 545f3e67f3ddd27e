//! One target of a mesh: its latest snapshot, followed by one task as long as a channel lives.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::error::{Reason, Rejection};
use mesh_core::snapshot::{Changes, ClientSnapshot, ConfigError, ConfigProblem, Resolution, Subscription};
use tokio::sync::Notify;

use super::MAX_WAITING;
use super::snapshot::PinnedSnapshot;
use crate::runtime::registry::Runtime;
use crate::transport::task::Task;

/// A target, shared by all channels to it. Dropping the last one ends its task and its subscription.
pub(crate) struct Target {
    name: Arc<str>,
    shared: Arc<Shared>,
    _follow: Task,
    _subscription: Subscription<ClientSnapshot>,
}

struct Shared {
    state: ArcSwap<State>,
    changed: Notify,
    waiting: AtomicUsize,
}

enum State {
    Pending(ConfigError),
    /// As pending, but it is known that nobody answers at the moment.
    Unreachable(ConfigError),
    Ready(Arc<PinnedSnapshot>),
    Failed(Rejection),
}

/// What a call does while no control plane can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It fails at once, as calls that are not "wait for ready" do with gRPC.
    FailFast,
    /// It waits: its caller has said for how long.
    Wait,
}

/// A place among those who wait; given back on drop.
struct Waiting<'a>(&'a AtomicUsize);

// === impl Target ===

impl Target {
    /// Opens a target. What the subscription has at this moment is in place when this returns.
    pub(crate) fn open(
        name: Arc<str>,
        subscription: Subscription<ClientSnapshot>,
        runtime: &Arc<Runtime>,
    ) -> Arc<Self> {
        let first = state(&subscription.cell().load(), None, runtime);
        let waits_for = match &first {
            State::Pending(error) => {
                // At once: what is misspelt is never answered, and is told only when the control plane's time is up.
                tracing::info!(target = &*name, "waiting for {} {:?}", error.kind, error.name);
                Some(error.clone())
            }
            State::Unreachable(_) | State::Ready(_) | State::Failed(_) => None,
        };
        let shared = Arc::new(Shared {
            state: ArcSwap::from_pointee(first),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
        });
        let span = tracing::debug_span!(parent: None, "mesh.target", target = %name);
        let changes = subscription.cell().subscribe();
        let follow =
            Task::spawn(runtime.handle(), span, follow(changes, shared.clone(), runtime.clone(), waits_for));
        Arc::new(Self { name, shared, _follow: follow, _subscription: subscription })
    }

    /// The latest snapshot or refusal; none while there is something to wait for.
    pub(crate) fn current(&self, patience: Patience) -> Option<Result<Arc<PinnedSnapshot>, Rejection>> {
        match &**self.shared.state.load() {
            State::Ready(snapshot) => Some(Ok(snapshot.clone())),
            State::Failed(rejection) => Some(Err(rejection.clone())),
            State::Unreachable(error) if patience == Patience::FailFast => {
                Some(Err(explained(Reason::NoConfiguration, error)))
            }
            State::Pending(_) | State::Unreachable(_) => None,
        }
    }

    /// Waits for the first snapshot or refusal. Cancel safe.
    pub(crate) async fn first(&self, patience: Patience) -> Result<Arc<PinnedSnapshot>, Rejection> {
        let _place =
            Waiting::enter(&self.shared.waiting).ok_or_else(|| self.refusal(Reason::TooManyWaiting))?;
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Registered before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            if let Some(current) = self.current(patience) {
                return current;
            }
            changed.await;
        }
    }

    /// A refusal that says what is waited for.
    pub(crate) fn refusal(&self, reason: Reason) -> Rejection {
        match &**self.shared.state.load() {
            State::Pending(error) | State::Unreachable(error) => explained(reason, error),
            State::Ready(_) => Rejection::new(reason),
            State::Failed(rejection) => rejection.clone(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &**self.shared.state.load() {
            State::Pending(_) => "pending",
            State::Unreachable(_) => "unreachable",
            State::Ready(_) => "ready",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Target").field("name", &self.name).field("state", &state).finish_non_exhaustive()
    }
}

/// Follows the source. The runtime is reconciled before the snapshot is published: a request that sees a snapshot
/// finds its pickers in place.
async fn follow(
    mut changes: Changes<ClientSnapshot>,
    shared: Arc<Shared>,
    runtime: Arc<Runtime>,
    mut told: Option<ConfigError>,
) {
    // The first value is the one that `open` has already applied, or a newer one: applying it again changes nothing.
    loop {
        let resolution = if matches!(**shared.state.load(), State::Pending(_)) {
            match tokio::time::timeout(TOLD_AFTER, changes.changed()).await {
                Ok(resolution) => resolution,
                Err(_) => {
                    tell(&shared, &mut told);
                    changes.changed().await
                }
            }
        } else {
            changes.changed().await
        };
        let before = shared.ready();
        let next = state(&resolution, before.as_deref(), &runtime);
        match &next {
            State::Pending(error) => tracing::debug!(%error, "waiting for configuration"),
            State::Unreachable(error) => tracing::warn!(%error, "no configuration yet"),
            State::Ready(snapshot) => tracing::debug!(version = snapshot.version, "configuration applied"),
            State::Failed(rejection) => tracing::warn!(%rejection, "the target cannot be served"),
        }
        shared.state.store(Arc::new(next));
        shared.changed.notify_waiters();
    }
}

/// What is waited for when nothing has come for a while, if that has not been said.
fn tell(shared: &Shared, told: &mut Option<ConfigError>) {
    if let State::Pending(error) = &**shared.state.load()
        && told.as_ref() != Some(error)
    {
        tracing::info!("waiting for {} {:?}", error.kind, error.name);
        *told = Some(error.clone());
    }
}

fn state(
    resolution: &Resolution<ClientSnapshot>,
    before: Option<&PinnedSnapshot>,
    runtime: &Arc<Runtime>,
) -> State {
    match resolution {
        Resolution::Pending(error) => State::Pending(error.clone()),
        Resolution::Ready(snapshot) => State::Ready(Arc::new(PinnedSnapshot::new(snapshot, before, runtime))),
        Resolution::Failed(error) => {
            let reason = match error.problem {
                ConfigProblem::Unreachable(_) | ConfigProblem::Unresolved(_) => {
                    return State::Unreachable(error.clone());
                }
                // An unknown name: there is no such thing to send requests to.
                ConfigProblem::DoesNotExist if error.kind == LISTENER => Reason::UnknownTarget,
                ConfigProblem::DoesNotExist => Reason::NoRoute,
                ConfigProblem::Pending
                | ConfigProblem::Invalid(_)
                | ConfigProblem::ReceivedError(_)
                | ConfigProblem::Empty => Reason::NoConfiguration,
            };
            State::Failed(explained(reason, error))
        }
    }
}

/// After how long a second line says what is waited for: the listener has come by then, or does not come.
const TOLD_AFTER: Duration = Duration::from_secs(1);
const LISTENER: &str = "listener";

fn explained(reason: Reason, error: &ConfigError) -> Rejection {
    Rejection::new(reason).with_detail(error.to_string()).with_source(Arc::new(error.clone()))
}

// === impl Shared ===

impl Shared {
    fn ready(&self) -> Option<Arc<PinnedSnapshot>> {
        match &**self.state.load() {
            State::Ready(snapshot) => Some(snapshot.clone()),
            State::Pending(_) | State::Unreachable(_) | State::Failed(_) => None,
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
