//! What a run found: the table, the checks against the bounds, and the same as JSON.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::Result;

/// One bound of the bar and what was measured against it.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// What is bounded.
    pub(crate) what: String,
    /// The measured value.
    pub(crate) value: f64,
    /// The most that it may be.
    pub(crate) at_most: f64,
    /// Unit of both.
    pub(crate) unit: &'static str,
    /// How it was measured.
    pub(crate) measure: Measure,
}

/// What a value depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Instructions and allocations: on the program alone.
    Exact,
    /// On the machine too, and on how quiet it is.
    Time,
}

/// Whether the bounds of a run hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Those of what was measured exactly.
    pub(crate) exact: bool,
    /// Those of times.
    pub(crate) times: bool,
}

impl Check {
    /// True when the bound holds.
    pub(crate) fn holds(&self) -> bool {
        self.value <= self.at_most
    }

    fn verdict(&self) -> &'static str {
        match (self.holds(), self.measure) {
            (true, _) => "ok",
            (false, Measure::Exact) => "MISS",
            (false, Measure::Time) => "slow",
        }
    }
}

/// Collects sections while they are measured, and prints each as soon as it is complete.
#[derive(Debug, Default)]
pub(crate) struct Report {
    data: Map<String, Value>,
    checks: Vec<Check>,
}

impl Report {
    /// Starts with the machine line.
    pub(crate) fn new(quick: bool) -> Result<Self> {
        let mut report = Self::default();
        let machine = machine();
        line(&format!("machine: {machine}"))?;
        report.put("machine", json!(machine));
        report.put("quick", json!(quick));
        Ok(report)
    }

    /// Adds a value to the JSON.
    pub(crate) fn put(&mut self, key: &str, value: Value) {
        self.data.insert(key.to_owned(), value);
    }

    /// Prints a section's title and its table.
    pub(crate) fn table(&self, title: &str, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
        line("")?;
        line(title)?;
        for text in render(head, rows) {
            line(&text)?;
        }
        Ok(())
    }

    /// Prints a remark.
    pub(crate) fn note(&self, text: &str) -> Result<()> {
        line(&format!("  note: {text}"))
    }

    /// Prints a check and keeps it.
    pub(crate) fn check(&mut self, check: Check) -> Result<()> {
        let Check { what, value, at_most, unit, measure: _ } = &check;
        line(&format!("  {:4} {what}: {} <= {} {unit}", check.verdict(), number(*value), number(*at_most)))?;
        self.checks.push(check);
        Ok(())
    }

    /// Prints the sum of the checks and writes the JSON.
    pub(crate) fn finish(mut self, file: Option<&Path>) -> Result<Holds> {
        line("")?;
        let all_hold = |what: &str, measure| -> Result<bool> {
            let (good, bad): (Vec<_>, Vec<_>) =
                self.checks.iter().filter(|c| c.measure == measure).partition(|c| c.holds());
            line(&format!("checks of {what}: {} of {} hold", good.len(), good.len() + bad.len()))?;
            Ok(bad.is_empty())
        };
        let exact = all_hold("instructions and allocations", Measure::Exact)?;
        let holds = Holds { exact, times: all_hold("times, which depend on the machine", Measure::Time)? };
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|c| json!({"what": c.what, "value": c.value, "at_most": c.at_most, "unit": c.unit, "ok": c.holds()}))
            .collect();
        self.put("checks", json!(checks));
        if let Some(file) = file {
            let mut text = serde_json::to_string_pretty(&Value::Object(self.data))?;
            text.push('\n');
            fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        Ok(holds)
    }
}

/// A number for people: thousands apart, decimals only where they say something.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// The middle of `values`; they are sorted in place.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The value below which this part of `values` lies; they are sorted in place.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1) as f64 * part).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

fn render(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let pad = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::from(" ");
        for (column, (cell, width)) in cells.zip(&widths).enumerate() {
            if column == 0 {
                text.push_str(&format!(" {cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        text
    };
    let mut out = vec![pad(&mut head.iter().copied())];
    out.extend(rows.iter().map(|row| pad(&mut row.iter().map(String::as_str))));
    out
}

fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let valgrind = Command::new("valgrind").arg("--version").output().map_or_else(
        |_| "no valgrind".to_owned(),
        |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
    );
    let profile = if cfg!(debug_assertions) { "DEBUG BUILD, numbers mean nothing" } else { "release" };
    format!("{model}, {cores} cores, Linux {}, load {load}, {valgrind}, {profile}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::{Check, Holds, Measure, Report, median, number, quantile, render};

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-1_000.0), "-1,000");
        assert_eq!(number(12.5), "12.50");
        assert_eq!(number(40.0), "40");
    }

    #[test]
    fn a_bound_holds_when_it_is_met_exactly() {
        assert!(check(6.0, Measure::Exact).holds());
        assert!(!check(6.1, Measure::Exact).holds());
        assert!(!check(f64::NAN, Measure::Exact).holds(), "nothing measured is not a pass");
    }

    #[test]
    fn a_slow_machine_is_told_from_a_program_that_does_more() {
        let mut report = Report::default();
        report.check(check(6.1, Measure::Time)).unwrap();
        report.check(check(6.0, Measure::Exact)).unwrap();
        assert_eq!(report.finish(None).unwrap(), Holds { exact: true, times: false });
    }

    fn check(value: f64, measure: Measure) -> Check {
        Check { what: String::new(), value, at_most: 6.0, unit: "allocations", measure }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values = [5.0, 3.0, 1.0, 4.0, 2.0];
        assert_eq!([0.0, 0.1, 0.5, 1.0].map(|part| quantile(&mut values, part)), [1.0, 1.0, 3.0, 5.0]);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["tonic".to_owned(), "80,000".to_owned()]];
        assert_eq!(render(&["client", "Ir"], &rows), ["  client      Ir", "  tonic   80,000"]);
    }
}
