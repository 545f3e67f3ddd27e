//! One endpoint's connections.
//!
//! Connections belong to a [`ConnectionKey`]: a request only ever travels over a connection of its own pinned TLS
//! context and protocol. They are opened in the background: a request waits for the first attempt, but once an
//! attempt has failed no request waits for the next one, which happens after a back-off (gRFC: 1 s × 1.6 ± 20 %, at
//! most 120 s). Only calls that have nowhere else to go bring the next one forward ([`EndpointPool::may_be_back`]). A
//! connection of HTTP/1.1 that is busy is nothing to wait for at an endpoint that failed: it may have been told to
//! close, which it says only with its response. A connection that the peer ends is not a failed attempt: the next one is opened at once, until several
//! in a row have served nobody (`losses`).
//!
//! An HTTP/2 endpoint has one connection, and one more when all are at the peer's stream limit, up to
//! [`PoolSettings::max_connections`]; one of HTTP/1.1 has as many as there are requests, up to
//! [`Http1Settings::max_connections`]. [`PoolSettings::limit`] is one for both. At the limit requests wait, up to
//! [`PoolSettings::max_waiting`]. The limit that the
//! cluster's configuration sets for waiting requests is the caller's to apply: [`EndpointPool::try_acquire`] tells
//! whether a request would wait.
//!
//! A changed TLS context ([`EndpointPool::set_tls`]) drains the connections of the old one. A request that was
//! pinned before the change may still come; it gets a fresh connection of its own context, which closes when it is
//! unused.
//!
//! ```text
//! Idle ──request, connect_soon──► Connecting ──ok──► Ready ──GOAWAY, closed──► Connecting (HTTP/2), Idle (HTTP/1.1)
//!                                      │ failed       └──closed, again without having served──┐
//!                                      ├──────────────────────────────────────────────────────┘
//!                                      ▼
//!                              TransientFailure ──back-off, attempt in the background──► Ready
//! ```

mod group;
pub(super) mod losses;
mod open;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::config::cluster::ClusterConfig;
use mesh_core::config::endpoints::Address;
use tokio::runtime::Handle;

use self::group::Group;
use self::open::Open;
pub(crate) use super::client::{Lease, ResponseFuture};
use super::connect::{ConnectionKey, Connector, same_tls};
use super::error::ConnectError;
#[cfg(feature = "http1")]
use super::h1::Http1Settings;
#[cfg(feature = "http2")]
use super::h2::{Http2Settings, KeepAlive, guard::ReceiveBudget};
use crate::tls::client::ClientTls;

/// gRPC's connectivity states (an endpoint that was shut down is gone, so there is no fifth one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ConnectivityState {
    /// No connection, and none is being opened.
    #[default]
    Idle,
    /// The first attempt is under way.
    Connecting,
    /// At least one connection takes requests.
    Ready,
    /// The last attempt failed; it stays so until an attempt succeeds.
    TransientFailure,
}

/// What an endpoint's connections have in common.
#[derive(Clone)]
pub(crate) struct PoolSettings {
    /// Opens byte streams.
    pub(crate) connector: Arc<dyn Connector>,
    /// One attempt may take this long, TLS and HTTP preface included.
    pub(crate) connect_timeout: Duration,
    /// HTTP/2.
    #[cfg(feature = "http2")]
    pub(crate) http2: Http2Settings,
    /// What the unread responses of all pools together may cost.
    #[cfg(feature = "http2")]
    pub(crate) budget: Arc<ReceiveBudget>,
    /// HTTP/1.1.
    #[cfg(feature = "http1")]
    pub(crate) http1: Http1Settings,
    /// Connections of the endpoint, whatever their protocol and TLS context, instead of the limits of each protocol:
    /// `per_host_thresholds[0].max_connections`. None by default.
    pub(crate) limit: Option<usize>,
    /// HTTP/2 connections per endpoint, default 10: enough for 1,000 streams at the usual limit of 100, few enough
    /// that an overloaded peer is not stormed.
    pub(crate) max_connections: usize,
    /// Requests of this endpoint that may wait for a connection or a stream. The cluster's own limit comes first.
    pub(crate) max_waiting: usize,
    /// The cluster's budget of connections, if it has one.
    pub(crate) permits: Option<Arc<dyn ConnectionPermits>>,
    /// Called after [`EndpointPool::state`] may have changed, from any thread; it must return at once.
    pub(crate) on_change: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The cluster's `max_connections`.
pub(crate) trait ConnectionPermits: Send + Sync {
    /// A permit that lives as long as the connection; none when the cluster is at its limit.
    fn acquire(&self) -> Option<ConnectionPermit>;
}

/// Given back on drop.
pub(crate) type ConnectionPermit = Box<dyn Any + Send + Sync>;

/// One endpoint's connections. Dropping it drains them: calls in flight finish, nothing new starts.
pub(crate) struct EndpointPool {
    address: Address,
    settings: Arc<PoolSettings>,
    runtime: Handle,
    open: Open,
    groups: Mutex<Groups>,
}

#[derive(Default)]
struct Groups {
    list: Vec<Arc<Group>>,
    /// Set by the first [`EndpointPool::set_tls`]; until then every context is current.
    current: Option<Option<Arc<ClientTls>>>,
}

/// What [`EndpointPool::try_acquire`] found.
#[derive(Debug)]
pub(crate) enum TryAcquire {
    /// Send now.
    Ready(Lease),
    /// A connection or a stream must come free first.
    WouldWait,
    /// The endpoint is in [`ConnectivityState::TransientFailure`].
    Failed(ConnectError),
}

// === impl PoolSettings ===

impl PoolSettings {
    /// Defaults of everything but the connector.
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self {
            connector,
            connect_timeout: ClusterConfig::CONNECT_TIMEOUT,
            #[cfg(feature = "http2")]
            http2: Http2Settings::default(),
            #[cfg(feature = "http2")]
            budget: Arc::default(),
            #[cfg(feature = "http1")]
            http1: Http1Settings::default(),
            limit: None,
            max_connections: 10,
            max_waiting: 1024,
            permits: None,
            on_change: None,
        }
    }

    /// The same, with what a cluster says about connections.
    #[must_use]
    pub(crate) fn with_cluster(mut self, cluster: &ClusterConfig) -> Self {
        self.connect_timeout = cluster.connect_timeout;
        #[cfg(feature = "http2")]
        {
            self.http2.keepalive = cluster.keepalive.map(|keepalive| KeepAlive {
                interval: keepalive.interval,
                timeout: keepalive.timeout,
                while_idle: false,
            });
        }
        let limit = cluster.limits.max_connections_per_endpoint;
        self.limit = limit.map(|limit| usize::try_from(limit.get()).unwrap_or(usize::MAX));
        self
    }
}

impl fmt::Debug for PoolSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolSettings")
            .field("connector", &self.connector)
            .field("connect_timeout", &self.connect_timeout)
            .field("limit", &self.limit)
            .field("max_connections", &self.max_connections)
            .field("max_waiting", &self.max_waiting)
            .finish_non_exhaustive()
    }
}

// === impl EndpointPool ===

impl EndpointPool {
    /// A pool without connections; nothing is opened before it is needed or asked for. Its tasks run on `runtime`.
    pub(crate) fn new(address: Address, settings: PoolSettings, runtime: Handle) -> Self {
        Self {
            address,
            settings: Arc::new(settings),
            runtime,
            open: Open::default(),
            groups: Mutex::default(),
        }
    }

    /// The best state of the connections of the current TLS context.
    pub(crate) fn state(&self) -> ConnectivityState {
        let rank = |state: &ConnectivityState| match state {
            ConnectivityState::Idle => 0,
            ConnectivityState::TransientFailure => 1,
            ConnectivityState::Connecting => 2,
            ConnectivityState::Ready => 3,
        };
        let groups = self.lock();
        let states = groups.list.iter().filter(|g| !g.is_retired()).map(|g| g.state());
        states.max_by_key(rank).unwrap_or_default()
    }

    /// Why the last attempt failed, while no connection of the current context is open.
    pub(crate) fn last_error(&self) -> Option<ConnectError> {
        self.lock().list.iter().filter(|g| !g.is_retired()).find_map(|g| g.last_error())
    }

    /// Connections that take requests.
    pub(crate) fn connections(&self) -> usize {
        self.lock().list.iter().map(|g| g.connections()).sum()
    }

    /// Opens a connection in the background, if there is none and no attempt is under way or backing off.
    pub(crate) fn connect_soon(&self, key: &ConnectionKey) {
        self.group(key).connect_soon();
    }

    /// Whether a call that has nowhere else to go may try an endpoint that failed: it has a connection that is free, or
    /// an attempt is made at once. There is none sooner than an eighth of the back-off after the last one, and none
    /// where that one took all of its time, or failed for the identity of either side.
    pub(crate) fn may_be_back(&self, key: &ConnectionKey) -> bool {
        let group = self.lock().find(key).cloned();
        group.is_some_and(|group| group.may_be_back())
    }

    /// Takes a free stream of an open connection, or says at once why there is none. Where a request would wait,
    /// a connection is being opened when this returns.
    pub(crate) fn try_acquire(&self, key: &ConnectionKey) -> TryAcquire {
        let ready = self.lock().find(key).and_then(|group| group.reserve());
        ready.map_or_else(|| self.group(key).try_acquire(), TryAcquire::Ready)
    }

    /// Takes a stream, and waits for one while the endpoint is not in
    /// [`ConnectivityState::TransientFailure`].
    ///
    /// Cancel safe: a dropped future takes nothing.
    ///
    /// # Errors
    /// The connection error that made the endpoint unavailable, or that too many requests wait.
    pub(crate) async fn acquire(&self, key: &ConnectionKey) -> Result<Lease, ConnectError> {
        let group = self.group(key);
        group.acquire().await
    }

    /// Makes `tls` the current context. Connections of other contexts take no more requests.
    pub(crate) fn set_tls(&self, tls: Option<Arc<ClientTls>>) {
        let mut groups = self.lock();
        groups.list.retain(|group| !group.is_closed());
        let (kept, retired): (Vec<_>, Vec<_>) =
            groups.list.drain(..).partition(|g| same_tls(g.key().tls.as_ref(), tls.as_ref()));
        groups.list = kept;
        groups.current = Some(tls);
        drop(groups);
        for group in retired {
            group.close();
        }
        self.changed();
    }

    fn changed(&self) {
        if let Some(on_change) = &self.settings.on_change {
            on_change();
        }
    }

    fn group(&self, key: &ConnectionKey) -> Arc<Group> {
        let mut groups = self.lock();
        if let Some(group) = groups.find(key) {
            return group.clone();
        }
        groups.list.retain(|group| !group.is_closed());
        let retired = match &groups.current {
            Some(tls) => !same_tls(tls.as_ref(), key.tls.as_ref()),
            None => false,
        };
        let (address, key, open) = (self.address.clone(), key.clone(), self.open.clone());
        let group = Group::new(address, key, self.settings.clone(), &self.runtime, open, retired);
        groups.list.push(group.clone());
        group
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Groups> {
        // A list of `Arc`s is never half changed.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EndpointPool {
    fn drop(&mut self) {
        for group in std::mem::take(&mut self.lock().list) {
            group.close();
        }
    }
}

impl fmt::Debug for EndpointPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPool")
            .field("address", &self.address)
            .field("state", &self.state())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

// === impl Groups ===

impl Groups {
    fn find(&self, key: &ConnectionKey) -> Option<&Arc<Group>> {
        self.list.iter().find(|group| group.key().is_same(key) && !group.is_closed())
    }
}
