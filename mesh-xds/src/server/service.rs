//! The ADS service: one reader and one writer per stream, neither of which ever waits for the other.
//!
//! The reader takes requests as fast as they come and folds them into the [`Subscriber`](super::subscriber::Subscriber),
//! whose size depends on what is wanted and not on how often it was said. The writer makes a response only when there
//! is room for it, from the state of that moment. A client that writes without reading, or reads without answering, holds
//! at most one response of ours in memory.
//! Deviation: incremental xDS is answered UNIMPLEMENTED.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use futures_core::Stream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming};

use super::cache::Shared;
use super::clients::Registration;
use super::serve::{PeerAddr, closed};
use super::subscriber::Received;

/// ADS over the resources of one control plane, until `closing` ends or turns true.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) closing: watch::Receiver<bool>,
}

/// The responses of one stream. Dropping it ends the stream's reader and writer, and takes the client out of the status.
#[derive(Debug)]
pub(super) struct Responses {
    queue: mpsc::Receiver<Result<DiscoveryResponse, Status>>,
    _tasks: JoinSet<()>,
}

// === impl Service ===

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses;
    type DeltaAggregatedResourcesStream = tokio_stream::Empty<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        if *self.closing.borrow() {
            return Err(shutting_down());
        }
        let peer = request.extensions().get::<PeerAddr>().map(|PeerAddr(address)| *address);
        let registration = Arc::new(Registration::new(&self.shared, peer));
        let wake = Arc::new(Notify::new());
        let (sender, queue) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        let done = Arc::new(Notify::new());
        tasks.spawn(read(
            Arc::clone(&self.shared),
            Arc::clone(&registration),
            request.into_inner(),
            (Arc::clone(&wake), Arc::clone(&done)),
        ));
        let writer = Writer {
            shared: Arc::clone(&self.shared),
            registration,
            closing: self.closing.clone(),
            wake,
            done,
            sender,
        };
        tasks.spawn(writer.run());
        Ok(Response::new(Responses { queue, _tasks: tasks }))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("this control plane serves state-of-the-world ADS only"))
    }
}

/// Takes requests until the client ends its side.
async fn read(
    shared: Arc<Shared>,
    registration: Arc<Registration>,
    mut requests: Streaming<DiscoveryRequest>,
    (wake, done): (Arc<Notify>, Arc<Notify>),
) {
    let client = &registration.client;
    let stream = client.stream();
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(stream, %status, "ADS stream failed");
                break;
            }
        };
        let type_url = request.type_url.clone();
        let received = client.subscriber().handle_request(request);
        match received {
            Received::Nacked(kind, nack) => {
                tracing::warn!(stream, %kind, version = nack.version, reason = nack.message, "client refused resources");
            }
            Received::UnknownType => {
                tracing::debug!(stream, type_url, "client asked for a type that is not served")
            }
            Received::Stale(kind) => tracing::trace!(stream, %kind, "request answers an older response"),
            Received::Acked(kind, version) => tracing::debug!(stream, %kind, version, "acknowledged"),
            Received::Subscribed(kind) => tracing::debug!(stream, %kind, "subscription changed"),
        }
        wake.notify_one();
        shared.clients.notify();
    }
    done.notify_one();
}

struct Writer {
    shared: Arc<Shared>,
    registration: Arc<Registration>,
    closing: watch::Receiver<bool>,
    wake: Arc<Notify>,
    done: Arc<Notify>,
    sender: mpsc::Sender<Result<DiscoveryResponse, Status>>,
}

impl Writer {
    async fn run(mut self) {
        let mut changes = self.shared.changes();
        loop {
            // Room first, content second: what waits for the client is never stale.
            let permit = tokio::select! {
                permit = self.sender.reserve() => permit,
                () = self.done.notified() => return,
                () = closed(&mut self.closing) => return,
            };
            let Ok(permit) = permit else { return };
            changes.borrow_and_update();
            if let Some(response) = self.next_response() {
                permit.send(Ok(response));
                self.shared.clients.notify();
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                _ = changes.changed() => {}
                () = self.done.notified() => return,
                () = closed(&mut self.closing) => {
                    permit.send(Err(shutting_down()));
                    return;
                }
            }
        }
    }

    fn next_response(&self) -> Option<DiscoveryResponse> {
        // Lock order everywhere: the cache, then a client.
        let cache = self.shared.resources();
        self.registration.client.subscriber().poll_response(&cache)
    }
}

// === impl Responses ===

impl Stream for Responses {
    type Item = Result<DiscoveryResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(cx)
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}
