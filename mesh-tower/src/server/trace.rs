//! The span of a served request, below the span that the caller sent (`traceparent`).
//!
//! Place in the stack: before anything can refuse the request, so that refusals are seen too. The span covers the
//! response to its end, not only to its headers; the end event is the same that every other sink gets.

use http::HeaderMap;
use mesh_core::request::RequestKind;

use super::exchange::Exchange;
use crate::telemetry::propagate::TraceContext;
use crate::telemetry::span::{ActiveSpan, SpanOf, SpanStart};

/// Begins the span.
pub(crate) fn start(exchange: &Exchange, headers: &HeaderMap) -> ActiveSpan {
    let head = exchange.head(headers);
    let parent = TraceContext::extract(headers);
    let start = SpanStart {
        of: SpanOf::Served,
        parent: parent.as_ref(),
        method: head.method.as_str(),
        path: head.path(),
        grpc: exchange.kind == RequestKind::Grpc,
    };
    let server = &exchange.peer.connection().server;
    server.telemetry.tracing().start(start, &mut server.rng())
}
