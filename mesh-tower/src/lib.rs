//! (to be written)

pub mod body;
pub mod transport;
