//! Whether an attempt that ended is followed by another, and when.
//!
//! References: gRFC A6 and A44 for gRPC, Envoy's `x-envoy-retry-on` conditions for other HTTP; the kind of the request
//! decides. Our own refusals (drop, breaker, RBAC, no endpoint that may be used) are never retried.

mod backoff;
pub(crate) mod budget;
mod classify;
mod policy;

#[cfg(test)]
mod tests;

pub use backoff::BackOff;
pub use classify::Untouched;
pub use policy::{Ended, Retries, Stop, Verdict, attempt_timeout};
