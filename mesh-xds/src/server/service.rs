//! The ADS service in both variants of the protocol, on tonic's server without its generated code: the responses are ours
//! ([`wire`](super::wire)), so that no resource is copied before it is written.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service as TowerService;

use super::clients::Registration;
use super::control::Shared;
use super::serve::PeerAddr;
use super::stream::{Responses, Stream};
use super::subscriber::{Ask, Push};
use super::wire::{DeltaResponse, SotwResponse};
use crate::ads::Protocol;

/// ADS over the resources of one control plane, until `closing` ends or turns true.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) shared: Arc<Shared>,
    pub(super) closing: watch::Receiver<bool>,
}

/// One method, whose responses are of a type that nothing in it holds.
struct Method<R> {
    service: Service,
    protocol: Protocol,
    response: PhantomData<fn() -> R>,
}

// === impl Service ===

impl TowerService<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        match request.uri().path() {
            SOTW => {
                let method = Method::<SotwResponse>::new(service, Protocol::StateOfTheWorld);
                Box::pin(method.respond::<DiscoveryRequest>(request))
            }
            DELTA => {
                let method = Method::<DeltaResponse>::new(service, Protocol::Incremental);
                Box::pin(method.respond::<DeltaDiscoveryRequest>(request))
            }
            _ => {
                Box::pin(ready(Ok(Status::unimplemented("this control plane serves ADS alone").into_http())))
            }
        }
    }
}

// === impl Method ===

impl<R: Message + From<Push> + 'static> Method<R> {
    fn new(service: Service, protocol: Protocol) -> Self {
        Self { service, protocol, response: PhantomData }
    }

    async fn respond<Q>(self, request: http::Request<Body>) -> Result<http::Response<Body>, Infallible>
    where
        Q: Message + Default + Into<Ask> + 'static,
    {
        let codec = ProstCodec::<R, Q>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST_BYTES);
        Ok(grpc.streaming(self, request).await)
    }
}

impl<Q, R> StreamingService<Q> for Method<R>
where
    Q: Into<Ask> + Send + 'static,
    R: From<Push> + Send + 'static,
{
    type Response = R;
    type ResponseStream = Responses<R>;
    type Future = Ready<Result<Response<Responses<R>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Self::Future {
        let Self { service, protocol, response: _ } = self;
        if *service.closing.borrow() {
            return ready(Err(shutting_down()));
        }
        let peer = request.extensions().get::<PeerAddr>().map(|PeerAddr(address)| *address);
        let stream = Stream {
            shared: Arc::clone(&service.shared),
            registration: Arc::new(Registration::new(&service.shared, *protocol, peer)),
            closing: service.closing.clone(),
        };
        ready(Ok(Response::new(stream.run(request.into_inner()))))
    }
}

pub(super) fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Room for the names of some 100,000 resources.
const MAX_REQUEST_BYTES: usize = 16 << 20;
