//! The service mesh that is a library: HTTP and gRPC calls get discovery, routing, load balancing, mTLS, policy,
//! resilience and telemetry in the process that makes and serves them. No sidecar, no proxy, no agent.
//!
//! # Table of contents
//! * **Start here**: [`Mesh`] owns everything; [`Mesh::channel`] calls, [`Mesh::serve`] serves
//! * **Calling** ([`client`]): [`MeshChannel`], one Tower service for tonic, hyper and axum; `client/stack` is the
//!   order of its layers
//! * **Serving** ([`server`]): connections we own, or a listener and a layer for tonic's and axum's own servers; the
//!   [`Peer`] of a request
//! * **Under both**: [`transport`] (sockets), [`tls`] (certificates), [`telemetry`], `Admin` (health and metrics over
//!   HTTP), [`drain`], [`context`] (trace and deadline), [`glue`] (tonic, axum)
//! * **Below**: `mesh_core` (the words of configuration and telemetry) and `mesh_xds` (bootstrap)
//!
//! Everything else is private.

#[cfg(feature = "http1")]
#[cfg(not(feature = "http2"))]
compile_error!(
    "mesh-tower always speaks HTTP/2, which is what gRPC is: enable its feature `http2`, a default"
);

#[cfg(feature = "http1")]
mod admin;
mod body;
mod builder;
mod cause;
pub mod client;
pub mod context;
pub mod drain;
mod error;
pub mod glue;
mod header_scan;
mod lines;
mod local_reply;
mod mesh;
mod readiness;
mod runtime;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod transport;

#[cfg(feature = "http1")]
pub use admin::Admin;
pub use body::{Body, BodyError, BoxError};
pub use builder::MeshBuilder;
pub use client::channel::MeshChannel;
pub use context::{InMeshContext, spawn};
pub use error::Error;
pub use mesh::Mesh;
pub use readiness::Readiness;
pub use runtime::endpoint::{Upstream, UpstreamFuture};
pub use server::limits::ServerLimits;
pub use server::peer::Peer;
pub use transport::h2::guard::UnreadLimits;
pub use transport::listen::{ListeningSocket, MeshIo, MeshListener};

// What users need of the crates below, so that they depend on this one alone.
pub use mesh_core;
#[cfg(feature = "xds")]
pub use mesh_xds;
