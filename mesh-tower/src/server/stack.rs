//! **The one function** that composes the server stack. Its body is the order of the steps, which look at the headers
//! together, once ([`survey`](super::survey)):
//!
//! 1. `local_reply`: whatever a step below refuses becomes a response ([`layer`](super::layer)); the application's
//!    own errors stay its own
//! 2. [`untrusted`](super::untrusted): headers that only a proxy could have meant are removed, a malformed host refused
//! 3. [`trace`](super::trace): the span, below the caller's `traceparent`; from here on the request is told of
//! 4. pin: the routes of the chain, once, for the life of the request ([`Chain::pin`](super::chain::Chain::pin))
//! 5. [`concurrency`](super::concurrency): a permit, held to the end of the response body
//! 6. [`rbac`](super::rbac): HTTP filters in their configured order, with the overrides of the route
//! 7. [`route`](super::route): a route that exists, and that lets the application serve
//! 8. [`deadline`](super::deadline): the caller's `grpc-timeout`, the listener's `max_stream_duration`
//!
//! Every step is synchronous: a request that is let in has cost one allocation here, and no await before the
//! application. gRFC A36 asks for this order: the route's action is looked at only after the filters have run.

use std::sync::Arc;

use http::{HeaderMap, Request};
use mesh_core::error::{Reason, Rejection};
use tokio::time::Instant;

use super::concurrency::Permit;
use super::deadline::Deadline;
use super::exchange::{Exchange, Report};
use super::peer::Peer;
use super::survey::Survey;
use super::{deadline, rbac, route, trace, untrusted};

/// A request that went through the stack.
pub(crate) struct Admitted {
    /// Goes with the response.
    pub(crate) report: Report,
    /// The application serves it, within a deadline if there is one, or it is refused.
    pub(crate) verdict: Result<Option<Deadline>, Rejection>,
}

/// Decides on a request, and prepares it for the application.
pub(crate) fn admit<B>(peer: &Peer, request: &mut Request<B>, now: Instant) -> Admitted {
    let survey = Survey::of(request.headers());
    let host = untrusted::strip(request, &survey);
    let mut exchange = Exchange::new(peer.clone(), request, &survey, now);
    let span = trace::start(&exchange, request.headers(), &survey);
    let mut permit = None;
    let verdict = host.and_then(|()| decide(&mut exchange, &mut permit, request.headers(), &survey, now));
    Admitted { report: Report::new(Arc::new(exchange), span, permit), verdict }
}

fn decide(
    exchange: &mut Exchange,
    permit: &mut Option<Permit>,
    headers: &HeaderMap,
    survey: &Survey,
    now: Instant,
) -> Result<Option<Deadline>, Rejection> {
    let connection = exchange.peer.connection();
    let (chain, server) = (&connection.chain, &connection.server);
    let http = &chain.config().http;
    let routing = exchange.routing.insert(chain.pin()).clone();
    *permit = Some(server.requests.try_acquire().ok_or(Reason::ServerOverload)?);
    let head = exchange.head(headers);
    let found = route::find(&routing, &head, &mut server.rng());
    let overrides = found.as_ref().ok().map(|route| &*route.overrides);
    rbac::authorize(&http.filters, overrides, &exchange.peer, &head)?;
    let deadline = deadline::of(&head, survey, http.max_stream_duration, now);
    exchange.route = Some(route::servable(found)?);
    Ok(deadline)
}
