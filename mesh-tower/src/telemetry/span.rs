//! Spans of calls, attempts and served requests (names: gRFC A72).
//!
//! The decision comes first: the parent's sampled flag, or a draw where there is no parent. An unsampled request costs
//! a context to pass on and nothing else; a span is built only for a sampled one, and only where a recorder is set.

use std::fmt;
use std::sync::Arc;

use mesh_core::config::units::PerMillion;
use mesh_core::outcome::Outcome;
use mesh_core::rng::Rng;
use mesh_core::telemetry::event::{RequestEvent, TraceIds};

use super::propagate::TraceContext;

/// Which requests are sampled, and who records their spans.
#[derive(Debug, Clone)]
pub(crate) struct Tracing {
    sampling: PerMillion,
    recorder: Option<Arc<dyn SpanRecorder>>,
}

/// Builds and exports spans. Called for sampled requests only.
pub trait SpanRecorder: Send + Sync + fmt::Debug {
    /// Starts a span; its ids take the place of those of `start.ids`.
    fn start(&self, start: &SpanStart<'_>) -> Box<dyn LiveSpan>;

    /// The application's own current span, which is the parent of a call made within it.
    fn current(&self) -> Option<TraceContext>;
}

/// A span that has begun. Dropping it ends it without an outcome.
pub trait LiveSpan: Send {
    /// Its ids.
    fn ids(&self) -> TraceIds;

    /// Ends the span of a call or of a served request.
    fn end(self: Box<Self>, event: &RequestEvent<'_>);

    /// Ends the span of one attempt.
    fn end_attempt(self: Box<Self>, outcome: Outcome, upstream: &str);
}

/// What is known when a span begins.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SpanStart<'a> {
    /// What it is a span of.
    pub of: SpanOf,
    /// The span above it.
    pub parent: Option<&'a TraceContext>,
    /// `:method`.
    pub method: &'a str,
    /// `:path` without the query; for gRPC it is `/service/method`.
    pub path: &'a str,
    /// Whether the request is gRPC.
    pub grpc: bool,
}

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanOf {
    /// A call, all attempts included (`Sent.`).
    Call,
    /// One attempt of a call (`Attempt.`).
    Attempt {
        /// Attempts before this one.
        previous: u32,
    },
    /// A served request (`Recv.`).
    Served,
}

/// The span of one request or attempt, sampled or not.
pub(crate) struct ActiveSpan {
    context: TraceContext,
    live: Option<Box<dyn LiveSpan>>,
}

// === impl Tracing ===

impl Default for Tracing {
    fn default() -> Self {
        Self { sampling: PerMillion::ZERO, recorder: None }
    }
}

impl Tracing {
    /// Samples this share of the requests that have no parent.
    #[must_use]
    pub(crate) fn new(sampling: PerMillion, recorder: Option<Arc<dyn SpanRecorder>>) -> Self {
        Self { sampling, recorder }
    }

    /// The application's own current span, if it has one.
    #[must_use]
    pub(crate) fn current(&self) -> Option<TraceContext> {
        self.recorder.as_ref().and_then(|recorder| recorder.current())
    }

    /// Begins a span below `parent`, or below the application's current span, or as a root.
    pub(crate) fn start(&self, start: SpanStart<'_>, rng: &mut impl Rng) -> ActiveSpan {
        let current = match (start.parent, &self.recorder) {
            (None, Some(recorder)) => recorder.current(),
            _ => None,
        };
        let parent = start.parent.or(current.as_ref());
        let mut context = match parent {
            Some(parent) => parent.child(rng),
            None => TraceContext::root(self.sampling.hit(rng), rng),
        };
        let recorder = self.recorder.as_ref().filter(|_| context.ids.sampled);
        let live = recorder.map(|recorder| recorder.start(&SpanStart { parent, ..start }));
        if let Some(live) = &live {
            context.ids = live.ids();
        }
        ActiveSpan { context, live }
    }
}

// === impl ActiveSpan ===

impl ActiveSpan {
    /// The place in the trace that whatever happens within this span has as its parent.
    #[must_use]
    pub(crate) fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Whether the span is recorded.
    #[must_use]
    pub(crate) fn is_recorded(&self) -> bool {
        self.live.is_some()
    }

    /// The request ended.
    pub(crate) fn end(&mut self, event: &RequestEvent<'_>) {
        if let Some(live) = self.live.take() {
            live.end(event);
        }
    }

    /// The attempt ended.
    pub(crate) fn end_attempt(&mut self, outcome: Outcome, upstream: &dyn fmt::Display) {
        if let Some(live) = self.live.take() {
            live.end_attempt(outcome, &upstream.to_string());
        }
    }
}

impl fmt::Debug for ActiveSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { context, live } = self;
        f.debug_struct("ActiveSpan").field("context", context).field("recorded", &live.is_some()).finish()
    }
}

// === impl SpanStart ===

impl SpanStart<'_> {
    /// `Sent.service.method` for gRPC (gRFC A72), `METHOD` for other HTTP (OpenTelemetry: low cardinality).
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.of {
            SpanOf::Call => "Sent",
            SpanOf::Attempt { .. } => "Attempt",
            SpanOf::Served => "Recv",
        };
        if self.grpc {
            format!("{kind}.{}", self.path.trim_start_matches('/').replace('/', "."))
        } else {
            self.method.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use mesh_core::rng::Xoshiro;

    #[derive(Debug, Default)]
    struct Recorder(Arc<AtomicUsize>);

    struct Span;

    impl SpanRecorder for Recorder {
        fn start(&self, _: &SpanStart<'_>) -> Box<dyn LiveSpan> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::new(Span)
        }

        fn current(&self) -> Option<TraceContext> {
            None
        }
    }

    impl LiveSpan for Span {
        fn ids(&self) -> TraceIds {
            TraceIds { trace: 7, span: 8, sampled: true }
        }

        fn end(self: Box<Self>, _: &RequestEvent<'_>) {}

        fn end_attempt(self: Box<Self>, _: Outcome, _: &str) {}
    }

    fn start<'a>(parent: Option<&'a TraceContext>) -> SpanStart<'a> {
        SpanStart { of: SpanOf::Call, parent, method: "POST", path: "/shop.Reviews/List", grpc: true }
    }

    #[test]
    fn only_sampled_requests_reach_the_recorder() {
        let count = Arc::new(AtomicUsize::new(0));
        let tracing = Tracing::new(PerMillion::new(10_000).unwrap(), Some(Arc::new(Recorder(count.clone()))));
        let mut rng = Xoshiro::seeded(5);
        let sampled =
            (0..100_000).filter(|_| tracing.start(start(None), &mut rng).context().ids.sampled).count();
        assert_eq!(sampled, count.load(Ordering::SeqCst));
        assert!((800..1_200).contains(&sampled), "{sampled}");
    }

    #[test]
    fn the_parents_decision_is_kept_either_way() {
        let count = Arc::new(AtomicUsize::new(0));
        let tracing = Tracing::new(PerMillion::ALL, Some(Arc::new(Recorder(count))));
        let mut rng = Xoshiro::seeded(5);
        let unsampled = TraceContext::root(false, &mut rng);
        assert!(!tracing.start(start(Some(&unsampled)), &mut rng).is_recorded());
        let sampled = TraceContext::root(true, &mut rng);
        let span = tracing.start(start(Some(&sampled)), &mut rng);
        assert_eq!(
            (span.context().ids.trace, span.context().ids.span),
            (7, 8),
            "the recorder's ids are the ones"
        );
    }

    #[test]
    fn spans_are_named_after_the_method_for_grpc_and_the_verb_for_http() {
        assert_eq!(start(None).name(), "Sent.shop.Reviews.List");
        let attempt = SpanStart { of: SpanOf::Attempt { previous: 1 }, ..start(None) };
        assert_eq!(attempt.name(), "Attempt.shop.Reviews.List");
        assert_eq!(SpanStart { grpc: false, ..start(None) }.name(), "POST");
    }
}
