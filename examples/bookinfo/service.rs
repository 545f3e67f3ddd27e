//! What the four services have in common: they join the mesh, serve, and let the tour slow them down or make them fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mesh_tower::mesh_core::telemetry::event::{EventSink, Reporter, RequestEvent};
use mesh_tower::mesh_xds::bootstrap::Bootstrap;
use mesh_tower::{Mesh, MeshBuilder};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::Failure;
use crate::process;

/// What the tour may change, and what it reads.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    delay_ms: AtomicU64,
    fail_every: AtomicU64,
    served: AtomicU64,
    retries: AtomicU64,
}

/// A service that has joined the mesh and has a port.
pub(crate) struct Joined {
    pub(crate) mesh: Mesh,
    pub(crate) tcp: TcpListener,
    pub(crate) knobs: Arc<Knobs>,
}

/// Joins the mesh as the bootstrap in the environment says, and takes a free port of this machine.
pub(crate) async fn join() -> Result<Joined, Failure> {
    let knobs = Arc::new(Knobs::default());
    let mesh = MeshBuilder::from_bootstrap(Bootstrap::from_env()?)?.event_sink(knobs.clone()).build()?;
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    process::ready(tcp.local_addr()?);
    Ok(Joined { mesh, tcp, knobs })
}

/// Serves until the parent lets go, then finishes what has begun.
pub(crate) async fn serve<F>(mesh: &Mesh, knobs: &Knobs, serving: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), mesh_tower::Error>>,
{
    tokio::select! {
        served = serving => served?,
        told = process::commands(async |line| knobs.turn(line)) => {
            told?;
            mesh.shutdown(Duration::from_secs(5)).await;
        }
    }
    Ok(())
}

// === impl Knobs ===

impl Knobs {
    /// What every request goes through first: waits, or fails.
    pub(crate) async fn pass(&self) -> Result<(), Unlucky> {
        let served = self.served.fetch_add(1, Relaxed);
        let delay = self.delay_ms.load(Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        match self.fail_every.load(Relaxed) {
            0 => Ok(()),
            every if served.is_multiple_of(every) => Err(Unlucky),
            _ => Ok(()),
        }
    }

    fn turn(&self, line: &str) -> Result<Value, Failure> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("delay", ms) => self.delay_ms.store(ms.parse()?, Relaxed),
            ("fail-every", n) => self.fail_every.store(n.parse()?, Relaxed),
            ("stats", _) => {}
            _ => return Err(format!("no such command: {line:?}").into()),
        }
        Ok(json!({ "served": self.served.load(Relaxed), "retries": self.retries.load(Relaxed) }))
    }
}

/// This request was chosen to fail.
#[derive(Debug)]
pub(crate) struct Unlucky;

impl EventSink for Knobs {
    fn record(&self, event: &RequestEvent<'_>) {
        if event.reporter == Reporter::Source {
            self.retries.fetch_add(u64::from(event.attempts.saturating_sub(1)), Relaxed);
        }
    }
}
