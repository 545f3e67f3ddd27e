//! The client side: the channel, and the layers of its stack, one per directory.
//!
//! `stack` composes them and documents their order. Between layers travel typed requests (`request`), so that an
//! order that makes no sense does not compile: balancing takes an `request::Attempt`, which only retrying makes, out
//! of a `request::Routed`, which only routing makes.
//!
//! Deviation from Tower inside the stack: layers implement `service::Service`, which is called by shared reference
//! and lends its request. A call then clones no layer, boxes one future, and keeps one copy of the request however
//! many layers there are. At its edge the channel is a Tower service like any other.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod channel;
pub(crate) mod deadline;
pub(crate) mod direct;
pub(crate) mod endpoint;
pub(crate) mod outlier;
pub(crate) mod pin;
pub(crate) mod request;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod stack;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod trace;

pub(crate) use channel::MeshChannel;
pub use channel::{ResponseFuture, StrictChannel};
