//! What changes while requests flow: connections, permits, counters, pickers. Keyed by cluster and endpoint, owned by
//! one `Mesh`, and reconciled with each new snapshot; configuration itself is never mutated.
//!
//! ```text
//! snapshot ──reconcile──► registry ──► cluster (permits, priorities, picker) ──► endpoint (in flight, connections)
//! ```

pub(crate) mod cluster;
pub(crate) mod endpoint;
pub(crate) mod registry;
pub(crate) mod rng;
pub(crate) mod roster;
