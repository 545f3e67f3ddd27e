//! One request and its response, from arrival to the last byte, and what is told of it at the end.
//!
//! [`Exchange`] is what is known when the request was admitted or refused; the request's body counts into it.
//! [`Report`] travels with the response: the future first, then the body. Dropping it is the end, whichever way it
//! came, so that a request is told of exactly once, its permit returned, its span ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Frame;
use mesh_core::error::Rejection;
use mesh_core::outcome::{GrpcCode, ResponseFlags};
use mesh_core::request::{RequestHead, RequestKind, Target};
use mesh_core::route::RouteEntry;
use mesh_core::telemetry::event::{Reporter, RequestEvent};
use tokio::time::Instant;

use super::chain::Routing;
use super::concurrency::Permit;
use super::deadline::Deadline;
use super::pace::Pace;
use super::peer::AcceptedPeer;
use crate::context::MeshContext;
use crate::header_scan::HeaderScan;
use crate::local_reply::GRPC_STATUS;
use crate::telemetry::span::ActiveSpan;

/// A request as it arrived, and what was decided about it.
pub(crate) struct Exchange {
    pub(crate) peer: AcceptedPeer,
    pub(crate) kind: RequestKind,
    pub(crate) routing: Option<Arc<Routing>>,
    pub(crate) route: Option<Arc<RouteEntry>>,
    /// Where the listener asks for one.
    pub(super) pace: Option<Box<Pace>>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
    arrived: Instant,
    request_bytes: AtomicU64,
}

/// The response half, and the duty to tell.
pub(crate) struct Report {
    exchange: Arc<Exchange>,
    span: Option<ActiveSpan>,
    permit: Option<Permit>,
    status: u16,
    grpc: Option<GrpcCode>,
    flags: ResponseFlags,
    details: &'static str,
    response_bytes: u64,
    complete: bool,
}

// === impl Exchange ===

impl Exchange {
    pub(super) fn new<B>(
        peer: AcceptedPeer,
        request: &Request<B>,
        scan: &HeaderScan,
        arrived: Instant,
    ) -> Self {
        peer.connection().request_began();
        let is_hosted = scan.hosts > 0 && request.uri().authority().is_none();
        Self {
            peer,
            kind: scan.kind,
            routing: None,
            route: None,
            pace: None,
            method: request.method().clone(),
            uri: request.uri().clone(),
            // Beside an authority there is none any more.
            host: is_hosted.then(|| request.headers().get(HOST).cloned()).flatten(),
            version: request.version(),
            arrived,
            request_bytes: AtomicU64::new(scan.bytes),
        }
    }

    /// What decisions see of the request.
    pub(crate) fn head<'a>(&'a self, headers: &'a HeaderMap) -> RequestHead<'a> {
        let scheme = if self.peer.tls.is_some() { "https" } else { "http" };
        RequestHead {
            method: &self.method,
            scheme,
            authority: self.authority(),
            target: self.uri.path_and_query().map_or_else(|| Target::new(""), Target::of),
            headers,
            kind: self.kind,
            trusts_forwarded_for: self.peer.connection().chain.config().http.serving.trusts_forwarded_for,
        }
    }

    pub(crate) fn pace(&self) -> Option<&Pace> {
        self.pace.as_deref()
    }

    /// Bytes of the request's body that were read.
    pub(crate) fn count_request(&self, bytes: usize) {
        self.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn authority(&self) -> &str {
        let of_host = || self.host.as_ref().and_then(|host| host.to_str().ok());
        self.uri.authority().map(|authority| authority.as_str()).or_else(of_host).unwrap_or_default()
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(exchange: Arc<Exchange>, span: ActiveSpan, permit: Option<Permit>) -> Self {
        Self {
            exchange,
            span: Some(span),
            permit,
            status: 0,
            grpc: None,
            flags: ResponseFlags::NONE,
            details: "via_upstream",
            response_bytes: 0,
            complete: false,
        }
    }

    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// What calls made for this request inherit.
    pub(crate) fn context(&self, deadline: Option<&Deadline>) -> MeshContext {
        MeshContext {
            trace: self.span.as_ref().map(|span| span.context().clone()),
            deadline: deadline.and_then(Deadline::at),
        }
    }

    /// The mesh answers, or cuts off, instead of the application.
    pub(crate) fn refused(&mut self, rejection: &Rejection) {
        self.flags = self.flags.union(rejection.flags());
        self.details = rejection.reason().details();
        if self.exchange.kind == RequestKind::Grpc {
            self.grpc = Some(rejection.reason().grpc_code());
        }
        if let Some(pace) = self.exchange.pace() {
            pace.cut(rejection.reason());
        }
    }

    /// What is left of the request stands in the way of another one on the same connection.
    pub(crate) fn is_in_the_way(&self) -> bool {
        let is_received = self.exchange.pace().is_none_or(Pace::is_received);
        self.exchange.version < Version::HTTP_2 && !is_received
    }

    /// The application's service failed: its connection is reset by whoever called us.
    pub(crate) fn service_failed(&mut self) {
        self.details = "application_error";
        self.complete = true;
    }

    /// The head of the response is known.
    pub(crate) fn head<B>(&mut self, response: &Response<B>) {
        self.status = response.status().as_u16();
        self.headers(response.headers());
        self.passed_on();
    }

    /// A frame of the response is on its way.
    pub(crate) fn frame(&mut self, frame: &Frame<bytes::Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.response_bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.headers(trailers);
            self.complete = true;
        }
        self.passed_on();
    }

    /// Nothing follows: the end is the application's, not the caller's.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// A response to this request has no body, whatever its body type says.
    pub(crate) fn is_bodiless(&self) -> bool {
        self.exchange.method == Method::HEAD || matches!(self.status, 204 | 304)
    }

    /// Counts headers or trailers, and takes the status of the call from them.
    fn headers(&mut self, headers: &HeaderMap) {
        let mut status = None;
        for (name, value) in headers {
            let name = name.as_str();
            self.response_bytes += (name.len() + value.len()) as u64;
            if name == GRPC_STATUS {
                status.get_or_insert(value);
            }
        }
        if let Some(status) = status
            && self.exchange.kind == RequestKind::Grpc
        {
            self.grpc = Some(GrpcCode::parse(status.as_bytes()));
        }
    }

    fn passed_on(&self) {
        if let Some(pace) = self.exchange.pace() {
            pace.answered(Instant::now());
        }
    }

    fn tell(&mut self, now: Instant) {
        let exchange = &*self.exchange;
        let telemetry = &exchange.peer.connection().server.telemetry;
        let recorded = self.span.as_ref().filter(|span| span.is_recorded());
        if !telemetry.has_sinks() && recorded.is_none() {
            return;
        }
        let event = RequestEvent {
            reporter: Reporter::Destination,
            kind: exchange.kind,
            method: exchange.method.as_str(),
            authority: exchange.authority(),
            path: exchange.uri.path(),
            protocol: protocol(exchange.version),
            response_code: self.status,
            grpc_status: self.grpc,
            flags: self.flags,
            details: self.details,
            duration: now.saturating_duration_since(exchange.arrived),
            request_bytes: exchange.request_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
            attempts: u32::from(self.permit.is_some()),
            route: exchange.route.as_ref().map_or("", |route| &*route.name),
            cluster: "",
            service: None,
            upstream: None,
            upstream_workload: None,
            downstream: Some(&exchange.peer),
            peer_principal: principal(&exchange.peer),
            mutual_tls: exchange.peer.certificate().is_some(),
            trace: self.span.as_ref().map(|span| span.context().ids),
            snapshot: exchange.routing.as_ref().map_or(0, |routing| routing.version),
        };
        telemetry.record(&event);
        if let Some(mut span) = self.span.take() {
            span.end(&event);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.complete && self.exchange.peer.connection().holding.is_told() {
            self.flags = self.flags.union(ResponseFlags::OVERLOAD_MANAGER);
            self.details = "gave_way";
            if self.exchange.kind == RequestKind::Grpc {
                self.grpc.get_or_insert(GrpcCode::UNAVAILABLE);
            }
        } else if !self.complete {
            self.flags = self.flags.union(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            self.details = "downstream_remote_disconnect";
            if self.exchange.kind == RequestKind::Grpc {
                self.grpc.get_or_insert(GrpcCode::CANCELLED);
            }
        }
        let now = Instant::now();
        self.tell(now);
        // After telling, so that whoever waits for no request in flight finds every one told of.
        self.permit = None;
        self.exchange.peer.connection().request_ended(now);
        if let Some(pace) = self.exchange.pace() {
            pace.over();
        }
    }
}

fn principal(peer: &AcceptedPeer) -> Option<&str> {
    let certificate = peer.certificate()?;
    certificate.spiffe.as_ref().map(|id| id.as_str()).or_else(|| certificate.uris.first().map(|uri| &**uri))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
