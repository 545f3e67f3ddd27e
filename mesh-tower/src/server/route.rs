//! The route of a request on a server: it must exist, and leave the request to the application (gRFC A36).
//!
//! Place in the stack: found before the filters, because they need its overrides; enforced after them. A request
//! without a route is UNAVAILABLE, or 404 for other HTTP, with flag `NR`; so is one whose route is for clients. Routes
//! that the control plane could not give serve UNAVAILABLE with its error.

use std::sync::Arc;

use mesh_core::config::route::RouteAction;
use mesh_core::error::{Reason, Rejection};
use mesh_core::request::RequestHead;
use mesh_core::rng::Rng;
use mesh_core::route::RouteEntry;

use super::chain::Routing;

/// The route of a request, or why it has none.
pub(crate) fn find(
    routing: &Routing,
    head: &RequestHead<'_>,
    rng: &mut impl Rng,
) -> Result<Arc<RouteEntry>, Rejection> {
    let table = routing.routes.as_ref().map_err(|error| {
        Rejection::new(Reason::NoConfiguration)
            .with_detail(error.to_string())
            .with_source(Arc::new(error.clone()))
    })?;
    // As in Envoy, no route matches `*`, whatever it says of paths.
    if head.target.as_str() == "*" {
        return Err(Rejection::new(Reason::NoRoute).with_detail("no route matches `*`"));
    }
    match table.decide(head, rng) {
        Ok(decision) => Ok(decision.route),
        Err(no_route) => Err(Rejection::new(Reason::NoRoute).with_detail(no_route.to_string())),
    }
}

/// The route, if the application may serve it.
pub(crate) fn servable(found: Result<Arc<RouteEntry>, Rejection>) -> Result<Arc<RouteEntry>, Rejection> {
    let route = found?;
    match &route.action {
        RouteAction::NonForwarding => Ok(route),
        RouteAction::Forward(_) | RouteAction::DirectResponse { .. } => {
            Err(Rejection::new(Reason::UnsupportedAction).with_detail(route.name.clone()))
        }
        RouteAction::Unsupported(what) => Err(Rejection::new(Reason::UnimplementedAction).with_detail(*what)),
    }
}
