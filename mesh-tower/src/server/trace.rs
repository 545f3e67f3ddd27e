//! The span of a served request, below the span that the caller sent (`traceparent`).
//!
//! Place in the stack: before anything can refuse the request, so that refusals are seen too. The span covers the
//! response to its end, not only to its headers; the end event is the same that every other sink gets.

use http::HeaderMap;
use mesh_core::request::RequestKind;

use super::exchange::Exchange;
use crate::header_scan::HeaderScan;
use crate::telemetry::propagate::TraceContext;
use crate::telemetry::span::{ActiveSpan, SpanOf, SpanStart};

/// Begins the span.
pub(super) fn start(exchange: &Exchange, headers: &HeaderMap, scan: &HeaderScan) -> ActiveSpan {
    let parent = if scan.traceparent { TraceContext::extract(headers) } else { None };
    let start = SpanStart {
        of: SpanOf::Served,
        parent: parent.as_ref(),
        method: exchange.method.as_str(),
        path: exchange.uri.path(),
        grpc: exchange.kind == RequestKind::Grpc,
    };
    let server = &exchange.peer.connection().server;
    server.telemetry.tracing().start(start, &mut server.rng())
}
