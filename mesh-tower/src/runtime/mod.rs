//! What changes while requests flow: connections, permits, counters, pickers. Keyed by cluster and endpoint, owned by
//! one `Mesh`, and reconciled with each new snapshot; configuration itself is never mutated.
