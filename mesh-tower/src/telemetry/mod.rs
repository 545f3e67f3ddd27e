//! What is told of every request: metrics, access log, spans. Sinks of one [`RequestEvent`], nothing on the way.
//!
//! * [`Metrics`]: Istio's standard metrics with Istio's labels, as Prometheus text
//! * [`AccessLog`]: one line per request, in Istio's text or JSON form
//! * [`TraceContext`]: the W3C trace context in and out of headers
//! * [`SpanRecorder`]: spans of calls, attempts and served requests, decided by sampling before anything is built
//! * `otel` (feature `otel`): those spans through OpenTelemetry, and a helper that wires the OTLP exporters
//!
//! [`RequestEvent`]: mesh_core::telemetry::event::RequestEvent

mod access_log;
mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
pub(crate) mod propagate;
pub(crate) mod span;
pub(crate) mod throttle;

use std::sync::Arc;

use mesh_core::telemetry::event::{EventSink, RequestEvent};

pub use access_log::{AccessLog, Format};
pub use metrics::Metrics;
pub use propagate::TraceContext;
pub(crate) use span::Tracing;
pub use span::{LiveSpan, SpanOf, SpanRecorder, SpanStart};

/// Everything that is told of requests, shared by all channels and servers of one mesh.
#[derive(Debug, Clone, Default)]
pub(crate) struct Telemetry {
    sinks: Arc<[Arc<dyn EventSink>]>,
    tracing: Tracing,
}

// === impl Telemetry ===

impl Telemetry {
    /// Tells every sink of every request, and samples spans as `tracing` says.
    #[must_use]
    pub(crate) fn new(sinks: Vec<Arc<dyn EventSink>>, tracing: Tracing) -> Self {
        Self { sinks: sinks.into(), tracing }
    }

    /// The policy of spans.
    #[must_use]
    pub(crate) fn tracing(&self) -> &Tracing {
        &self.tracing
    }

    /// Whether anybody listens; an event need not be built otherwise.
    #[must_use]
    pub(crate) fn has_sinks(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// A request ended.
    pub(crate) fn record(&self, event: &RequestEvent<'_>) {
        for sink in &*self.sinks {
            sink.record(event);
        }
    }

    /// A cluster began to be used.
    pub(crate) fn cluster_in_use(&self, name: &str) {
        for sink in &*self.sinks {
            sink.cluster_in_use(name);
        }
    }

    /// A cluster is gone.
    pub(crate) fn cluster_gone(&self, name: &str) {
        for sink in &*self.sinks {
            sink.cluster_gone(name);
        }
    }
}
