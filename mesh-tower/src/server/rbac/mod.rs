//! Authorization: the RBAC filters of a chain, and of its routes, in their configured order (gRFC A41).
//!
//! Place in the stack: after the concurrency limit, before the route's action is looked at; the network filters right
//! after the handshake, before any byte of HTTP. All filters must let a request in; the first that does not decides.
//! An override of the route replaces the filter's rules whole (gRFC A39); a filter with `disabled` runs only where an
//! override turns it on.

use mesh_core::config::filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter};
use mesh_core::config::listener::FilterChain;
use mesh_core::error::{Reason, Rejection};
use mesh_core::identity::Peer;
use mesh_core::rbac::{Decision, RbacConfig, check};
use mesh_core::request::RequestHead;

use super::peer::{AcceptedPeer, RemoteOf};
use super::refused::{NO_POLICY, Refused, Why};

/// Decides on a connection alone.
pub(crate) fn admits_connection(chain: &FilterChain, peer: &Peer, refused: &Refused) -> bool {
    chain.network_rbac.iter().all(|rules| match check(rules, peer, None) {
        Decision::Allow => true,
        Decision::Shadow { policy } => {
            tracing::debug!(chain = %chain.name, remote = %RemoteOf(peer), policy, "connection matches a shadow policy");
            true
        }
        Decision::Deny { policy } => {
            let what = format_args!("chain {:?}, policy {:?}", chain.name, policy.unwrap_or(NO_POLICY));
            refused.connection(Why::Policy, peer, &what);
            false
        }
    })
}

/// Decides on a request.
pub(crate) fn authorize(
    filters: &[HttpFilter],
    overrides: Option<&FilterOverrides>,
    peer: &AcceptedPeer,
    head: &RequestHead<'_>,
) -> Result<(), Rejection> {
    for filter in filters {
        let Some(rules) = rules_of(filter, overrides) else { continue };
        match check(rules, peer, Some(head)) {
            Decision::Allow => {}
            Decision::Shadow { policy } => {
                tracing::debug!(filter = %filter.name, policy, path = head.path(), "request matches a shadow policy");
            }
            Decision::Deny { policy } => {
                let refused = &peer.connection().server.refused;
                // The policy's name is for our logs, not for whom it keeps out.
                refused.request(&filter.name, policy, peer, head.path());
                return Err(Rejection::new(Reason::Denied));
            }
        }
    }
    Ok(())
}

/// The rules that a filter applies to a request of this route; none if it does not run.
fn rules_of<'a>(filter: &'a HttpFilter, overrides: Option<&'a FilterOverrides>) -> Option<&'a RbacConfig> {
    let FilterConfig::Rbac(configured) = &filter.config else { return None };
    match overrides.and_then(|overrides| overrides.find(&filter.name)) {
        None => (!filter.disabled).then_some(&**configured),
        Some(FilterOverride::Disabled | FilterOverride::Rbac(None)) => None,
        Some(FilterOverride::Enabled) => Some(configured),
        Some(FilterOverride::Rbac(Some(rules))) => Some(rules),
    }
}
