//! Micro cases: one decision in a loop, in a child of its own, counted by callgrind or timed.
//!
//! Whoever else runs on the machine only ever adds to a time, for seconds at a stretch: a neighbour on the other hardware
//! thread of the core doubles it, and no counter of ours shows that. So the batches are short, spread over seconds, and
//! the fastest hundredth of them stands for the program; the median is shown beside it and tells of the machine.

mod lb;
mod route;
mod stack;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::child::{Child, Wrap};
use crate::icount;
use crate::mark::Spent;
use crate::report::{median, quantile};
use crate::role::{end_with_driver, say};

/// Over how long the timed batches of a family are spread.
const SPREAD: Duration = Duration::from_secs(4);
/// Batches of one case before the next has its turn, so that only the first finds cold caches.
const IN_A_ROW: usize = 10;
/// A batch is this fraction of a case's iterations: most are not interrupted by another process.
const FRACTION: u64 = 40;
/// The part of the batches that stands for those that had the core for themselves.
const UNDISTURBED: f64 = 0.01;

/// A family of cases that share their set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Route decisions.
    Route,
    /// Endpoint picks.
    Lb,
    /// Calls over a leaf in memory.
    Stack,
}

/// How a family is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// One marked phase per case, under callgrind.
    Counted,
    /// Batches by the clock.
    Timed,
}

/// One thing in a loop.
pub(crate) struct Case {
    name: String,
    iterations: u64,
    run: Box<dyn FnMut(u64) -> Result<()>>,
    /// Nanoseconds per iteration of each timed batch.
    batches: Vec<f64>,
}

/// What one iteration of a case costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Name of the case.
    pub(crate) name: String,
    /// Nanoseconds in the undisturbed batches, or instructions where the family was counted.
    pub(crate) cost: f64,
    /// Nanoseconds in the median batch.
    pub(crate) median_ns: f64,
    /// Heap allocations.
    pub(crate) allocations: f64,
    /// Iterations of the measured phase.
    pub(crate) iterations: u64,
}

impl Case {
    pub(super) fn new(
        name: impl Into<String>,
        iterations: u64,
        run: impl FnMut(u64) -> Result<()> + 'static,
    ) -> Self {
        Self { name: name.into(), iterations, run: Box::new(run), batches: Vec::new() }
    }

    /// Heap allocations of the marked phase, which is what callgrind counts.
    fn mark(&mut self) -> Result<f64> {
        (self.run)(self.iterations / 4 + 1)?;
        let before = Spent::open()?;
        (self.run)(self.iterations)?;
        let spent = Spent::close()?.allocated.since(before.allocated);
        Ok(spent.count as f64 / self.iterations as f64)
    }

    fn time(&mut self) -> Result<()> {
        let batch = self.iterations / FRACTION;
        for _ in 0..IN_A_ROW {
            let start = Instant::now();
            (self.run)(batch)?;
            self.batches.push(start.elapsed().as_nanos() as f64 / batch as f64);
        }
        Ok(())
    }

    fn measured(mut self, allocations: f64) -> Measured {
        if self.batches.is_empty() {
            // Not timed; JSON has no number for that.
            self.batches.push(0.0);
        }
        let (cost, median_ns) = (quantile(&mut self.batches, UNDISTURBED), median(&mut self.batches));
        let Self { name, iterations, run: _, batches: _ } = self;
        Measured { name, cost, median_ns, allocations, iterations }
    }
}

/// The child role: measures every case of a family and says what it found.
pub(crate) fn role(family: Family, how: How) -> Result<()> {
    let mut cases = match family {
        Family::Route => route::cases()?,
        Family::Lb => lb::cases()?,
        Family::Stack => stack::cases()?,
    };
    let allocations = cases.iter_mut().map(Case::mark).collect::<Result<Vec<_>>>()?;
    let until = Instant::now() + SPREAD;
    while how == How::Timed && Instant::now() < until {
        cases.iter_mut().try_for_each(Case::time)?;
    }
    let measured = cases.into_iter().zip(allocations).map(|(case, allocations)| case.measured(allocations));
    say(&measured.collect::<Vec<_>>())?;
    // Under callgrind the files are complete with the last mark; the driver ends this process.
    end_with_driver();
    loop {
        std::thread::park();
    }
}

/// Nanoseconds of each case.
pub(crate) fn timed(family: Family) -> Result<Vec<Measured>> {
    Child::spawn(&Wrap::Native, &arguments(family, How::Timed))?.hear()
}

/// Instructions of each case.
pub(crate) fn counted(family: Family, out: &Path) -> Result<Vec<Measured>> {
    let child = Child::spawn(&Wrap::Callgrind(out.to_owned()), &arguments(family, How::Counted))?;
    let mut measured: Vec<Measured> = child.hear()?;
    drop(child);
    for (number, case) in measured.iter_mut().enumerate() {
        // A phase is closed by every second mark.
        let dump = 2 * (number + 1);
        case.cost = icount::instructions(out, dump)? as f64 / case.iterations as f64;
    }
    Ok(measured)
}

/// Iterations of one batch of the cheap cases.
pub(super) const ITERATIONS: u64 = 20_000;

fn arguments(family: Family, how: How) -> [String; 3] {
    ["micro".to_owned(), format!("{family:?}").to_lowercase(), format!("{how:?}").to_lowercase()]
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "route" => Ok(Self::Route),
            "lb" => Ok(Self::Lb),
            "stack" => Ok(Self::Stack),
            _ => Err(format!("unknown family `{text}`")),
        }
    }
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "counted" => Ok(Self::Counted),
            "timed" => Ok(Self::Timed),
            _ => Err(format!("unknown measure `{text}`")),
        }
    }
}
