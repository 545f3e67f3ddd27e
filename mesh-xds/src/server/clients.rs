//! The connected clients: registered while their stream lives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::cache::Cache;
use super::control::Shared;
use super::status::{ClientStatus, ResourceStatus};
use super::subscriber::Subscriber;
use crate::ads::Kind;
use crate::ads::Protocol;

/// The registry. Bounded by the number of open streams.
#[derive(Debug)]
pub(super) struct Clients {
    open: Mutex<Open>,
    /// Counts requests, responses, arrivals and departures; its receivers wait for something to look at.
    events: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Open {
    last_stream: u64,
    streams: BTreeMap<u64, Arc<Client>>,
}

/// One open stream.
#[derive(Debug)]
pub(super) struct Client {
    stream: u64,
    peer: Option<SocketAddr>,
    connected_since: Instant,
    subscriber: Mutex<Subscriber>,
}

/// Keeps a client registered; dropping it takes the client out.
#[derive(Debug)]
pub(super) struct Registration {
    shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
}

// === impl Clients ===

impl Default for Clients {
    fn default() -> Self {
        Self { open: Mutex::default(), events: watch::Sender::new(0) }
    }
}

impl Clients {
    pub(super) fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    pub(super) fn notify(&self) {
        self.events.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn status(&self, cache: &Cache) -> Vec<ClientStatus> {
        self.all().iter().map(|client| client.status(cache)).collect()
    }

    pub(super) fn are_settled(&self, at_least: usize, cache: &Cache) -> bool {
        let clients = self.all();
        clients.len() >= at_least && clients.iter().all(|client| client.subscriber().is_settled(cache))
    }

    pub(super) fn resource_status(&self, stream: u64, kind: Kind) -> Vec<ResourceStatus> {
        let client = self.open().streams.get(&stream).cloned();
        client.map(|client| client.subscriber().resource_status(kind)).unwrap_or_default()
    }

    /// The registry's lock is released before a client's is taken: the two are never held together.
    fn all(&self) -> Vec<Arc<Client>> {
        self.open().streams.values().cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Client ===

impl Client {
    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    pub(super) fn subscriber(&self) -> MutexGuard<'_, Subscriber> {
        self.subscriber.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, cache: &Cache) -> ClientStatus {
        let mut subscriber = self.subscriber();
        let kinds = subscriber.status(cache);
        let node = subscriber.node().cloned().unwrap_or_default();
        ClientStatus {
            stream: self.stream,
            protocol: subscriber.protocol(),
            node_id: node.id,
            node_cluster: node.cluster,
            user_agent: node.user_agent,
            view: subscriber.view().cloned(),
            peer: self.peer,
            connected_since: self.connected_since,
            responses: subscriber.responses(),
            kinds,
        }
    }
}

// === impl Registration ===

impl Registration {
    pub(super) fn new(shared: &Arc<Shared>, protocol: Protocol, peer: Option<SocketAddr>) -> Self {
        let client = {
            let mut open = shared.clients.open();
            open.last_stream += 1;
            let stream = open.last_stream;
            let client = Arc::new(Client {
                stream,
                peer,
                connected_since: Instant::now(),
                subscriber: Mutex::new(Subscriber::new(stream, protocol)),
            });
            open.streams.insert(stream, Arc::clone(&client));
            client
        };
        shared.clients.notify();
        Self { shared: Arc::clone(shared), client }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.clients.open().streams.remove(&self.client.stream);
        self.shared.clients.notify();
    }
}
