//! What is told of a request when it ends, and the names it is told under.

pub mod event;
pub mod names;
