//! From a finished call to the event that every sink gets.

use http::{HeaderMap, Version};
use mesh_core::outcome::{GrpcCode, Outcome};
use mesh_core::request::RequestKind;
use mesh_core::telemetry::event::{Reporter, RequestEvent};
use tokio::time::Instant;

use crate::client::request::Call;

impl Call {
    pub(super) fn tell(&mut self) {
        let attempt = self.answer.held.span.take();
        self.facts.end_attempt(attempt, self.outcome());
        let recorded = self.span.as_ref().is_some_and(|span| span.is_recorded());
        if !self.shared.telemetry.has_sinks() && !recorded {
            return;
        }
        let request = &self.request;
        let upstream = self.facts.upstream.as_ref();
        let cluster = self.facts.cluster.as_ref();
        let service = cluster.and_then(|cluster| cluster.config.telemetry.as_ref());
        let of_endpoint = self.facts.extra.as_ref().and_then(|extra| extra.workload.as_ref());
        let authority = request.uri().authority();
        let tls = cluster.and_then(|cluster| cluster.config.tls.as_ref());
        let event = RequestEvent {
            reporter: Reporter::Source,
            kind: self.kind,
            method: request.method().as_str(),
            authority: authority.unwrap_or_else(|| self.authority.sent()).as_str(),
            path: request.uri().path(),
            protocol: protocol(self.kind, request.version()),
            response_code: self.answer.status,
            grpc_status: self.answer.grpc,
            flags: self.facts.flags,
            details: self.answer.details,
            duration: Instant::now().saturating_duration_since(self.arrived),
            request_bytes: self.facts.request_bytes(),
            response_bytes: self.answer.bytes,
            attempts: self.facts.attempts,
            route: self.facts.route.as_ref().map_or("", |route| &*route.name),
            cluster: cluster.map_or("", |cluster| &*cluster.config.name),
            service,
            upstream: upstream.map(|endpoint| endpoint.address()),
            upstream_workload: of_endpoint.or_else(|| service.and_then(|service| service.workload.as_ref())),
            downstream: None,
            peer_principal: None,
            mutual_tls: tls.is_some_and(|tls| tls.identity.is_some()),
            trace: self.span.as_ref().map(|span| span.context().ids),
            snapshot: self.facts.snapshot,
        };
        self.shared.telemetry.record(&event);
        if let Some(span) = &mut self.span {
            span.end(&event);
        }
    }

    fn outcome(&self) -> Outcome {
        let http = http::StatusCode::from_u16(self.answer.status);
        match (http, self.answer.grpc) {
            (Ok(http), grpc) if grpc != Some(GrpcCode::CANCELLED) => Outcome::Response { http, grpc },
            _ => Outcome::Cancelled,
        }
    }
}

/// Bytes of headers as text, without any framing.
pub(crate) fn header_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}

fn protocol(kind: RequestKind, version: Version) -> &'static str {
    match (kind, version) {
        (RequestKind::Grpc, _) | (_, Version::HTTP_2) => "HTTP/2",
        (_, Version::HTTP_10) => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
