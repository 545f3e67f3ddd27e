//! A control plane that a test plays by hand, over in-memory connections: no socket, no real time.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};

use crate::ads::Kind;
use crate::bootstrap::ServerAddress;
use crate::server::{Resource, Resources};
use crate::transport::connect::{Connect, Connecting, Io};

/// The connecting side: hands one end of a pipe to the server, unless it is told to refuse.
#[derive(Debug, Clone)]
pub(super) struct Pipes {
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    shared: Arc<Shared>,
    size: usize,
}

#[derive(Debug, Default)]
struct Shared {
    refuse: AtomicBool,
    attempts: Mutex<Vec<Instant>>,
    streams: AtomicUsize,
}

/// The serving side.
pub(super) struct ControlPlane {
    pub(super) pipes: Pipes,
    streams: mpsc::Receiver<AdsStream>,
    _server: JoinSet<()>,
}

/// One ADS stream, played by the test.
pub(super) struct AdsStream {
    requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    /// How many requests were read.
    pub(super) read: usize,
    nonce: u64,
    asked: BTreeMap<String, Vec<String>>,
}

#[derive(Debug)]
struct Service {
    streams: mpsc::Sender<AdsStream>,
    shared: Arc<Shared>,
    /// Headers only when the first response is there, as grpc-go has it.
    late_headers: bool,
}

/// How the server behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Bytes that a connection holds in each direction before its writer waits.
    pub(super) pipe: usize,
    /// Bytes that a stream takes before it is read; the server's own default where there is none.
    pub(super) window: Option<u32>,
    /// Headers only when the first response is there, as grpc-go has it.
    pub(super) late_headers: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { pipe: 64 << 10, window: None, late_headers: false }
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    pub(super) fn new() -> Self {
        Self::with(Manner::default())
    }

    pub(super) fn with(manner: Manner) -> Self {
        let (connections, incoming) = mpsc::channel(16);
        let (streams_in, streams) = mpsc::channel(16);
        let shared = Arc::new(Shared::default());
        let service =
            Service { streams: streams_in, shared: shared.clone(), late_headers: manner.late_headers };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let service = AggregatedDiscoveryServiceServer::new(service);
            let router = tonic::transport::Server::builder()
                .initial_stream_window_size(manner.window)
                .add_service(service);
            // Ends with the test.
            _ = router.serve_with_incoming(ReceiverStream::new(incoming)).await;
        });
        Self { pipes: Pipes { connections, shared, size: manner.pipe }, streams, _server: server }
    }

    /// Takes connections, and then neither reads nor writes.
    pub(super) fn deaf() -> Self {
        let (connections, mut incoming) = mpsc::channel(16);
        let (_, streams) = mpsc::channel(1);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut held: Vec<io::Result<DuplexStream>> = Vec::new();
            while let Some(connection) = incoming.recv().await {
                held.push(connection);
            }
        });
        let shared = Arc::new(Shared::default());
        Self { pipes: Pipes { connections, shared, size: 64 << 10 }, streams, _server: server }
    }

    /// The next stream that is opened.
    pub(super) async fn stream(&mut self) -> AdsStream {
        self.streams.recv().await.expect("the server runs as long as the test")
    }

    /// Makes connections fail, or work again.
    pub(super) fn refuse(&self, refuse: bool) {
        self.pipes.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    /// When connections were tried.
    pub(super) fn attempts(&self) -> Vec<Instant> {
        self.pipes.shared.attempts.lock().unwrap().clone()
    }

    /// How many streams are open.
    pub(super) fn open_streams(&self) -> usize {
        self.pipes.shared.streams.load(Ordering::SeqCst)
    }
}

// === impl Pipes ===

impl Connect for Pipes {
    fn connect<'a>(&'a self, _address: &'a ServerAddress) -> Connecting<'a> {
        Box::pin(async move {
            self.shared.attempts.lock().unwrap().push(Instant::now());
            if self.shared.refuse.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(self.size);
            self.connections.send(Ok(theirs)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

// === impl AdsStream ===

impl AdsStream {
    /// The next request; none at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<DiscoveryRequest> {
        let request = self.requests.message().await.ok().flatten();
        self.read += usize::from(request.is_some());
        request
    }

    /// The next request, of this kind.
    pub(super) async fn expect(&mut self, kind: Kind) -> DiscoveryRequest {
        let request = self.next().await.expect("the stream goes on");
        assert_eq!(request.type_url, kind.type_url(), "{request:?}");
        request
    }

    /// Whether a request asks for other names than the last one of its type did.
    pub(super) fn asks_for_more(&mut self, request: &DiscoveryRequest) -> bool {
        let names = request.resource_names.clone();
        self.asked.insert(request.type_url.clone(), names.clone()).as_ref() != Some(&names)
    }

    /// Sends a response; waits while the client does not read.
    pub(super) async fn send(&mut self, kind: Kind, version: &str, resources: impl Resources) {
        let all = resources.into_resources();
        let of_kind = all.iter().filter(|resource| resource.kind().type_url() == kind.type_url());
        let resources = of_kind.map(to_any).collect();
        self.nonce += 1;
        let response = DiscoveryResponse {
            version_info: version.to_owned(),
            resources,
            type_url: kind.type_url().to_owned(),
            nonce: self.nonce.to_string(),
            ..DiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.expect("the client listens");
    }

    /// Ends the stream with an error.
    pub(super) async fn fail(self, status: Status) {
        _ = self.responses.send(Err(status)).await;
    }
}

fn to_any(resource: &Resource) -> Any {
    Any { type_url: resource.kind().type_url().to_owned(), value: resource.bytes().to_vec() }
}

// === impl Service ===

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Counted;
    type DeltaAggregatedResourcesStream = tokio_stream::Empty<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Counted>, Status> {
        let (responses, mut outbound) = mpsc::channel(1);
        let stream = AdsStream {
            requests: request.into_inner(),
            responses,
            read: 0,
            nonce: 0,
            asked: BTreeMap::new(),
        };
        self.shared.streams.fetch_add(1, Ordering::SeqCst);
        let shared = self.shared.clone();
        self.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        let first = if self.late_headers { outbound.recv().await } else { None };
        Ok(Response::new(Counted { first, rest: outbound, shared }))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}

/// The responses of one stream, counted while they are open.
pub(super) struct Counted {
    first: Option<Result<DiscoveryResponse, Status>>,
    rest: mpsc::Receiver<Result<DiscoveryResponse, Status>>,
    shared: Arc<Shared>,
}

impl tokio_stream::Stream for Counted {
    type Item = Result<DiscoveryResponse, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(first) => std::task::Poll::Ready(Some(first)),
            None => self.rest.poll_recv(cx),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::SeqCst);
    }
}
