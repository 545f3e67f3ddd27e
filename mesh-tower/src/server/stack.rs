//! **The one function** that composes the server stack. Its body is the order of the steps, which look at the headers
//! together, once ([`header_scan`](crate::header_scan)):
//!
//! 1. `local_reply`: whatever a step below refuses becomes a response ([`layer`](super::layer)); the application's
//!    own errors stay its own
//! 2. [`form`](super::form): what is malformed is refused, everything else brought into the one form that all see;
//!    [`untrusted`](super::untrusted): headers that only a proxy could have meant are removed
//! 3. [`trace`](super::trace): the span, below the caller's `traceparent`; from here on the request is told of
//! 4. pin: the routes of the chain, once, for the life of the request ([`Chain::pin`](super::chain::Chain::pin))
//! 5. [`concurrency`](super::concurrency): not more headers than configured, and a permit within the
//!    [shares](super::shares) of whom it is from, held to the end of the response body
//! 6. [`rbac`](super::rbac): HTTP filters in their configured order, with the overrides of the route
//! 7. [`route`](super::route): a route that exists, and that lets the application serve
//! 8. [`deadline`](super::deadline): the caller's `grpc-timeout`, the listener's `max_stream_duration` and its
//!    [pace](super::pace)
//!
//! Every step is synchronous: a request that is let in has cost one allocation here, and no await before the
//! application. gRFC A36 asks for this order: the route's action is looked at only after the filters have run.

use std::sync::Arc;

use http::{HeaderMap, Request, Version};
use mesh_core::error::{Reason, Rejection};
use tokio::time::Instant;

use super::concurrency::Permit;
use super::deadline::Deadline;
use super::exchange::{Exchange, Report};
use super::pace::Pace;
use super::peer::AcceptedPeer;
use super::{deadline, form, rbac, route, trace, untrusted};
use crate::header_scan::HeaderScan;

/// A request that went through the stack.
pub(crate) struct Admitted {
    /// Goes with the response.
    pub(crate) report: Report,
    /// The application serves it, within a deadline if there is one, or it is refused.
    pub(crate) verdict: Result<Option<Deadline>, Rejection>,
}

/// Decides on a request, and prepares it for the application.
pub(crate) fn admit<B>(peer: &AcceptedPeer, request: &mut Request<B>, now: Instant) -> Admitted {
    let scan = HeaderScan::of(request.headers());
    if scan.untrusted {
        untrusted::strip(request.headers_mut());
    }
    let form = fits(peer, request, &scan).and_then(|()| form::settle(request, &scan, peer.tls.is_some()));
    let mut exchange = Exchange::new(peer.clone(), request, &scan, now);
    let span = trace::start(&exchange, request.headers(), &scan);
    let mut permit = None;
    let verdict = form.and_then(|()| decide(&mut exchange, &mut permit, request.headers(), &scan, now));
    Admitted { report: Report::new(Arc::new(exchange), span, permit), verdict }
}

/// Whether the head is one of a size that is accepted. Over HTTP/1.1 the codec knows.
fn fits<B>(peer: &AcceptedPeer, request: &Request<B>, scan: &HeaderScan) -> Result<(), Rejection> {
    let connection = peer.connection();
    let limit =
        connection.chain.config().http.max_header_bytes.unwrap_or(connection.server.limits.max_header_bytes);
    // As RFC 9113 §6.5.2 counts it.
    let size = scan.bytes + 32 * scan.lines as u64;
    if size <= u64::from(limit) || request.version() != Version::HTTP_2 {
        return Ok(());
    }
    Err(Rejection::new(Reason::HeadersTooLarge)
        .with_detail(format!("{size} bytes, and {limit} are accepted")))
}

fn decide(
    exchange: &mut Exchange,
    permit: &mut Option<Permit>,
    headers: &HeaderMap,
    scan: &HeaderScan,
    now: Instant,
) -> Result<Option<Deadline>, Rejection> {
    let connection = exchange.peer.connection();
    let (chain, server) = (&connection.chain, &connection.server);
    let http = &chain.config().http;
    let routing = exchange.routing.insert(chain.pin()).clone();
    let most = http.serving.max_headers_count;
    if most.is_some_and(|most| u32::try_from(scan.lines).map_or(true, |count| count > most)) {
        return Err(Rejection::new(Reason::TooManyHeaders));
    }
    exchange.pace = Pace::of(&http.serving, now);
    *permit = Some(server.shares.acquire(&server.requests, &exchange.peer)?);
    let head = exchange.head(headers);
    let found = route::find(&routing, &head, &mut server.rng());
    let overrides = found.as_ref().ok().map(|route| &*route.overrides);
    rbac::authorize(&http.filters, overrides, &exchange.peer, &head)?;
    let deadline = deadline::of(&head, scan, http.max_stream_duration, exchange.pace.is_some(), now);
    exchange.route = Some(route::servable(found)?);
    Ok(deadline)
}
