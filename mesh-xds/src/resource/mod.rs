//! The border where protobuf ends: resource bytes become [`Checked`] values, or [`Invalid`] with the path of a field.
//!
//! gRFC A27 (resource wrapper, names), A46 (each resource is judged alone). Unsupported
//! configuration: a field that decides who may talk and is not implemented is refused; a field that decides where or
//! how traffic goes is accepted and listed in [`Accepted::unapplied`]; the rest are listed in `ignored`.
//!
//! Every message that matters is destructured without `..`: a field that a later version of the API adds does not
//! compile until somebody decides what it means.

#[cfg(test)]
mod ignored;

mod cluster;
mod common;
mod endpoints;
mod filter;
mod listener;
mod matcher;
mod range;
mod retry;
mod route;
mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use mesh_core::config::cluster::ClusterConfig;
use mesh_core::config::endpoints::EndpointsConfig;
use mesh_core::config::listener::{ListenerConfig, RouteSource};
use mesh_core::config::route::{RouteAction, RouteConfig};
use prost::{Message, Name};

use crate::ads::Kind;
use crate::deferred::Deferred;
use crate::invalid::{Invalid, Place, Reason, Unapplied};
use crate::xdstp::canonical;

/// Largest resource that is looked at, in bytes: well above any real one, far below what would hurt.
pub(crate) const MAX_RESOURCE_BYTES: usize = 32 << 20;

/// What validation needs to know of the process: the bootstrap decides which certificate providers exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rules {
    /// Names of `certificate_providers`; a TLS context that names another is refused (gRFC A29).
    pub certificate_providers: BTreeSet<Arc<str>>,
}

/// A resource that was decoded: its name where it could be read, and the verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The resource's name; none where not even that could be read.
    pub name: Option<Arc<str>>,
    /// What it holds, or why it is refused.
    pub verdict: Result<Accepted, Invalid>,
}

/// A valid resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// What it holds.
    pub resource: Checked,
    /// Fields that are set and have no effect here.
    pub unapplied: Arc<Unapplied>,
    /// Of a route configuration: what only the listener that takes it can judge.
    pub deferred: Arc<Deferred>,
    /// The message that it was read from, for whoever asked to keep it.
    pub bytes: Option<Arc<Bytes>>,
}

/// A valid resource's value. Cloning shares it.
#[derive(Debug, Clone, PartialEq)]
pub enum Checked {
    /// A listener.
    Listener(Arc<ListenerConfig>),
    /// A route configuration.
    Route(Arc<RouteConfig>),
    /// A cluster.
    Cluster(Arc<ClusterConfig>),
    /// The endpoints of a cluster.
    Endpoints(Arc<EndpointsConfig>),
}

// === impl Rules ===

impl Rules {
    /// The rules of a process that has these certificate providers.
    #[must_use]
    pub fn with_providers(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self { certificate_providers: names.into_iter().collect() }
    }
}

// === impl Checked ===

impl Checked {
    /// What kind of resource it is.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Listener(_) => Kind::Listener,
            Self::Route(_) => Kind::Route,
            Self::Cluster(_) => Kind::Cluster,
            Self::Endpoints(_) => Kind::Endpoints,
        }
    }

    /// The name that the value itself holds; a listener's has none.
    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Listener(_) => None,
            Self::Route(routes) => Some(&routes.name),
            Self::Cluster(cluster) => Some(&cluster.name),
            Self::Endpoints(endpoints) => Some(&endpoints.name),
        }
    }

    /// The resources that this one names, once each: a listener's routes, a route's clusters, a cluster's endpoints.
    #[must_use]
    pub fn references(&self) -> BTreeSet<(Kind, Arc<str>)> {
        match self {
            Self::Listener(listener) => listener.http().flat_map(|http| of_source(&http.routes)).collect(),
            Self::Route(routes) => of_routes(routes).collect(),
            Self::Cluster(cluster) => {
                cluster.eds_service().map(|name| (Kind::Endpoints, name.clone())).into_iter().collect()
            }
            Self::Endpoints(_) => BTreeSet::new(),
        }
    }
}

/// Decodes and validates one entry of a response's `resources`.
///
/// The entry is the resource itself or a `Resource` wrapper around it, whose name then counts.
#[must_use]
pub fn decode(kind: Kind, type_url: &str, value: &[u8], rules: &Rules) -> Decoded {
    if value.len() > MAX_RESOURCE_BYTES {
        let reason = Reason::TooLarge { size: value.len(), limit: MAX_RESOURCE_BYTES };
        return Decoded { name: None, verdict: Err(Invalid::whole(reason)) };
    }
    if type_url == Resource::type_url() {
        return unwrap(kind, value, rules);
    }
    match kind {
        _ if type_url != kind.type_url() => Decoded {
            name: None,
            verdict: Err(Invalid::whole(Reason::WrongType {
                expected: kind.type_url(),
                actual: type_url.to_owned(),
            })),
        },
        Kind::Listener => typed(
            value,
            |pb: &listener::Proto| ("name", &pb.name),
            |pb, at| listener::validate(pb, rules, at),
        ),
        Kind::Route => typed(value, |pb: &route::Proto| ("name", &pb.name), route::validate),
        Kind::Cluster => {
            typed(value, |pb: &cluster::Proto| ("name", &pb.name), |pb, at| cluster::validate(pb, rules, at))
        }
        Kind::Endpoints => {
            typed(value, |pb: &endpoints::Proto| ("cluster_name", &pb.cluster_name), endpoints::validate)
        }
    }
}

fn unwrap(kind: Kind, value: &[u8], rules: &Rules) -> Decoded {
    let wrapper = match Resource::decode(value) {
        Ok(wrapper) => wrapper,
        Err(e) => return Decoded { name: None, verdict: Err(Invalid::whole(Reason::Decode(e))) },
    };
    let outer = (!wrapper.name.is_empty()).then(|| canonical(&wrapper.name));
    decode_within(kind, outer, wrapper.resource.as_ref(), rules)
}

/// Decodes and validates what is within a `Resource` wrapper of this name.
pub(crate) fn decode_within(
    kind: Kind,
    outer: Option<Arc<str>>,
    inner: Option<&Any>,
    rules: &Rules,
) -> Decoded {
    let inner = match inner {
        // A wrapper within a wrapper would be unwrapped without end.
        Some(Any { type_url, value }) if *type_url != Resource::type_url() => {
            decode(kind, type_url, value, rules)
        }
        Some(_) | None => return Decoded { name: outer, verdict: refused("resource", Reason::Missing) },
    };
    match (outer, inner) {
        (Some(outer), Decoded { name: Some(name), .. }) if outer != name => {
            let reason = Reason::Contradiction("the name of the resource within");
            Decoded { name: Some(outer), verdict: refused("name", reason) }
        }
        (outer, inner) => Decoded { name: inner.name.or(outer), verdict: inner.verdict },
    }
}

fn refused(field: &'static str, reason: Reason) -> Result<Accepted, Invalid> {
    Err(Invalid::of_field(field, reason))
}

fn typed<P, T>(
    value: &[u8],
    name: impl FnOnce(&P) -> (&'static str, &String),
    validate: impl FnOnce(P, &Place<'_>) -> Result<T, Invalid>,
) -> Decoded
where
    P: Message + Default,
    T: Into<Checked>,
{
    let pb = match P::decode(value) {
        Ok(pb) => pb,
        Err(e) => return Decoded { name: None, verdict: Err(Invalid::whole(Reason::Decode(e))) },
    };
    let (field, name) = name(&pb);
    if name.is_empty() {
        return Decoded { name: None, verdict: refused(field, Reason::Empty) };
    }
    let name = canonical(name);
    match Place::root(|at| validate(pb, at).map(|value| (value, at.take_deferred()))) {
        Ok(((value, deferred), unapplied)) => {
            let resource = value.into();
            let name = resource.name().filter(|own| **own == name).cloned().unwrap_or(name);
            let (unapplied, deferred) = (unapplied.shared(), deferred.shared());
            let accepted = Accepted { resource, unapplied, deferred, bytes: None };
            Decoded { name: Some(name), verdict: Ok(accepted) }
        }
        Err(invalid) => Decoded { name: Some(name), verdict: Err(invalid) },
    }
}

fn of_source(source: &RouteSource) -> Vec<(Kind, Arc<str>)> {
    match source {
        RouteSource::Rds(name) => vec![(Kind::Route, name.clone())],
        RouteSource::Inline(routes) => of_routes(routes).collect(),
    }
}

fn of_routes(routes: &RouteConfig) -> impl Iterator<Item = (Kind, Arc<str>)> + '_ {
    let routes = routes.virtual_hosts.iter().flat_map(|host| &host.routes);
    let forwards = routes.filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(forward),
        RouteAction::NonForwarding | RouteAction::DirectResponse { .. } | RouteAction::Unsupported(_) => None,
    });
    forwards.flat_map(|forward| forward.cluster.names()).map(|name| (Kind::Cluster, name.clone()))
}

impl From<ListenerConfig> for Checked {
    fn from(value: ListenerConfig) -> Self {
        Self::Listener(Arc::new(value))
    }
}

impl From<RouteConfig> for Checked {
    fn from(value: RouteConfig) -> Self {
        Self::Route(Arc::new(value))
    }
}

impl From<ClusterConfig> for Checked {
    fn from(value: ClusterConfig) -> Self {
        Self::Cluster(Arc::new(value))
    }
}

impl From<EndpointsConfig> for Checked {
    fn from(value: EndpointsConfig) -> Self {
        Self::Endpoints(Arc::new(value))
    }
}

#[cfg(test)]
pub(crate) mod tests;
