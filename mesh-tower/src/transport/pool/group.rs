//! The connections of one key.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::config::endpoints::Address;
use mesh_core::retry::BackOff;
use mesh_core::rng::Xoshiro;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::losses::{Ending, Losses, Redial};
use super::open::{Open, Opened};
use super::{ConnectionPermit, ConnectivityState, PoolSettings, TryAcquire};
use crate::transport::ConnectionEvents;
use crate::transport::client::{Client, Lease};
use crate::transport::connect::{ConnectionKey, Show, dial};
use crate::transport::error::{ConnectError, ConnectFailure, EndReason};
use crate::transport::task::Task;

/// Between the connections of a peer whose callers give up before it can serve.
const SOON: Duration = Duration::from_millis(100);

/// The share of the back-off before whose end no attempt is brought forward.
const URGENCY: u32 = 8;

/// The connections of one key, and the attempts to get more.
pub(super) struct Group {
    address: Address,
    key: ConnectionKey,
    settings: Arc<PoolSettings>,
    runtime: Handle,
    /// Of a TLS context that is no longer current: closes when it is unused.
    retired: bool,
    closed: AtomicBool,
    /// Connections and attempts of the endpoint, those of its other groups included.
    open: Open,
    /// Wakes those who wait in [`Group::acquire`].
    freed: Notify,
    waiting: AtomicUsize,
    ids: AtomicU64,
    inner: Mutex<Inner>,
}

/// Everything that changes together when connections come and go.
struct Inner {
    connections: Vec<Entry>,
    /// Attempts under way, those that are backing off included.
    dials: Vec<Dial>,
    /// The last attempt failed.
    failing: bool,
    /// Connections that the peer ended without having served on them.
    losses: Losses,
    back_off: BackOff,
    last_error: Option<ConnectError>,
    /// No attempt before this, after a failed one.
    not_before: Instant,
    /// When the last attempt failed that counted.
    failed_at: Option<Instant>,
    /// The last back-off.
    waited: Duration,
    /// The attempt that was brought forward.
    urgent: Option<u64>,
    /// No attempt that is brought forward before this.
    urgent_not_before: Instant,
    rng: Xoshiro,
}

struct Entry {
    id: u64,
    client: Client,
    since: Instant,
    _permit: Option<ConnectionPermit>,
    /// There once the connection counts in the place of its attempt.
    open: Option<Opened>,
}

struct Dial {
    id: u64,
    _task: Task,
    open: Option<Opened>,
}

// === impl Group ===

impl Group {
    pub(super) fn new(
        address: Address,
        key: ConnectionKey,
        settings: Arc<PoolSettings>,
        runtime: &Handle,
        open: Open,
        retired: bool,
    ) -> Arc<Self> {
        // The standard library's only source of randomness; the jitter needs no better one.
        let seed = RandomState::new().build_hasher().finish();
        Arc::new(Self {
            address,
            key,
            settings,
            runtime: runtime.clone(),
            retired,
            closed: AtomicBool::new(false),
            open,
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            ids: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                connections: Vec::new(),
                dials: Vec::new(),
                failing: false,
                losses: Losses::default(),
                back_off: BackOff::connection(),
                last_error: None,
                not_before: Instant::now(),
                failed_at: None,
                waited: Duration::ZERO,
                urgent: None,
                urgent_not_before: Instant::now(),
                rng: Xoshiro::seeded(seed),
            }),
        })
    }

    pub(super) const fn key(&self) -> &ConnectionKey {
        &self.key
    }

    pub(super) const fn is_retired(&self) -> bool {
        self.retired
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> ConnectivityState {
        self.lock().state()
    }

    pub(super) fn last_error(&self) -> Option<ConnectError> {
        self.lock().last_error.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    pub(super) fn connect_soon(self: &Arc<Self>) {
        let mut inner = self.lock();
        let before = inner.state();
        if inner.connections.is_empty() && inner.dials.is_empty() && !self.is_closed() {
            self.start_dial(&mut inner, Duration::ZERO);
        }
        self.publish(before, inner);
    }

    /// A free stream of an open connection: the fast path.
    pub(super) fn reserve(&self) -> Option<Lease> {
        self.lock().reserve()
    }

    pub(super) fn try_acquire(self: &Arc<Self>) -> TryAcquire {
        let mut inner = self.lock();
        if let Some(lease) = inner.reserve() {
            return TryAcquire::Ready(lease);
        }
        if inner.is_refusing() && inner.urgent.is_none() || self.is_closed() {
            let error = inner.last_error.clone();
            return TryAcquire::Failed(error.unwrap_or_else(|| self.closed_error()));
        }
        let before = inner.state();
        if self.wants_dial(&inner) {
            let delay = inner.not_before.saturating_duration_since(Instant::now());
            self.start_dial(&mut inner, delay);
        }
        self.publish(before, inner);
        TryAcquire::WouldWait
    }

    /// Whether a call may come here although the last attempt failed. If so, one is under way, or need not be.
    pub(super) fn may_be_back(self: &Arc<Self>) -> bool {
        let mut inner = self.lock();
        if self.is_closed() {
            return false;
        }
        let is_free = |entry: &Entry| entry.client.in_flight() == 0;
        if !inner.is_refusing() || inner.urgent.is_some() || inner.connections.iter().any(is_free) {
            return true;
        }
        // Another attempt tells soon, and may well tell something else.
        let is_brief = |error: &ConnectError| {
            matches!(error.kind(), ConnectFailure::Io | ConnectFailure::GoneAway | ConnectFailure::Protocol)
        };
        let was_brief = inner.last_error.as_ref().is_some_and(is_brief);
        let has_room = self.limit().is_none_or(|limit| inner.connections.len() < limit);
        if self.retired || !was_brief || !has_room || Instant::now() < inner.urgent_not_before {
            return false;
        }
        inner.urgent = Some(self.start_dial(&mut inner, Duration::ZERO));
        true
    }

    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let waiting = Waiting::enter(self)?;
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registered before looking, so that nothing that comes free in between is missed.
            freed.as_mut().enable();
            match self.try_acquire() {
                TryAcquire::Ready(lease) => {
                    drop(waiting);
                    // Several streams may have come free at once (a raised limit): pass the word on.
                    self.wake_one();
                    return Ok(lease);
                }
                TryAcquire::Failed(error) => return Err(error),
                TryAcquire::WouldWait => freed.await,
            }
        }
    }

    /// Drains the connections and ends the attempts.
    pub(super) fn close(&self) {
        for entry in self.take_all() {
            entry.client.drain();
        }
    }

    fn take_all(&self) -> Vec<Entry> {
        self.closed.store(true, Ordering::Release);
        let mut inner = self.lock();
        let connections = std::mem::take(&mut inner.connections);
        let dials = std::mem::take(&mut inner.dials);
        drop(inner);
        drop(dials);
        self.freed.notify_waiters();
        connections
    }

    /// Whether one more attempt helps somebody who waits.
    fn wants_dial(&self, inner: &Inner) -> bool {
        // One attempt at a time backs off.
        let backs_off = inner.failing || inner.not_before > Instant::now();
        if self.is_closed() || backs_off && !inner.dials.is_empty() {
            return false;
        }
        let open = inner.connections.len() + inner.dials.len();
        match inner.connections.first().map(|e| e.client.is_multiplexed()) {
            // Nothing is known of the peer yet: the first attempt tells.
            None if self.is_http1() => self.wants_http1(inner, open),
            None => inner.dials.is_empty(),
            Some(true) => inner.dials.is_empty() && self.has_room(open, self.settings.max_connections),
            Some(false) => self.wants_http1(inner, open),
        }
    }

    /// Whether one more connection may be opened beside these. The first is always had, as in Envoy: whoever is at the
    /// limit by the connections of other keys must not starve.
    fn has_room(&self, open: usize, unless_limited: usize) -> bool {
        open == 0
            || match self.limit() {
                Some(limit) => self.open.count() < limit,
                None => open < unless_limited,
            }
    }

    fn limit(&self) -> Option<usize> {
        self.settings.limit
    }

    #[cfg(feature = "http1")]
    fn wants_http1(&self, inner: &Inner, open: usize) -> bool {
        let waiting = self.waiting.load(Ordering::SeqCst).max(1);
        inner.dials.len() < waiting && self.has_room(open, self.settings.http1.max_connections)
    }

    #[cfg(not(feature = "http1"))]
    fn wants_http1(&self, inner: &Inner, _open: usize) -> bool {
        inner.dials.is_empty()
    }

    fn is_http1(&self) -> bool {
        use mesh_core::config::cluster::UpstreamProtocol::{Auto, Http1, Http2};
        match self.key.protocol {
            Http1 => true,
            Auto => self.key.tls.is_none(),
            Http2 => false,
        }
    }

    /// Starts an attempt, of this number. Not for a group that is closed.
    fn start_dial(self: &Arc<Self>, inner: &mut Inner, delay: Duration) -> u64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let span = tracing::debug_span!(parent: None, "mesh.connect", address = %Show(&self.address));
        let task = Task::spawn(&self.runtime, span, self.clone().dial_until_connected(id, delay));
        inner.dials.push(Dial { id, _task: task, open: Some(self.open.one()) });
        id
    }

    /// Tries until it succeeds, or until nobody needs the connection any more.
    async fn dial_until_connected(self: Arc<Self>, id: u64, mut delay: Duration) {
        loop {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let began = Instant::now();
            let next = match self.dial_once(id).await {
                Ok(entry) => return self.connected(id, entry),
                Err(error) if error.kind() == ConnectFailure::GoneAway => {
                    self.gone_away().or_else(|| self.failed(id, error, began))
                }
                Err(error) => self.failed(id, error, began),
            };
            match next {
                Some(back_off) => delay = back_off,
                None => return,
            }
        }
    }

    async fn dial_once(self: &Arc<Self>, id: u64) -> Result<Entry, ConnectError> {
        let settings = &self.settings;
        let permit = match &settings.permits {
            Some(permits) => Some(permits.acquire().ok_or_else(|| {
                ConnectError::new(ConnectFailure::Limit, "the cluster is at its limit of connections")
            })?),
            None => None,
        };
        let client = dial(&self.address, &self.key, settings, id, self.clone()).await?;
        Ok(Entry { id, client, since: Instant::now(), _permit: permit, open: None })
    }

    fn connected(&self, id: u64, mut entry: Entry) {
        let mut inner = self.lock();
        let before = inner.state();
        if self.is_closed() {
            drop(inner);
            entry.client.drain();
            return;
        }
        inner.failing = false;
        inner.last_error = None;
        inner.not_before = Instant::now();
        // One more connection of a peer that serves: what failed before is over, though no connection has ended.
        if inner.connections.iter().any(|entry| entry.client.has_served()) {
            inner.back_off.reset();
        }
        let mut finished = inner.take_dial(id);
        entry.open = finished.as_mut().and_then(|dial| dial.open.take()).or_else(|| Some(self.open.one()));
        inner.connections.push(entry);
        // Of the one that was brought forward and the one that backs off, the first is enough.
        let others = inner.urgent.take().map(|_| std::mem::take(&mut inner.dials));
        tracing::info!(address = %Show(&self.address), "connected");
        self.publish(before, inner);
        self.freed.notify_waiters();
        drop(others);
        // Dropping the handle aborts this very task, which has nothing left to do.
        drop(finished);
    }

    /// How long to wait for the next attempt; none if there is no need for one.
    fn failed(&self, id: u64, error: ConnectError, began: Instant) -> Option<Duration> {
        let mut inner = self.lock();
        let before = inner.state();
        tracing::info!(address = %Show(&self.address), %error, "connect failed");
        let unused = inner.connections.is_empty();
        // At the limit it is not the peer that refuses: who waits gets the connection that comes free first.
        let waits = error.kind() == ConnectFailure::Limit && !unused;
        let was_urgent = inner.urgent.take_if(|urgent| *urgent == id).is_some();
        let beside_another = was_urgent && inner.dials.len() > 1;
        let back_off = match waits {
            true => inner.wait(),
            // Whoever backs off goes on doing so, and those that were under way together have failed once.
            false if beside_another || inner.failed_at.is_some_and(|at| began <= at) => {
                inner.fail_again(error)
            }
            false => inner.fail(error),
        };
        let needed = inner.is_refusing() || self.waiting.load(Ordering::SeqCst) > 0;
        // One attempt at a time after a failure, however many were started.
        let only = inner.dials.iter().all(|other| other.id == id);
        // A context that was replaced gets no second chance: who comes later fails at once.
        let again = needed && only && !self.retired;
        if !again && !unused && !self.retired && only {
            // Another connection works, and nobody tries on: when that one ends, the endpoint is idle.
            inner.failing = false;
        }
        let finished = if again { None } else { inner.take_dial(id) };
        self.publish(before, inner);
        // Those who wait at the limit have nothing to look for.
        if !waits {
            self.freed.notify_waiters();
        }
        if self.retired {
            self.close_if_unused();
        }
        drop(finished);
        again.then_some(back_off)
    }

    /// The peer went away before the connection was one. No failure, and so none, unless it goes on like that.
    fn gone_away(&self) -> Option<Duration> {
        tracing::info!(address = %Show(&self.address), "the peer is going away");
        let mut inner = self.lock();
        let redial = inner.losses.lost(Ending::GoAway, Duration::ZERO, None);
        inner.wait_for(redial)
    }

    /// A connection takes no more requests, or has ended.
    fn lost(self: &Arc<Self>, id: u64, ending: Ending, reason: Option<EndReason>) {
        let mut inner = self.lock();
        let before = inner.state();
        let Some(at) = inner.connections.iter().position(|e| e.id == id) else { return };
        let entry = inner.connections.swap_remove(at);
        let wanted = entry.client.is_multiplexed() && !self.retired && inner.connections.is_empty();
        if wanted && inner.dials.is_empty() && !self.is_closed() {
            let redial = inner.losses.lost(ending, entry.since.elapsed(), entry.client.record());
            if inner.losses.is_over() {
                inner.back_off.reset();
            }
            let delay = inner.wait_for(redial).unwrap_or_else(|| {
                let reason = reason.unwrap_or_else(|| EndReason::new("the peer closed the connection", None));
                inner.fail(ConnectError::of_end(reason))
            });
            self.start_dial(&mut inner, delay);
        } else if entry.client.has_served() {
            inner.back_off.reset();
        }
        self.publish(before, inner);
        self.freed.notify_waiters();
        drop(entry);
    }

    /// Ends the critical section, then tells whoever builds pickers if the state changed in it.
    fn publish(&self, before: ConnectivityState, inner: MutexGuard<'_, Inner>) {
        let changed = inner.state() != before;
        drop(inner);
        if changed
            && !self.retired
            && let Some(on_change) = &self.settings.on_change
        {
            on_change();
        }
    }

    fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    fn close_if_unused(&self) {
        let inner = self.lock();
        let used = inner.connections.iter().any(|e| e.client.in_flight() > 0);
        drop(inner);
        if !used && self.waiting.load(Ordering::SeqCst) == 0 {
            self.close();
        }
    }

    fn closed_error(&self) -> ConnectError {
        ConnectError::new(
            ConnectFailure::Closed,
            format!("{}: the endpoint was removed", Show(&self.address)),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No section leaves the lists half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionEvents for Group {
    fn slot_freed(&self) {
        self.wake_one();
        if self.retired {
            self.close_if_unused();
        }
    }

    fn draining(self: Arc<Self>, id: u64) {
        tracing::info!(address = %Show(&self.address), "the peer is going away");
        self.lost(id, Ending::GoAway, None);
    }

    fn closed(self: Arc<Self>, id: u64, reason: Option<EndReason>) {
        tracing::debug!(address = %Show(&self.address), reason = reason.as_ref().map(EndReason::text), "connection ended");
        self.lost(id, Ending::Broken, reason);
    }
}

// === impl Inner ===

impl Inner {
    /// A connection that takes no more requests is skipped: its own report is on the way.
    fn reserve(&self) -> Option<Lease> {
        self.connections.iter().find_map(|entry| entry.client.reserve().ok())
    }

    fn state(&self) -> ConnectivityState {
        if self.is_refusing() {
            ConnectivityState::TransientFailure
        } else if !self.connections.is_empty() {
            ConnectivityState::Ready
        } else if !self.dials.is_empty() {
            ConnectivityState::Connecting
        } else {
            ConnectivityState::Idle
        }
    }

    /// Whether there is nothing to wait for: the last attempt failed, and no connection takes one more request. One of
    /// HTTP/1.1 that is busy may have been told to close, which it says only with its response.
    fn is_refusing(&self) -> bool {
        self.failing && !self.connections.iter().any(|entry| entry.client.is_multiplexed())
    }

    fn take_dial(&mut self, id: u64) -> Option<Dial> {
        let at = self.dials.iter().position(|dial| dial.id == id)?;
        Some(self.dials.swap_remove(at))
    }

    /// How long to wait after a connection was lost; none if that was a failure.
    fn wait_for(&mut self, redial: Redial) -> Option<Duration> {
        match redial {
            Redial::AtOnce => Some(Duration::ZERO),
            Redial::Soon => Some(SOON),
            Redial::Later => Some(self.wait()),
            Redial::Failing => None,
        }
    }

    /// Notes a failed attempt; no other one happens before the time that it returns has passed.
    fn fail(&mut self, error: ConnectError) -> Duration {
        self.failed_at = Some(Instant::now());
        self.wait();
        self.fail_again(error)
    }

    /// The same of an attempt that is no reason to back off for longer.
    fn fail_again(&mut self, error: ConnectError) -> Duration {
        let now = Instant::now();
        self.failing = true;
        self.last_error = Some(error);
        self.urgent_not_before = now + self.waited / URGENCY;
        self.not_before.saturating_duration_since(now)
    }

    /// Takes the next wait of the back-off.
    fn wait(&mut self) -> Duration {
        let wait = self.back_off.next(&mut self.rng);
        self.waited = wait;
        self.not_before = Instant::now() + wait;
        wait
    }
}

/// One who waits.
struct Waiting<'a>(&'a Group);

impl<'a> Waiting<'a> {
    fn enter(group: &'a Group) -> Result<Self, ConnectError> {
        let this = Self(group);
        if group.waiting.fetch_add(1, Ordering::SeqCst) >= group.settings.max_waiting {
            return Err(ConnectError::new(ConnectFailure::Limit, "too many requests wait for this endpoint"));
        }
        Ok(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
