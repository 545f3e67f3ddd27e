//! One connection of either protocol, as the pool sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use mesh_core::config::cluster::UpstreamProtocol;

use super::error::{ConnectError, SendError};
#[cfg(feature = "http1")]
use super::h1;
#[cfg(feature = "http2")]
use super::h2;
use super::io::BoxIo;
use super::pool::PoolSettings;
use super::pool::losses::CallRecord;
use super::{ConnectionEvents, HttpConnection, Unavailable};
use crate::body::Body;

/// A connection.
#[derive(Debug, Clone)]
pub(super) enum Client {
    #[cfg(feature = "http2")]
    Http2(Arc<h2::Connection>),
    #[cfg(feature = "http1")]
    Http1(Arc<h1::Connection>),
}

/// The right to send one request over a connection that is ready for it.
#[derive(Debug)]
pub(crate) struct Lease(Slot);

#[derive(Debug)]
enum Slot {
    #[cfg(feature = "http2")]
    Http2(h2::Slot),
    #[cfg(feature = "http1")]
    Http1(h1::Slot),
}

/// The response head to come. Dropping it cancels the request.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct ResponseFuture(Sending);

enum Sending {
    #[cfg(feature = "http2")]
    Http2(h2::SendFuture),
    #[cfg(feature = "http1")]
    Http1(h1::SendFuture),
}

// === impl Client ===

impl Client {
    /// Starts HTTP over `io`.
    pub(super) async fn establish(
        protocol: UpstreamProtocol,
        io: BoxIo,
        settings: &PoolSettings,
        id: u64,
        events: Arc<dyn ConnectionEvents>,
    ) -> Result<Self, ConnectError> {
        match protocol {
            #[cfg(feature = "http2")]
            UpstreamProtocol::Http2 => {
                let budget = settings.budget.clone();
                h2::Connection::establish(io, &settings.http2, budget, id, events).await.map(Self::Http2)
            }
            #[cfg(feature = "http1")]
            UpstreamProtocol::Http1 | UpstreamProtocol::Auto => {
                h1::Connection::establish(io, &settings.http1, id, events).await.map(Self::Http1)
            }
            #[cfg(not(all(feature = "http1", feature = "http2")))]
            missing => {
                let text =
                    format!("mesh-tower was built without support for {missing:?}; enable its cargo feature");
                Err(ConnectError::new(super::error::ConnectFailure::Protocol, text))
            }
        }
    }

    pub(super) fn reserve(&self) -> Result<Lease, Unavailable> {
        match self {
            #[cfg(feature = "http2")]
            Self::Http2(connection) => connection.reserve().map(|slot| Lease(Slot::Http2(slot))),
            #[cfg(feature = "http1")]
            Self::Http1(connection) => connection.reserve().map(|slot| Lease(Slot::Http1(slot))),
        }
    }

    /// Whether it is worth keeping one open without requests.
    pub(super) const fn is_multiplexed(&self) -> bool {
        match self {
            #[cfg(feature = "http2")]
            Self::Http2(_) => true,
            #[cfg(feature = "http1")]
            Self::Http1(_) => false,
        }
    }

    /// What became of its calls, where that is kept account of.
    pub(super) fn record(&self) -> Option<Arc<CallRecord>> {
        match self {
            #[cfg(feature = "http2")]
            Self::Http2(connection) => Some(connection.record()),
            #[cfg(feature = "http1")]
            Self::Http1(_) => None,
        }
    }

    /// Whether the peer ever answered a request on this connection.
    pub(super) fn has_served(&self) -> bool {
        match self {
            #[cfg(feature = "http2")]
            Self::Http2(connection) => connection.record().has_served(),
            #[cfg(feature = "http1")]
            Self::Http1(connection) => connection.has_served(),
        }
    }

    fn connection(&self) -> &dyn Control {
        match self {
            #[cfg(feature = "http2")]
            Self::Http2(connection) => &**connection,
            #[cfg(feature = "http1")]
            Self::Http1(connection) => &**connection,
        }
    }

    pub(super) fn drain(&self) {
        self.connection().drain();
    }

    pub(super) fn in_flight(&self) -> usize {
        self.connection().in_flight()
    }
}

/// The part of [`HttpConnection`] that does not depend on the slot's type.
trait Control {
    fn drain(&self);
    fn in_flight(&self) -> usize;
}

impl<C: HttpConnection> Control for C {
    fn drain(&self) {
        HttpConnection::drain(self);
    }

    fn in_flight(&self) -> usize {
        HttpConnection::in_flight(self)
    }
}

// === impl Lease ===

impl Lease {
    /// Sends the request, whose URI has scheme and authority, from within the task that awaits the response: what waits
    /// for it then need not have room for the request.
    ///
    /// # Errors
    /// The error, here and of the future, tells what the peer can have seen, and has the request where nothing of it
    /// was sent.
    #[inline]
    pub(crate) fn start(
        self,
        cx: &mut Context<'_>,
        request: Request<Body>,
    ) -> Result<ResponseFuture, SendError> {
        Ok(ResponseFuture(match self.0 {
            #[cfg(feature = "http2")]
            Slot::Http2(slot) => Sending::Http2(slot.start(cx, request)?),
            #[cfg(feature = "http1")]
            Slot::Http1(slot) => Sending::Http1(slot.send(request)),
        }))
    }
}

// === impl ResponseFuture ===

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            #[cfg(feature = "http2")]
            Sending::Http2(future) => Pin::new(future).poll(cx),
            #[cfg(feature = "http1")]
            Sending::Http1(future) => future.as_mut().poll(cx),
        }
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
