//! Which endpoint takes a request: a pure function of configuration, connectivity, ejection, loads and `rng`.
//!
//! References: gRFC A48 (least request), A52/A58 (weighted locality, weighted round robin), A56 (priorities),
//! Envoy's load-balancing policies. The runtime keeps one [`EndpointState`] per endpoint, builds a [`View`], asks it
//! for the connectivity of each priority, runs [`Priorities`] over that, and publishes the [`Picker`] of the priority
//! that was chosen. A picker is immutable but for its cursors.
//!
//! Rules:
//! * Only READY endpoints are picked. None READY and one IDLE or CONNECTING: the request waits ([`Pick::Queue`]). Where
//!   all have failed, [`Picker::unreachable`] names those that may be tried all the same: a call that has nowhere else
//!   to go need not wait for the end of a back-off.
//! * Endpoints that are `UNKNOWN` or `HEALTHY` are used; `DEGRADED` ones only where no such endpoint can be reached;
//!   all others never, but in panic. An ejected endpoint counts as TRANSIENT_FAILURE (gRFC A50).
//! * Panic (Envoy, only where `panic_threshold` is set): when every priority that has endpoints has less than that
//!   share of them available, health and ejection are ignored.
//! * Localities share by their weights where `locality_weighted`; a locality without a READY endpoint has no share.
//!
//! Deviation: Envoy spreads load over priorities by their health; like gRPC this library uses one priority at a time.

mod least_request;
mod locality;
mod priority;
mod random;
mod round_robin;
mod weighted;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::locality::Groups;
use crate::config::cluster::ClusterConfig;
use crate::config::endpoints::{DropOverload, EndpointsConfig, HealthStatus, PriorityConfig};
use crate::error::Reason;
use crate::rng::Rng;

pub use self::priority::Priorities;

/// Endpoints of [`Picker::unreachable`]: so few that a call which fails stays cheap in a cluster of thousands.
const LAST_RESORTS: usize = 16;

/// An endpoint: its position in [`EndpointsConfig::iter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointIx(u32);

/// gRPC's connectivity states.
///
/// TRANSIENT_FAILURE is sticky: an endpoint that failed reports it until it is READY again, while it backs off and
/// while it connects once more (gRFC A62).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Connectivity {
    /// No connection, none asked for.
    #[default]
    Idle,
    /// A first connection is being made.
    Connecting,
    /// Connected.
    Ready,
    /// The last attempt failed.
    TransientFailure,
}

/// What the runtime knows of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointState {
    /// Its connections, taken together.
    pub connectivity: Connectivity,
    /// Outlier detection has taken it out.
    pub ejected: bool,
}

/// Requests in flight, by endpoint.
pub trait Loads {
    /// Requests in flight to an endpoint.
    fn in_flight(&self, endpoint: EndpointIx) -> u32;
}

/// A cluster as the balancer sees it: configuration and state together.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    cluster: &'a ClusterConfig,
    endpoints: &'a EndpointsConfig,
    states: &'a [EndpointState],
    panic: bool,
}

/// The endpoints of one priority, compiled for picking.
#[derive(Debug)]
pub struct Picker {
    drops: Box<[DropOverload]>,
    choice: Choice,
}

/// What a pick decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// This endpoint.
    Endpoint(EndpointIx),
    /// Wait for the next picker, then [`Picker::repick`].
    Queue,
    /// Dropped under this category of `drop_overloads`. Never retried.
    Drop(Arc<str>),
    /// There is nothing to wait for.
    Fail(Reason),
}

#[derive(Debug)]
enum Choice {
    Ready(Groups),
    Queue,
    Fail {
        reason: Reason,
        /// Those that would be picked if they could be reached.
        unreachable: Box<[EndpointIx]>,
    },
}

/// Which endpoints of a priority count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standard {
    Usable,
    Degraded,
    Panic,
}

// === impl EndpointIx ===

impl EndpointIx {
    /// The endpoint at this position.
    #[must_use]
    pub fn new(position: u32) -> Self {
        Self(position)
    }

    /// The position.
    #[must_use]
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

// === impl Connectivity ===

impl Connectivity {
    /// The state of several together: READY, else CONNECTING, else IDLE, else TRANSIENT_FAILURE. None of nothing.
    pub fn aggregate(states: impl IntoIterator<Item = Self>) -> Option<Self> {
        let rank = |state: &Self| match state {
            Self::TransientFailure => 0,
            Self::Idle => 1,
            Self::Connecting => 2,
            Self::Ready => 3,
        };
        let mut best = None;
        for state in states {
            // Nothing is better, and in a cluster that serves the first one will do.
            if state == Self::Ready {
                return Some(state);
            }
            best = [best, Some(state)].into_iter().flatten().max_by_key(rank);
        }
        best
    }
}

// === impl Loads ===

impl<F: Fn(EndpointIx) -> u32> Loads for F {
    fn in_flight(&self, endpoint: EndpointIx) -> u32 {
        self(endpoint)
    }
}

// === impl View ===

impl<'a> View<'a> {
    /// Configuration and state together; `states` is by [`EndpointIx`], what it lacks is idle.
    #[must_use]
    pub fn new(
        cluster: &'a ClusterConfig,
        endpoints: &'a EndpointsConfig,
        states: &'a [EndpointState],
    ) -> Self {
        let mut view = Self { cluster, endpoints, states, panic: false };
        view.panic = cluster.panic_threshold.is_some_and(|threshold| view.panics(threshold.get()));
        view
    }

    /// The connectivity of each priority; one without endpoints that count is in TRANSIENT_FAILURE.
    #[must_use]
    pub fn connectivity(&self) -> Vec<Connectivity> {
        (0..self.endpoints.priorities.len())
            .map(|p| self.standard(p).1.unwrap_or(Connectivity::TransientFailure))
            .collect()
    }

    /// The endpoints of a priority that are worth a connection.
    pub fn candidates(&self, priority: usize) -> impl Iterator<Item = EndpointIx> + use<'a> {
        let panic = self.panic;
        self.members(priority)
            .filter(move |(_, health, _)| panic || health.is_usable() || *health == HealthStatus::Degraded)
            .map(|(ix, _, _)| ix)
    }

    /// Whether health is ignored.
    #[cfg(test)]
    pub(crate) fn is_panic(&self) -> bool {
        self.panic
    }

    /// The picker of a priority; none where there is no priority at all. Cursors start at random.
    pub fn picker(&self, priority: Option<usize>, rng: &mut impl Rng) -> Picker {
        let drops = self.endpoints.drops.clone().into_boxed_slice();
        let choice = priority.map_or_else(Choice::nothing, |p| self.choice(p, rng));
        Picker { drops, choice }
    }

    fn choice(&self, priority: usize, rng: &mut impl Rng) -> Choice {
        let (standard, connectivity) = self.standard(priority);
        match connectivity {
            Some(Connectivity::Ready) => {}
            Some(Connectivity::Connecting | Connectivity::Idle) => return Choice::Queue,
            Some(Connectivity::TransientFailure) => {
                // Ejected endpoints may well be connected: then it is their health that is lacking.
                let failed = |state: EndpointState| state.connectivity == Connectivity::TransientFailure;
                let counted = || self.counted(priority, standard);
                let reason = match counted().any(|(_, state)| failed(state)) {
                    true => Reason::ConnectFailed,
                    false => Reason::NoHealthyUpstream,
                };
                let worth_a_try = |state: &EndpointState| !state.ejected || standard == Standard::Panic;
                let unreachable =
                    counted().filter(|(_, state)| worth_a_try(state)).map(|(ix, _)| ix).collect();
                return Choice::Fail { reason, unreachable };
            }
            None => return Choice::nothing(),
        }
        let usable = |ix: EndpointIx, health| {
            standard.counts(health) && standard.sees(self.state(ix)) == Connectivity::Ready
        };
        let first = self.first_of(priority);
        let groups = self
            .endpoints
            .priorities
            .get(priority)
            .and_then(|level| Groups::build(self.cluster, level, first, usable, rng));
        groups.map_or(Choice::Queue, Choice::Ready)
    }

    /// Which standard holds in a priority, and what its endpoints come to under it.
    fn standard(&self, priority: usize) -> (Standard, Option<Connectivity>) {
        let under = |standard: Standard| {
            let states = self.counted(priority, standard).map(|(_, state)| standard.sees(state));
            (standard, Connectivity::aggregate(states))
        };
        if self.panic {
            return under(Standard::Panic);
        }
        let usable = under(Standard::Usable);
        if !matches!(usable.1, None | Some(Connectivity::TransientFailure)) {
            return usable;
        }
        let degraded = under(Standard::Degraded);
        if degraded.1.is_some() { degraded } else { usable }
    }

    fn panics(&self, threshold: u32) -> bool {
        let mut any = false;
        for priority in 0..self.endpoints.priorities.len() {
            let (mut all, mut available) = (0u64, 0u64);
            for (_, health, state) in self.members(priority) {
                let well = health.is_usable() || health == HealthStatus::Degraded;
                all += 1;
                available += u64::from(well && !state.ejected);
            }
            any |= all > 0;
            // Exactly the threshold is no panic, as in Envoy.
            if all > 0 && available * 100 >= u64::from(threshold) * all {
                return false;
            }
        }
        any
    }

    fn counted(
        &self,
        priority: usize,
        standard: Standard,
    ) -> impl Iterator<Item = (EndpointIx, EndpointState)> + use<'a> {
        self.members(priority)
            .filter(move |(_, health, _)| standard.counts(*health))
            .map(|(ix, _, state)| (ix, state))
    }

    fn members(
        &self,
        priority: usize,
    ) -> impl Iterator<Item = (EndpointIx, HealthStatus, EndpointState)> + use<'a> {
        let states = self.states;
        let first = self.first_of(priority);
        let endpoints = self.endpoints.priorities.get(priority).map(of_priority);
        endpoints.into_iter().flatten().zip(first..).map(move |(health, position)| {
            let state = states.get(position as usize).copied().unwrap_or_default();
            (EndpointIx(position), health, state)
        })
    }

    fn state(&self, ix: EndpointIx) -> EndpointState {
        self.states.get(ix.get()).copied().unwrap_or_default()
    }

    fn first_of(&self, priority: usize) -> u32 {
        self.endpoints.priorities.iter().take(priority).map(|p| of_priority(p).count() as u32).sum()
    }
}

fn of_priority(level: &PriorityConfig) -> impl Iterator<Item = HealthStatus> {
    level.localities.iter().flat_map(|l| &l.endpoints).map(|e| e.health)
}

// === impl Standard ===

impl Standard {
    fn counts(self, health: HealthStatus) -> bool {
        match self {
            Self::Usable => health.is_usable(),
            Self::Degraded => health == HealthStatus::Degraded,
            Self::Panic => true,
        }
    }

    fn sees(self, state: EndpointState) -> Connectivity {
        if state.ejected && self != Self::Panic { Connectivity::TransientFailure } else { state.connectivity }
    }
}

// === impl Choice ===

impl Choice {
    fn nothing() -> Self {
        Self::Fail { reason: Reason::NoHealthyUpstream, unreachable: Box::default() }
    }
}

// === impl Picker ===

impl Picker {
    /// A first pick of an attempt: overload drops, each drawn by itself and in order, then an endpoint.
    pub fn pick(&self, rng: &mut impl Rng, loads: &impl Loads) -> Pick {
        match self.drops.iter().find(|drop| drop.share.hit(rng)) {
            Some(drop) => Pick::Drop(drop.category.clone()),
            None => self.repick(rng, loads),
        }
    }

    /// A pick after [`Pick::Queue`]: an attempt that waits draws against the drops only once.
    pub fn repick(&self, rng: &mut impl Rng, loads: &impl Loads) -> Pick {
        match &self.choice {
            Choice::Ready(groups) => groups.pick(rng, loads).map_or(Pick::Queue, Pick::Endpoint),
            Choice::Queue => Pick::Queue,
            Choice::Fail { reason, .. } => Pick::Fail(*reason),
        }
    }

    /// After [`Pick::Fail`]: some of the endpoints that could not be reached, from one at random on. None of them is to be
    /// picked; whoever knows that one can be reached by now may try it.
    pub fn unreachable<R: Rng>(&self, rng: &mut R) -> impl Iterator<Item = EndpointIx> + use<'_, R> {
        let endpoints: &[EndpointIx] = match &self.choice {
            Choice::Fail { unreachable, .. } => unreachable,
            Choice::Ready(_) | Choice::Queue => &[],
        };
        let first = if endpoints.is_empty() { 0 } else { rng.below(endpoints.len() as u64) as usize };
        let (before, from) = endpoints.split_at(first);
        from.iter().chain(before).take(LAST_RESORTS).copied()
    }

    /// How many endpoints may be picked.
    #[must_use]
    pub fn ready(&self) -> usize {
        match &self.choice {
            Choice::Ready(groups) => groups.len(),
            Choice::Queue | Choice::Fail { .. } => 0,
        }
    }
}
