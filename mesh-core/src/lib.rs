//! The decisions of a service mesh, as pure and total functions over immutable configuration.
//!
//! Nothing here does IO, spawns, sleeps, or reads a clock, a random source, the environment or a global:
//! `now` and `rng` are always passed in. Nothing here knows protobuf, tokio or tower.
//!
//! # Table of contents
//! * **Configuration** (validated plain data): [`config`], and its compiled matchers in [`matcher`]
//! * **Snapshot** (what one target sees, whole): [`snapshot`], whose large lists are [`chunked`]
//! * **Decisions**: where a request goes ([`route`]), which endpoint takes it ([`lb`]), whether it is admitted
//!   ([`breaker`], [`rbac`]), whether it is tried again ([`retry`]), how long it may take ([`deadline`])
//! * **Vocabulary**: [`outcome`] with Envoy's response flags, [`error`] with [`error::Rejection`],
//!   [`identity`], [`telemetry`], [`rng`]

pub mod breaker;
pub mod chain;
pub mod chunked;
pub mod config;
pub mod deadline;
pub mod error;
pub mod identity;
pub mod lb;
pub mod matcher;
pub mod outcome;
pub mod rbac;
pub mod request;
pub mod retry;
pub mod rng;
pub mod route;
pub mod snapshot;
pub mod status;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
