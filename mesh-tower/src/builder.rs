//! How a [`Mesh`] is put together.

use std::fmt;
use std::sync::Arc;

use mesh_core::config::units::PerMillion;
use mesh_core::snapshot::ConfigSource;
use mesh_core::telemetry::event::EventSink;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::mesh::{Mesh, Parts};
use crate::runtime::endpoint::Upstream;
use crate::runtime::registry::Runtime;
use crate::server::ServerLimits;
use crate::telemetry::span::SpanRecorder;
use crate::telemetry::{Telemetry, Tracing};
use crate::tls::provider::CertificateProviders;
use crate::tls::{CryptoBackend, TlsRuntime};
use crate::transport::connect::Connector;
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
        let crypto = self.crypto.provider().map_err(|error| Error::setup(error.to_string()))?;
        let tls = TlsRuntime::new(crypto, self.certificates);
        let telemetry = Telemetry::new(self.sinks, Tracing::new(self.sampling, self.recorder));
        let runtime = Runtime::new(handle, self.connector, self.upstream, tls.clone());
        Ok(Mesh::new(Parts { source: self.source, runtime, telemetry, tls, limits: self.limits }))
    }
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder").finish_non_exhaustive()
    }
}
