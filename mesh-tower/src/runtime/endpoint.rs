//! One endpoint of a cluster: its connections, and what is in flight to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http::{Request, Response};
use mesh_core::config::endpoints::Address;
use mesh_core::lb::Connectivity;
use mesh_core::outcome::Outcome;

use crate::body::Body;
use crate::transport::connect::ConnectionKey;
use crate::transport::error::{ConnectError, SendError};
use crate::transport::pool::{ConnectivityState, EndpointPool};

/// Answers requests in the place of connections: memory instead of sockets, for tests and benchmarks of a whole
/// application without a network. Everything above it (routing, balancing, retries, limits) is the production stack.
pub trait Upstream: Send + Sync + fmt::Debug {
    /// Answers one attempt that was balanced to `endpoint`.
    fn send(&self, endpoint: &Address, request: Request<Body>) -> UpstreamFuture;

    /// Whether the endpoint can be reached.
    fn state(&self, _endpoint: &Address) -> ConnectivityState {
        ConnectivityState::Ready
    }
}

/// A response head to come.
pub type UpstreamFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, SendError>> + Send>>;

/// An endpoint. Removing it from its cluster drains its connections once the last request on it has ended.
#[derive(Debug)]
pub(crate) struct EndpointRuntime {
    address: Address,
    link: Link,
    in_flight: AtomicU32,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// Where requests to an endpoint go.
#[derive(Debug)]
pub(crate) enum Link {
    Pool(EndpointPool),
    InProcess(Arc<dyn Upstream>),
}

/// One request in flight to an endpoint; dropping it ends that.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<EndpointRuntime>);

// === impl EndpointRuntime ===

impl EndpointRuntime {
    pub(crate) fn new(address: Address, link: Link) -> Arc<Self> {
        Arc::new(Self {
            address,
            link,
            in_flight: AtomicU32::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Requests in flight, response bodies included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn connectivity(&self) -> Connectivity {
        let state = match &self.link {
            Link::Pool(pool) => pool.state(),
            Link::InProcess(upstream) => upstream.state(&self.address),
        };
        match state {
            ConnectivityState::Idle => Connectivity::Idle,
            ConnectivityState::Connecting => Connectivity::Connecting,
            ConnectivityState::Ready => Connectivity::Ready,
            ConnectivityState::TransientFailure => Connectivity::TransientFailure,
        }
    }

    pub(crate) fn connect_soon(&self, key: &ConnectionKey) {
        if let Link::Pool(pool) = &self.link {
            pool.connect_soon(key);
        }
    }

    /// Whether a call that has nowhere else to go may try this endpoint, although it failed.
    pub(crate) fn may_be_back(&self, key: &ConnectionKey) -> bool {
        match &self.link {
            Link::Pool(pool) => pool.may_be_back(key),
            Link::InProcess(_) => false,
        }
    }

    /// Why no connection could be had, where that is so.
    pub(crate) fn last_error(&self) -> Option<ConnectError> {
        match &self.link {
            Link::Pool(pool) => pool.last_error(),
            Link::InProcess(_) => None,
        }
    }

    /// Takes how an attempt ended.
    pub(crate) fn record(&self, outcome: Outcome) {
        match outcome {
            Outcome::Cancelled => {}
            ended if ended.is_success() => _ = self.succeeded.fetch_add(1, Ordering::Relaxed),
            _ => _ = self.failed.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Attempts that succeeded and that failed.
    #[cfg(test)]
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
