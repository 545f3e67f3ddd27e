//! Floods: what a server does while somebody does his worst to it, and how a good client fares meanwhile. Ours, and plain
//! hyper's beside it in the same run; each flood has a server process of its own and comes from another process.
//!
//! Bounds are on ours alone: memory, calls that reach the application, and the good client.

#![expect(clippy::print_stdout, reason = "a report")]

mod attack;
mod frames;
mod good;
mod server;
mod silent;

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::child::{Child, ServerChild, Wrap};

pub(crate) use attack::{Flood, role as attacker_role};
pub(crate) use server::{ServerKind, role as server_role};
pub(crate) use silent::role as silent_role;

/// What a server says of itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Calls that the application saw, without those of the good client.
    pub(crate) calls: u64,
    /// The most that the heap held at once, of the samples that it took.
    pub(crate) peak_heap: u64,
}

/// What an attacker did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Attacked {
    /// Units of the flood: streams, frames, connections.
    pub(crate) units: u64,
    /// Connections that it took.
    pub(crate) connections: u64,
}

/// One flood on one server.
#[derive(Debug)]
struct Row {
    attacked: Attacked,
    served: Served,
    heap_growth: u64,
    rss_growth: u64,
    cpu: f64,
    good: good::Good,
}

/// Runs every flood (or those whose names contain a word); whether the bounds hold.
pub(crate) fn measure(only: Option<&str>) -> Result<bool> {
    println!("## Floods\n\n{SECONDS} s each; a good client on a connection of its own calls all the time.\n");
    println!(
        "| flood | server | sent/s | connections | app calls/s | CPU s | heap MiB | RSS MiB | good calls | failed | p50 ms | p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for flood in Flood::ALL {
        if only.is_some_and(|word| !flood.key().contains(word)) {
            continue;
        }
        let theirs = run(ServerKind::Hyper, flood)?;
        theirs.print(flood, "hyper");
        let ours = run(ServerKind::Mesh, flood)?;
        ours.print(flood, "mesh");
        missed.extend(ours.missed(flood, &theirs));
    }
    if only.is_none_or(|word| "silent-tls".contains(word)) {
        silent::measure(&mut missed)?;
    }
    println!();
    for miss in &missed {
        println!("MISSED: {miss}");
    }
    Ok(missed.is_empty())
}

fn run(kind: ServerKind, flood: Flood) -> Result<Row> {
    let server = ServerChild::spawn(&Wrap::Native, &["flood-server".to_owned(), kind.key().to_owned()])?;
    let address = server.address;
    let mut server = server.child;
    // What the first calls make stays: connections, tables, buffers.
    good::calls(address, Duration::from_millis(100), flood.good_connects())?;
    let before = Usage::of(server.id())?;
    server.tell(&true)?;
    let quiet: Served = server.hear()?;
    let seconds = SECONDS.to_string();
    let attack = ["flood-attacker".to_owned(), flood.key().to_owned(), address.to_string(), seconds];
    let attacker = Child::spawn(&Wrap::Native, &attack)?;
    let good = good::calls(address, Duration::from_secs(SECONDS), flood.good_connects())?;
    let attacked: Attacked = attacker.hear()?;
    let after = Usage::of(server.id())?;
    server.tell(&true)?;
    let served: Served = server.hear()?;
    Ok(Row {
        attacked,
        heap_growth: served.peak_heap.saturating_sub(quiet.peak_heap),
        served: Served { calls: served.calls - quiet.calls, ..served },
        rss_growth: after.peak.saturating_sub(before.resident),
        cpu: after.cpu - before.cpu,
        good,
    })
}

// === impl Row ===

impl Row {
    fn print(&self, flood: Flood, server: &str) {
        let per_second = |count: u64| count / SECONDS;
        println!(
            "| {} | {server} | {} | {} | {} | {:.2} | {:.1} | {:.1} | {} | {} | {:.2} | {:.2} |",
            flood.key(),
            per_second(self.attacked.units),
            self.attacked.connections,
            per_second(self.served.calls),
            self.cpu,
            mebibytes(self.heap_growth),
            mebibytes(self.rss_growth),
            self.good.calls,
            self.good.failed,
            self.good.p50.as_secs_f64() * 1e3,
            self.good.p99.as_secs_f64() * 1e3,
        );
    }

    /// The bounds that do not hold.
    fn missed(&self, flood: Flood, theirs: &Self) -> Vec<String> {
        let mut missed = Vec::new();
        let mut bound = |holds: bool, what: String| {
            if !holds {
                missed.push(format!("{}: {what}", flood.key()));
            }
        };
        bound(
            self.heap_growth <= MEMORY && self.rss_growth <= MEMORY,
            format!(
                "heap +{:.0} MiB, RSS +{:.0} MiB of {:.0}",
                mebibytes(self.heap_growth),
                mebibytes(self.rss_growth),
                mebibytes(MEMORY)
            ),
        );
        let calls = self.served.calls / SECONDS;
        let most = MOST_CALLS.max(theirs.served.calls / SECONDS * 3 / 2);
        bound(
            !flood.resets() || calls <= most,
            format!("{calls} calls a second reach the application, {most} may"),
        );
        bound(self.good.failed == 0, format!("{} calls of the good client failed", self.good.failed));
        let p99 = GOOD.max(theirs.good.p99 * 3);
        bound(self.good.p99 <= p99, format!("the good client's p99 is {:?}, {p99:?} may be", self.good.p99));
        bound(self.good.calls > 0, "the good client was never served".to_owned());
        missed
    }
}

/// What the system says of a process.
#[derive(Debug)]
struct Usage {
    cpu: f64,
    resident: u64,
    peak: u64,
}

// === impl Usage ===

impl Usage {
    fn of(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // What follows the name, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
        };
        Ok(Self { cpu: (ticks(11) + ticks(12)) / TICKS, resident: kib("VmRSS:"), peak: kib("VmHWM:") })
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How long a flood goes on.
const SECONDS: u64 = 2;
/// Clock ticks of a second, as Linux counts for programs.
const TICKS: f64 = 100.0;
/// What a flood may make a server hold.
const MEMORY: u64 = 96 << 20;
/// Calls a second that a flood of resets may bring to the application; or half as many again as reach that of plain hyper.
const MOST_CALLS: u64 = 12_000;
/// The good client's p99, or three times that beside plain hyper: the machine is the attacker's as well.
const GOOD: Duration = Duration::from_millis(250);
