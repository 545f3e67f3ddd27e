//! A control plane that does its worst, on real sockets and in both protocols, while calls go on over the last good
//! configuration: no call fails, nothing panics, memory stays bounded, and every bad resource is refused by its name and
//! the path of what is wrong with it (gRFC A46), while the good ones beside it are used.
//!
//! `cargo test --release -p mesh-tests --test hostile` is the whole of it; without optimization there is less of each.

mod answer;
mod breaks;
mod campaign;
mod docs;
mod giants;
mod incidents;
mod lane;
#[path = "../../../mesh-xds/src/resource/tests/wire.rs"]
mod mutation;

use std::alloc::System;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use mesh_core::rng::{Rng, Xoshiro};
use mesh_xds::Protocol;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Optimized, the tests do all that they can.
const FULL: bool = !cfg!(debug_assertions);

const BOTH: [Protocol; 2] = [Protocol::StateOfTheWorld, Protocol::Incremental];

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// The heap and the count of panics are one for all tests, so each has them for itself.
struct Alone {
    runtime: Runtime,
    _turn: MutexGuard<'static, ()>,
}

// === impl Alone ===

impl Alone {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                PANICS.fetch_add(1, Ordering::SeqCst);
                report(panic);
            }));
        });
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        PANICS.store(0, Ordering::SeqCst);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        Self { runtime, _turn: turn }
    }

    /// Runs a test to its end; a panic of any task or thread fails it.
    fn run(self, test: impl Future<Output = ()>) {
        self.runtime.block_on(test);
        drop(self.runtime);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "panics");
    }
}

/// Bytes of the heap that are in use.
fn held() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// The seed of a run; `MESH_SEED`, when the test is built, replays another.
fn seed() -> u64 {
    option_env!("MESH_SEED").and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// Choices of a mutation from a seeded generator.
struct Choices<'a>(&'a mut Xoshiro);

impl mutation::Choose for Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        below(self.0, bound)
    }
}

fn below(rng: &mut Xoshiro, bound: usize) -> usize {
    if bound < 2 { 0 } else { usize::try_from(rng.below(bound as u64)).expect("below a usize") }
}

/// Whether something happens that does so once in `n` times.
fn once_in(rng: &mut Xoshiro, n: usize) -> bool {
    below(rng, n) == 0
}
