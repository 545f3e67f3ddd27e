//! Validated configuration: plain data, `Clone + Debug + PartialEq`, shared by `Arc`.
//!
//! A value that exists is valid: the borders (`mesh-xds`, or code) construct it, nobody checks it again.
//! The names are Envoy's; each module names the message it holds.

pub mod cluster;
pub mod endpoints;
pub mod filter;
pub mod listener;
pub mod retry;
pub mod route;
pub mod security;
pub mod telemetry;
pub mod units;
