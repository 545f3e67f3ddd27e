//! The embedded control plane: a cache of xDS resources, served by ADS from inside a process, in both variants of the
//! protocol: state of the world and incremental.
//!
//! For tests, for tours, and for installations small enough that a process of its own for configuration is too much.
//! Resources come from the typed builder in this module, or from files; both are ordinary xDS resources,
//! so any xDS client can be served: this mesh, gRPC of other languages, Envoy.
//!
//! ```text
//!  builder, files ─► Cache (versioned, one change at a time) ─► Subscriber (sans-IO, one per stream) ─► tonic
//! ```
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use mesh_xds::server::{Cluster, ControlPlane, Endpoints, Listener, Route, RouteConfig, VirtualHost};
//!
//! let control = ControlPlane::new();
//! control.set((
//!     Listener::client("reviews:9080").rds("reviews"),
//!     RouteConfig::new("reviews").host(VirtualHost::any().route(Route::prefix("/").weighted([("v1", 90), ("v2", 10)]))),
//!     Cluster::eds("v1").endpoints(Endpoints::of(["127.0.0.1:9081".parse().unwrap()])),
//!     Cluster::eds("v2").endpoints(Endpoints::of(["127.0.0.1:9082".parse().unwrap()])),
//! ));
//! let tcp = tokio::net::TcpListener::bind("127.0.0.1:18000").await?;
//! control.serve(tcp, std::future::pending()).await
//! # }
//! ```
//!
//! Protocol facts, as the xDS specification and the clients of gRPC and Envoy have them: nonces are per stream; a response is
//! sent only when what the client would see has changed, or when it asked for more. In the state of the world listeners and
//! clusters are complete sets, so absence means removal, while routes and endpoints are sent by name and an unknown name
//! is met with silence. In the incremental protocol only what changed is sent, each resource with a version of its own (a
//! digest of its content, so it holds across restarts and replicas); what a client brings from an earlier stream is
//! compared and not sent again; an unknown name is answered as removed.
//! Order: clusters, endpoints, listeners, routes, and removals after all of them are answered, in both variants.
//! What a client sees may depend on its node: see [`Edit::view`] and [`ControlPlane::assign_views`].
//! Deviations: the next response of a kind waits for the answer to the last one, so a client that never answers costs a
//! bounded amount of memory (and delays, for itself, the kinds that come after it); more than 200,000 names on one
//! stream end it with RESOURCE_EXHAUSTED; `*` is taken for every kind.

mod builder;
mod cache;
mod clients;
pub mod command;
mod control;
mod directory;
mod node;
mod resource;
mod serve;
mod service;
mod status;
mod stream;
mod subscriber;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use self::builder::{
    Cluster, DownstreamTls, Endpoints, HeaderMatch, Lb, Listener, Locality, Permission, Policy, Principal,
    Rbac, Retry, Route, RouteConfig, UpstreamTls, VirtualHost,
};
pub use self::control::{ControlPlane, Edit};
pub use self::directory::{Action, Change, Checks, Directory, FileError, FileProblem, Finding, Oddity};
pub use self::node::Node;
pub use self::resource::{InvalidResource, Resource, Resources};
pub use self::status::{ClientStatus, KindStatus, Nack, ResourceState, ResourceStatus};
pub use self::tls::{InvalidTls, Tls};
