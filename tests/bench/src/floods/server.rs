//! The servers under attack.

use std::convert::Infallible;
use std::io::BufRead as _;
use std::process::exit;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mesh_tests::plain::Plain;
use mesh_tower::Mesh;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Served;
use crate::Result;
use crate::alloc::live_bytes;
use crate::role::{Listening, listen, say};

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// `mesh.serve`.
    Mesh,
    /// hyper, as it comes.
    Hyper,
}

/// What is counted.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    peak_heap: AtomicU64,
}

// === impl ServerKind ===

impl ServerKind {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Hyper => "hyper",
        }
    }
}

impl FromStr for ServerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Mesh, Self::Hyper]
            .into_iter()
            .find(|kind| kind.key() == text)
            .ok_or_else(|| format!("no server `{text}`"))
    }
}

/// The role: serves, and tells its counts whenever a line comes, until the driver closes the standard input.
pub(crate) fn role(kind: ServerKind) -> Result<()> {
    let counts = Arc::new(Counts::default());
    let told = Arc::clone(&counts);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
            let calls = told.calls.load(Ordering::Relaxed);
            let peak_heap = told.peak_heap.load(Ordering::Relaxed);
            if say(&Served { calls, peak_heap }).is_err() {
                break;
            }
        }
        exit(0)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (listener, port) = listen().await?;
        let mut sampling = JoinSet::new();
        let sampled = Arc::clone(&counts);
        sampling.spawn(async move {
            loop {
                sampled.peak_heap.fetch_max(live_bytes().try_into().unwrap_or(0), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        say(&Listening { port })?;
        match kind {
            ServerKind::Mesh => {
                let mesh = Mesh::builder(Plain).build()?;
                let app = tower::service_fn(move |request: Request<mesh_tower::Body>| {
                    answer(Arc::clone(&counts), request)
                });
                mesh.serve(listener, app).await?;
            }
            ServerKind::Hyper => hyper(listener, counts).await,
        }
        Ok(())
    })
}

async fn hyper(listener: TcpListener, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let counts = Arc::clone(&counts);
                connections.spawn(async move {
                    socket.set_nodelay(true).ok();
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http1().timer(TokioTimer::new());
                    builder.http2().timer(TokioTimer::new());
                    let service = hyper::service::service_fn(move |request| answer(Arc::clone(&counts), request));
                    // How a connection ends is the attacker's business.
                    drop(builder.serve_connection(TokioIo::new(socket), service).await);
                });
            }
        }
    }
}

/// `/ignore` does not look at its body for a second, `/read` reads it, `/big` answers with a MiB.
async fn answer<B>(counts: Arc<Counts>, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
where
    B: http_body::Body,
{
    static BIG: &[u8] = &[b'x'; 1 << 20];
    let path = request.uri().path();
    let path = path.to_owned();
    if path != "/good" {
        counts.calls.fetch_add(1, Ordering::Relaxed);
    }
    let body = match path.as_str() {
        "/big" => BIG,
        "/ignore" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            b"ignored"
        }
        "/read" => {
            let mut body = std::pin::pin!(request.into_body());
            while let Some(Ok(_)) = body.frame().await {}
            b"read"
        }
        _ => &b"ok"[..],
    };
    Ok(Response::new(Full::new(Bytes::from_static(body))))
}
