//! One event per request at its end: metrics, access log and anything else are sinks of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::endpoints::Address;
use crate::config::telemetry::WorkloadLabels;
use crate::identity::Peer;
use crate::outcome::{GrpcCode, ResponseFlags};
use crate::request::RequestKind;

/// A finished request. Borrowed: a sink copies what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct RequestEvent<'a> {
    /// Which side tells.
    pub reporter: Reporter,
    /// gRPC or other HTTP.
    pub kind: RequestKind,
    /// `:method`.
    pub method: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:path` without the query. For logs and spans, never a metric label.
    pub path: &'a str,
    /// HTTP version of the request as text (`HTTP/1.1`, `HTTP/2`).
    pub protocol: &'static str,
    /// HTTP status; 0 if there was no response.
    pub response_code: u16,
    /// gRPC status; none for other HTTP.
    pub grpc_status: Option<GrpcCode>,
    /// Envoy's flags.
    pub flags: ResponseFlags,
    /// Envoy's `response_code_details`.
    pub details: &'a str,
    /// From the arrival of the request to the end of the response body.
    pub duration: Duration,
    /// Bytes of request headers and body.
    pub request_bytes: u64,
    /// Bytes of response headers, body and trailers.
    pub response_bytes: u64,
    /// Attempts made, at least 1 once one was made.
    pub attempts: u32,
    /// Name of the route; empty if it has none.
    pub route: &'a str,
    /// Name of the cluster; empty if none was chosen.
    pub cluster: &'a str,
    /// Service labels of the cluster, where the configuration has them.
    pub service: Option<&'a Arc<crate::config::cluster::ServiceLabels>>,
    /// The endpoint of the last attempt (client), none on a server.
    pub upstream: Option<&'a Address>,
    /// Labels of that endpoint's workload.
    pub upstream_workload: Option<&'a Arc<WorkloadLabels>>,
    /// The peer whose request it is (server), none on a client.
    pub downstream: Option<&'a Peer>,
    /// Verified principal of the peer (`spiffe://…`).
    pub peer_principal: Option<&'a str>,
    /// Whether the connection was mutually authenticated.
    pub mutual_tls: bool,
    /// Trace id and span id of the request's span, where there is one.
    pub trace: Option<TraceIds>,
    /// Version of the snapshot that decided.
    pub snapshot: u64,
}

/// Which side tells of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client (`reporter="source"`).
    Source,
    /// The server (`reporter="destination"`).
    Destination,
}

/// W3C ids. `Debug` shows them as `traceparent` does, in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceIds {
    /// Trace id.
    pub trace: u128,
    /// Span id.
    pub span: u64,
    /// The sampled flag.
    pub sampled: bool,
}

/// Takes every finished request. Called on the request path: must be quick, must not block.
pub trait EventSink: Send + Sync + fmt::Debug {
    /// A request ended.
    fn record(&self, event: &RequestEvent<'_>);

    /// A client began to use a cluster of this name: one more beginning than there are ends means that it is in use.
    fn cluster_in_use(&self, name: &str) {
        let _ = name;
    }

    /// A cluster that was in use is gone: it left the configuration, and no request refers to it any more.
    fn cluster_gone(&self, name: &str) {
        let _ = name;
    }
}

// === impl TraceIds ===

impl fmt::Debug for TraceIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

// === impl Reporter ===

impl Reporter {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_everybody_else_writes_them() {
        for (ids, text) in [
            (
                TraceIds {
                    trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
                    span: 0x00f0_67aa_0ba9_02b7,
                    sampled: true,
                },
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            (
                TraceIds { trace: 1, span: 10, sampled: false },
                "00000000000000000000000000000001-000000000000000a-00",
            ),
        ] {
            assert_eq!(format!("{ids:?}"), text);
            assert!(format!("{:?}", Some(ids)).contains(text), "wherever it is part of something");
        }
    }
}
