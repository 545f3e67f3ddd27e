//! The span of a call, and the one event that is told at its end.
//!
//! Place in the stack: outermost, so that refusals of every layer are seen. The end of a call is the end of its
//! response's body, not of its headers. The parent of the span is, in this order: a `traceparent` that the application
//! set, its current OpenTelemetry span, the request that the call is made for. On drop: the call is told of as
//! cancelled (flag `DC`). On config change: nothing.
//!
//! Metrics: `istio_requests_total` and its siblings, through the mesh's sinks (see [`crate::telemetry`]).

mod body;
mod event;
mod foreign;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;

use http::Response;
use http_body::Body as _;
use mesh_core::error::{Reason, Rejection};
use mesh_core::outcome::Outcome;
use mesh_core::request::RequestKind;

pub(crate) use self::event::header_bytes;
use super::request::{Call, CallStage, EntryStage, Exchange};
use super::service::Service;
use crate::body::Body;
use crate::context;
use crate::runtime::rng::ThreadRng;
use crate::telemetry::TraceContext;
use crate::telemetry::span::{SpanOf, SpanStart};

/// The layer.
#[derive(Debug)]
pub(crate) struct Trace<S> {
    inner: S,
}

impl<S> Trace<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Service<CallStage>> Service<EntryStage> for Trace<S> {
    fn call<'c>(
        &'c self,
        mut call: Box<Call>,
    ) -> impl Future<Output = Result<Response<Body>, Rejection>> + Send + 'c {
        begin(&mut call);
        async move {
            // Pinned where it is made: awaited as it is, this large future would be copied twice.
            let mut result = pin!(self.inner.call(&mut call)).await;
            if let Ok(outcome) = result
                && foreign::is_foreign(&call, outcome)
            {
                // Boxed, because it is rare.
                result = Ok(Box::pin(foreign::translate(&mut call)).await);
            }
            end(call, result)
        }
    }
}

/// Starts the span. Each attempt hands its place in the trace to the peer.
fn begin(call: &mut Call) {
    let tracing = call.shared.telemetry.tracing();
    let own = if call.has_traceparent { TraceContext::extract(call.request.headers()) } else { None };
    let parent = own.or_else(|| tracing.current()).or_else(|| context::current()?.trace);
    let start = SpanStart {
        of: SpanOf::Call,
        parent: parent.as_ref(),
        method: call.request.method().as_str(),
        path: call.request.uri().path(),
        grpc: call.kind == RequestKind::Grpc,
    };
    call.span = Some(tracing.start(start, &mut ThreadRng));
}

/// Makes the call the body of its own response, or tells why there is none.
fn end(mut call: Box<Call>, result: Result<Outcome, Rejection>) -> Result<Response<Body>, Rejection> {
    let (outcome, mut response) = match (result, std::mem::take(&mut call.exchange)) {
        (Ok(outcome), Exchange::Response(response)) => (outcome, response),
        (result, _) => {
            // Who ends with an outcome has put a response there.
            let rejection = result.err().unwrap_or_else(|| Rejection::new(Reason::UpstreamReset));
            let rejection = call.timely(rejection);
            call.refused(&rejection);
            call.end();
            return Err(rejection);
        }
    };
    call.answer.status = response.status().as_u16();
    call.answer.details = if call.facts.attempts == 0 { "direct_response" } else { "via_upstream" };
    call.answer.bytes = header_bytes(response.headers());
    if let Outcome::Response { http, grpc } = outcome {
        call.answer.status = http.as_u16();
        call.answer.grpc = grpc;
    }
    let body = std::mem::take(response.body_mut());
    if body.is_end_stream() {
        call.complete(None);
    } else {
        call.answer.body = body;
        *response.body_mut() = Body::boxed(call);
    }
    Ok(response)
}
