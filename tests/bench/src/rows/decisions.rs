//! What single decisions cost: a route among few and many, and a pick among a thousand endpoints.

use serde_json::{Map, Value, json};

use super::Context;
use crate::Result;
use crate::icount;
use crate::micro::{Family, Measured, counted, timed};
use crate::report::{Check, Measure, Report, number};

/// A decision among ten thousand may cost this much of one among ten.
const FLAT: f64 = 1.5;
/// Instructions per route that shares the matching path: what stands for the time below.
const SAME_PATH_INSTRUCTIONS: f64 = 150.0;
/// Nanoseconds per route that shares the matching path.
const SAME_PATH_NS: f64 = 30.0;
/// Nanoseconds per pick.
const PICK_NS: f64 = 100.0;

/// Route decisions.
pub(crate) fn routes(cx: &Context, report: &mut Report) -> Result<()> {
    let times = timed(Family::Route)?;
    let counts = if icount::available() { counted(Family::Route, &cx.scratch("route"))? } else { Vec::new() };
    let of = |all: &[Measured], name: &str| {
        all.iter().find(|case| case.name == name).map_or(f64::NAN, |case| case.cost)
    };
    let mut data = Map::new();
    let mut rows = Vec::new();
    for Measured { name, cost, median_ns, allocations, .. } in &times {
        let instructions = of(&counts, name);
        rows.push(vec![
            name.clone(),
            number(instructions.round()),
            number(*cost),
            number(*median_ns),
            format!("{allocations:.2}"),
        ]);
        data.insert(
            name.clone(),
            json!({"instructions": finite(instructions), "ns": cost, "allocations": allocations}),
        );
    }
    report.table(
        "route decision, mean over first, last, random and missing keys",
        &["table", "instructions", "ns", "ns, median", "allocations"],
        &rows,
    )?;
    for kind in ["hosts", "routes"] {
        let ratio = of(&counts, &format!("{kind} 10000")) / of(&counts, &format!("{kind} 10"));
        report.check(Check {
            what: format!("route decision with 10,000 {kind} against 10"),
            value: ratio,
            at_most: FLAT,
            unit: "x",
            measure: Measure::Exact,
        })?;
    }
    let slope =
        |of_all: &[Measured], many: &str, one: &str, more: f64| (of(of_all, many) - of(of_all, one)) / more;
    for (of_all, at_most, unit, measure) in [
        (&counts, SAME_PATH_INSTRUCTIONS, "instructions", Measure::Exact),
        (&times, SAME_PATH_NS, "ns", Measure::Time),
    ] {
        let value = slope(of_all, "same path 201", "same path 1", 200.0);
        let what = "each route that shares the matching path".to_owned();
        report.check(Check { what, value, at_most, unit, measure })?;
    }
    let regex = slope(&times, "regexes 101", "regexes 1", 100.0);
    report.note(&format!("each regex route before the one that matches: {} ns", number(regex)))?;
    data.insert("regex_slope_ns".to_owned(), json!(regex));
    report.put("route_decision", Value::Object(data));
    Ok(())
}

/// Endpoint picks.
pub(crate) fn picks(report: &mut Report) -> Result<()> {
    let times = timed(Family::Lb)?;
    let rows: Vec<_> = times
        .iter()
        .map(|case| {
            let allocations = format!("{:.2}", case.allocations);
            vec![case.name.clone(), number(case.cost), number(case.median_ns), allocations]
        })
        .collect();
    report.table("pick among 1,000 endpoints", &["policy", "ns", "ns, median", "allocations"], &rows)?;
    for case in times.iter().filter(|case| !case.name.starts_with("random")) {
        report.check(Check {
            what: format!("pick, {}", case.name),
            value: case.cost,
            at_most: PICK_NS,
            unit: "ns",
            measure: Measure::Time,
        })?;
    }
    let data = times.iter().map(|case| (case.name.clone(), json!({"ns": case.cost}))).collect();
    report.put("pick", Value::Object(data));
    Ok(())
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.round())
}
