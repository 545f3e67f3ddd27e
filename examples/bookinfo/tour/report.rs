//! What was promised and what was measured, for people and as data.

use std::io::Write as _;

use serde::Serialize;

use super::Seen;
use crate::load::Window;

/// One step of the story.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) retries: u64,
    pub(crate) expected: String,
    pub(crate) measured: String,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) ok: bool,
    /// The first few failures, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
}

/// The whole story.
#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: Vec<Step>,
    /// Requests between two steps: they count, and must not fail either.
    between: (u64, u64),
}

// === impl Step ===

impl Step {
    /// A step about the load: it holds if the claim does, no request failed, and policy retried nothing.
    pub(crate) fn about(name: &str, seen: &Seen, expected: String, measured: String, claim: bool) -> Self {
        Self::with_retries(name, seen, expected, measured, claim && seen.retries == 0)
    }

    /// A step in which retries are the point.
    pub(crate) fn with_retries(
        name: &str,
        seen: &Seen,
        expected: String,
        measured: String,
        claim: bool,
    ) -> Self {
        let Window { requests, failed, failures, .. } = seen.window.clone();
        Self {
            name: name.to_owned(),
            requests,
            failed,
            retries: seen.retries,
            expected,
            measured,
            p50_ms: seen.window.percentile(0.5),
            p99_ms: seen.window.percentile(0.99),
            ok: claim && failed == 0 && requests > 0,
            failures,
        }
    }

    /// One line, as the step ends.
    pub(crate) fn line(&self) -> String {
        let verdict = if self.ok { "ok  " } else { "MISS" };
        let why = self
            .failures
            .first()
            .map(|failure| format!("\n       first failure: {failure}"))
            .unwrap_or_default();
        format!("\r\x1b[K{verdict} {}: {}{why}", self.name, self.measured)
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(crate) fn between(&mut self, window: &Window) {
        self.between.0 += window.requests;
        self.between.1 += window.failed;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.between.0 + self.steps.iter().map(|step| step.requests).sum::<u64>()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.between.1 + self.steps.iter().map(|step| step.failed).sum::<u64>()
    }

    pub(crate) fn held(&self) -> bool {
        self.failed() == 0 && !self.steps.is_empty() && self.steps.iter().all(|step| step.ok)
    }

    pub(crate) fn json(&self) -> String {
        let all =
            serde_json::json!({ "requests": self.requests(), "failed": self.failed(), "steps": self.steps });
        format!("{all:#}\n")
    }

    pub(crate) fn table(&self) -> String {
        let mut rows = vec![
            ["step", "requests", "failed", "retries", "p50 ms", "p99 ms", "expected", "measured", ""]
                .map(str::to_owned),
        ];
        for step in &self.steps {
            rows.push([
                step.name.clone(),
                step.requests.to_string(),
                step.failed.to_string(),
                step.retries.to_string(),
                format!("{:.1}", step.p50_ms),
                format!("{:.1}", step.p99_ms),
                step.expected.clone(),
                step.measured.clone(),
                if step.ok { "ok" } else { "MISS" }.to_owned(),
            ]);
        }
        let widths: Vec<usize> = (0..9)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |row: &[String; 9]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        format!("\n{}\n", rows.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// One line that the next one overwrites.
pub(crate) fn progress(text: &str) {
    let mut out = std::io::stdout().lock();
    // A broken pipe of a progress line is no reason to stop.
    let _ = write!(out, "\r\x1b[K     {text}").and_then(|()| out.flush());
}
