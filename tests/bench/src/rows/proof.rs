//! Nothing was measured with a feature switched off: the mesh's own counters, and calls that only pass if it is off.

use crate::Result;
use crate::certs::CLIENT_ID;
use crate::peers::Evidence;
use crate::resources::RETRIES;

/// gRPC's PERMISSION_DENIED.
const DENIED: &str = "7";

/// Fails unless metrics, traces, breaker and retries were on in a client that made `calls` calls.
pub(crate) fn client(evidence: &Evidence, calls: u64) -> Result<()> {
    that(evidence.requests == calls, "the metrics counted every call", evidence)?;
    that(evidence.series >= 1, "there is a metric series", evidence)?;
    // One percent of some thousand traces, two spans each: none, or a tenth of them, is not chance.
    let spans = 1..=calls / 10;
    that(spans.contains(&evidence.spans), "about one percent of the traces were recorded", evidence)?;
    that(evidence.breaker_refuses, "the breaker refuses where it admits nothing", evidence)?;
    that(evidence.attempts == 1 + u64::from(RETRIES), "a refused call was tried again", evidence)
}

/// Fails unless metrics, peer and RBAC were on in a server that served `calls` calls.
pub(crate) fn server(evidence: &Evidence, foreign: &Evidence, calls: u64) -> Result<()> {
    // The last call is being served while it proves this.
    that(evidence.requests + 1 >= calls, "the metrics counted every call", evidence)?;
    that(evidence.series >= 1, "there is a metric series", evidence)?;
    that(evidence.peer.as_deref() == Some(CLIENT_ID), "the application sees who called", evidence)?;
    that(foreign.foreign_status.as_deref() == Some(DENIED), "a path that no policy allows is denied", foreign)
}

fn that(holds: bool, what: &str, evidence: &Evidence) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("not true of the run: {what}; {evidence:?}").into()) }
}
