//! One client's side of the conversation, without IO: requests go in, responses come out.
//!
//! Per kind: `idle ─request─► wanted ─poll─► unanswered ─ACK/NACK─► wanted`. A response is due while something that the
//! client would see differs from what it was sent, or right after it asked for something new.
//! Spec: "xDS protocol", state of the world. A request with the nonce of an older response is stale and ignored: the
//! answer to the newer response carries the complete subscription anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{ControlPlane as Identifier, node::UserAgentVersionType};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::cache::{Cache, KindCache};
use super::status::{KindStatus, Nack};
use crate::ads::Kind;

/// The state of one ADS stream.
#[derive(Debug)]
pub(super) struct Subscriber {
    stream: u64,
    last_nonce: u64,
    node: Node,
    subscriptions: BTreeMap<Kind, Subscription>,
}

/// Who the client says it is.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) cluster: String,
    pub(super) user_agent: String,
}

/// What a request was about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Subscribed(Kind),
    Acked(Kind, u64),
    Nacked(Kind, Nack),
    Stale(Kind),
    UnknownType,
}

/// The state of one kind. Bounded by the request size limit: a client only makes us remember what it named.
#[derive(Debug, Default)]
struct Subscription {
    wildcard: bool,
    ever_named: bool,
    names: BTreeSet<Arc<str>>,
    /// Asked for something since the last response: a complete set is due even if it is the same as before.
    asked: bool,
    /// Which version of which resource the client has.
    delivered: BTreeMap<Arc<str>, u64>,
    sent: Option<Sent>,
    acked: Option<u64>,
    nack: Option<Nack>,
}

#[derive(Debug)]
struct Sent {
    nonce: String,
    version: u64,
    answered: bool,
}

// === impl Subscriber ===

impl Subscriber {
    pub(super) fn new(stream: u64) -> Self {
        Self { stream, last_nonce: 0, node: Node::default(), subscriptions: BTreeMap::new() }
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn handle_request(&mut self, request: DiscoveryRequest) -> Received {
        if let Some(node) = request.node {
            self.node = Node::from(node);
        }
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return Received::UnknownType;
        };
        let subscription = self.subscriptions.entry(kind).or_default();
        let received = match &mut subscription.sent {
            Some(sent) if !request.response_nonce.is_empty() && sent.nonce != request.response_nonce => {
                return Received::Stale(kind);
            }
            Some(sent) if !request.response_nonce.is_empty() && !sent.answered => {
                sent.answered = true;
                let version = sent.version;
                match request.error_detail {
                    Some(error) => {
                        let nack = Nack { version, message: error.message };
                        subscription.nack = Some(nack.clone());
                        Received::Nacked(kind, nack)
                    }
                    None => {
                        subscription.acked = Some(version);
                        subscription.nack = None;
                        Received::Acked(kind, version)
                    }
                }
            }
            _ => Received::Subscribed(kind),
        };
        subscription.subscribe(kind, request.resource_names);
        received
    }

    /// The next response that is due.
    pub(super) fn poll_response(&mut self, cache: &Cache) -> Option<DiscoveryResponse> {
        for kind in SERVING_ORDER {
            let Some(subscription) = self.subscriptions.get_mut(&kind) else { continue };
            let resources = cache.kind(kind);
            let Some(names) = subscription.due(kind, resources) else { continue };
            self.last_nonce += 1;
            let nonce = format!("{}-{}", self.stream, self.last_nonce);
            let response = DiscoveryResponse {
                version_info: resources.version.to_string(),
                resources: names
                    .iter()
                    .filter_map(|name| resources.entries.get(name))
                    .map(|e| e.resource.body().clone())
                    .collect(),
                type_url: kind.type_url().into(),
                nonce: nonce.clone(),
                control_plane: Some(Identifier { identifier: "mesh".into() }),
                canary: false,
                resource_errors: Vec::new(),
            };
            subscription.deliver(kind, resources, names);
            subscription.sent = Some(Sent { nonce, version: resources.version, answered: false });
            return Some(response);
        }
        None
    }

    pub(super) fn status(&self, cache: &Cache) -> Vec<KindStatus> {
        self.subscriptions
            .iter()
            .map(|(kind, subscription)| KindStatus {
                kind: *kind,
                wildcard: subscription.wildcard,
                names: subscription.names.iter().cloned().collect(),
                sent: subscription.sent.as_ref().map(|sent| sent.version),
                acked: subscription.acked,
                nack: subscription.nack.clone(),
                settled: !subscription.is_unanswered()
                    && subscription.due(*kind, cache.kind(*kind)).is_none(),
            })
            .collect()
    }
}

// === impl Subscription ===

impl Subscription {
    fn subscribe(&mut self, kind: Kind, names: Vec<String>) {
        let mut wanted: BTreeSet<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let star = wanted.remove(WILDCARD);
        self.ever_named |= star || !wanted.is_empty();
        // The legacy wildcard: an empty list, as long as no name was ever given on this stream.
        let wildcard = is_full_state(kind) && (star || (wanted.is_empty() && !self.ever_named));
        let first = self.sent.is_none();
        self.asked |=
            first || (wildcard && !self.wildcard) || wanted.difference(&self.names).next().is_some();
        // A name that is dropped and asked for again has to be sent again, even if it did not change in between.
        if !wildcard {
            self.delivered.retain(|name, _| wanted.contains(name));
        }
        self.wildcard = wildcard;
        self.names = wanted;
    }

    fn is_unanswered(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| !sent.answered)
    }

    /// The names to send now, or `None` if no response is due.
    fn due(&self, kind: Kind, resources: &KindCache) -> Option<Vec<Arc<str>>> {
        if self.is_unanswered() {
            return None;
        }
        if is_full_state(kind) {
            let visible = self.visible(resources);
            let same = visible.len() == self.delivered.len()
                && visible.iter().all(|(name, version)| self.delivered.get(*name) == Some(version));
            return (self.asked || !same).then(|| visible.into_keys().cloned().collect());
        }
        let changed: Vec<Arc<str>> = self
            .visible(resources)
            .into_iter()
            .filter(|(name, version)| self.delivered.get(*name) != Some(version))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        (!changed.is_empty()).then_some(changed)
    }

    fn visible<'a>(&self, resources: &'a KindCache) -> BTreeMap<&'a Arc<str>, u64> {
        if self.wildcard {
            return resources.entries.iter().map(|(name, entry)| (name, entry.version)).collect();
        }
        self.names
            .iter()
            .filter_map(|name| resources.entries.get_key_value(name))
            .map(|(name, entry)| (name, entry.version))
            .collect()
    }

    fn deliver(&mut self, kind: Kind, resources: &KindCache, names: Vec<Arc<str>>) {
        self.asked = false;
        if is_full_state(kind) {
            self.delivered.clear();
        }
        for name in names {
            if let Some(entry) = resources.entries.get(&name) {
                self.delivered.insert(name, entry.version);
            }
        }
    }
}

// === impl Node ===

impl From<envoy_types::pb::envoy::config::core::v3::Node> for Node {
    fn from(node: envoy_types::pb::envoy::config::core::v3::Node) -> Self {
        let version = match node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version,
            _ => String::new(),
        };
        let user_agent = format!("{} {version}", node.user_agent_name).trim().to_owned();
        Self { id: node.id, cluster: node.cluster, user_agent }
    }
}

/// The order in which a change reaches a client so that nothing refers to what it does not have yet.
const SERVING_ORDER: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route];
/// The name that asks for everything.
const WILDCARD: &str = "*";

/// A response of such a kind is the complete set, so absence from it means removal.
fn is_full_state(kind: Kind) -> bool {
    matches!(kind, Kind::Listener | Kind::Cluster)
}
