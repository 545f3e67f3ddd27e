//! Connections that were lost one after the other, and what that says about their peer.
//!
//! GOAWAY is no failure (RFC 9113 §6.8): a peer that drains gets the next connection at once, however young the last
//! one was. Evidence against a peer is a row of connections that lived less than [`YOUNG`] and served nobody; one
//! response, or one longer life, ends the row. A connection whose callers all gave up says nothing either way.
//!
//! ```text
//! GOAWAY          1..=4 at once │ 5..=7 after a back-off, calls wait │ from 8 after a back-off, calls fail
//! any other end   1     at once │                                    │ from 2 after a back-off, calls fail
//! callers gave up 1..=16 at once│ from 17 a little later, calls wait
//! ```
//! Responses are noticed by the tasks of their callers, which may run after the connection's own. Hence the
//! record of a lost connection is kept for a while, and looked at again when the next one is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection that lived longer is no evidence: dialling a peer anew that often harms nobody.
const YOUNG: Duration = Duration::from_secs(1);

/// GOAWAYs in a row after which the next connection is opened at once.
const AT_ONCE: usize = 4;

/// GOAWAYs in a row after which calls still wait for the next connection.
const WAITED_FOR: usize = 7;

/// Connections in a row, those whose callers gave up included, after which the next one is opened at once.
const UNSERVED: usize = 16;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer said GOAWAY.
    GoAway,
    /// In any other way.
    Broken,
}

/// What became of the calls of one connection. It may become known only after the connection's end.
#[derive(Debug, Default)]
pub(crate) struct CallRecord {
    served: AtomicBool,
    failed: AtomicBool,
    given_up: AtomicBool,
}

/// When to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redial {
    AtOnce,
    /// A little later: the pace of callers that give up must not become that of connections.
    Soon,
    /// After a back-off, for which calls wait.
    Later,
    /// After a back-off; until then the endpoint is one that fails.
    Failing,
}

/// Young connections that were lost in a row without having served.
#[derive(Default)]
pub(super) struct Losses {
    row: Vec<(Ending, Option<Arc<CallRecord>>)>,
}

// === impl Losses ===

impl Losses {
    /// Notes the loss of a connection and decides what follows. `calls` is none if it was lost before it took any.
    pub(super) fn lost(&mut self, ending: Ending, age: Duration, calls: Option<Arc<CallRecord>>) -> Redial {
        let served = |calls: &Option<Arc<CallRecord>>| calls.as_ref().is_some_and(|calls| calls.has_served());
        if self.row.iter().any(|(_, calls)| served(calls)) {
            self.row.clear();
        }
        if age >= YOUNG || served(&calls) {
            self.row.clear();
            return Redial::AtOnce;
        }
        if self.row.len() > UNSERVED {
            self.row.remove(0);
        }
        self.row.push((ending, calls));
        let unserved = |ending| self.row.iter().filter(|lost| is_unserved(lost, ending)).count();
        let (gone_away, broken) = (unserved(Ending::GoAway), unserved(Ending::Broken));
        if gone_away > WAITED_FOR || broken > 1 {
            Redial::Failing
        } else if gone_away > AT_ONCE {
            Redial::Later
        } else if self.row.len() > UNSERVED {
            Redial::Soon
        } else {
            Redial::AtOnce
        }
    }

    /// Whether no connection counts against the peer.
    pub(super) fn is_over(&self) -> bool {
        self.row.is_empty()
    }
}

fn is_unserved((lost, calls): &(Ending, Option<Arc<CallRecord>>), ending: Ending) -> bool {
    *lost == ending && calls.as_ref().is_none_or(|calls| calls.is_evidence())
}

// === impl CallRecord ===

impl CallRecord {
    /// A response came.
    pub(crate) fn served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// The peer failed a call, other than by going away.
    pub(crate) fn failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// A caller gave up before the response.
    pub(crate) fn given_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether its end speaks against the peer: there was no call, or one that waited in vain to the end.
    fn is_evidence(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        !is(&self.served) && (is(&self.failed) || !is(&self.given_up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    #[derive(Debug, Clone, Copy)]
    enum Service {
        Served,
        GivenUp,
        Unserved,
        GivenUpAndFailed,
    }

    fn record(service: Service) -> Option<Arc<CallRecord>> {
        let calls = CallRecord::default();
        match service {
            Service::Served => calls.served(),
            Service::GivenUp => calls.given_up(),
            Service::Unserved => {}
            Service::GivenUpAndFailed => {
                calls.given_up();
                calls.failed();
            }
        }
        Some(Arc::new(calls))
    }

    fn after(times: usize, ending: Ending, service: Service) -> Redial {
        let mut losses = Losses::default();
        let redials = (0..times).map(|_| losses.lost(ending, TENTH, record(service)));
        redials.last().unwrap_or(Redial::AtOnce)
    }

    #[test]
    fn a_row_of_losses_leads_to_a_back_off_and_then_to_failure() {
        use Ending::{Broken, GoAway};
        use Redial::{AtOnce, Failing, Later, Soon};
        use Service::{GivenUp, GivenUpAndFailed, Served, Unserved};
        let table = [
            (1, GoAway, Unserved, AtOnce),
            (4, GoAway, Unserved, AtOnce),
            (5, GoAway, Unserved, Later),
            (7, GoAway, Unserved, Later),
            (8, GoAway, Unserved, Failing),
            (1_000, GoAway, Unserved, Failing),
            (8, GoAway, GivenUpAndFailed, Failing),
            (1, Broken, Unserved, AtOnce),
            (2, Broken, Unserved, Failing),
            (1_000, Broken, Served, AtOnce),
            (1_000, GoAway, Served, AtOnce),
            (16, GoAway, GivenUp, AtOnce),
            (17, GoAway, GivenUp, Soon),
            (1_000, GoAway, GivenUp, Soon),
            (16, Broken, GivenUp, AtOnce),
            (1_000, Broken, GivenUp, Soon),
        ];
        for (times, ending, service, expected) in table {
            assert_eq!(after(times, ending, service), expected, "{times} × {ending:?}, {service:?}");
        }
    }

    #[test]
    fn a_response_that_is_noticed_after_the_loss_ends_the_row() {
        let mut losses = Losses::default();
        for _ in 0..100 {
            let calls = record(Service::Unserved);
            assert_eq!(losses.lost(Ending::Broken, TENTH, calls.clone()), Redial::AtOnce);
            calls.unwrap().served();
        }
    }

    #[test]
    fn a_long_life_ends_the_row() {
        let mut losses = Losses::default();
        let unserved = || record(Service::Unserved);
        for _ in 0..7 {
            losses.lost(Ending::GoAway, TENTH, unserved());
        }
        assert_eq!(losses.lost(Ending::Broken, YOUNG, unserved()), Redial::AtOnce);
        assert!(losses.is_over());
    }

    #[test]
    fn a_goaway_before_the_connection_was_one_counts_as_a_goaway() {
        let mut losses = Losses::default();
        let redials: Vec<_> = (0..5).map(|_| losses.lost(Ending::GoAway, Duration::ZERO, None)).collect();
        assert_eq!(redials[3..], [Redial::AtOnce, Redial::Later]);
    }
}
