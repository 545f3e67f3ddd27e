//! The embedded control plane: a cache of xDS resources, served by ADS (state of the world) from inside a process.
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
//! Protocol facts, as the xDS specification and gRPC's clients have them: nonces are per stream; a response is sent only
//! when what the client would see has changed, or when it asked for more; listeners and clusters are complete sets, so
//! absence means removal, while routes and endpoints are sent by name and an unknown name is met with silence.
//! Deviations: only the state-of-the-world variant is served; the next response of a kind waits for the answer to the last
//! one, so a client that never answers costs a bounded amount of memory.

mod builder;
mod cache;
mod clients;
mod directory;
mod resource;
mod serve;
mod service;
mod status;
mod subscriber;
#[cfg(test)]
mod tests;

pub use self::builder::{
    Cluster, DownstreamTls, Endpoints, HeaderMatch, Lb, Listener, Locality, Permission, Policy, Principal,
    Rbac, Retry, Route, RouteConfig, UpstreamTls, VirtualHost,
};
pub use self::cache::{ControlPlane, Edit};
pub use self::directory::{Directory, FileError, FileProblem};
pub use self::resource::{InvalidResource, Resource, Resources};
pub use self::status::{ClientStatus, KindStatus, Nack};
pub use crate::ads::Kind;
