//! The harness of the system tests: real sockets, real TLS, an embedded control plane, and peers that misbehave on demand.
//!
//! | module | what it is |
//! |---|---|
//! | [`fleet`] | control plane, CA and backends of one test, and the meshes that use them |
//! | [`ca`] | a certificate authority that writes SPIFFE identities to files and rotates them |
//! | [`echo`] | a gRPC service in the shape of generated code, and its messages |
//! | [`backend`] | a server that tells who called, counts, holds requests, and fails on demand; gRPC and HTTP |
//! | [`fault`] | peers that refuse, reset, go silent, or speak HTTP/2 by script |
//! | [`frames`] | an HTTP/2 server that answers every request with the same frames |
//! | [`script`] | an ADS conversation, line by line |
//! | [`shared`] | a source of configuration that a mesh and a test share |
//! | [`naive`] | a control plane that does not read while it writes, and counts what it is sent |
//! | [`plain`] | configuration without a control plane, for a great many targets |
//! | [`relay`] | a wire before a control plane: it counts, is slow, or does not read while it writes |
//! | [`net`] | ports that stay ours while nobody listens, and an accept loop with an owner |
//! | [`wire`] | an ADS stream in both protocols, spoken by hand: frames, headers, and bytes that are no message |
//! | [`wait`] | the only way to wait: for an event, with a limit that is there to fail |
//!
//! Rules: no sleep, no fixed port, no name resolution; a wait ends by an event.

pub mod backend;
pub mod ca;
pub mod echo;
pub mod fault;
pub mod fleet;
pub mod frames;
pub mod log;
pub mod naive;
pub mod net;
pub mod plain;
pub mod relay;
pub mod script;
pub mod shared;
pub mod wait;
pub mod wire;
