//! A soak: meshes call meshes in every way at once, while replicas drain, die and come back. No call may fail that was not
//! cancelled or on a replica that was killed, and nothing may be left behind: three rounds of the same, of which the third
//! has to hold what the second held.
//!
//! `cargo test --release -p mesh-tests --test soak -- [--seconds N] [--seed N] [--lane NAME] [--shape NAME]
//! [--log FILTER]`; two minutes if nothing is said, some seconds where it is not optimized. `MESH_SEED`, when the test is built, is another seed.

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

mod app;
mod lanes;
mod record;
mod scripted;
mod shapes;

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_core::rng::{Rng as _, Xoshiro};
use mesh_tower::Mesh;
use mesh_tower::drain::Drained;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lanes::{Lane, Yard, most_early_on_one_connection};
use crate::shapes::{Caller, Shape};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is asked of a run.
#[derive(Debug, Clone)]
struct Plan {
    seconds: u64,
    seed: u64,
    lanes: Vec<String>,
    shapes: Vec<String>,
    /// Calls of each shape in each round, at least.
    each: u64,
    /// Early answers to each of the two callers that have one connection, in each round.
    early: u64,
}

/// A caller, and the shapes that it may use with their shares.
type Choice = (Caller, Vec<(Shape, u64)>);

/// What is held when nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    bytes: usize,
    tasks: usize,
    descriptors: usize,
    in_flight: usize,
    permits_missing: usize,
}

// === impl Plan ===

impl Plan {
    /// Nothing where the arguments ask for another test.
    fn parse(args: impl Iterator<Item = String>) -> Option<Self> {
        let full = !cfg!(debug_assertions);
        let seed = option_env!("MESH_SEED").and_then(|text| text.parse().ok()).unwrap_or(1);
        let (each, early) = if full { (170, 2_000) } else { (10, 100) };
        let (lanes, shapes) = (Vec::new(), Vec::new());
        let mut plan = Self { seconds: if full { 120 } else { 9 }, seed, lanes, shapes, each, early };
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => plan.seconds = args.next()?.parse().ok()?,
                "--seed" => plan.seed = args.next()?.parse().ok()?,
                "--lane" => plan.lanes.push(args.next()?),
                "--shape" => plan.shapes.push(args.next()?),
                "--log" => {
                    let log = tracing_subscriber::fmt().with_env_filter(args.next()?).with_ansi(false);
                    log.with_writer(std::io::stderr).init();
                }
                "--list" => return None,
                // How the test harness would be told to behave.
                flag if flag.starts_with('-') => {}
                filter if "soak".contains(filter) => {}
                _ => return None,
            }
        }
        Some(plan)
    }

    fn wants(names: &[String], name: &str) -> bool {
        names.is_empty() || names.iter().any(|wanted| wanted == name)
    }

    /// The shapes of a lane, with their shares.
    fn shapes_of(&self, is_http2: bool) -> Vec<(Shape, u64)> {
        let fits =
            |shape: Shape| (is_http2 || !shape.needs_http2()) && Self::wants(&self.shapes, shape.name());
        Shape::ALL.into_iter().filter(|(shape, _)| fits(*shape)).collect()
    }
}

fn main() -> ExitCode {
    let Some(plan) = Plan::parse(std::env::args().skip(1)) else { return ExitCode::SUCCESS };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let failures = runtime.block_on(soak(&plan));
    drop(runtime);
    if failures > 0 {
        println!("{failures} failures; repeat with --seed {} --seconds {}", plan.seed, plan.seconds);
    }
    ExitCode::from(u8::from(failures > 0))
}

async fn soak(plan: &Plan) -> u64 {
    println!("soak: {} s, seed {}", plan.seconds, plan.seed);
    let begin = Instant::now();
    let yard = Arc::new(Yard::new());
    let identity = yard.fleet.ca.identity("productpage");
    let mesh = yard.fleet.mesh_with("client", &identity);
    let mut lanes: Vec<Lane> =
        Lane::all().into_iter().filter(|lane| Plan::wants(&plan.lanes, lane.name)).collect();
    app::piece(0, 0);
    let mut rounds: Vec<Held> = Vec::new();
    for round in 1..=ROUNDS {
        let callers = open(&mut lanes, &yard, &mesh).await;
        lanes = self::round(plan, round, &yard, lanes, &callers).await;
        let missing = measure_permits(&lanes, &yard, &callers).await;
        drop(callers);
        for lane in &mut lanes {
            lane.close(&yard).await;
        }
        let held = settle(&yard, rounds.last(), missing).await;
        let record = &yard.site.record;
        println!(
            "round {round}: {} calls after {:?}, {held:?}, {} failures",
            record.total(),
            begin.elapsed(),
            record.failures()
        );
        rounds.push(held);
        if record.failures() > HOPELESS {
            println!("so many failures are enough: the rounds that are left are not run");
            break;
        }
    }
    if mesh.shutdown(Duration::from_secs(5)).await != Drained::Complete {
        yard.site.record.fail("the caller's mesh still counts calls in flight".to_owned());
    }
    verdict(plan, &yard, &rounds);
    print!("{}", yard.site.record.kinds());
    yard.site.record.failures()
}

async fn open(lanes: &mut [Lane], yard: &Yard, mesh: &Mesh) -> Vec<Caller> {
    let mut callers = Vec::with_capacity(lanes.len());
    for lane in lanes {
        lane.open(yard).await;
        let channel = mesh.channel(&format!("xds:///{}", lane.name)).expect("a target");
        callers.push(Caller { site: yard.site.clone(), lane: lane.name, channel });
    }
    callers
}

/// Calls for a third of the time, and until there were enough of each shape.
async fn round(plan: &Plan, round: u64, yard: &Arc<Yard>, lanes: Vec<Lane>, callers: &[Caller]) -> Vec<Lane> {
    let (end, ended) = watch::channel(false);
    let seed = plan.seed.wrapping_mul(1_000).wrapping_add(round);
    let mut churning = JoinSet::new();
    let mut working = JoinSet::new();
    let span = Duration::from_secs(plan.seconds) / ROUNDS as u32;
    let until = Instant::now() + span;
    let choices: Vec<Choice> = callers
        .iter()
        .zip(&lanes)
        .filter(|(_, lane)| lane.restless)
        .map(|(caller, lane)| (caller.clone(), plan.shapes_of(lane.is_http2)))
        .collect();
    let choices = Arc::new(choices);
    for worker in 0..if choices.is_empty() { 0 } else { WORKERS } {
        let rng = Xoshiro::seeded(seed.wrapping_mul(100_003).wrapping_add(worker));
        working.spawn(work(choices.clone(), rng, until, plan.each * round));
    }
    let (release, released) = watch::channel(false);
    yard.site.gate.send_replace(false);
    let mut holding = JoinSet::new();
    for (caller, _) in callers.iter().zip(&lanes).filter(|(_, lane)| !lane.restless) {
        let is_early = caller.lane.starts_with("h2-early");
        for n in 0..if is_early { 0 } else { HELD } {
            let (caller, released) = (caller.clone(), released.clone());
            let shape = if n % 2 == 0 { Shape::HeldReader } else { Shape::HeldUpload };
            holding.spawn(async move { caller.hold(shape, released).await });
        }
        for worker in 0..EARLY_WORKERS {
            let rng = Xoshiro::seeded(seed.wrapping_mul(7).wrapping_add(worker));
            let shape = if is_early { Shape::Early } else { Shape::Unary };
            working.spawn(on_one_connection(caller.clone(), shape, plan.early.div_ceil(EARLY_WORKERS), rng));
        }
    }
    if plan.lanes.is_empty() || plan.lanes.iter().any(|lane| lane == scripted::LANE) {
        let (site, each) = (yard.site.clone(), plan.each);
        working.spawn(async move { scripted::calls(&site, each).await });
    }
    for (n, mut lane) in lanes.into_iter().enumerate() {
        let (yard, ended) = (yard.clone(), ended.clone());
        let rng = Xoshiro::seeded(seed.wrapping_add(n as u64 * 31));
        churning.spawn(async move {
            if lane.restless {
                lane.churn(&yard, rng, ended).await;
            }
            (n, lane)
        });
    }
    while let Some(done) = working.join_next().await {
        done.expect("a caller does not panic");
    }
    release.send_replace(true);
    yard.site.gate.send_replace(true);
    while let Some(done) = holding.join_next().await {
        done.expect("a caller does not panic");
    }
    end.send_replace(true);
    let mut lanes = churning.join_all().await;
    lanes.sort_by_key(|(n, _)| *n);
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

/// One of the callers: makes calls of any shape until the time is over, then of those that there were too few of.
async fn work(choices: Arc<Vec<Choice>>, mut rng: Xoshiro, until: Instant, each: u64) {
    let at_the_latest = until + GRACE;
    loop {
        let (caller, shapes) = &choices[rng.below(choices.len() as u64) as usize];
        let now = Instant::now();
        let open: Vec<(Shape, u64)> = if now < until {
            shapes.clone()
        } else {
            let record = &caller.site.record;
            let all = choices.iter().flat_map(|(_, shapes)| shapes);
            let is_lost = now > at_the_latest || record.failures() > HOPELESS;
            if is_lost || all.into_iter().all(|(shape, _)| record.calls(*shape) >= each) {
                return;
            }
            shapes.iter().filter(|(shape, _)| record.calls(*shape) < each).copied().collect()
        };
        let sum: u64 = open.iter().map(|(_, share)| share).sum();
        if sum == 0 {
            tokio::task::yield_now().await;
            continue;
        }
        let mut drawn = rng.below(sum);
        for (shape, share) in open {
            if drawn < share {
                caller.call(shape, &mut rng).await;
                break;
            }
            drawn -= share;
        }
    }
}

/// Calls of a shape on the one connection of a caller, with small calls in between that they must not harm.
async fn on_one_connection(caller: Caller, shape: Shape, count: u64, mut rng: Xoshiro) {
    for n in 0..count {
        if caller.site.record.failures() > HOPELESS {
            return;
        }
        caller.call(shape, &mut rng).await;
        match n % 8 {
            0 => caller.call(Shape::Unary, &mut rng).await,
            // Needs a window of the server, which uploads that are held must not use up.
            1 => caller.call(Shape::Tiny, &mut rng).await,
            _ => {}
        }
    }
}

async fn measure_permits(lanes: &[Lane], yard: &Yard, callers: &[Caller]) -> usize {
    let mut missing = 0_usize;
    for (lane, caller) in lanes.iter().zip(callers) {
        let of_lane = lane.missing_permits(yard, caller).await;
        if of_lane > 0 {
            yard.site.record.fail(format!("{} requests of {} were not given back", of_lane, lane.name));
        }
        missing = missing.saturating_add(of_lane);
    }
    missing
}

/// Waits until nothing goes on any more: until it is as it was after the round before, or does not change.
async fn settle(yard: &Yard, before: Option<&Held>, permits_missing: usize) -> Held {
    yard.site.record.settle();
    let most_early = most_early_on_one_connection(&yard.site);
    if most_early > 0 {
        println!("early answers on one connection: {most_early}");
    }
    let held = || {
        let stats = HEAP.stats();
        Held {
            bytes: stats.bytes_allocated.saturating_sub(stats.bytes_deallocated),
            tasks: Handle::current().metrics().num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").expect("Linux").count(),
            in_flight: yard.site.in_flight(),
            permits_missing,
        }
    };
    let until = Instant::now() + QUIET;
    let (mut last, mut unchanged) = (held(), 0);
    while Instant::now() < until && unchanged < 20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = held();
        let as_before = before.is_some_and(|before| within(&now, before));
        let is_same = Held { bytes: 0, ..now } == Held { bytes: 0, ..last };
        unchanged = if is_same && (before.is_none() || as_before) { unchanged + 1 } else { 0 };
        if as_before && unchanged > 2 {
            return now;
        }
        last = now;
    }
    last
}

/// Whether no more is held than before, but for what caches of the allocator and of maps hold.
fn within(now: &Held, before: &Held) -> bool {
    now.tasks == before.tasks
        && now.descriptors == before.descriptors
        && now.in_flight == 0
        && now.bytes <= before.bytes + NOISE
}

fn verdict(plan: &Plan, yard: &Yard, rounds: &[Held]) {
    let record = &yard.site.record;
    println!("{}", record.table());
    let [drained, killed] = yard.gone.each_ref().map(|gone| gone.load(Ordering::Relaxed));
    println!("{} calls; replicas drained {drained}, killed {killed}", record.total());
    if let [_, second, third] = rounds
        && !within(third, second)
    {
        record.fail(format!("round 3 holds {third:?}, round 2 held {second:?}"));
    }
    let everything = plan.lanes.is_empty() && plan.shapes.is_empty();
    if everything && !cfg!(debug_assertions) && plan.seconds >= 120 {
        if record.total() < 20_000 {
            record.fail(format!("{} calls are too few", record.total()));
        }
        for (shape, _) in Shape::ALL {
            if record.calls(shape) < 500 {
                record.fail(format!("{} calls of {} are too few", record.calls(shape), shape.name()));
            }
        }
    }
}

const ROUNDS: u64 = 3;
const WORKERS: u64 = 200;
/// Bodies that are held unread on each connection of a caller that has one.
const HELD: usize = 10;
const EARLY_WORKERS: u64 = 64;
/// How much longer than planned a round may take, to make enough calls of each shape.
const GRACE: Duration = Duration::from_secs(60);
/// How long the end of a round may take.
const QUIET: Duration = Duration::from_secs(15);
/// Bytes by which two rounds may differ.
const NOISE: usize = 64 << 10;
/// After so many failures a round is not prolonged, and is the last.
const HOPELESS: u64 = 200;
