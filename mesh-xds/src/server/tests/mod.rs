//! The control plane as a client sees it: raw ADS clients on a loopback socket, and the sans-IO subscriber.

mod ads;
mod claims;
mod delta;
mod directory;
mod sotw;
mod views;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use prost::Message;
use tokio::time::Instant;

use crate::ads::Kind;
use crate::ads::Protocol;
use crate::server::control::ControlPlane;
use crate::server::resource::Resource;
use crate::server::status::{KindStatus, ResourceStatus};
use crate::server::subscriber::{Received, Subscriber, TooManyNames};
use crate::server::wire::{DeltaResponse, SotwResponse};

/// A subscriber that takes and gives the messages of the Envoy API, through their bytes, at a time of its own.
struct Sotw(Machine);
/// The same for the incremental variant.
struct Delta(Machine);

struct Machine {
    subscriber: Subscriber,
    control: ControlPlane,
    now: Instant,
}

impl Machine {
    fn new(protocol: Protocol, control: &ControlPlane) -> Self {
        let subscriber = Subscriber::new(1, protocol);
        Self { subscriber, control: control.clone(), now: Instant::now() }
    }

    fn status(&mut self) -> Vec<KindStatus> {
        self.subscriber.status(&self.control.shared.resources())
    }
}

impl Sotw {
    fn new(control: &ControlPlane) -> Self {
        Self(Machine::new(Protocol::StateOfTheWorld, control))
    }

    fn handle(&mut self, request: DiscoveryRequest) -> Received {
        let Machine { subscriber, control, now } = &mut self.0;
        subscriber.handle(request.into(), *now, |node| control.shared.view_of(node)).unwrap()
    }

    fn poll(&mut self, control: &ControlPlane) -> Option<DiscoveryResponse> {
        let push = self.0.subscriber.poll(self.0.now, &control.shared.resources())?;
        let bytes = SotwResponse::from(push).encode_to_vec();
        Some(DiscoveryResponse::decode(bytes.as_slice()).unwrap())
    }

    fn status(&mut self, _: &ControlPlane) -> Vec<KindStatus> {
        self.0.status()
    }
}

impl Delta {
    fn new(control: &ControlPlane) -> Self {
        Self(Machine::new(Protocol::Incremental, control))
    }

    fn try_handle(&mut self, request: DeltaDiscoveryRequest) -> Result<Received, TooManyNames> {
        let Machine { subscriber, control, now } = &mut self.0;
        subscriber.handle(request.into(), *now, |node| control.shared.view_of(node))
    }

    fn handle(&mut self, request: DeltaDiscoveryRequest) -> Received {
        self.try_handle(request).unwrap()
    }

    fn poll(&mut self) -> Option<DeltaDiscoveryResponse> {
        let push = self.0.subscriber.poll(self.0.now, &self.0.control.shared.resources())?;
        let bytes = DeltaResponse::from(push).encode_to_vec();
        Some(DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap())
    }

    fn status(&mut self, kind: Kind) -> KindStatus {
        self.0.status().into_iter().find(|status| status.kind == kind).unwrap()
    }

    fn resources(&self, kind: Kind) -> Vec<ResourceStatus> {
        self.0.subscriber.resource_status(kind)
    }
}

fn resource(kind: Kind, name: &str, body: &str) -> Resource {
    Resource::opaque(kind, name, body.as_bytes().to_vec())
}
