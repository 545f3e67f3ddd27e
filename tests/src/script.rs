//! An ADS conversation, line by line: the test plays the control plane, request by request.

use std::net::SocketAddr;
use std::sync::Arc;

use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;
use mesh_xds::Kind;
use mesh_xds::server::Resources;
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::net::{self, Nobody, Port};
use crate::wait::soon;

/// A control plane whose lines the test speaks.
#[derive(Debug)]
pub struct AdsScript {
    port: Port,
    streams: mpsc::Receiver<Conversation>,
    arrivals: mpsc::Sender<Conversation>,
    running: JoinSet<()>,
    tls: Option<Arc<ServerConfig>>,
}

/// One ADS stream.
#[derive(Debug)]
pub struct Conversation {
    requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    sent: u64,
    authorization: Option<String>,
}

/// A request, without the parts that tests do not look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which type.
    pub kind: Kind,
    /// Which names.
    pub names: Vec<String>,
    /// The version that the client has.
    pub version: String,
    /// The response that this answers.
    pub nonce: String,
    /// Why it refuses, if it does.
    pub refusal: Option<String>,
    /// The node's id, where the request carries the node.
    pub node: Option<String>,
}

// === impl AdsScript ===

impl AdsScript {
    /// Listens on a port of its own.
    #[must_use]
    pub fn start() -> Self {
        Self::with(None)
    }

    /// The same, with TLS.
    #[must_use]
    pub fn start_tls(tls: Arc<ServerConfig>) -> Self {
        Self::with(Some(tls))
    }

    fn with(tls: Option<Arc<ServerConfig>>) -> Self {
        let (arrivals, streams) = mpsc::channel(64);
        let mut script = Self { port: Port::reserve(), streams, arrivals, running: JoinSet::new(), tls };
        script.restart();
        script
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The next stream that a client opens.
    pub async fn accept(&mut self) -> Conversation {
        soon(self.streams.recv()).await.expect("the script keeps a sender")
    }

    /// Streams that were opened and not accepted yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.streams.len()
    }

    /// Cuts every connection, refuses new ones.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
    }

    /// Listens again, on the same address.
    pub fn restart(&mut self) {
        let service = AggregatedDiscoveryServiceServer::new(Stage { arrivals: self.arrivals.clone() });
        let app = Routes::new(service).into_axum_router();
        self.running.spawn(net::serve(self.port.listen(), self.tls.clone(), app, Arc::new(Nobody)));
    }
}

// === impl Conversation ===

impl Conversation {
    /// The header `authorization` of the stream.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// The next request, or `None` when the client ended its side.
    ///
    /// # Errors
    /// The status with which the stream broke.
    pub async fn next(&mut self) -> Result<Option<Asked>, Status> {
        Ok(soon(self.requests.message()).await?.map(Asked::from))
    }

    /// The next request, which has to be of this kind with these names.
    ///
    /// # Panics
    /// If it is not.
    pub async fn expect(&mut self, kind: Kind, names: &[&str]) -> Asked {
        let asked = self.next().await.expect("an open stream").expect("a request");
        assert_eq!((asked.kind, asked.names.as_slice()), (kind, owned(names).as_slice()), "{asked:?}");
        asked
    }

    /// The next request, which has to accept a response.
    ///
    /// # Panics
    /// If it does not.
    pub async fn expect_ack(&mut self, kind: Kind, version: &str, nonce: &str) -> Asked {
        let asked = self.next().await.expect("an open stream").expect("a request");
        let expected = (kind, version, nonce, None);
        assert_eq!(
            (asked.kind, asked.version.as_str(), asked.nonce.as_str(), asked.refusal.as_deref()),
            expected
        );
        asked
    }

    /// The next request, which has to refuse a response. Returns the reason.
    ///
    /// # Panics
    /// If it does not.
    pub async fn expect_nack(&mut self, kind: Kind, nonce: &str) -> String {
        let asked = self.next().await.expect("an open stream").expect("a request");
        assert_eq!((asked.kind, asked.nonce.as_str()), (kind, nonce), "{asked:?}");
        asked.refusal.expect("a refusal")
    }

    /// Sends a response; returns its nonce.
    pub async fn send(&mut self, kind: Kind, version: &str, resources: impl Resources) -> String {
        let resources = resources.into_resources();
        let resources = resources
            .iter()
            .filter(|resource| resource.kind() == kind)
            .map(|resource| Any { type_url: kind.type_url().into(), value: resource.bytes().to_vec() });
        self.send_raw(kind, version, resources.collect()).await
    }

    /// Sends a response with resources as they are; returns its nonce.
    ///
    /// # Panics
    /// If the client is gone.
    pub async fn send_raw(&mut self, kind: Kind, version: &str, resources: Vec<Any>) -> String {
        self.sent += 1;
        let nonce = format!("n{}", self.sent);
        let response = DiscoveryResponse {
            version_info: version.into(),
            resources,
            type_url: kind.type_url().into(),
            nonce: nonce.clone(),
            ..Default::default()
        };
        soon(self.responses.send(Ok(response))).await.expect("an open stream");
        nonce
    }

    /// Ends the stream with a status.
    pub async fn fail(self, status: Status) {
        // If the client is gone already, the stream has ended as wanted.
        drop(self.responses.send(Err(status)).await);
    }
}

impl From<DiscoveryRequest> for Asked {
    fn from(request: DiscoveryRequest) -> Self {
        let mut names = request.resource_names;
        names.sort();
        Self {
            kind: Kind::from_type_url(&request.type_url).expect("a type of this mesh"),
            names,
            version: request.version_info,
            nonce: request.response_nonce,
            refusal: request.error_detail.map(|status| status.message),
            node: request.node.map(|node| node.id),
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

/// Hands each new stream to the test.
struct Stage {
    arrivals: mpsc::Sender<Conversation>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Stage {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = tokio_stream::Empty<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (responses, queue) = mpsc::channel(1);
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let conversation = Conversation { requests: request.into_inner(), responses, sent: 0, authorization };
        self.arrivals.send(conversation).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the script speaks state of the world"))
    }
}
