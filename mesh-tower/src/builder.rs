//! How a [`Mesh`] is put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::units::PerMillion;
use mesh_core::snapshot::ConfigSource;
use mesh_core::telemetry::event::EventSink;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::local_reply::LocalReplies;
use crate::mesh::{Mesh, Parts};
use crate::runtime::endpoint::Upstream;
use crate::runtime::registry::{Runtime, Shared};
use crate::server::ServerLimits;
use crate::telemetry::span::SpanRecorder;
use crate::telemetry::{Telemetry, Tracing};
use crate::tls::provider::CertificateProviders;
use crate::tls::{CryptoBackend, TlsRuntime};
use crate::transport::connect::Connector;
use crate::transport::h2::UnreadLimits;
use crate::transport::h2::guard::ReceiveBudget;
use crate::transport::tcp::SocketConnector;

/// Builds a [`Mesh`].
#[must_use = "a builder does nothing until `build`"]
pub struct MeshBuilder {
    source: Arc<dyn ConfigSource>,
    certificates: CertificateProviders,
    crypto: CryptoBackend,
    sinks: Vec<Arc<dyn EventSink>>,
    sampling: PerMillion,
    recorder: Option<Arc<dyn SpanRecorder>>,
    connector: Arc<dyn Connector>,
    upstream: Option<Arc<dyn Upstream>>,
    limits: ServerLimits,
    lame_duck: Duration,
    unread: UnreadLimits,
    repeat_safe_requests: bool,
    detailed_replies: bool,
}

// === impl MeshBuilder ===

impl MeshBuilder {
    pub(crate) fn new(source: Arc<dyn ConfigSource>) -> Self {
        Self {
            source,
            certificates: CertificateProviders::default(),
            crypto: CryptoBackend::Auto,
            sinks: Vec::new(),
            sampling: PerMillion::ZERO,
            recorder: None,
            connector: Arc::new(SocketConnector),
            upstream: None,
            limits: ServerLimits::default(),
            lame_duck: Duration::ZERO,
            unread: UnreadLimits::default(),
            repeat_safe_requests: true,
            detailed_replies: false,
        }
    }

    /// Where certificates, keys and roots come from, by the names that the configuration uses.
    pub fn certificate_providers(mut self, providers: CertificateProviders) -> Self {
        self.certificates = providers;
        self
    }

    /// Which implementation of cryptography; by default the one that is compiled in.
    pub fn crypto(mut self, backend: CryptoBackend) -> Self {
        self.crypto = backend;
        self
    }

    /// One more taker of every finished request: metrics, an access log, anything.
    pub fn event_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// The share of requests without a parent whose spans are recorded.
    pub fn trace_sampling(mut self, share: PerMillion) -> Self {
        self.sampling = share;
        self
    }

    /// Who records the spans of sampled requests.
    pub fn span_recorder(mut self, recorder: Arc<dyn SpanRecorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// What opens connections, instead of sockets.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = connector;
        self
    }

    /// What servers of this mesh put up with.
    pub fn server_limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How long a shutdown goes on serving while `/ready` says that this replica leaves, before it drains. None by
    /// default. With Kubernetes as long as load balancers take to notice, 5 s or so: see [`drain`](crate::drain).
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// Bounds the memory that received and unread bodies take: by default 64 MiB per HTTP/2 connection, 512 MiB in all.
    pub fn unread_limits(mut self, limits: UnreadLimits) -> Self {
        self.unread = limits;
        self
    }

    /// Whether an HTTP/1.1 request of GET, HEAD, OPTIONS or TRACE without a body is sent once more, without any retry policy,
    /// when the reused connection that took it ended before any byte of a response (default true). The peer had most likely
    /// closed it while it was idle, but may have served the request. Whatever this says, other methods are never repeated
    /// once a byte of them was written, and a request of which nothing was written always is.
    pub fn repeat_safe_requests(mut self, repeat: bool) -> Self {
        self.repeat_safe_requests = repeat;
        self
    }

    /// Whether the answers that the mesh gives in place of an application say what happened in detail (clusters,
    /// addresses, resources, files) to whoever gets them, on both sides. By default they do not: a response flag and a few
    /// words, the rest is in the [`Error`] among the extensions of the response, and in the log.
    pub fn detailed_local_replies(mut self, detailed: bool) -> Self {
        self.detailed_replies = detailed;
        self
    }

    /// Answers requests in memory instead of over connections.
    pub fn upstream(mut self, upstream: Arc<dyn Upstream>) -> Self {
        self.upstream = Some(upstream);
        self
    }

    /// The mesh. Its tasks run on the runtime that is current here.
    ///
    /// # Errors
    /// Outside a Tokio runtime, or when the chosen cryptography is not compiled in.
    pub fn build(self) -> Result<Mesh, Error> {
        let handle = Handle::try_current()
            .map_err(|_| Error::setup("a mesh is built within a Tokio runtime: call this from async code"))?;
        let crypto = self.crypto.provider().map_err(Error::setup_failed)?;
        let tls = TlsRuntime::new(crypto, self.certificates);
        let telemetry = Telemetry::new(self.sinks, Tracing::new(self.sampling, self.recorder));
        let budget = ReceiveBudget::new(self.unread);
        let runtime = Runtime::new(Shared {
            handle,
            connector: self.connector,
            upstream: self.upstream,
            tls: tls.clone(),
            budget,
            #[cfg(feature = "http1")]
            repeat_safe_requests: self.repeat_safe_requests,
            telemetry: telemetry.clone(),
        });
        let replies = Arc::new(LocalReplies::new(self.detailed_replies));
        let (source, limits, lame_duck) = (self.source, self.limits, self.lame_duck);
        Ok(Mesh::new(Parts { source, runtime, telemetry, tls, limits, lame_duck, replies }))
    }
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder").finish_non_exhaustive()
    }
}
