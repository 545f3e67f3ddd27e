//! How much work a peer may cause in a second.
//!
//! Frames that carry no message cost the receiver work all the same: a stream that is opened and reset (CVE-2023-44487), or
//! that makes the receiver reset it, a PING, SETTINGS, an empty DATA frame. Their cost is added up, and a connection that
//! is over its rate is not read for as long as it is ahead of it. It is slowed down and never cut off: cancelled calls are
//! normal traffic, and no call may fail by a count over the life of a connection.
//!
//! The clock is read once every [`UNCHECKED`] units, so ordinary traffic never reads it.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Units of cost that a connection may cause in a second.
const RATE: f64 = 320_000.0;
/// Units that it may be ahead of its rate.
const BURST: f64 = RATE;
/// Units between two looks at the clock.
const UNCHECKED: u32 = 16_000;

/// What a frame costs, in units: so many of them may come in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    /// A stream that ends by a reset, whoever sends it: 2,000.
    Reset = 160,
    /// A frame that wants an answer or says nothing: 20,000.
    Noise = 16,
    /// WINDOW_UPDATE: 320,000, which is more than the updates of 10 Gbit/s.
    Update = 1,
}

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Since the last look at the clock.
    spent: u32,
    /// How far the connection was ahead of its rate then.
    ahead: f64,
    looked: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
}

// === impl Meter ===

impl Meter {
    pub(super) const fn spend(&mut self, cost: Cost) {
        self.spent = self.spent.saturating_add(cost as u32);
    }

    /// Pending while the connection is too far ahead of its rate.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pause.is_none() && self.spent < UNCHECKED {
            return Poll::Ready(());
        }
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.settle(Instant::now()) {
                None => return Poll::Ready(()),
                Some(wait) => self.pause = Some(Box::pin(sleep(wait))),
            }
        }
    }

    /// Brings the account up to date. Returns how long the connection has to wait, if it has to.
    fn settle(&mut self, now: Instant) -> Option<Duration> {
        let since = self.looked.replace(now).map_or(Duration::ZERO, |looked| now - looked);
        let spent = f64::from(std::mem::take(&mut self.spent));
        self.ahead = since.as_secs_f64().mul_add(-RATE, self.ahead + spent).max(0.0);
        let over = self.ahead - BURST;
        (over > 0.0).then(|| Duration::from_secs_f64(over / RATE).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn spend(meter: &mut Meter, cost: Cost, times: u32) {
        for _ in 0..times {
            meter.spend(cost);
            std::future::poll_fn(|cx| meter.poll_ready(cx)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_what_follows_at_the_rate() {
        let mut meter = Meter::default();
        let began = Instant::now();
        spend(&mut meter, Cost::Reset, 2_000).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        spend(&mut meter, Cost::Reset, 20_000).await;
        let took = began.elapsed().as_secs_f64();
        assert!((9.0..=11.0).contains(&took), "20,000 resets took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_second_gives_the_burst_back() {
        let mut meter = Meter::default();
        for _ in 0..5 {
            let began = Instant::now();
            spend(&mut meter, Cost::Noise, 19_000).await;
            assert_eq!(began.elapsed(), Duration::ZERO);
            sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_updates_of_a_fast_download_never_wait() {
        let mut meter = Meter::default();
        let began = Instant::now();
        for _ in 0..100 {
            spend(&mut meter, Cost::Update, 2_000).await;
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
