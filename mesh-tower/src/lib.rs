//! (to be written)

pub mod body;
pub mod tls;
pub mod transport;
