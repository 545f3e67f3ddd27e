//! A resource as the control plane keeps it: kind, name, and the encoded message.
//!
//! The control plane does not interpret resources: whatever the caller puts in is served, so that a test can also send
//! what a client has to refuse.

use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::ads::Kind;

/// One xDS resource: a kind, a name, and the encoded protobuf message.
#[derive(Clone, PartialEq)]
pub struct Resource {
    kind: Kind,
    name: Arc<str>,
    body: Arc<Any>,
}

/// Bytes that are not a resource of the kind that they claim to be.
#[derive(Debug, thiserror::Error)]
pub enum InvalidResource {
    /// The type is none that the control plane serves.
    #[error("type {type_url:?} is not a listener, route, cluster or load assignment")]
    UnknownType {
        /// The type URL that was given.
        type_url: String,
    },
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
    /// A resource from an encoded message and its type URL; the name is read from the message.
    ///
    /// # Errors
    /// If the type is not served, or the bytes are not a message of it.
    pub fn decode(type_url: &str, bytes: &[u8]) -> Result<Self, InvalidResource> {
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

    /// A resource whose bytes are not looked at. A client that cannot decode them has to refuse them, by this name.
    #[must_use]
    pub fn opaque(kind: Kind, name: impl Into<Arc<str>>, bytes: Vec<u8>) -> Self {
        let body = Arc::new(Any { type_url: kind.type_url().into(), value: bytes });
        Self { kind, name: name.into(), body }
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
        &self.body.value
    }

    pub(super) fn body(&self) -> &Any {
        &self.body
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, body } = self;
        f.debug_struct("Resource")
            .field("kind", kind)
            .field("name", name)
            .field("bytes", &body.value.len())
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
