//! Steady load on the page, and what became of it: a plain HTTP client, as a browser is one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Failure;
use crate::productpage::Summary;

/// Requests per second, over all workers.
pub(crate) const RATE: u32 = 480;
const WORKERS: u32 = 24;

/// Load that goes on until it is dropped.
pub(crate) struct Load {
    window: Arc<Mutex<Window>>,
    workers: JoinSet<()>,
}

/// What happened since the window was opened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Window {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// The first few failures, in words.
    pub(crate) failures: Vec<String>,
    pub(crate) versions: BTreeMap<String, u64>,
    pub(crate) replicas: BTreeMap<String, u64>,
    /// Pages without stars though the version knows them.
    pub(crate) starless: u64,
    latencies: Vec<Duration>,
}

/// One keep-alive connection.
struct Browser {
    at: SocketAddr,
    connection: Option<http1::SendRequest<Empty<Bytes>>>,
}

// === impl Load ===

impl Load {
    /// Begins.
    pub(crate) fn start(page: SocketAddr) -> Self {
        let window = Arc::new(Mutex::new(Window::default()));
        let mut workers = JoinSet::new();
        let period = Duration::from_secs(1) * WORKERS / RATE;
        for n in 0..WORKERS {
            // Spread over the period: a synchronous burst would measure itself.
            workers.spawn(work(page, period, period * n / WORKERS, window.clone()));
        }
        Self { window, workers }
    }

    /// Closes the window and opens the next.
    pub(crate) fn take(&self) -> Window {
        std::mem::take(&mut *lock(&self.window))
    }

    /// Requests in the open window.
    pub(crate) fn requests(&self) -> u64 {
        lock(&self.window).requests
    }

    /// Ends, after the requests in flight.
    pub(crate) async fn stop(mut self) {
        self.workers.shutdown().await;
    }
}

// === impl Window ===

impl Window {
    /// The latency below which this share of the requests was, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    /// The share of requests that a version served, in percent.
    pub(crate) fn share(&self, version: &str) -> f64 {
        let served: u64 = self.versions.values().sum();
        100.0 * self.versions.get(version).copied().unwrap_or(0) as f64 / served.max(1) as f64
    }

    fn add(&mut self, latency: Duration, outcome: Result<Summary, Failure>) {
        self.requests += 1;
        self.latencies.push(latency);
        match outcome {
            Ok(page) => {
                self.starless += u64::from(page.version != "v1" && page.stars == 0);
                *self.versions.entry(page.version).or_default() += 1;
                *self.replicas.entry(page.replica).or_default() += 1;
            }
            Err(failure) => {
                self.failed += 1;
                if self.failures.len() < 5 {
                    self.failures.push(failure.to_string());
                }
            }
        }
    }
}

// === impl Browser ===

impl Browser {
    async fn page(&mut self) -> Result<Summary, Failure> {
        let request =
            Request::get("/productpage/0?format=json").header("host", "bookinfo").body(Empty::new())?;
        let response = self.connected().await?.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    async fn connected(&mut self) -> Result<&mut http1::SendRequest<Empty<Bytes>>, Failure> {
        let usable = match self.connection.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match usable {
            Some(sender) => sender,
            None => {
                let io = hyper_util::rt::TokioIo::new(TcpStream::connect(self.at).await?);
                let (sender, connection) = http1::handshake(io).await?;
                #[expect(clippy::disallowed_methods, reason = "the connection ends with its sender")]
                tokio::task::spawn(connection);
                sender
            }
        };
        Ok(self.connection.insert(sender))
    }
}

/// Asks for pages until one has come from the version that the weights allow, within ten seconds.
pub(crate) async fn until_served(page: SocketAddr, weights: [u32; 3]) -> Result<(), Failure> {
    let wanted = weights.iter().position(|weight| *weight > 0).map(|n| format!("v{}", n + 1));
    let mut browser = Browser { at: page, connection: None };
    let mut last: Failure = "no page came".into();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        match browser.page().await {
            Ok(page) if Some(&page.version) == wanted.as_ref() => return Ok(()),
            Ok(page) => last = format!("{} answered, not {wanted:?}", page.version).into(),
            Err(failure) => last = failure,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(format!("the page is not served: {last}").into())
}

async fn work(page: SocketAddr, period: Duration, after: Duration, window: Arc<Mutex<Window>>) {
    let mut browser = Browser { at: page, connection: None };
    let mut ticks = tokio::time::interval_at(Instant::now() + after, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let start = Instant::now();
        let outcome = browser.page().await;
        lock(&window).add(start.elapsed(), outcome);
    }
}

fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}
