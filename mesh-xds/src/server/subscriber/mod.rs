//! One client's side of the conversation, without IO: requests go in, responses come out.
//!
//! Per kind: `idle ─request─► wanted ─poll─► unanswered ─ACK/NACK─► wanted`. A response is due while something that the
//! client would see differs from what it was sent, or right after it asked for something new. Both variants of the
//! protocol share the state of a kind ([`subscription`]); [`ask`] reads their requests, and `wire` writes their responses.
//!
//! Order: what is new or changed goes out as clusters, endpoints, listeners, routes, so that nothing refers to what the
//! client does not have yet; what is gone goes out in the opposite order, once everything before it is answered. In the
//! state of the world a complete set repeats, until then, what is gone from it.
//! Spec: "xDS protocol". A request with the nonce of an older response is stale: in the state of the world it is ignored
//! (the answer to the newer response carries the complete subscription anyway), in the incremental protocol its names
//! count.

mod ask;
mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

pub(super) use self::ask::{Ask, Names};
use self::subscription::Subscription;
use super::cache::{Cache, Entry, View};
use super::node::Node;
use super::status::{KindStatus, Nack, ResourceStatus};
use crate::ads::Kind;
use crate::ads::Protocol;

/// The state of one ADS stream.
#[derive(Debug)]
pub(super) struct Subscriber {
    stream: u64,
    protocol: Protocol,
    last_nonce: u64,
    node: Option<Node>,
    view: Option<Arc<str>>,
    subscriptions: BTreeMap<Kind, Subscription>,
}

/// A response before it is written.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) kind: Kind,
    pub(super) version: u64,
    pub(super) nonce: String,
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) removed: Vec<Arc<str>>,
    /// The entries are what the client has: only their time to live starts anew.
    pub(super) heartbeat: bool,
    /// The client understands a time to live.
    pub(super) tells_ttl: bool,
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

/// A client wants more names than one stream may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_NAMES} names, or {MAX_NAME_BYTES} bytes of names, are subscribed on one stream")]
pub(super) struct TooManyNames;

// === impl Subscriber ===

impl Subscriber {
    pub(super) fn new(stream: u64, protocol: Protocol) -> Self {
        Self { stream, protocol, last_nonce: 0, node: None, view: None, subscriptions: BTreeMap::new() }
    }

    pub(super) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(super) fn view(&self) -> Option<&Arc<str>> {
        self.view.as_ref()
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How many responses were made.
    pub(super) fn responses(&self) -> u64 {
        self.last_nonce
    }

    /// Takes a request. The view is chosen when the node is told, in the first one.
    pub(super) fn handle(
        &mut self,
        ask: Ask,
        now: Instant,
        view_of: impl FnOnce(&Node) -> Option<Arc<str>>,
    ) -> Result<Received, TooManyNames> {
        if let (Some(node), None) = (ask.node, &self.node) {
            self.view = view_of(&node);
            self.node = Some(node);
        }
        let Some(kind) = Kind::from_type_url(&ask.type_url) else { return Ok(Received::UnknownType) };
        if matches!(&ask.names, Names::Changes { has, .. } if has.len() > MAX_NAMES) {
            return Err(TooManyNames);
        }
        let protocol = self.protocol;
        let subscription =
            self.subscriptions.entry(kind).or_insert_with(|| Subscription::new(kind, protocol));
        let received = subscription.answered(&ask.nonce, ask.refusal, now);
        match ask.names {
            Names::All(_) if matches!(received, Received::Stale(_)) => return Ok(received),
            Names::All(names) => subscription.want(names),
            Names::Changes { subscribe, unsubscribe, has } => {
                subscription.change(subscribe, &unsubscribe, has);
            }
        }
        let (names, bytes) = self
            .subscriptions
            .values()
            .map(Subscription::size)
            .fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        if names > MAX_NAMES || bytes > MAX_NAME_BYTES { Err(TooManyNames) } else { Ok(received) }
    }

    /// The next response that is due.
    pub(super) fn poll(&mut self, now: Instant, cache: &Cache) -> Option<Push> {
        let view = cache.view(self.view.as_deref());
        for subscription in self.subscriptions.values_mut() {
            subscription.catch_up(view);
        }
        let nonce = format!("{}-{}", self.stream, self.last_nonce + 1);
        let tells_ttl = self.protocol == Protocol::Incremental
            || self.node.as_ref().is_some_and(|node| node.has_feature(RESOURCE_IN_SOTW));
        let push = self.next(now, view)?;
        self.last_nonce += 1;
        let push = Push { nonce, tells_ttl, ..push };
        if let Some(subscription) = self.subscriptions.get_mut(&push.kind) {
            subscription.sent(&push, now);
        }
        Some(push)
    }

    fn next(&mut self, now: Instant, view: View<'_>) -> Option<Push> {
        for kind in SERVING_ORDER {
            let Some(subscription) = self.subscriptions.get_mut(&kind) else { continue };
            if subscription.has_additions() {
                // If it has to wait for an answer, so do the kinds that may refer to it.
                return subscription.additions(view);
            }
        }
        if self.subscriptions.values().all(Subscription::is_quiet) {
            let mut order = SERVING_ORDER.into_iter().rev();
            let removals = order.find_map(|kind| self.subscriptions.get_mut(&kind)?.removals(view));
            if removals.is_some() {
                return removals;
            }
        }
        self.subscriptions.values_mut().find_map(|subscription| subscription.heartbeat(now, view))
    }

    /// When something is due although nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.subscriptions.values().filter_map(Subscription::heartbeat_at).min()
    }

    pub(super) fn status(&mut self, cache: &Cache) -> Vec<KindStatus> {
        let view = cache.view(self.view.as_deref());
        self.subscriptions.values_mut().map(|subscription| subscription.status(view)).collect()
    }

    /// It asked for something, and has answered everything that there is for it.
    pub(super) fn is_settled(&mut self, cache: &Cache) -> bool {
        let view = cache.view(self.view.as_deref());
        !self.subscriptions.is_empty()
            && self.subscriptions.values_mut().all(|subscription| subscription.is_settled(view))
    }

    pub(super) fn resource_status(&self, kind: Kind) -> Vec<ResourceStatus> {
        self.subscriptions.get(&kind).map(Subscription::resource_status).unwrap_or_default()
    }
}

/// The order in which a change reaches a client so that nothing refers to what it does not have yet.
const SERVING_ORDER: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route];
/// By this a client of the state of the world says that resources may come in a `Resource` wrapper.
const RESOURCE_IN_SOTW: &str = "xds.config.resource-in-sotw";
/// How many names one stream may subscribe to, or say that it has.
pub(super) const MAX_NAMES: usize = 200_000;
const MAX_NAME_BYTES: usize = 32 << 20;
