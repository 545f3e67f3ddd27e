//! Marks around the phases of a child, seen from outside by callgrind and from inside by the counters.

use std::hint::black_box;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::alloc::Allocated;

/// What a process had spent when it passed a mark.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Allocations since start.
    pub(crate) allocated: Allocated,
    /// CPU time (user and system) since start, in nanoseconds.
    pub(crate) cpu_ns: u64,
}

impl Spent {
    /// Opens a phase: the mark comes last, so that reading the counters is not part of the phase.
    pub(crate) fn open() -> Result<Self> {
        let cpu_ns = cpu_ns()?;
        let allocated = Allocated::now();
        phase_mark(0);
        Ok(Self { allocated, cpu_ns })
    }

    /// Closes a phase: the mark comes first.
    pub(crate) fn close() -> Result<Self> {
        phase_mark(1);
        let allocated = Allocated::now();
        Ok(Self { allocated, cpu_ns: cpu_ns()? })
    }
}

/// callgrind writes a dump and starts from zero whenever this function is entered (`--dump-before`).
#[inline(never)]
pub(crate) fn phase_mark(phase: u64) {
    black_box(phase);
}

/// CPU time of this process over all its threads, from the scheduler's own clock.
///
/// The kernel brings the running thread's account up to date when it leaves the CPU, so the thread sleeps once first.
pub(crate) fn cpu_ns() -> Result<u64> {
    std::thread::sleep(Duration::from_micros(50));
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let on_cpu = text.split_whitespace().next().unwrap_or("0");
        total += on_cpu.parse::<u64>()?;
    }
    Ok(total)
}
