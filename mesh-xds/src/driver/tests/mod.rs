//! The engine by hand, and the driver over in-memory connections with paused time.

mod engine;
mod federation;
mod histories;
mod keeps;
mod last_good;
#[cfg(feature = "control-plane")]
mod links;
mod order;
#[cfg(feature = "control-plane")]
mod outage;
mod planes;
mod refused;
#[cfg(feature = "control-plane")]
mod script;
#[cfg(feature = "control-plane")]
mod stream;
