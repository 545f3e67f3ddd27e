//! Spans through OpenTelemetry, and a helper that wires the OTLP exporter (feature `otel`).
//!
//! The library calls the OpenTelemetry API only; which SDK and exporter stand behind it is the application's choice.
//! [`otlp`] is one such choice, made with `opentelemetry_sdk` and `opentelemetry-otlp`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use mesh_core::outcome::{GrpcCode, Outcome};
use mesh_core::telemetry::event::{RequestEvent, TraceIds};
use mesh_core::telemetry::names::attribute;

use super::propagate::TraceContext;
use super::span::{LiveSpan, SpanOf, SpanRecorder, SpanStart};

/// Records spans with a tracer of OpenTelemetry.
pub struct OtelRecorder<T> {
    tracer: T,
}

/// A live OpenTelemetry span.
struct OtelSpan<S: opentelemetry::trace::Span> {
    span: S,
}

/// The OTLP exporter could not be built.
#[derive(Debug, thiserror::Error)]
#[error("the OTLP exporter for {endpoint:?} cannot be built; check the endpoint's scheme, host and port")]
pub struct ExporterError {
    endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

/// A recorder that exports in batches over OTLP/gRPC to `endpoint` (`http://host:4317`), and its provider, whose
/// `shutdown` flushes what is queued.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// When the endpoint is not a valid URI.
pub fn otlp(
    endpoint: &str,
    service: &str,
) -> Result<(Arc<dyn SpanRecorder>, SdkTracerProvider), ExporterError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(Duration::from_secs(10))
        .build()
        .map_err(|source| ExporterError { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    Ok((Arc::new(OtelRecorder::new(&provider)), provider))
}

// === impl OtelRecorder ===

impl<T> OtelRecorder<T> {
    /// Records with the tracer `mesh` of a provider.
    pub fn new<P>(provider: &P) -> Self
    where
        P: TracerProvider<Tracer = T>,
    {
        let scope = InstrumentationScope::builder("mesh").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { tracer: provider.tracer_with_scope(scope) }
    }
}

impl<T> std::fmt::Debug for OtelRecorder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtelRecorder").finish_non_exhaustive()
    }
}

impl<T> SpanRecorder for OtelRecorder<T>
where
    T: Tracer + Send + Sync + 'static,
    T::Span: Send + 'static,
{
    fn start(&self, start: &SpanStart<'_>) -> Box<dyn LiveSpan> {
        let kind = match start.of {
            SpanOf::Call | SpanOf::Attempt { .. } => SpanKind::Client,
            SpanOf::Served => SpanKind::Server,
        };
        let mut attributes = vec![KeyValue::new(attribute::METHOD, start.method.to_owned())];
        if start.grpc {
            attributes.push(KeyValue::new(attribute::RPC_SYSTEM, "grpc"));
        } else {
            attributes.push(KeyValue::new(attribute::PATH, start.path.to_owned()));
        }
        if let SpanOf::Attempt { previous } = start.of {
            attributes.push(KeyValue::new(attribute::PREVIOUS_ATTEMPTS, i64::from(previous)));
        }
        let builder =
            self.tracer.span_builder(Cow::Owned(start.name())).with_kind(kind).with_attributes(attributes);
        let parent = start
            .parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(to_otel(parent.ids)));
        Box::new(OtelSpan { span: builder.start_with_context(&self.tracer, &parent) })
    }

    fn current(&self) -> Option<TraceContext> {
        Context::map_current(|context| {
            let span = context.span();
            let found = span.span_context();
            found.is_valid().then(|| TraceContext { ids: from_otel(found), state: None })
        })
    }
}

// === impl OtelSpan ===

impl<S: opentelemetry::trace::Span + Send> LiveSpan for OtelSpan<S> {
    fn ids(&self) -> TraceIds {
        from_otel(self.span.span_context())
    }

    fn end(mut self: Box<Self>, event: &RequestEvent<'_>) {
        let span = &mut self.span;
        span.set_attribute(KeyValue::new(attribute::STATUS, i64::from(event.response_code)));
        span.set_attribute(KeyValue::new(attribute::RESPONSE_FLAGS, event.flags.to_string()));
        span.set_attribute(KeyValue::new(attribute::DETAILS, event.details.to_owned()));
        span.set_attribute(KeyValue::new(attribute::UPSTREAM_CLUSTER, event.cluster.to_owned()));
        span.set_attribute(KeyValue::new(
            attribute::SNAPSHOT,
            i64::try_from(event.snapshot).unwrap_or(i64::MAX),
        ));
        if let Some(upstream) = event.upstream {
            span.set_attribute(KeyValue::new(attribute::PEER_ADDRESS, upstream.to_string()));
        }
        if let Some(principal) = event.peer_principal {
            span.set_attribute(KeyValue::new(attribute::PEER_PRINCIPAL, principal.to_owned()));
        }
        let failed = match event.grpc_status {
            Some(code) => {
                span.set_attribute(KeyValue::new(attribute::GRPC_STATUS, i64::from(code.get())));
                code != GrpcCode::OK
            }
            None => event.response_code == 0 || event.response_code >= 500,
        };
        if failed {
            span.set_status(Status::error(event.details.to_owned()));
        }
        span.end();
    }

    fn end_attempt(mut self: Box<Self>, outcome: Outcome, upstream: &str) {
        self.span.set_attribute(KeyValue::new(attribute::PEER_ADDRESS, upstream.to_owned()));
        if !outcome.is_success() {
            self.span.set_status(Status::error(format!("{outcome:?}")));
        }
        self.span.end();
    }
}

fn to_otel(ids: TraceIds) -> SpanContext {
    let flags = if ids.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(
        TraceId::from_bytes(ids.trace.to_be_bytes()),
        SpanId::from_bytes(ids.span.to_be_bytes()),
        flags,
        true,
        TraceState::default(),
    )
}

fn from_otel(context: &SpanContext) -> TraceIds {
    TraceIds {
        trace: u128::from_be_bytes(context.trace_id().to_bytes()),
        span: u64::from_be_bytes(context.span_id().to_bytes()),
        sampled: context.is_sampled(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::config::units::PerMillion;
    use mesh_core::rng::Xoshiro;
    use opentelemetry::trace::Span as _;
    use opentelemetry_sdk::trace::InMemorySpanExporter;

    use super::*;
    use crate::telemetry::metrics::tests::event;
    use crate::telemetry::span::Tracing;

    fn recorded() -> (Tracing, InMemorySpanExporter, SdkTracerProvider) {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let recorder: Arc<dyn SpanRecorder> = Arc::new(OtelRecorder::new(&provider));
        (Tracing::new(PerMillion::ALL, Some(recorder)), exporter, provider)
    }

    fn start<'a>(of: SpanOf, parent: Option<&'a TraceContext>) -> SpanStart<'a> {
        SpanStart { of, parent, method: "POST", path: "/shop.Reviews/List", grpc: true }
    }

    #[test]
    fn a_call_and_its_attempts_are_one_trace() {
        let (tracing, exporter, _provider) = recorded();
        let mut rng = Xoshiro::seeded(1);
        let mut call = tracing.start(start(SpanOf::Call, None), &mut rng);
        let mut attempt =
            tracing.start(start(SpanOf::Attempt { previous: 2 }, Some(call.context())), &mut rng);
        attempt.end_attempt(Outcome::Cancelled, &"10.0.0.1:80");
        call.end(&RequestEvent { grpc_status: Some(GrpcCode::UNAVAILABLE), ..event() });
        let spans = exporter.get_finished_spans().unwrap();
        let [attempt, call] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*attempt.name, &*call.name), ("Attempt.shop.Reviews.List", "Sent.shop.Reviews.List"));
        assert_eq!(attempt.span_context.trace_id(), call.span_context.trace_id());
        assert_eq!(attempt.parent_span_id, call.span_context.span_id());
        assert!(matches!(call.status, Status::Error { .. }), "{:?}", call.status);
    }

    #[test]
    fn the_applications_own_span_is_the_parent_of_a_call() {
        let (tracing, exporter, provider) = recorded();
        let tracer = provider.tracer("application");
        let own = tracer.start("handler");
        let wanted = own.span_context().clone();
        let _current = Context::current_with_span(own).attach();
        tracing.start(start(SpanOf::Call, None), &mut Xoshiro::seeded(1)).end(&event());
        let spans = exporter.get_finished_spans().unwrap();
        assert_eq!(spans[0].parent_span_id, wanted.span_id());
        assert_eq!(spans[0].span_context.trace_id(), wanted.trace_id());
    }
}
