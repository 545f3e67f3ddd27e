//! Ours, with everything on: the configuration comes from the control plane over ADS; routing, balancing, an armed
//! retry policy, the breaker, metrics, traces at one percent, mTLS with a SAN match, and on the server RBAC.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::config::units::PerMillion;
use mesh_core::outcome::Outcome;
use mesh_core::rng::Xoshiro;
use mesh_core::telemetry::event::{RequestEvent, TraceIds};
use mesh_tower::telemetry::{LiveSpan, Metrics, SpanRecorder, SpanStart, TraceContext};
use mesh_tower::tls::{CertificateProviders, Identity, Roots, StaticProvider};
use mesh_tower::{Mesh, MeshChannel, Peer};
use mesh_xds::XdsSource;
use mesh_xds::bootstrap::{Bootstrap, CertificateProvider, FileWatcher, IdentityFiles, ServerConfig};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tonic::service::Routes;

use super::tonic::GrpcCaller;
use super::{Caller, Evidence, Site};
use crate::Result;
use crate::certs::Files;
use crate::echo::{EchoClient, EchoServer};
use crate::resources::{CLOSED_TARGET, NODE, PROVIDER, SERVER_TEMPLATE, TARGET};
use crate::role::CountingEcho;

/// Share of traces that are recorded, per million.
const SAMPLED: u32 = 10_000;

/// The generated client over a mesh channel.
#[derive(Clone)]
pub(crate) struct MeshCaller {
    echo: GrpcCaller<MeshChannel>,
    /// A target whose breaker lets nothing through.
    closed: GrpcCaller<MeshChannel>,
    world: Arc<World>,
}

/// A mesh and what it tells of itself.
struct World {
    mesh: Mesh,
    metrics: Arc<Metrics>,
    spans: Arc<Spans>,
}

/// Counts spans that were recorded and ended.
#[derive(Debug, Default)]
struct Spans {
    ended: AtomicU64,
}

/// One recorded span.
struct Span {
    ids: TraceIds,
    spans: Arc<Spans>,
}

/// Counts into a shared [`Spans`].
#[derive(Debug)]
struct Recorder {
    spans: Arc<Spans>,
    rng: Mutex<Xoshiro>,
}

/// Connects through the mesh; the configuration arrives with the first call.
pub(crate) async fn connect(site: &Site) -> Result<MeshCaller> {
    let world = World::new(site.xds, &Files::client(&site.certs))?;
    let channel =
        |target| world.mesh.channel(target).map(|channel| GrpcCaller::new(EchoClient::new(channel)));
    let (echo, closed) = (channel(TARGET)?, channel(CLOSED_TARGET)?);
    Ok(MeshCaller { echo, closed, world: Arc::new(world) })
}

/// Serves the echo through `mesh.serve` until the process ends.
pub(crate) async fn serve(
    listener: TcpListener,
    certs: &Path,
    xds: SocketAddr,
    echo: CountingEcho,
) -> Result<()> {
    let world = World::new(xds, &Files::server(certs))?;
    let metrics = Arc::clone(&world.metrics);
    let echo = echo.with_evidence(move |extensions| Evidence {
        requests: metrics.requests(),
        series: metrics.series() as u64,
        peer: extensions.get::<Peer>().and_then(principal),
        ..Evidence::default()
    });
    world.mesh.serve(listener, Routes::new(EchoServer::new(echo))).await?;
    Ok(())
}

fn principal(peer: &Peer) -> Option<String> {
    let names = peer.tls.as_ref()?.certificate.as_ref()?;
    names.spiffe.as_ref().map(ToString::to_string)
}

// === impl World ===

impl World {
    fn new(xds: SocketAddr, files: &Files) -> Result<Self> {
        let metrics = Metrics::new(Arc::new(WorkloadLabels::unknown()));
        let spans = Arc::new(Spans::default());
        let source = XdsSource::new(bootstrap(xds, files)?, &Handle::current());
        let mesh = Mesh::builder(source)
            .certificate_providers(certificates(files)?)
            .event_sink(Arc::clone(&metrics) as _)
            .trace_sampling(PerMillion::new(SAMPLED)?)
            .span_recorder(Arc::new(Recorder {
                spans: Arc::clone(&spans),
                rng: Mutex::new(Xoshiro::seeded(1)),
            }))
            .build()?;
        Ok(Self { mesh, metrics, spans })
    }
}

fn bootstrap(xds: SocketAddr, files: &Files) -> Result<Bootstrap> {
    let identity = IdentityFiles::new(&files.cert, &files.key);
    let watcher = FileWatcher::identity_only(identity).with_ca_file(&files.ca);
    Ok(Bootstrap::builder(NODE)
        .server(ServerConfig::insecure(&xds.to_string())?)
        .certificate_provider(PROVIDER, CertificateProvider::FileWatcher(watcher))
        .server_listener_template(SERVER_TEMPLATE)
        .build()?)
}

fn certificates(files: &Files) -> Result<CertificateProviders> {
    let crypto = rustls::crypto::aws_lc_rs::default_provider();
    let identity = Identity::from_pem(&std::fs::read(&files.cert)?, &std::fs::read(&files.key)?, &crypto)?;
    let roots = Roots::from_pem(&std::fs::read(&files.ca)?)?;
    Ok(CertificateProviders::new().with(PROVIDER, StaticProvider::new(Some(identity), Some(roots))))
}

// === impl MeshCaller ===

impl Caller for MeshCaller {
    async fn call(&mut self) -> Result<()> {
        self.echo.call().await
    }

    async fn evidence(&mut self) -> Result<Evidence> {
        let counted = Evidence {
            requests: self.world.metrics.requests(),
            series: self.world.metrics.series() as u64,
            spans: self.world.spans.ended.load(Ordering::Relaxed),
            ..Evidence::default()
        };
        let refused = self.closed.call().await.is_err();
        let attempts = self.echo.call_refused().await?;
        Ok(Evidence { breaker_refuses: refused, attempts, ..counted })
    }
}

// === impl Recorder ===

impl SpanRecorder for Recorder {
    fn start(&self, start: &SpanStart<'_>) -> Box<dyn LiveSpan> {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let context = match start.parent {
            Some(parent) => parent.child(&mut *rng),
            None => TraceContext::root(true, &mut *rng),
        };
        Box::new(Span { ids: context.ids, spans: Arc::clone(&self.spans) })
    }

    fn current(&self) -> Option<TraceContext> {
        None
    }
}

// === impl Span ===

impl LiveSpan for Span {
    fn ids(&self) -> TraceIds {
        self.ids
    }

    fn end(self: Box<Self>, _event: &RequestEvent<'_>) {
        self.spans.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn end_attempt(self: Box<Self>, _outcome: Outcome, _upstream: &str) {
        self.spans.ended.fetch_add(1, Ordering::Relaxed);
    }
}
