//! The request target as the upstream gets it: scheme and authority filled in, rewritten where the route says so.

use http::Request;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use mesh_core::config::route::ForwardAction;
use mesh_core::error::{Reason, Rejection};
use mesh_core::route::RouteEntry;

use crate::body::Body;
use crate::client::pin::PinnedCluster;

/// What stands for the authority of a request whose URI has none.
pub(super) struct Own<'c> {
    /// The request's header.
    pub(super) host: Option<HeaderValue>,
    /// The target of the channel.
    pub(super) target: &'c Authority,
}

/// Completes the URI: the request's own authority first, its `host` next, the target's last; a rewrite beats them all.
pub(super) fn prepare(
    request: &mut Request<Body>,
    own: Own<'_>,
    route: &RouteEntry,
    forward: &ForwardAction,
    cluster: &PinnedCluster,
) -> Result<(), Rejection> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = &forward.host_rewrite {
        parts.authority = Some(Authority::try_from(&**host).map_err(|_| malformed("host rewrite"))?);
        request.headers_mut().remove(HOST);
    } else if parts.authority.is_none() {
        parts.authority = Some(match own.host {
            Some(host) => Authority::try_from(host.as_bytes()).map_err(|_| malformed("host"))?,
            None => own.target.clone(),
        });
    }
    parts.scheme = Some(cluster.scheme());
    let path = parts.path_and_query.take().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.path_and_query = Some(match &forward.prefix_rewrite {
        Some(rewrite) => rewritten(&path, route.prefix_len, rewrite)?,
        None => path,
    });
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed("target"))?;
    Ok(())
}

/// The path with what the route matched replaced; the query stays.
fn rewritten(path: &PathAndQuery, matched: Option<usize>, rewrite: &str) -> Result<PathAndQuery, Rejection> {
    let rest = matched.and_then(|len| path.path().get(len..)).unwrap_or_default();
    let mut text = format!("{rewrite}{rest}");
    if let Some(query) = path.query() {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| malformed("path after its rewrite"))
}

fn malformed(what: &str) -> Rejection {
    Rejection::new(Reason::BadRequest).with_detail(format!("the request's {what} is not valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_replaces_what_the_route_matched_and_keeps_the_query() {
        let path = PathAndQuery::from_static("/api/v1/users?id=7");
        let of = |matched, rewrite| rewritten(&path, matched, rewrite).unwrap().to_string();
        assert_eq!(of(Some(4), "/internal"), "/internal/v1/users?id=7");
        assert_eq!(of(Some("/api/v1/users".len()), "/u"), "/u?id=7");
        assert_eq!(of(None, "/all"), "/all?id=7");
        assert!(rewritten(&path, None, "/a b").is_err());
    }
}
