//! A control plane of the simplest shape: it answers each request before it reads the next, and answers with everything.
//!
//! Clients have deadlocked against this shape, or buried it under requests that name everything again each time: it
//! counts what it is sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::google::protobuf::Any;
use futures_util::Stream;
use mesh_xds::Kind;
use mesh_xds::server::{Resource, Resources};
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::net::{self, Nobody, Port};
use crate::wait;

/// The control plane.
#[derive(Debug)]
pub struct NaiveControlPlane {
    port: Port,
    seen: watch::Receiver<Traffic>,
    _running: JoinSet<()>,
}

/// What it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The names last asked for, by type.
    pub names: HashMap<String, usize>,
}

// === impl NaiveControlPlane ===

impl NaiveControlPlane {
    /// Serves a fixed set of resources.
    #[must_use]
    pub fn start(resources: impl Resources) -> Self {
        let (count, seen) = watch::channel(Traffic::default());
        let port = Port::reserve();
        let mut by_name = HashMap::new();
        for resource in resources.into_resources() {
            by_name.insert((resource.kind(), resource.name().to_string()), resource);
        }
        let service = Naive { resources: Arc::new(by_name), count: Arc::new(count) };
        let app = Routes::new(AggregatedDiscoveryServiceServer::new(service)).into_axum_router();
        let mut running = JoinSet::new();
        running.spawn(net::serve(port.listen(), None, app, Arc::new(Nobody)));
        Self { port, seen, _running: running }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What it was sent so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.seen.borrow().clone()
    }

    /// Waits until what it was sent satisfies a condition.
    #[track_caller]
    pub fn until(&self, condition: impl FnMut(&Traffic) -> bool) -> impl Future<Output = Traffic> {
        wait::until(self.seen.clone(), condition)
    }
}

struct Naive {
    resources: Arc<HashMap<(Kind, String), Resource>>,
    count: Arc<watch::Sender<Traffic>>,
}

/// A conversation: polled only when the client takes responses, and reads only when it is polled.
struct Session {
    requests: Streaming<DiscoveryRequest>,
    resources: Arc<HashMap<(Kind, String), Resource>>,
    count: Arc<watch::Sender<Traffic>>,
    answered: HashMap<Kind, Vec<String>>,
    sent: u64,
}

impl Session {
    async fn next(mut self) -> Option<(Result<DiscoveryResponse, Status>, Self)> {
        loop {
            let request = self.requests.message().await.ok().flatten()?;
            let kind = Kind::from_type_url(&request.type_url)?;
            self.count.send_modify(|traffic| {
                traffic.requests += 1;
                traffic.bytes += request.encoded_len() as u64;
                traffic.names.insert(request.type_url.clone(), request.resource_names.len());
            });
            if self.answered.get(&kind) == Some(&request.resource_names) {
                continue;
            }
            self.sent += 1;
            let found =
                request.resource_names.iter().filter_map(|name| self.resources.get(&(kind, name.clone())));
            let resources =
                found.map(|r| Any { type_url: kind.type_url().into(), value: r.bytes().to_vec() });
            let response = DiscoveryResponse {
                version_info: "1".into(),
                resources: resources.collect(),
                type_url: request.type_url,
                nonce: self.sent.to_string(),
                ..Default::default()
            };
            self.answered.insert(kind, request.resource_names);
            return Some((Ok(response), self));
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Naive {
    type StreamAggregatedResourcesStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = tokio_stream::Empty<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let session = Session {
            requests: request.into_inner(),
            resources: Arc::clone(&self.resources),
            count: Arc::clone(&self.count),
            answered: HashMap::new(),
            sent: 0,
        };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(session, Session::next))))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }
}
