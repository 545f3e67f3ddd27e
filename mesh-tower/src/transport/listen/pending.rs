//! Connections whose TLS handshake waits for the peer, and which of them give way.
//!
//! A silent connection costs a socket and a task. Above the limit, or when connections or descriptors run out, the
//! address with the most of them loses its oldest one: an attacker displaces itself. IPv6 addresses count as one per
//! /64, which is what one host has; all peers of a unix-domain socket count as one. A connection that waits for us (its ClientHello is here) never gives way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A connection gives way to the limit only after it has waited for this long: a burst of honest clients is none.
const GRACE: Duration = Duration::from_secs(1);

/// The address of a peer, as far as it counts as one; none over a unix-domain socket.
pub(super) type Origin = Option<IpAddr>;

/// The connections of one listener that wait for their peers.
#[derive(Debug)]
pub(super) struct PendingHandshakes {
    limit: usize,
    inner: Mutex<Inner>,
}

/// Everything that changes when a connection begins or ends to wait.
#[derive(Debug, Default)]
struct Inner {
    /// By origin, oldest first.
    origins: HashMap<Origin, BTreeMap<u64, Waiting>>,
    /// The number of connections of each origin.
    ranking: BTreeSet<(usize, Origin)>,
    total: usize,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    task: Arc<OnceLock<AbortHandle>>,
}

/// The place of one connection, which waits or works.
#[derive(Debug)]
pub(super) struct Place {
    pending: Arc<PendingHandshakes>,
    origin: Origin,
    task: Arc<OnceLock<AbortHandle>>,
    /// Its number while it waits.
    waiting: Option<u64>,
}

// === impl PendingHandshakes ===

impl PendingHandshakes {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inner: Mutex::default() })
    }

    /// A connection begins to wait. Its task has yet to be set ([`Place::task`]).
    pub(super) fn enter(self: &Arc<Self>, remote: Option<IpAddr>, now: Instant) -> Place {
        let mut place = Place {
            pending: self.clone(),
            origin: remote.map(origin),
            task: Arc::new(OnceLock::new()),
            waiting: None,
        };
        place.waits(now);
        place
    }

    /// Closes connections above the limit: two for each new one, because closing thousands would take long.
    pub(super) fn trim(&self, now: Instant) {
        let mut inner = self.lock();
        for _ in 0..2 {
            if inner.total > self.limit {
                inner.close_one(|waiting| now.duration_since(waiting.since) >= GRACE);
            }
        }
    }

    /// Closes one connection, as young as it may be. False if there is none.
    pub(super) fn give_way(&self) -> bool {
        self.lock().close_one(|_| true)
    }

    /// How many wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No section panics between two changes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn insert(&mut self, origin: Origin, waiting: Waiting) -> u64 {
        let number = self.next;
        self.next += 1;
        let connections = self.origins.entry(origin).or_default();
        self.ranking.remove(&(connections.len(), origin));
        connections.insert(number, waiting);
        self.ranking.insert((connections.len(), origin));
        self.total += 1;
        number
    }

    fn remove(&mut self, origin: Origin, number: u64) -> Option<Waiting> {
        let connections = self.origins.get_mut(&origin)?;
        let waiting = connections.remove(&number)?;
        let left = connections.len();
        self.ranking.remove(&(left + 1, origin));
        if left == 0 {
            self.origins.remove(&origin);
        } else {
            self.ranking.insert((left, origin));
        }
        self.total -= 1;
        Some(waiting)
    }

    /// Closes the oldest connection of the origin with the most, if it may be closed.
    fn close_one(&mut self, may_close: impl FnOnce(&Waiting) -> bool) -> bool {
        let Some((count, origin)) = self.ranking.last().copied() else { return false };
        let oldest = self.origins.get(&origin).and_then(|connections| connections.first_key_value());
        let Some(number) = oldest.filter(|(_, waiting)| may_close(waiting)).map(|(number, _)| *number) else {
            return false;
        };
        if let Some(task) = self.remove(origin, number).as_ref().and_then(|waiting| waiting.task.get()) {
            task.abort();
        }
        tracing::debug!(
            ?origin,
            count,
            "too many connections wait for their peers; the oldest of this address was closed"
        );
        true
    }
}

// === impl Place ===

impl Place {
    /// Sets the task that drives the connection, to be aborted when it gives way.
    pub(super) fn task(&self) -> Arc<OnceLock<AbortHandle>> {
        self.task.clone()
    }

    /// The address, as far as it counts as one.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// The connection waits for its peer from now on.
    pub(super) fn waits(&mut self, now: Instant) {
        if self.waiting.is_none() {
            let waiting = Waiting { since: now, task: self.task.clone() };
            self.waiting = Some(self.pending.lock().insert(self.origin, waiting));
        }
    }

    /// The connection waits for us from now on, and gives way to nobody.
    pub(super) fn works(&mut self) {
        if let Some(number) = self.waiting.take() {
            self.pending.lock().remove(self.origin, number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.works();
    }
}

/// What counts as one address.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & NETWORK)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The first 64 bits.
const NETWORK: u128 = !(u64::MAX as u128);

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    /// Connections that wait for ever.
    struct World {
        pending: Arc<PendingHandshakes>,
        tasks: JoinSet<&'static str>,
    }

    impl World {
        fn new(limit: usize) -> Self {
            Self { pending: PendingHandshakes::new(limit), tasks: JoinSet::new() }
        }

        fn connect(&mut self, address: &'static str) {
            let place = self.pending.enter(Some(address.parse().unwrap()), Instant::now());
            let task = place.task();
            let handle = self.tasks.spawn(async move {
                let _place = place;
                std::future::pending().await
            });
            task.set(handle).unwrap();
        }

        /// The connections of these addresses that are left.
        async fn left(&mut self, addresses: &[&'static str]) -> Vec<usize> {
            tokio::task::yield_now().await;
            while self.tasks.try_join_next().is_some() {}
            let inner = self.pending.lock();
            let count = |address: &&str| {
                inner.origins.get(&Some(origin(address.parse().unwrap()))).map_or(0, BTreeMap::len)
            };
            addresses.iter().map(count).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_with_the_most_waiting_connections_gives_way_first() {
        let mut world = World::new(10);
        let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        for (address, count) in addresses.into_iter().zip([9, 4, 1]) {
            for _ in 0..count {
                world.connect(address);
            }
        }
        world.pending.trim(Instant::now());
        assert_eq!(world.left(&addresses).await, [9, 4, 1], "all of them are young");
        tokio::time::advance(GRACE).await;
        world.pending.trim(Instant::now());
        assert_eq!(world.left(&addresses).await, [7, 4, 1], "two at a time");
        for _ in 0..10 {
            world.pending.trim(Instant::now());
        }
        assert_eq!(world.left(&addresses).await, [5, 4, 1]);
        while world.pending.waiting() > 3 {
            assert!(world.pending.give_way());
        }
        assert_eq!(world.left(&addresses).await, [1, 1, 1]);
        assert!(world.tasks.len() <= 3, "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_displaces_its_own_connections_oldest_first() {
        let mut world = World::new(4);
        for _ in 0..1_000 {
            world.connect("2001:db8::1");
            world.connect("2001:db8::2");
            tokio::time::advance(Duration::from_millis(300)).await;
            world.pending.trim(Instant::now());
        }
        world.connect("10.0.0.1");
        world.connect("::ffff:10.0.0.1");
        world.pending.trim(Instant::now());
        assert_eq!(world.left(&["2001:db8::", "10.0.0.1"]).await, [6, 2], "two each 300 ms within the grace");
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_us_never_gives_way() {
        let mut world = World::new(0);
        let mut place = world.pending.enter(Some("10.0.0.1".parse().unwrap()), Instant::now());
        place.works();
        assert!(!world.pending.give_way());
        place.waits(Instant::now());
        assert_eq!(world.left(&["10.0.0.1"]).await, [1]);
        drop(place);
        assert_eq!((world.pending.waiting(), world.pending.give_way()), (0, false));
        assert!(world.pending.lock().ranking.is_empty() && world.pending.lock().origins.is_empty());
    }
}
