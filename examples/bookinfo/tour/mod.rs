//! The story: what a mesh is for, told under steady load, each claim measured.

mod report;
mod steps;
mod strangers;

use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::fleet::{Fleet, say};
use crate::load::{Load, Window};

use report::{Report, Step};

/// A tour in progress.
pub(crate) struct Tour {
    fleet: Fleet,
    load: Load,
    report: Report,
}

/// What a step has seen.
pub(crate) struct Seen {
    pub(crate) window: Window,
    pub(crate) retries: u64,
}

/// Plays the story; an error if a claim in it did not hold.
pub(crate) async fn run(json: Option<&str>) -> Result<(), Failure> {
    let start = Instant::now();
    say("Starting the CA, the control plane and ten replicas, each a process of its own ...");
    let fleet = Fleet::start().await?;
    let load = Load::start(fleet.page());
    say(&format!(
        "Up after {:.1} s. Load: {} pages a second, four services each.\n",
        start.elapsed().as_secs_f64(),
        crate::load::RATE
    ));
    let mut tour = Tour { fleet, load, report: Report::default() };
    let told = steps::tell(&mut tour).await;
    let Tour { fleet, load, report } = tour;
    load.stop().await;
    fleet.stop().await?;
    told?;
    say(&report.table());
    if let Some(file) = json {
        std::fs::write(file, report.json())?;
    }
    say(&format!(
        "{} requests, {} failed, {:.0} s.",
        report.requests(),
        report.failed(),
        start.elapsed().as_secs_f64()
    ));
    if report.held() { Ok(()) } else { Err("a claim did not hold: see the table".into()) }
}

// === impl Tour ===

impl Tour {
    /// Watches the load for a while, from now on.
    pub(crate) async fn watch(&mut self, name: &str, seconds: u64) -> Result<Seen, Failure> {
        let before = self.open().await?;
        self.progress(name, seconds).await;
        self.close(before).await
    }

    /// Opens a window; what it needs to be closed.
    pub(crate) async fn open(&mut self) -> Result<u64, Failure> {
        let retries = self.fleet.retries().await?;
        self.report.between(&self.load.take());
        Ok(retries)
    }

    /// Closes a window.
    pub(crate) async fn close(&mut self, before: u64) -> Result<Seen, Failure> {
        let window = self.load.take();
        let retries = self.fleet.retries().await?.saturating_sub(before);
        Ok(Seen { window, retries })
    }

    /// Waits, and shows that something goes on.
    pub(crate) async fn progress(&self, name: &str, seconds: u64) {
        for left in (1..=seconds).rev() {
            report::progress(&format!("{name}: {} requests, {left} s to go", self.load.requests()));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(crate) fn add(&mut self, step: Step) {
        say(&step.line());
        self.report.add(step);
    }
}
