//! The responses as they go over the wire, without a copy of any resource.
//!
//! They are the messages of `envoy.service.discovery.v3` with one difference in Rust: an encoded `Any` stays encoded. A
//! nested message and a byte string look the same on the wire, so the resources of a response are shared with the cache
//! until they are written out.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::ControlPlane as Identifier;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::{Any, Duration};
use prost::{Message, Name as _};

use super::cache::Entry;
use super::subscriber::Push;

/// `DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SotwResponse {
    #[prost(string, tag = "1")]
    version_info: String,
    /// Each an `Any`.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(message, optional, tag = "6")]
    control_plane: Option<Identifier>,
}

/// `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaResponse {
    #[prost(string, tag = "1")]
    system_version_info: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<DeltaResource>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed_resources: Vec<String>,
    #[prost(message, optional, tag = "7")]
    control_plane: Option<Identifier>,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaResource {
    #[prost(string, tag = "1")]
    version: String,
    /// An `Any`.
    #[prost(bytes = "bytes", optional, tag = "2")]
    resource: Option<Bytes>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, optional, tag = "6")]
    ttl: Option<Duration>,
}

// === impl SotwResponse ===

impl From<Push> for SotwResponse {
    fn from(push: Push) -> Self {
        let version_info = push.version.to_string();
        let resources = push.entries.iter().map(|entry| match entry.resource.ttl() {
            Some(_) if push.tells_ttl => wrapped(entry, &version_info),
            Some(_) | None => entry.resource.any().clone(),
        });
        Self {
            resources: resources.collect(),
            version_info,
            type_url: push.kind.type_url().into(),
            nonce: push.nonce,
            control_plane: Some(identifier()),
        }
    }
}

/// An `Any` of a `Resource`. Clients compare its version with that of the response.
fn wrapped(entry: &Entry, version: &str) -> Bytes {
    let resource = DeltaResource { version: version.to_owned(), ..DeltaResource::of(entry, false) };
    Any { type_url: discovery::Resource::type_url(), value: resource.encode_to_vec() }.encode_to_vec().into()
}

// === impl DeltaResponse ===

impl From<Push> for DeltaResponse {
    fn from(push: Push) -> Self {
        Self {
            system_version_info: push.version.to_string(),
            resources: push.entries.iter().map(|entry| DeltaResource::of(entry, push.heartbeat)).collect(),
            type_url: push.kind.type_url().into(),
            nonce: push.nonce,
            removed_resources: push.removed.iter().map(ToString::to_string).collect(),
            control_plane: Some(identifier()),
        }
    }
}

// === impl DeltaResource ===

impl DeltaResource {
    fn of(entry: &Entry, heartbeat: bool) -> Self {
        let resource = &entry.resource;
        let ttl = resource.ttl().map(|ttl| Duration {
            seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            nanos: ttl.subsec_nanos().cast_signed(),
        });
        Self {
            version: entry.version(),
            resource: (!heartbeat).then(|| resource.any().clone()),
            name: resource.name().to_string(),
            ttl,
        }
    }
}

fn identifier() -> Identifier {
    Identifier { identifier: "mesh".into() }
}
