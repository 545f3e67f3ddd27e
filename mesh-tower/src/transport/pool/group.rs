//! The connections of one key.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::config::endpoints::Address;
use mesh_core::retry::backoff::BackOff;
use mesh_core::rng::Xoshiro;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{ConnectionPermit, ConnectivityState, PoolSettings, TryAcquire};
use crate::transport::ConnectionEvents;
use crate::transport::client::{Client, Lease};
use crate::transport::connect::{ConnectionKey, Show, dial};
use crate::transport::error::{ConnectError, ConnectFailure};
use crate::transport::task::Task;

/// A connection that the peer ends within this time of its start without an answer counts as a failed attempt, a
/// GOAWAY from the second one on: a peer that accepts and hangs up must not be dialled in a tight loop.
const FLAPPING: Duration = Duration::from_secs(1);

/// The connections of one key, and the attempts to get more.
pub(super) struct Group {
    address: Address,
    key: ConnectionKey,
    settings: Arc<ArcSwap<PoolSettings>>,
    runtime: Handle,
    /// Of a TLS context that is no longer current: closes when it is unused.
    retired: bool,
    closed: AtomicBool,
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
    dials: Vec<(u64, Task)>,
    /// The last attempt failed.
    failing: bool,
    /// The last connection was told to go away right after its start.
    short_lived: bool,
    back_off: BackOff,
    last_error: Option<ConnectError>,
    /// No attempt before this, after a failed one.
    not_before: Instant,
    rng: Xoshiro,
}

struct Entry {
    id: u64,
    client: Client,
    since: Instant,
    _permit: Option<ConnectionPermit>,
}

// === impl Group ===

impl Group {
    pub(super) fn new(
        address: Address,
        key: ConnectionKey,
        settings: Arc<ArcSwap<PoolSettings>>,
        runtime: &Handle,
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
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            ids: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                connections: Vec::new(),
                dials: Vec::new(),
                failing: false,
                short_lived: false,
                back_off: BackOff::connection(),
                last_error: None,
                not_before: Instant::now(),
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
        if inner.connections.is_empty() && inner.dials.is_empty() {
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
        if inner.state() == ConnectivityState::TransientFailure || self.is_closed() {
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

    pub(super) fn abort(&self) {
        for entry in self.take_all() {
            entry.client.abort();
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
        if self.is_closed() || inner.failing && !inner.dials.is_empty() {
            return false;
        }
        let open = inner.connections.len() + inner.dials.len();
        match inner.connections.first().map(|e| e.client.is_multiplexed()) {
            // Nothing is known of the peer yet: the first attempt tells.
            None if self.is_http1() => self.wants_http1(inner, open),
            None => inner.dials.is_empty(),
            Some(true) => inner.dials.is_empty() && open < self.settings.load().max_connections.max(1),
            Some(false) => self.wants_http1(inner, open),
        }
    }

    #[cfg(feature = "http1")]
    fn wants_http1(&self, inner: &Inner, open: usize) -> bool {
        let waiting = self.waiting.load(Ordering::SeqCst).max(1);
        inner.dials.len() < waiting && open < self.settings.load().http1.max_connections.max(1)
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

    fn start_dial(self: &Arc<Self>, inner: &mut Inner, delay: Duration) {
        if self.is_closed() {
            return;
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let span = tracing::debug_span!(parent: None, "mesh.connect", address = %Show(&self.address));
        let task = Task::spawn(&self.runtime, span, self.clone().dial_until_connected(id, delay));
        inner.dials.push((id, task));
    }

    /// Tries until it succeeds, or until nobody needs the connection any more.
    async fn dial_until_connected(self: Arc<Self>, id: u64, mut delay: Duration) {
        loop {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            let error = match self.dial_once(id).await {
                Ok(entry) => return self.connected(id, entry),
                Err(error) => error,
            };
            match self.failed(id, error) {
                Some(back_off) => delay = back_off,
                None => return,
            }
        }
    }

    async fn dial_once(self: &Arc<Self>, id: u64) -> Result<Entry, ConnectError> {
        let settings = self.settings.load_full();
        let permit = match &settings.permits {
            Some(permits) => Some(permits.acquire().ok_or_else(|| {
                ConnectError::new(ConnectFailure::Limit, "the cluster is at its limit of connections")
            })?),
            None => None,
        };
        let client = dial(&self.address, &self.key, &settings, id, self.clone()).await?;
        Ok(Entry { id, client, since: Instant::now(), _permit: permit })
    }

    fn connected(&self, id: u64, entry: Entry) {
        let mut inner = self.lock();
        let before = inner.state();
        if self.is_closed() {
            drop(inner);
            entry.client.drain();
            return;
        }
        inner.failing = false;
        inner.last_error = None;
        inner.connections.push(entry);
        let finished = inner.take_dial(id);
        tracing::info!(address = %Show(&self.address), "connected");
        self.publish(before, inner);
        self.freed.notify_waiters();
        // Dropping the handle aborts this very task, which has nothing left to do.
        drop(finished);
    }

    /// How long to wait for the next attempt; none if there is no need for one.
    fn failed(&self, id: u64, error: ConnectError) -> Option<Duration> {
        let mut inner = self.lock();
        let before = inner.state();
        tracing::info!(address = %Show(&self.address), %error, "connect failed");
        let back_off = inner.fail(error);
        let needed = inner.connections.is_empty();
        let waited_for = self.waiting.load(Ordering::SeqCst) > 0 && !inner.connections.is_empty();
        // One attempt at a time after a failure, however many were started.
        let only = inner.dials.iter().all(|(other, _)| *other == id);
        // A context that was replaced gets no second chance: who comes later fails at once.
        let again = (needed || waited_for) && only && !self.retired;
        let finished = if again { None } else { inner.take_dial(id) };
        self.publish(before, inner);
        self.freed.notify_waiters();
        if self.retired {
            self.close_if_unused();
        }
        drop(finished);
        again.then_some(back_off)
    }

    /// A connection takes no more requests, or has ended.
    fn lost(self: &Arc<Self>, id: u64, graceful: bool, reason: Option<Arc<str>>) {
        let mut inner = self.lock();
        let before = inner.state();
        let Some(at) = inner.connections.iter().position(|e| e.id == id) else { return };
        let entry = inner.connections.swap_remove(at);
        let wanted = entry.client.is_multiplexed() && !self.retired && inner.connections.is_empty();
        if wanted && inner.dials.is_empty() && !self.is_closed() {
            let short = entry.since.elapsed() < FLAPPING && !entry.client.has_served();
            let flapping = short && (!graceful || inner.short_lived);
            inner.short_lived = short;
            let delay = if flapping {
                let reason = reason.unwrap_or_else(|| "the peer closed the connection".into());
                inner.fail(ConnectError::new(ConnectFailure::Io, reason))
            } else {
                if !short {
                    inner.back_off.reset();
                }
                Duration::ZERO
            };
            self.start_dial(&mut inner, delay);
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
            && let Some(on_change) = &self.settings.load().on_change
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
        self.lost(id, true, None);
    }

    fn closed(self: Arc<Self>, id: u64, reason: Option<Arc<str>>) {
        tracing::debug!(address = %Show(&self.address), reason = reason.as_deref(), "connection ended");
        self.lost(id, false, reason);
    }
}

// === impl Inner ===

impl Inner {
    /// A connection that takes no more requests is skipped: its own report is on the way.
    fn reserve(&self) -> Option<Lease> {
        self.connections.iter().find_map(|entry| entry.client.reserve().ok())
    }

    fn state(&self) -> ConnectivityState {
        if !self.connections.is_empty() {
            ConnectivityState::Ready
        } else if self.failing {
            ConnectivityState::TransientFailure
        } else if !self.dials.is_empty() {
            ConnectivityState::Connecting
        } else {
            ConnectivityState::Idle
        }
    }

    fn take_dial(&mut self, id: u64) -> Option<Task> {
        let at = self.dials.iter().position(|(dial, _)| *dial == id)?;
        Some(self.dials.swap_remove(at).1)
    }

    /// Notes a failed attempt; no other one happens before the time that it returns has passed.
    fn fail(&mut self, error: ConnectError) -> Duration {
        self.failing = true;
        self.last_error = Some(error);
        let wait = self.back_off.next(&mut self.rng);
        self.not_before = Instant::now() + wait;
        wait
    }
}

/// One who waits.
struct Waiting<'a>(&'a Group);

impl<'a> Waiting<'a> {
    fn enter(group: &'a Group) -> Result<Self, ConnectError> {
        let this = Self(group);
        if group.waiting.fetch_add(1, Ordering::SeqCst) >= group.settings.load().max_waiting {
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
