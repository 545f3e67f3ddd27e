//! What became of every call, and who is to blame.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::shapes::Shape;

/// Everything that is known about the calls of a run.
#[derive(Debug, Default)]
pub(crate) struct Record {
    next: AtomicU64,
    table: Mutex<BTreeMap<(Shape, &'static str), Tally>>,
    failures: Mutex<Failures>,
    /// By call: the replica that saw it last. Calls that have ended are removed.
    seen: Mutex<HashMap<u64, u64>>,
    kills: Mutex<Vec<Kill>>,
}

/// How many calls of one shape on one lane ended how.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    whole: u64,
    cancelled: u64,
    on_killed: u64,
    failed: u64,
}

/// What failed, kind by kind: how often, and the first of each.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    kinds: BTreeMap<String, (u64, String)>,
}

#[derive(Debug, Clone, Copy)]
struct Kill {
    lane: &'static str,
    replica: u64,
    at: Instant,
}

/// A call that is being made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    pub(crate) id: u64,
    shape: Shape,
    lane: &'static str,
    at: Instant,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With all that was asked for.
    Whole,
    /// By its caller's wish.
    Cancelled,
    /// Otherwise.
    Failed(String),
}

// === impl Record ===

impl Record {
    pub(crate) fn begin(&self, shape: Shape, lane: &'static str) -> Started {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Started { id, shape, lane, at: Instant::now() }
    }

    /// A replica has been given a call.
    pub(crate) fn saw(&self, call: u64, replica: u64) {
        lock(&self.seen).insert(call, replica);
    }

    /// A replica is about to be killed.
    pub(crate) fn kill(&self, lane: &'static str, replica: u64) {
        lock(&self.kills).push(Kill { lane, replica, at: Instant::now() });
    }

    pub(crate) fn end(&self, call: Started, end: End) {
        let seen = lock(&self.seen).remove(&call.id);
        let excused = matches!(end, End::Failed(_)) && self.is_of_killed(call, seen);
        let mut table = lock(&self.table);
        let tally = table.entry((call.shape, call.lane)).or_default();
        match end {
            End::Whole => tally.whole += 1,
            End::Cancelled => tally.cancelled += 1,
            End::Failed(_) if excused => tally.on_killed += 1,
            End::Failed(why) => {
                tally.failed += 1;
                drop(table);
                let replica = seen.map_or_else(|| "none".to_owned(), |replica| replica.to_string());
                let kind = format!("{} {}: {}", call.shape.name(), call.lane, without_numbers(&why));
                let after = call.at.elapsed();
                self.fail_as(kind, format!("call {} after {after:?} on replica {replica}: {why}", call.id));
            }
        }
    }

    /// A call is none of the soak's.
    pub(crate) fn forget(&self, call: Started) {
        lock(&self.seen).remove(&call.id);
    }

    /// Something other than a call failed.
    pub(crate) fn fail(&self, what: String) {
        self.fail_as(without_numbers(&what), what);
    }

    fn fail_as(&self, kind: String, first: String) {
        let mut failures = lock(&self.failures);
        failures.count += 1;
        if failures.kinds.len() < KINDS || failures.kinds.contains_key(&kind) {
            failures.kinds.entry(kind).or_insert((0, first)).0 += 1;
        }
    }

    /// Calls of a shape that have ended as they should.
    pub(crate) fn calls(&self, shape: Shape) -> u64 {
        let table = lock(&self.table);
        table.iter().filter(|((of, _), _)| *of == shape).map(|(_, tally)| tally.whole + tally.cancelled).sum()
    }

    /// All calls that have ended.
    pub(crate) fn total(&self) -> u64 {
        let table = lock(&self.table);
        table.values().map(|tally| tally.whole + tally.cancelled + tally.on_killed + tally.failed).sum()
    }

    pub(crate) fn failures(&self) -> u64 {
        lock(&self.failures).count
    }

    /// The kinds of failures, one a line, each with its number and its first.
    pub(crate) fn kinds(&self) -> String {
        let failures = lock(&self.failures);
        let mut kinds: Vec<_> = failures.kinds.iter().collect();
        kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let mut text = String::new();
        for (kind, (count, first)) in kinds.iter().take(SHOWN) {
            let _ = writeln!(text, "FAILED {count} times: {kind}\n       first: {first}");
        }
        let _ = writeln!(text, "{} kinds of failures", kinds.len());
        text
    }

    /// Gives back memory that only the calls of a round needed.
    pub(crate) fn settle(&self) {
        *lock(&self.seen) = HashMap::new();
        *lock(&self.kills) = Vec::new();
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<16} {:<11} {:>8} {:>10} {:>10} {:>8}\n",
            "shape", "lane", "whole", "cancelled", "on killed", "failed"
        );
        for ((shape, lane), tally) in &*lock(&self.table) {
            let Tally { whole, cancelled, on_killed, failed } = tally;
            let _ = writeln!(
                text,
                "{:<16} {lane:<11} {whole:>8} {cancelled:>10} {on_killed:>10} {failed:>8}",
                shape.name()
            );
        }
        text
    }

    fn is_of_killed(&self, call: Started, seen: Option<u64>) -> bool {
        lock(&self.kills).iter().any(|kill| {
            kill.lane == call.lane
                && seen.is_none_or(|replica| replica == kill.replica)
                && kill.at >= call.at - NOTICED
        })
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text in which all numbers are alike.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            other => out.push(other),
        }
    }
    out
}

/// Kinds of failures that are printed, the most frequent ones.
const SHOWN: usize = 80;
/// Kinds of failures that are told apart.
const KINDS: usize = 1_000;
/// How long after a kill a caller may still believe that the replica is there.
const NOTICED: Duration = Duration::from_secs(1);
