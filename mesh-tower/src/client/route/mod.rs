//! Where a call goes: virtual host, route, cluster; decided once per call.
//!
//! Place in the stack: below `pin`, above `retry`. Fills in scheme and authority, rewrites as the route says, answers
//! direct responses, and tightens the deadline by the route's bounds (gRFC A28, A31; Envoy's route timeouts). On drop:
//! nothing. On config change: the decision stands for the life of the call.

mod direct;
mod target;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use mesh_core::config::route::{ForwardAction, RouteAction};
use mesh_core::deadline::{Bounds, effective};
use mesh_core::error::{Reason, Rejection};
use mesh_core::outcome::Outcome;
use mesh_core::request::{RequestHead, Target};
use mesh_core::route::{Decision, NoRoute, RouteTable};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::deadline::Within;
use super::request::{Call, Pinned, PinnedStage, Routed, RoutedStage};
use super::service::Service;
use crate::runtime::rng::ThreadRng;

/// The layer.
#[derive(Debug)]
pub(crate) struct Route<S> {
    inner: S,
    runtime: Handle,
}

/// Where a decision leads.
enum Way<'c> {
    Forward(Routed<'c>),
    Answered(Outcome),
}

impl<S> Route<S> {
    pub(crate) fn new(inner: S, runtime: Handle) -> Self {
        Self { inner, runtime }
    }
}

impl<S: Service<RoutedStage>> Service<PinnedStage> for Route<S> {
    async fn call<'c>(&'c self, pinned: Pinned<'c>) -> Result<Outcome, Rejection> {
        let known = pinned.call.deadline;
        let routed = match route(pinned)? {
            Way::Forward(routed) => routed,
            Way::Answered(outcome) => return Ok(outcome),
        };
        // A deadline that was known before is watched above already.
        let tighter = routed.call.deadline.filter(|deadline| Some(*deadline) != known);
        Within::new(self.inner.call(routed), tighter, &self.runtime).await
    }
}

fn route(Pinned { call, snapshot }: Pinned<'_>) -> Result<Way<'_>, Rejection> {
    let host = match call.request.uri().authority() {
        None if call.has_host => call.request.headers().get(HOST).cloned(),
        Some(_) | None => None,
    };
    let Decision { route, cluster, cluster_overrides: _ } = decide(call, host.as_ref(), &snapshot.routes)?;
    call.facts.route = Some(route.clone());
    let forward = match &route.action {
        RouteAction::Forward(forward) => forward,
        RouteAction::DirectResponse { status, body } => {
            let uri = call.request.uri();
            let of_host = || host.as_ref().and_then(|host| host.to_str().ok());
            let authority = uri.authority().map(Authority::as_str).or_else(of_host);
            let authority = authority.unwrap_or_else(|| call.authority.sent().as_str());
            let asked = (call.kind, call.request.method(), uri, authority);
            let response = direct::respond(asked, *status, body);
            return Ok(Way::Answered(call.exchange.receive(response, call.kind)));
        }
        RouteAction::NonForwarding => {
            return Err(Rejection::new(Reason::UnsupportedAction).with_detail("non_forwarding_action"));
        }
        RouteAction::Unsupported(what) => {
            return Err(Rejection::new(Reason::UnimplementedAction).with_detail(*what));
        }
    };
    let cluster = snapshot.cluster(cluster)?;
    call.facts.cluster = Some(cluster.clone());
    let own = target::Own { host, target: call.authority.sent() };
    target::prepare(&mut call.request, own, &route, forward, &cluster)?;
    call.deadline = bounds(call, forward, snapshot.max_stream_duration);
    Ok(Way::Forward(Routed { call, route, cluster }))
}

/// `host` is the header, for a request whose target has no authority.
fn decide(call: &Call, host: Option<&HeaderValue>, routes: &RouteTable) -> Result<Decision, Rejection> {
    let uri = call.request.uri();
    let of_host = || host.and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(Authority::as_str).or_else(of_host);
    let head = RequestHead {
        method: call.request.method(),
        scheme: uri.scheme_str().unwrap_or("http"),
        authority: authority.unwrap_or_else(|| call.authority.as_str()),
        target: uri.path_and_query().map_or_else(|| Target::new("/"), Target::of),
        headers: call.request.headers(),
        kind: call.kind,
        trusts_forwarded_for: false,
    };
    routes.decide(&head, &mut ThreadRng).map_err(|no_route| {
        let what = match no_route {
            NoRoute::VirtualHost => head.authority,
            NoRoute::Route => head.path(),
        };
        Rejection::new(Reason::NoRoute).with_detail(format!("{no_route} {what:?}"))
    })
}

fn bounds(
    call: &Call,
    forward: &ForwardAction,
    listener: Option<std::time::Duration>,
) -> Option<mesh_core::deadline::Deadline> {
    effective(&Bounds {
        kind: call.kind,
        arrived: call.arrived.into_std(),
        caller: call.timeout,
        inherited: call.inherited.map(Instant::into_std),
        route: Some(forward),
        listener,
    })
}
