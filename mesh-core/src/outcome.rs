//! How an attempt or a request ended, gRPC and HTTP classified alike, with Envoy's response flags.

use std::fmt;

use http::StatusCode;

/// A gRPC status code, 0..=16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcCode(u8);

/// Envoy's response flags: why the mesh, not the application, answered or failed. A set; empty prints as `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseFlags(u32);

/// How one attempt ended, for retries, balancing and telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response arrived: its status, and the gRPC status where one is known (trailers-only, or the trailers).
    Response {
        /// HTTP status.
        http: StatusCode,
        /// gRPC status.
        grpc: Option<GrpcCode>,
    },
    /// No response: why.
    Failed(Failure),
    /// The caller went away first.
    Cancelled,
}

/// Why an attempt has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection could be made. Nothing was sent.
    Connect,
    /// The peer provably did nothing: REFUSED_STREAM, or GOAWAY below our stream, or the request never left.
    Refused,
    /// The stream or connection was reset after the request was, or may have been, seen.
    Reset,
    /// The peer reset the stream, with a code that is this status to gRPC.
    RemoteReset(GrpcCode),
    /// The attempt's own time ran out.
    PerTryTimeout,
    /// The whole request's time ran out.
    Deadline,
    /// Our own decision (no endpoint, breaker, drop): the peer was never asked.
    Local,
}

// === impl GrpcCode ===

impl GrpcCode {
    /// OK.
    pub const OK: Self = Self(0);
    /// CANCELLED.
    pub const CANCELLED: Self = Self(1);
    /// UNKNOWN.
    pub const UNKNOWN: Self = Self(2);
    /// INVALID_ARGUMENT.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// DEADLINE_EXCEEDED.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// NOT_FOUND.
    pub const NOT_FOUND: Self = Self(5);
    /// ALREADY_EXISTS.
    pub const ALREADY_EXISTS: Self = Self(6);
    /// PERMISSION_DENIED.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// FAILED_PRECONDITION.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// ABORTED.
    pub const ABORTED: Self = Self(10);
    /// OUT_OF_RANGE.
    pub const OUT_OF_RANGE: Self = Self(11);
    /// UNIMPLEMENTED.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// INTERNAL.
    pub const INTERNAL: Self = Self(13);
    /// UNAVAILABLE.
    pub const UNAVAILABLE: Self = Self(14);
    /// DATA_LOSS.
    pub const DATA_LOSS: Self = Self(15);
    /// UNAUTHENTICATED.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// Reads `grpc-status`; anything that is no known code is UNKNOWN.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        match value {
            [d @ b'0'..=b'9'] => Self(d - b'0'),
            [b'1', d @ b'0'..=b'6'] => Self(10 + d - b'0'),
            _ => Self::UNKNOWN,
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }

    /// The decimal text, as it is on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        const TEXT: [&str; 17] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
        TEXT.get(usize::from(self.0)).copied().unwrap_or("2")
    }

    /// The code of a response that has only an HTTP status (gRPC's http-grpc-status-mapping).
    #[must_use]
    pub fn of_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502..=504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }
}

impl fmt::Display for GrpcCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl ResponseFlags ===

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The client went away.
    pub const DOWNSTREAM_CONNECTION_TERMINATION: Self = Self(1);
    /// No connection to the upstream.
    pub const UPSTREAM_CONNECTION_FAILURE: Self = Self(1 << 1);
    /// The upstream connection ended.
    pub const UPSTREAM_CONNECTION_TERMINATION: Self = Self(1 << 2);
    /// No healthy upstream.
    pub const NO_HEALTHY_UPSTREAM: Self = Self(1 << 3);
    /// A circuit breaker is open.
    pub const UPSTREAM_OVERFLOW: Self = Self(1 << 4);
    /// The request's time ran out.
    pub const UPSTREAM_REQUEST_TIMEOUT: Self = Self(1 << 5);
    /// The retries are used up.
    pub const UPSTREAM_RETRY_LIMIT_EXCEEDED: Self = Self(1 << 6);
    /// The upstream reset the stream.
    pub const UPSTREAM_REMOTE_RESET: Self = Self(1 << 7);
    /// No route.
    pub const NO_ROUTE_FOUND: Self = Self(1 << 8);
    /// No such cluster.
    pub const NO_CLUSTER_FOUND: Self = Self(1 << 9);
    /// `max_stream_duration` was reached.
    pub const UPSTREAM_MAX_STREAM_DURATION_REACHED: Self = Self(1 << 10);
    /// Dropped by the control plane's `drop_overloads`.
    pub const DROP_OVERLOAD: Self = Self(1 << 11);
    /// The peer broke the protocol.
    pub const UPSTREAM_PROTOCOL_ERROR: Self = Self(1 << 12);
    /// Refused by policy.
    pub const UNAUTHORIZED: Self = Self(1 << 13);
    /// Our own overload protection.
    pub const OVERLOAD_MANAGER: Self = Self(1 << 14);
    /// The caller broke the protocol.
    pub const DOWNSTREAM_PROTOCOL_ERROR: Self = Self(1 << 15);
    /// Nothing was sent either way for too long.
    pub const STREAM_IDLE_TIMEOUT: Self = Self(1 << 16);

    /// Names in Envoy's short form, in the order of the bits.
    const NAMES: [&'static str; 17] = [
        "DC", "UF", "UC", "UH", "UO", "UT", "URX", "UR", "NR", "NC", "UMSDR", "DO", "UPE", "UAEX", "OM",
        "DPE", "SI",
    ];

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no flag is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one name of a set of one flag, `-` for none; none for a larger set.
    #[must_use]
    pub fn single(self) -> Option<&'static str> {
        match self.0.count_ones() {
            0 => Some("-"),
            1 => Self::NAMES.get(self.0.trailing_zeros() as usize).copied(),
            _ => None,
        }
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let set = Self::NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        for (n, (_, name)) in set.enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether the peer served the request: for gRPC status OK, for HTTP below 500.
    #[must_use]
    pub fn is_success(self) -> bool {
        match self {
            Self::Response { grpc: Some(code), .. } => code == GrpcCode::OK,
            Self::Response { http, grpc: None } => !http.is_server_error(),
            Self::Failed(_) | Self::Cancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_envoy_prints_them() {
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        let both =
            ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED.union(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        assert_eq!((both.to_string().as_str(), both.single()), ("UF,URX", None));
        assert_eq!(ResponseFlags::OVERLOAD_MANAGER.single(), Some("OM"));
        assert_eq!(ResponseFlags::NO_ROUTE_FOUND.to_string(), "NR");
    }

    #[test]
    fn a_grpc_status_outside_the_known_codes_is_unknown() {
        assert_eq!(GrpcCode::parse(b"14"), GrpcCode::UNAVAILABLE);
        assert_eq!(GrpcCode::parse(b"0"), GrpcCode::OK);
        for odd in [&b""[..], b"17", b"99", b"-1", b"x", b"014"] {
            assert_eq!(GrpcCode::parse(odd), GrpcCode::UNKNOWN);
        }
    }

    #[test]
    fn every_grpc_code_reads_what_it_writes() {
        let codes: Vec<GrpcCode> = (0..=16).map(|n: u8| GrpcCode::parse(n.to_string().as_bytes())).collect();
        assert!(codes.iter().zip(0..).all(|(code, n)| code.get() == n && code.to_string() == n.to_string()));
        assert_eq!(codes[14], GrpcCode::UNAVAILABLE);
    }

    #[test]
    fn success_is_the_peers_word_on_the_request() {
        let of = |http: u16, grpc| Outcome::Response { http: StatusCode::from_u16(http).unwrap(), grpc };
        assert!(of(200, Some(GrpcCode::OK)).is_success() && of(404, None).is_success());
        assert!(!of(200, Some(GrpcCode::NOT_FOUND)).is_success() && !of(500, None).is_success());
        assert!(!Outcome::Failed(Failure::Reset).is_success() && !Outcome::Cancelled.is_success());
    }
}
