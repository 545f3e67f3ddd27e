//! The service mesh that is a library: HTTP and gRPC calls get discovery, routing, load balancing, mTLS, policy,
//! resilience and telemetry in the process that makes and serves them. No sidecar, no proxy, no agent.
//!
//! # Table of contents
//! * **Start here**: `Mesh` owns everything; `Mesh::channel` calls, `Mesh::serve` serves
//! * **Calling** ([`client`]): `MeshChannel`, one Tower service for tonic, hyper and axum; `client/stack.rs` is the
//!   order of its layers
//! * **Serving** ([`server`]): connections we own, or a listener and a layer for tonic's and axum's own servers
//! * **Under both**: [`transport`] (sockets, HTTP), [`tls`], [`body`], [`runtime`] (what changes while requests flow),
//!   [`telemetry`], [`admin`], [`drain`], [`glue`] (tonic, axum, xDS)

#[cfg(feature = "http1")]
#[cfg(not(feature = "http2"))]
compile_error!(
    "mesh-tower always speaks HTTP/2, which is what gRPC is: enable its feature `http2`, a default"
);

#[cfg(feature = "http1")]
pub mod admin;
pub mod body;
pub mod builder;
mod cause;
pub mod client;
pub mod context;
pub mod drain;
pub mod error;
pub mod glue;
mod header_scan;
mod lines;
pub mod local_reply;
pub mod mesh;
mod readiness;
pub mod runtime;
pub mod server;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod transport;

pub use body::Body;
pub use builder::MeshBuilder;
pub use client::MeshChannel;
pub use context::{InMeshContext, spawn};
pub use error::Error;
pub use mesh::Mesh;
pub use readiness::Readiness;
pub use server::{Peer, ServerLimits};
pub use transport::h2::UnreadLimits;

// What users need of the crates below, so that they depend on this one alone.
pub use mesh_core;
#[cfg(feature = "xds")]
pub use mesh_xds;
