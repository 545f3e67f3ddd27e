//! Who holds how much of the requests that a server takes on at once, and who gives way when all of them are taken.
//!
//! Place in the stack: with [`concurrency`](super::concurrency). A connection has a share of
//! [`ServerLimits::requests`], and a peer address where one is set. When all requests are out and somebody asks who
//! holds clearly less than the heaviest (a half at most), the heaviest connection is closed, and who asks is served at
//! once, on the account of the requests that are ending with it. Nobody gives way to an equal, and nobody who holds few.
//!
//! While there is room a request costs one comparison. Heavy connections are listed when they become heavy, at most
//! [`HEAVY`] of them can be, and the list is walked only while all requests are out.
//!
//! [`ServerLimits::requests`]: crate::server::ServerLimits::requests

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use mesh_core::error::{Reason, Rejection};

use super::ServerLimits;
use super::concurrency::{Permit, Permits};
use super::peer::{AcceptedPeer, Connection, RemoteOf};

/// The shares of one server.
pub(crate) struct Shares {
    limit: usize,
    per_connection: usize,
    /// Who holds fewer than this holds few.
    few: usize,
    /// Nothing has to be looked at while a connection holds fewer than this.
    unwatched: usize,
    heavy: Mutex<Heavy>,
    addresses: Option<Addresses>,
    /// Requests in flight of connections that were told to give way.
    leaving: AtomicUsize,
}

/// What has become heavy since the last look; who is not any more is left out at the next.
#[derive(Default)]
struct Heavy {
    connections: Vec<Weak<Connection>>,
    addresses: Vec<Weak<Address>>,
}

struct Addresses {
    share: usize,
    /// Addresses with connections, and some that had.
    known: Mutex<HashMap<IpAddr, Weak<Address>>>,
}

/// The connections of one peer address.
struct Address {
    ip: IpAddr,
    in_flight: AtomicUsize,
    listed: AtomicBool,
    connections: Mutex<Vec<Weak<Connection>>>,
}

/// A connection's part.
#[derive(Default)]
pub(crate) struct Holding {
    address: Option<Arc<Address>>,
    listed: AtomicBool,
    told: AtomicBool,
    /// Of the requests that were in flight when it was told, those that still are.
    leaving: Mutex<usize>,
    /// Who ends the connection.
    waker: Mutex<Option<Waker>>,
}

// === impl Shares ===

impl Shares {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        let limit = limits.requests;
        let per_connection = limits.requests_per_connection.unwrap_or_else(|| (limit / 2).max(1));
        let few = (limit / HEAVY).max(FEW);
        let addresses =
            limits.requests_per_address.map(|share| Addresses { share, known: Mutex::new(HashMap::new()) });
        Self {
            limit,
            per_connection,
            few,
            unwatched: few.min(per_connection.saturating_add(1)),
            heavy: Mutex::default(),
            addresses,
            leaving: AtomicUsize::new(0),
        }
    }

    /// The part of a new connection.
    pub(super) fn holding(&self, remote: Option<SocketAddr>) -> Holding {
        let address = self.addresses.as_ref().zip(remote).map(|(all, remote)| all.find(remote.ip()));
        Holding { address, ..Holding::default() }
    }

    /// A permit for a request that has begun, within the shares of whom it is from.
    pub(super) fn acquire(&self, requests: &Permits, peer: &AcceptedPeer) -> Result<Permit, Rejection> {
        let connection = peer.connection();
        let held = connection.activity.in_flight();
        if held >= self.unwatched {
            self.watch(connection, held)?;
        }
        if let Some(address) = &connection.holding.address {
            self.watch_address(address)?;
        }
        match requests.try_acquire() {
            Some(permit) => Ok(permit),
            None => self.press(requests, connection).ok_or_else(|| Rejection::new(Reason::ServerOverload)),
        }
    }

    #[cold]
    fn watch(&self, connection: &Arc<Connection>, held: usize) -> Result<(), Rejection> {
        if held > self.per_connection {
            return Err(Rejection::new(Reason::ServerOverload).with_detail("the connection has its share"));
        }
        if held >= self.few && !connection.holding.listed.swap(true, Ordering::Relaxed) {
            lock(&self.heavy).connections.push(Arc::downgrade(connection));
        }
        Ok(())
    }

    /// A connection is gone.
    pub(super) fn left(&self, holding: &Holding) {
        // Whoever holds the lock may be who drops the connection; then the next look leaves it out.
        if holding.listed.load(Ordering::Relaxed)
            && let Ok(mut heavy) = self.heavy.try_lock()
        {
            heavy.connections.retain(|connection| connection.strong_count() > 0);
        }
    }

    fn watch_address(&self, address: &Arc<Address>) -> Result<(), Rejection> {
        let held = address.in_flight.load(Ordering::Relaxed);
        if self.addresses.as_ref().is_some_and(|all| held > all.share) {
            return Err(Rejection::new(Reason::ServerOverload).with_detail("the address has its share"));
        }
        let is_listed = held < self.few || address.listed.load(Ordering::Relaxed);
        if !is_listed && !address.listed.swap(true, Ordering::Relaxed) {
            let mut heavy = lock(&self.heavy);
            heavy.addresses.retain(|address| address.strong_count() > 0);
            heavy.addresses.push(Arc::downgrade(address));
        }
        Ok(())
    }

    /// All requests are out: a permit if somebody gives way.
    #[cold]
    fn press(&self, requests: &Permits, asks: &Arc<Connection>) -> Option<Permit> {
        // One at a time, so that each sees what the one before has made room for.
        let mut heavy = lock(&self.heavy);
        let permit = requests.enter();
        if requests.used() <= self.limit.saturating_add(self.leaving.load(Ordering::Relaxed)) {
            return Some(permit);
        }
        let heaviest = match &asks.holding.address {
            None => self.heaviest(&mut heavy, asks).into_iter().collect(),
            Some(address) => self.heaviest_of_addresses(&mut heavy, address, asks),
        };
        for connection in &heaviest {
            self.tell(connection);
        }
        (!heaviest.is_empty()).then_some(permit)
    }

    /// The heaviest connection, if it is clearly heavier than the one that asks.
    fn heaviest(&self, heavy: &mut Heavy, asks: &Connection) -> Option<Arc<Connection>> {
        let mut most = asks.activity.in_flight().saturating_mul(CLEARLY).max(self.few);
        let mut heaviest = None;
        heavy.connections.retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let held = connection.activity.in_flight();
            let is_heavy = held >= self.few && !connection.holding.is_told();
            if !is_heavy {
                connection.holding.listed.store(false, Ordering::Relaxed);
            } else if held >= most {
                most = held;
                heaviest = Some(connection);
            }
            is_heavy
        });
        heaviest
    }

    /// Connections of the heaviest address, if it is clearly heavier than the one that asks; else the heaviest
    /// connection of the address that asks, by the same measure.
    fn heaviest_of_addresses(
        &self,
        heavy: &mut Heavy,
        own: &Arc<Address>,
        asks: &Connection,
    ) -> Vec<Arc<Connection>> {
        let mut most = own.in_flight.load(Ordering::Relaxed).saturating_mul(CLEARLY).max(self.few);
        let mut heaviest = None;
        heavy.addresses.retain(|address| {
            let Some(address) = address.upgrade() else { return false };
            let held = address.in_flight.load(Ordering::Relaxed);
            let is_heavy = held >= self.few;
            if !is_heavy {
                address.listed.store(false, Ordering::Relaxed);
            } else if held >= most {
                most = held;
                heaviest = Some(address);
            }
            is_heavy
        });
        if let Some(address) = heaviest {
            let mut freed = 0;
            let mut connections = address.by_weight();
            connections.retain(|(held, _)| {
                let is_needed = freed < self.few;
                freed += held;
                is_needed
            });
            return connections.into_iter().map(|(_, connection)| connection).collect();
        }
        let least = asks.activity.in_flight().saturating_mul(CLEARLY).max(self.few);
        let first = own.by_weight().into_iter().next();
        first.filter(|(held, _)| *held >= least).map(|(_, connection)| connection).into_iter().collect()
    }

    /// Tells a connection to give way; what it holds is given to others from now on.
    fn tell(&self, connection: &Connection) {
        let holding = &connection.holding;
        holding.told.store(true, Ordering::Release);
        let held = {
            let mut leaving = lock(&holding.leaving);
            let held = connection.activity.counted();
            *leaving += held;
            self.leaving.fetch_add(held, Ordering::Relaxed);
            held
        };
        let remote = RemoteOf(&connection.peer);
        let address = holding.address.as_ref().map(|address| address.ip);
        tracing::warn!(
            %remote,
            ?address,
            requests = held,
            "closed: at the limit of requests, the heaviest gives way"
        );
        let waker = lock(&holding.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// === impl Addresses ===

impl Addresses {
    fn find(&self, ip: IpAddr) -> Arc<Address> {
        let ip = one_peer(ip);
        let mut known = lock(&self.known);
        if let Some(address) = known.get(&ip).and_then(Weak::upgrade) {
            return address;
        }
        if known.len() == known.capacity() {
            known.retain(|_, address| address.strong_count() > 0);
        }
        let address = Arc::new(Address {
            ip,
            in_flight: AtomicUsize::new(0),
            listed: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        known.insert(ip, Arc::downgrade(&address));
        address
    }
}

// === impl Address ===

impl Address {
    /// Its connections that hold something and were not told yet, the heaviest first.
    fn by_weight(&self) -> Vec<(usize, Arc<Connection>)> {
        let connections = lock(&self.connections);
        let of = |connection: &Weak<Connection>| {
            let connection = connection.upgrade()?;
            let held = connection.activity.in_flight();
            (held > 0 && !connection.holding.is_told()).then_some((held, connection))
        };
        let mut found: Vec<_> = connections.iter().filter_map(of).collect();
        drop(connections);
        found.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        found
    }
}

// === impl Holding ===

impl Holding {
    /// The connection is complete.
    pub(super) fn joined(&self, connection: &Arc<Connection>) {
        let Some(address) = &self.address else { return };
        let mut connections = lock(&address.connections);
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(connection));
    }

    pub(super) fn request_began(&self) {
        if let Some(address) = &self.address {
            address.in_flight.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// After the connection's activity has counted it.
    pub(super) fn request_ended(&self, shares: &Shares) {
        if let Some(address) = &self.address {
            address.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if self.is_told() {
            let mut leaving = lock(&self.leaving);
            if *leaving > 0 {
                *leaving -= 1;
                shares.leaving.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the connection was told to give way.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Ready once the connection was told to give way. The last one to ask is woken; `known` is whom it has asked for
    /// before, so that asking again costs no lock.
    pub(crate) fn poll_told(&self, known: &mut Option<Waker>, cx: &Context<'_>) -> Poll<()> {
        if self.told.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        *known = Some(cx.waker().clone());
        let mut waker = lock(&self.waker);
        // Told between the look and the lock: whoever told has found nobody to wake.
        if self.told.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What counts as one peer: whoever has an IPv6 address has all of its /64.
fn one_peer(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & (u128::MAX << 64))),
        ip @ IpAddr::V4(_) => ip,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who holds fewer than the limit divided by this is not heavy, so that at most so many are.
const HEAVY: usize = 1_024;
/// Fewer than this are few, whatever the limit.
const FEW: usize = 4;
/// How many times as much is clearly more.
const CLEARLY: usize = 2;

#[cfg(test)]
mod tests;
