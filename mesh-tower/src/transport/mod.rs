//! The only place that opens or accepts sockets.
//!
//! Client side: a [`Connector`] opens a byte stream (TCP, unix sockets), TLS is on top of it (`connect`), `h2` and `h1`
//! speak HTTP over it, `pool` keeps one endpoint's connections. The facts about a failure are in `error`.

mod client;
pub(crate) mod connect;
pub(crate) mod error;
#[cfg(feature = "http1")]
pub(crate) mod h1;
#[cfg(feature = "http2")]
pub(crate) mod h2;
pub(crate) mod io;
pub(crate) mod listen;
pub(crate) mod pool;
pub(crate) mod serve;
pub(crate) mod task;
pub(crate) mod tcp;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

pub use self::connect::{ConnectFuture, Connector};
use self::error::EndReason;
pub use self::error::{ConnectError, ConnectFailure, SendError};
pub use self::io::{BoxIo, Io};
pub use self::pool::ConnectivityState;
pub use self::tcp::SocketConnector;

/// What the pool needs of a connection, whichever protocol it speaks. This is the seam behind which an HTTP
/// client can be replaced.
pub(crate) trait HttpConnection: Send + Sync {
    /// The right to send one request.
    type Slot;

    /// Takes a slot, if the connection has room for one more request.
    fn reserve(self: &Arc<Self>) -> Result<Self::Slot, Unavailable>;

    /// Takes no more requests; ends when the calls in flight have ended.
    fn drain(&self);

    /// Slots that are taken.
    fn in_flight(&self) -> usize;
}

/// Why a connection has no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// It is at its limit; a slot comes free when a call ends.
    Full,
    /// It never takes a request again.
    Closed,
}

/// What a connection tells its pool. Implementations return at once: they are called from drops and from the
/// connection's task.
pub(crate) trait ConnectionEvents: Send + Sync {
    /// A slot came free.
    fn slot_freed(&self);

    /// The peer announced that it takes no more requests (GOAWAY).
    fn draining(self: Arc<Self>, id: u64);

    /// The connection has ended.
    fn closed(self: Arc<Self>, id: u64, reason: Option<EndReason>);
}
