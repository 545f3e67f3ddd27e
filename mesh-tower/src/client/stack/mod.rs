//! The one place where the client stack is composed.
//!
//! | # | layer | what it takes | what it does |
//! |---|---|---|---|
//! | 1 | [`channel`](super::channel) | `http::Request<B>` | boxes call and body, always ready; turns a refusal into a local reply |
//! | 2 | [`trace`](super::trace) | a [`Call`](super::request::Call), owned | span, `traceparent`, the event at the end of the response |
//! | 3 | [`deadline`](super::deadline) | the call, lent from here on | bounds everything below, the wait for configuration too |
//! | 4 | [`pin`](super::pin) | the call | one snapshot, loaded once; its clusters are resolved to their runtimes already |
//! | 5 | [`route`](super::route) | [`Pinned`](super::request::Pinned) | virtual host, route, cluster; the route's bounds |
//! | 6 | [`retry`](super::retry) | [`Routed`](super::request::Routed) | what follows runs once per attempt |
//! | 7 | [`breaker`](super::breaker) | [`Attempt`](super::request::Attempt) | a permit of the cluster |
//! | 8 | [`balance`](super::balance) | the attempt | an endpoint that is READY |
//! | 9 | [`outlier`](super::outlier) | [`Picked`](super::request::Picked) | reports how it ended |
//! | 10 | [`endpoint`](super::endpoint) | the picked attempt | a stream of a connection, and the request on it |
//!
//! The types enforce the order. The call is one allocation and everything large is in it: the request of an attempt, and
//! what the attempt holds until the body of its response ends (permits, the place in flight, the span:
//! [`Held`](super::request::Held)). Layers are lent them, so that futures and what travels between layers stay small.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::balance::Balance;
use super::breaker::Breaker;
use super::deadline::Deadline;
use super::endpoint::Endpoint;
use super::outlier::Outlier;
use super::pin::{Pin, Target};
use super::retry::Retry;
use super::route::Route;
use super::trace::Trace;

#[cfg(test)]
mod tests;

/// The whole stack of one target.
pub(crate) type ClientStack = Trace<Deadline<Pin<Route<Retry<Breaker<Balance<Outlier<Endpoint>>>>>>>>;

/// Composes the stack. Tests use this very function; what varies is below it (an [`Upstream`] or a [`Connector`]).
///
/// [`Upstream`]: crate::runtime::endpoint::Upstream
/// [`Connector`]: crate::transport::connect::Connector
pub(crate) fn compose(target: Arc<Target>, runtime: &Handle) -> ClientStack {
    let endpoint = Outlier::new(Endpoint);
    let attempt = Breaker::new(Balance::new(endpoint));
    let routed = Retry::new(attempt, runtime.clone());
    let pinned = Route::new(routed, runtime.clone());
    let call = Deadline::new(Pin::new(pinned, target), runtime.clone());
    Trace::new(call)
}
