//! From the messages of the wire to the machine's responses. Protobuf ends here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource, ResourceName,
};
use envoy_types::pb::google::protobuf;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use mesh_core::config::endpoints::LocalityId;
use prost::{Message as _, Name as _};
use tonic::Code;

use super::Message;
use super::verdicts::{Verdict, Verdicts};
use crate::ads::{Heartbeat, Kind, Name, Received, ResourceError, Response};
use crate::bootstrap::{Bootstrap, CertificateProvider};
use crate::invalid::Invalid;
use crate::resource::{Accepted, Checked, Decoded, MAX_RESOURCE_BYTES, Rules, decode, decode_within};
use crate::xdstp::canonical;

/// How many resources are looked at before other tasks of the runtime have their turn.
const RESOURCES_PER_TURN: usize = 32;

/// Decodes and validates responses; what it has seen before, it only recognises.
#[derive(Debug)]
pub(crate) struct Decoder {
    rules: Rules,
    verdicts: Verdicts,
    /// Localities of what is kept: few, and named by each of thousands of assignments.
    localities: HashSet<Arc<LocalityId>>,
    keeps_bytes: bool,
}

/// One entry of a response.
enum Item {
    Resource(Received<Accepted>),
    Heartbeat(Heartbeat),
}

// === impl Decoder ===

impl Decoder {
    pub(crate) fn new(bootstrap: &Bootstrap) -> Self {
        let (verdicts, localities) = (Verdicts::default(), HashSet::new());
        Self { rules: rules(bootstrap), verdicts, localities, keeps_bytes: false }
    }

    /// Leaves the bytes of each valid resource with it.
    pub(crate) fn keep_bytes(mut self, keeps_bytes: bool) -> Self {
        self.keeps_bytes = keeps_bytes;
        self
    }

    /// The response, each resource judged alone; none for a type that is never asked for, which gets no answer.
    ///
    /// A large response is worked off in turns with other tasks.
    pub(crate) async fn decode(&mut self, message: Message) -> Option<Response<Accepted>> {
        match message {
            Message::StateOfTheWorld(response) => self.decode_all(response).await,
            Message::Incremental(response) => self.decode_changes(response).await,
        }
    }

    /// Forgets what is not watched, after a response of this kind: what is kept is bounded by what is watched.
    pub(crate) fn shrink(&mut self, kind: Kind, watched: usize, is_watched: impl Fn(&str) -> bool) {
        self.verdicts.shrink(kind, watched, is_watched);
        if kind == Kind::Endpoints {
            self.localities.retain(|id| Arc::strong_count(id) > 1);
        }
    }

    async fn decode_all(&mut self, response: DiscoveryResponse) -> Option<Response<Accepted>> {
        let DiscoveryResponse {
            version_info,
            resources,
            canary: _,
            type_url,
            nonce,
            control_plane: _,
            resource_errors,
        } = response;
        let mut response = empty(Kind::from_type_url(&type_url)?, version_info, nonce);
        response.errors = resource_errors.into_iter().filter_map(error).collect();
        response.resources.reserve_exact(resources.len());
        for (position, resource) in resources.into_iter().enumerate() {
            turn(position).await;
            let item = self.item(response.kind, &resource);
            put(&mut response, item);
        }
        Some(response)
    }

    async fn decode_changes(&mut self, response: DeltaDiscoveryResponse) -> Option<Response<Accepted>> {
        let DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url,
            removed_resources,
            // dynamic parameters of xDS TP2, which are not asked for
            removed_resource_names: _,
            nonce,
            control_plane: _,
            resource_errors,
        } = response;
        let mut response = empty(Kind::from_type_url(&type_url)?, system_version_info, nonce);
        response.errors = resource_errors.into_iter().filter_map(error).collect();
        response.removed = removed_resources.iter().map(|name| canonical(name)).collect();
        response.resources.reserve_exact(resources.len());
        for (position, resource) in resources.into_iter().enumerate() {
            turn(position).await;
            let version = Some(Arc::from(resource.version.as_str()));
            let item = self.wrapped(response.kind, resource, version);
            put(&mut response, item);
        }
        Some(response)
    }

    /// One entry of a state-of-the-world response: the resource itself, or a wrapper around it.
    fn item(&mut self, kind: Kind, resource: &Any) -> Item {
        let Any { type_url, value } = resource;
        if *type_url != Resource::type_url() {
            let (name, verdict) = self.judge(kind, None, resource);
            return Item::Resource(Received { name, version: None, ttl: None, verdict });
        }
        if value.len() <= MAX_RESOURCE_BYTES
            && let Ok(wrapper) = Resource::decode(value.as_slice())
        {
            return self.wrapped(kind, wrapper, None);
        }
        let Decoded { name, verdict } = decode(kind, type_url, value, &self.rules);
        Item::Resource(Received {
            name,
            version: None,
            ttl: None,
            verdict: verdict.map_err(|invalid| text(&invalid)),
        })
    }

    fn wrapped(&mut self, kind: Kind, wrapper: Resource, version: Option<Arc<str>>) -> Item {
        let Resource {
            name,
            resource_name: _,
            aliases: _,
            // of one resource; state of the world has none for each
            version: _,
            resource,
            ttl,
            cache_control: _,
            metadata: _,
        } = wrapper;
        let name: Option<Name> = (!name.is_empty()).then(|| canonical(&name));
        let ttl = match ttl.map(duration).transpose() {
            Ok(ttl) => ttl,
            Err(reason) => {
                return Item::Resource(Received { name, version, ttl: None, verdict: Err(reason.into()) });
            }
        };
        match (resource, name, ttl) {
            (None, Some(name), Some(ttl)) => Item::Heartbeat(Heartbeat { name, ttl }),
            (Some(resource), name, ttl) => {
                let (name, verdict) = self.judge(kind, name, &resource);
                Item::Resource(Received { name, version, ttl, verdict })
            }
            (None, name, ttl) => {
                let Decoded { name, verdict } = decode_within(kind, name, None, &self.rules);
                Item::Resource(Received {
                    name,
                    version,
                    ttl,
                    verdict: verdict.map_err(|invalid| text(&invalid)),
                })
            }
        }
    }

    /// The verdict about a resource, within a wrapper of this name where there is one.
    fn judge(&mut self, kind: Kind, outer: Option<Name>, resource: &Any) -> (Option<Name>, Verdict) {
        let digest = self.verdicts.digest(outer.as_ref(), resource);
        if let Some((name, verdict)) = self.verdicts.find(kind, digest) {
            return (Some(name.clone()), verdict.clone());
        }
        let Decoded { name, verdict } = decode_within(kind, outer, Some(resource), &self.rules);
        let bytes = self.keeps_bytes.then(|| Arc::new(Bytes::copy_from_slice(&resource.value)));
        let verdict = match verdict {
            Ok(Accepted { mut resource, unapplied, deferred, bytes: _ }) => {
                self.share_localities(&mut resource);
                Ok(Accepted { resource, unapplied, deferred, bytes })
            }
            Err(invalid) => Err(text(&invalid)),
        };
        if let Some(name) = &name {
            self.verdicts.keep(kind, digest, name, &verdict);
        }
        (name, verdict)
    }

    fn share_localities(&mut self, resource: &mut Checked) {
        let Checked::Endpoints(endpoints) = resource else { return };
        // It was made just now, and nobody else has it.
        let Some(endpoints) = Arc::get_mut(endpoints) else { return };
        for locality in endpoints.priorities.iter_mut().flat_map(|priority| &mut priority.localities) {
            match self.localities.get(&locality.id) {
                Some(known) => locality.id = known.clone(),
                None => _ = self.localities.insert(locality.id.clone()),
            }
        }
    }
}

/// What validation has to know of a bootstrap.
pub(crate) fn rules(bootstrap: &Bootstrap) -> Rules {
    // An instance of an unknown plugin is as good as none (gRFC A29): a resource that names it is refused.
    let known = |(name, provider): (&String, &CertificateProvider)| match provider {
        CertificateProvider::FileWatcher(_) => Some(Arc::from(name.as_str())),
        CertificateProvider::Unknown { .. } => None,
    };
    Rules { certificate_providers: bootstrap.certificate_providers().iter().filter_map(known).collect() }
}

fn text(invalid: &Invalid) -> Arc<str> {
    invalid.to_string().into()
}

fn empty(kind: Kind, version: String, nonce: String) -> Response<Accepted> {
    Response {
        kind,
        version: version.into(),
        nonce: nonce.into(),
        resources: Vec::new(),
        heartbeats: Vec::new(),
        removed: Vec::new(),
        errors: Vec::new(),
    }
}

/// An error instead of a resource; one that names none concerns none.
fn error(pb: discovery::ResourceError) -> Option<ResourceError> {
    let discovery::ResourceError { resource_name, error_detail } = pb;
    // dynamic parameters of xDS TP2 are not asked for
    let ResourceName { name, dynamic_parameter_constraints: _ } = resource_name?;
    let Status { code, message, details: _ } = error_detail.unwrap_or_default();
    let code = Code::from_i32(code);
    Some(ResourceError {
        name: canonical(&name),
        is_data_error: matches!(code, Code::NotFound | Code::PermissionDenied),
        reason: format!("{code:?}: {message}").into(),
    })
}

fn put(response: &mut Response<Accepted>, item: Item) {
    match item {
        Item::Resource(received) => response.resources.push(received),
        Item::Heartbeat(heartbeat) => response.heartbeats.push(heartbeat),
    }
}

async fn turn(position: usize) {
    if position % RESOURCES_PER_TURN == RESOURCES_PER_TURN - 1 {
        tokio::task::yield_now().await;
    }
}

fn duration(pb: protobuf::Duration) -> Result<Duration, &'static str> {
    let protobuf::Duration { seconds, nanos } = pb;
    let time =
        u64::try_from(seconds).ok().zip(u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000));
    time.map(|(seconds, nanos)| Duration::new(seconds, nanos)).ok_or("ttl: is no length of time")
}

#[cfg(test)]
mod tests;
