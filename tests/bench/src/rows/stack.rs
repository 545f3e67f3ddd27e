//! Our client stack alone, over a leaf in memory: what everything between the application and the transport costs.

use serde_json::json;

use super::Context;
use crate::Result;
use crate::icount;
use crate::micro::{Family, Measured, counted, timed};
use crate::report::{Check, Measure, Report, number};

/// Nanoseconds of the stack, the leaf not included.
const STACK_NS: f64 = 2_000.0;
/// Instructions of the stack: what stands for the time below, and does not depend on the machine.
const STACK_INSTRUCTIONS: f64 = 12_000.0;
/// Heap allocations of the stack, the leaf's not included: six, and in a hundredth of the calls one that something grows.
const STACK_ALLOCATIONS: f64 = 6.01;

/// Measures the leaf and the stack over it.
pub(crate) fn measure(cx: &Context, report: &mut Report) -> Result<()> {
    let times = timed(Family::Stack)?;
    let counts = if icount::available() { counted(Family::Stack, &cx.scratch("stack"))? } else { Vec::new() };
    let [leaf, stack] = &times[..] else { return Err("the stack has another number of cases".into()) };
    let instructions: Vec<_> =
        [0, 1].map(|n| counts.get(n).map_or(f64::NAN, |case: &Measured| case.cost.round())).to_vec();
    let row = |name: &str, instructions: f64, [ns, median_ns]: [f64; 2], allocations: f64| {
        vec![
            name.to_owned(),
            number(instructions),
            number(ns),
            number(median_ns),
            format!("{allocations:.2}"),
        ]
    };
    let alone_ns = stack.cost - leaf.cost;
    let alone_median = stack.median_ns - leaf.median_ns;
    let alone_allocations = stack.allocations - leaf.allocations;
    let alone_instructions = instructions[1] - instructions[0];
    report.table(
        "client stack over a leaf in memory, per unary call",
        &["", "instructions", "ns", "ns, median", "allocations"],
        &[
            row("leaf", instructions[0], [leaf.cost, leaf.median_ns], leaf.allocations),
            row("stack over leaf", instructions[1], [stack.cost, stack.median_ns], stack.allocations),
            row("stack alone", alone_instructions, [alone_ns, alone_median], alone_allocations),
        ],
    )?;
    let bounds = [
        ("instructions", alone_instructions, STACK_INSTRUCTIONS, "", Measure::Exact),
        ("allocations", alone_allocations, STACK_ALLOCATIONS, "", Measure::Exact),
        ("time", alone_ns, STACK_NS, "ns", Measure::Time),
    ];
    for (what, value, at_most, unit, measure) in bounds {
        report.check(Check { what: format!("stack alone, {what}"), value, at_most, unit, measure })?;
    }
    if icount::available() {
        cx.keep_profile(&icount::dump_file(&cx.scratch("stack"), 4), "stack")?;
    }
    report.put(
        "stack_alone",
        json!({
            "ns": alone_ns,
            "median_ns": alone_median,
            "allocations": alone_allocations,
            "instructions": alone_instructions.is_finite().then_some(alone_instructions),
        }),
    );
    Ok(())
}
