//! The request target as the upstream gets it: scheme and authority filled in, rewritten where the route says so.

use http::Request;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Uri};
use mesh_core::config::route::ForwardAction;
use mesh_core::error::{Reason, Rejection};

use crate::body::Body;
use crate::client::pin::PinnedCluster;

/// Completes the URI: the request's own authority first, its `host` next, the target's last; a rewrite beats them all.
pub(super) fn prepare(
    request: &mut Request<Body>,
    target: &Authority,
    forward: &ForwardAction,
    cluster: &PinnedCluster,
) -> Result<(), Rejection> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = &forward.host_rewrite {
        parts.authority = Some(Authority::try_from(&**host).map_err(|_| malformed("host rewrite"))?);
        request.headers_mut().remove(HOST);
    } else if parts.authority.is_none() {
        let host = request.headers().get(HOST);
        let own = host.map(|host| Authority::try_from(host.as_bytes()).map_err(|_| malformed("host")));
        parts.authority = Some(own.transpose()?.unwrap_or_else(|| target.clone()));
    }
    parts.scheme = Some(cluster.scheme());
    let path = parts.path_and_query.take();
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed("target"))?;
    Ok(())
}

fn malformed(what: &str) -> Rejection {
    Rejection::new(Reason::BadRequest).with_detail(format!("the request's {what} is not valid"))
}
