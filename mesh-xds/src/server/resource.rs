//! A resource as the control plane keeps it: kind, name, and the encoded message.
//!
//! The control plane does not interpret resources: whatever the caller puts in is served, so that a test can also send
//! what a client has to refuse.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;
use mesh_core::config::units::BoundedDuration;
use prost::{Message, Name};

use crate::ads::Kind;

/// One xDS resource: a kind, a name, and the encoded protobuf message. Cloning shares the bytes.
#[derive(Clone, PartialEq)]
pub struct Resource {
    kind: Kind,
    name: Arc<str>,
    /// The message in its `Any`, encoded: what every response carries.
    any: Bytes,
    /// The message is the end of `any`, this long.
    length: usize,
    ttl: Option<Duration>,
}

/// Bytes that are not a resource of the kind that they claim to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidResource {
    /// The type is none that the control plane serves.
    #[error("type {type_url:?} is not a listener, route, cluster or load assignment")]
    UnknownType {
        /// The type URL that was given.
        type_url: String,
    },
    /// A `Resource` wrapper without a resource in it.
    #[error("the Resource wrapper is empty")]
    EmptyWrapper,
    /// A time to live that is none.
    #[error("ttl: {0} s is not a time to live")]
    Ttl(i64),
    /// The bytes are not a message of the type.
    #[error("the bytes are not a {type_url}")]
    Undecodable {
        /// The type URL that was given.
        type_url: String,
        /// What the decoder found.
        source: prost::DecodeError,
    },
}

/// What [`ControlPlane::set`](super::ControlPlane::set) takes: one resource, several, or a builder that stands for some.
pub trait Resources {
    /// The resources, in the order in which they were built.
    fn into_resources(self) -> Vec<Resource>;
}

// === impl Resource ===

impl Resource {
    /// A resource from an encoded message and its type URL; the name is read from the message. A `Resource` wrapper
    /// around it may add a time to live.
    ///
    /// # Errors
    /// If the type is not served, or the bytes are not a message of it.
    pub fn decode(type_url: &str, bytes: &[u8]) -> Result<Self, InvalidResource> {
        if type_url == discovery::Resource::type_url() {
            return Self::unwrap(bytes);
        }
        let Some(kind) = Kind::from_type_url(type_url) else {
            return Err(InvalidResource::UnknownType { type_url: type_url.into() });
        };
        let name = match kind {
            Kind::Cluster => cluster::Cluster::decode(bytes).map(|m| m.name),
            Kind::Endpoints => endpoint::ClusterLoadAssignment::decode(bytes).map(|m| m.cluster_name),
            Kind::Listener => listener::Listener::decode(bytes).map(|m| m.name),
            Kind::Route => route::RouteConfiguration::decode(bytes).map(|m| m.name),
        };
        let name =
            name.map_err(|source| InvalidResource::Undecodable { type_url: type_url.into(), source })?;
        Ok(Self::opaque(kind, name, bytes.to_vec()))
    }

    fn unwrap(bytes: &[u8]) -> Result<Self, InvalidResource> {
        let type_url = discovery::Resource::type_url();
        let wrapper = discovery::Resource::decode(bytes)
            .map_err(|source| InvalidResource::Undecodable { type_url, source })?;
        let inner = wrapper.resource.filter(|inner| inner.type_url != discovery::Resource::type_url());
        let inner = inner.ok_or(InvalidResource::EmptyWrapper)?;
        let resource = Self::decode(&inner.type_url, &inner.value)?;
        let Some(ttl) = wrapper.ttl else { return Ok(resource) };
        match BoundedDuration::from_parts(ttl.seconds, ttl.nanos).map(BoundedDuration::get) {
            Ok(ttl) if !ttl.is_zero() => Ok(resource.with_ttl(ttl)),
            Ok(_) | Err(_) => Err(InvalidResource::Ttl(ttl.seconds)),
        }
    }

    /// A resource whose bytes are not looked at. A client that cannot decode them has to refuse them, by this name.
    #[must_use]
    pub fn opaque(kind: Kind, name: impl Into<Arc<str>>, bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        let any = Any { type_url: kind.type_url().into(), value: bytes }.encode_to_vec();
        Self { kind, name: name.into(), any: any.into(), length, ttl: None }
    }

    /// The same, to be dropped by a client that has not heard of it for this long. The control plane repeats it in time,
    /// so it is dropped only when the control plane is gone.
    ///
    /// Clients of the state-of-the-world protocol are told if they announce `xds.config.resource-in-sotw`. Envoy and this
    /// mesh drop it then, gRPC's clients keep what they have.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    pub(super) fn message<M: Message + Name>(kind: Kind, name: impl Into<Arc<str>>, message: &M) -> Self {
        Self::opaque(kind, name, message.encode_to_vec())
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name under which clients ask for it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The encoded message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // `value` is the last field of an `Any`, and an empty one is not written.
        self.any.get(self.any.len() - self.length..).unwrap_or_default()
    }

    /// How long a client may keep it without hearing of it.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(super) fn any(&self) -> &Bytes {
        &self.any
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, any: _, length, ttl } = self;
        f.debug_struct("Resource")
            .field("kind", kind)
            .field("name", name)
            .field("bytes", length)
            .field("ttl", ttl)
            .finish()
    }
}

// === impl Resources ===

impl Resources for Resource {
    fn into_resources(self) -> Vec<Resource> {
        vec![self]
    }
}

impl<T: Resources> Resources for Vec<T> {
    fn into_resources(self) -> Vec<Resource> {
        self.into_iter().flat_map(Resources::into_resources).collect()
    }
}

impl<T: Resources> Resources for Option<T> {
    fn into_resources(self) -> Vec<Resource> {
        self.into_iter().flat_map(Resources::into_resources).collect()
    }
}

impl<T: Resources, const N: usize> Resources for [T; N] {
    fn into_resources(self) -> Vec<Resource> {
        self.into_iter().flat_map(Resources::into_resources).collect()
    }
}

macro_rules! resources_of_tuples {
    ($($($part:ident)+,)+) => {$(
        impl<$($part: Resources),+> Resources for ($($part,)+) {
            #[expect(non_snake_case, reason = "the type parameters double as variable names")]
            fn into_resources(self) -> Vec<Resource> {
                let ($($part,)+) = self;
                let mut all = Vec::new();
                $(all.extend($part.into_resources());)+
                all
            }
        }
    )+};
}

resources_of_tuples! {
    A, A B, A B C, A B C D, A B C D E, A B C D E F, A B C D E F G, A B C D E F G H,
}
