//! What a child process does: one client that runs on order, or one server that counts its calls.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::exit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tonic::{Extensions, Request, Response, Status};

use crate::Result;
use crate::alloc::Allocated;
use crate::echo::{Echo, EchoMessage, REFUSE};
use crate::mark::{Spent, phase_mark};
use crate::peers::h2::H2Caller;
use crate::peers::hyper::HyperCaller;
use crate::peers::{self, Caller, ClientKind, Evidence, ServerKind, Site};

/// One line from the driver to a client.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make calls; the answer is [`Ran`].
    Run {
        /// How many.
        calls: u64,
        /// How many of them at a time.
        outstanding: u64,
    },
    /// Prove that the features are on; the answer is [`Evidence`].
    Prove,
}

/// A client's answer to [`Order::Run`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// Calls made, each of them answered with OK and the payload.
    pub(crate) calls: u64,
    /// Heap allocations of the phase.
    pub(crate) allocated: Allocated,
    /// CPU time of the phase.
    pub(crate) cpu_ns: u64,
    /// Wall time of the phase.
    pub(crate) wall_ns: u64,
}

/// A server's first line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Listening {
    /// Where it accepts.
    pub(crate) port: u16,
}

/// A server's last line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Its allocations when it had served each of the asked-for numbers of calls, in the order of the marks.
    pub(crate) at: Vec<Allocated>,
    /// What it can prove of itself.
    pub(crate) evidence: Evidence,
}

/// Prints one JSON line.
pub(crate) fn say<T: Serialize>(line: &T) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Reads one JSON line.
pub(crate) fn hear<T: DeserializeOwned>() -> Result<T> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// A listener on a free port of loopback.
pub(crate) async fn listen() -> Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// The one kind of runtime in all roles: a single thread, so that counts are of the path and not of its scheduling.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Runs a client until the driver closes its standard input.
pub(crate) fn client(kind: ClientKind, site: &Site) -> Result<()> {
    let runtime = runtime()?;
    match kind {
        ClientKind::Hyper => obey(&runtime, runtime.block_on(HyperCaller::connect(site))?),
        ClientKind::H2 => obey(&runtime, runtime.block_on(H2Caller::connect(site))?),
        ClientKind::Tonic => obey(&runtime, runtime.block_on(peers::tonic::connect(site))?),
        ClientKind::Mesh => obey(&runtime, runtime.block_on(peers::mesh::connect(site))?),
        ClientKind::TonicXds => obey(&runtime, runtime.block_on(peers::tonic_xds::connect(site))?),
    }
}

/// Runs a server until the driver closes its standard input.
pub(crate) fn server(kind: ServerKind, certs: &Path, marks: Vec<u64>) -> Result<()> {
    runtime()?.block_on(async {
        let (listener, port) = listen().await?;
        say(&Listening { port })?;
        // The control plane has to know the port before it can say anything about this server.
        let xds: SocketAddr = hear()?;
        end_with_driver();
        let echo = CountingEcho::new(marks);
        match kind {
            ServerKind::Tonic => peers::tonic::serve(listener, certs, echo).await,
            ServerKind::Mesh => peers::mesh::serve(listener, certs, xds, echo).await,
        }
    })
}

/// Ends this process when the driver is gone, so that no child outlives its run.
pub(crate) fn end_with_driver() {
    std::thread::spawn(|| {
        let mut sink = String::new();
        while matches!(std::io::stdin().read_line(&mut sink), Ok(n) if n > 0) {
            sink.clear();
        }
        exit(0);
    });
}

/// Answers orders with what they cost. The first call is made before, so that connecting is never part of a phase.
fn obey<C: Caller>(runtime: &Runtime, mut caller: C) -> Result<()> {
    runtime.block_on(caller.call())?;
    say(&"ready")?;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Run { calls, outstanding } => say(&run(runtime, &caller, calls, outstanding)?)?,
            Order::Prove => say(&runtime.block_on(caller.evidence())?)?,
        }
    }
    Ok(())
}

fn run<C: Caller>(runtime: &Runtime, caller: &C, calls: u64, outstanding: u64) -> Result<Ran> {
    let mut single = caller.clone();
    let start = Instant::now();
    let before = Spent::open()?;
    if outstanding <= 1 {
        runtime.block_on(repeat(&mut single, calls))?;
    } else {
        let local = LocalSet::new();
        let each = calls.div_ceil(outstanding);
        local.block_on(runtime, async {
            let tasks: Vec<_> = (0..outstanding)
                .map(|_| {
                    let mut caller = caller.clone();
                    tokio::task::spawn_local(async move { repeat(&mut caller, each).await })
                })
                .collect();
            for task in tasks {
                task.await??;
            }
            Result::<()>::Ok(())
        })?;
    }
    let after = Spent::close()?;
    Ok(Ran {
        calls: calls.div_ceil(outstanding.max(1)) * outstanding.max(1),
        allocated: after.allocated.since(before.allocated),
        cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
        wall_ns: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
    })
}

async fn repeat<C: Caller>(caller: &mut C, calls: u64) -> Result<()> {
    for _ in 0..calls {
        caller.call().await?;
    }
    Ok(())
}

/// Reads evidence from the inside of a server; a request's extensions say who called.
type Prove = Box<dyn Fn(&Extensions) -> Evidence + Send + Sync>;

/// Echoes, and passes a mark when it has served each of the given numbers of calls.
pub(crate) struct CountingEcho {
    served: AtomicU64,
    refused: AtomicU64,
    marks: Vec<u64>,
    passed: Mutex<Vec<Allocated>>,
    prove: Prove,
}

impl CountingEcho {
    /// Marks in ascending order.
    pub(crate) fn new(marks: Vec<u64>) -> Self {
        let passed = Mutex::new(Vec::with_capacity(marks.len()));
        let prove = Box::new(|_: &Extensions| Evidence::default());
        Self { served: AtomicU64::new(0), refused: AtomicU64::new(0), marks, passed, prove }
    }

    /// The same, which can prove something at its last mark.
    pub(crate) fn with_evidence(
        self,
        prove: impl Fn(&Extensions) -> Evidence + Send + Sync + 'static,
    ) -> Self {
        Self { prove: Box::new(prove), ..self }
    }

    fn pass(&self, extensions: &Extensions) -> Result<()> {
        phase_mark(2);
        let mut passed = self.passed.lock().map_err(|e| e.to_string())?;
        passed.push(Allocated::now());
        if passed.len() == self.marks.len() {
            say(&Served { at: passed.clone(), evidence: (self.prove)(extensions) })?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Echo for CountingEcho {
    async fn unary(&self, request: Request<EchoMessage>) -> Result<Response<EchoMessage>, Status> {
        if request.metadata().contains_key(REFUSE) {
            let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            return Err(Status::unavailable(refused.to_string()));
        }
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        if self.marks.contains(&served) {
            self.pass(request.extensions()).map_err(|e| Status::internal(e.to_string()))?;
        }
        Ok(Response::new(request.into_inner()))
    }
}
