//! PINGs on a silent connection, of clients and servers alike.
//!
//! ```text
//! Resting ──silent for `interval`──► Awaiting ──PONG──► Resting
//!                                       └──`timeout`──► dead
//! ```

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::KeepAlive;

/// The keepalive of one connection.
pub(crate) struct Pinger {
    pings: PingPong,
    config: KeepAlive,
    timer: Pin<Box<Sleep>>,
    awaiting: bool,
    read: u64,
}

// === impl Pinger ===

impl Pinger {
    pub(crate) fn new(pings: PingPong, config: KeepAlive) -> Self {
        let timer = Box::pin(sleep(config.interval));
        Self { pings, config, timer, awaiting: false, read: 0 }
    }

    /// Ready when the peer is dead. `read` counts what was heard of it, in any unit; `idle` says that it has no call.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: u64, idle: bool) -> Poll<()> {
        loop {
            if self.awaiting && self.pings.poll_pong(cx).is_ready() {
                self.awaiting = false;
                self.rest(read);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.awaiting {
                return Poll::Ready(());
            }
            if read != self.read || (idle && !self.config.while_idle) {
                self.rest(read);
            } else if self.pings.send_ping(Ping::opaque()).is_ok() {
                self.awaiting = true;
                self.timer.as_mut().reset(Instant::now() + self.config.timeout);
            } else {
                // The connection is closing; its own poll ends the driver.
                self.rest(read);
            }
        }
    }

    fn rest(&mut self, read: u64) {
        self.read = read;
        self.timer.as_mut().reset(Instant::now() + self.config.interval);
    }
}
