//! What a server grants its callers: how many, how much, how long. The listener's configuration may say less.

use std::time::Duration;

use mesh_core::config::listener::{HttpConfig, ServingConfig};

/// Limits and timeouts of every server of one mesh.
///
/// Build it from [`ServerLimits::default`]; where the listener's configuration has a value of its own, that one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections open at once. For one more a silent one gives way (see [`ServerLimits::handshakes`]); if there is
    /// none, it is closed at once.
    pub connections: usize,
    /// Requests in flight over all connections; one more is answered UNAVAILABLE or 503, unless somebody holds clearly
    /// more of them than who asks: then the heaviest connection is closed, and the request served.
    pub requests: usize,
    /// The share of one connection in `requests`; none is a half of them. One more is answered UNAVAILABLE or 503.
    pub requests_per_connection: Option<usize>,
    /// The share of one peer address (of one /64 for IPv6) in `requests`. None by default, because a gateway is one
    /// address; with a share set, the address with the most requests is the heaviest. Peers of a unix-domain socket have no
    /// address, and only the share of each connection.
    pub requests_per_address: Option<usize>,
    /// TLS handshakes that wait for their clients at once, per listener. Above it, and where connections or file
    /// descriptors run out, the address with the most of them gives way: its oldest one is closed, if it has waited for
    /// a second. A handshake that waits for the server does not count; cryptography runs on as many of them at once as
    /// there are processors.
    pub handshakes: usize,
    /// From the accepted socket to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a connection, or of an HTTP/1.1 request, to the end of the request's headers
    /// (`request_headers_timeout`).
    pub headers_timeout: Duration,
    /// A connection without requests is closed after this, at the latest after twice this (`idle_timeout`).
    pub idle_timeout: Duration,
    /// How long calls may go on after their connection's configuration has changed (gRFC A36).
    pub drain_grace: Duration,
    /// How long an HTTP/1.1 connection that is told to go away stays open without a request, from then or from its last
    /// response on: a request that crosses the notice is still served (default 2 s). As long is waited for the answer of
    /// an HTTP/2 connection, if no stream is open. A shutdown waits for it, within its own limit.
    pub drain_idle_grace: Duration,
    /// Streams at once on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Bytes of the headers of one request.
    pub max_header_bytes: u32,
    /// HTTP/2 PING when nothing was heard for this long.
    pub keepalive_interval: Duration,
    /// A PING that is not answered within this ends the connection.
    pub keepalive_timeout: Duration,
}

/// The limits of one connection, its listener's configuration applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) headers_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// For the rest of a head that has begun.
    pub(crate) head_timeout: Duration,
    pub(crate) max_duration: Option<Duration>,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_header_bytes: u32,
    /// Headers of a request that the codec must be able to read, where it is more than the codec's own bound.
    pub(crate) max_headers: Option<usize>,
}

// === impl ServerLimits ===

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            requests: 100_000,
            requests_per_connection: None,
            requests_per_address: None,
            handshakes: 1_024,
            handshake_timeout: Duration::from_secs(10),
            headers_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(3_600),
            drain_grace: Duration::from_secs(600),
            drain_idle_grace: Duration::from_secs(2),
            max_concurrent_streams: 1_024,
            max_header_bytes: 60 * 1_024,
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl ServerLimits {
    pub(crate) fn of_connection(&self, http: &HttpConfig) -> ConnectionLimits {
        // Zero switches a timeout off, in Envoy's words.
        let timeout = |configured: Option<Duration>, ours| match configured {
            None => ours,
            Some(Duration::ZERO) => FOREVER,
            Some(timeout) => timeout,
        };
        let headers_timeout = timeout(http.headers_timeout, self.headers_timeout);
        let ServingConfig { request_timeout, max_connection_duration, max_headers_count, .. } = http.serving;
        ConnectionLimits {
            headers_timeout,
            // A head is a part of its request.
            head_timeout: request_timeout.map_or(headers_timeout, |whole| whole.min(headers_timeout)),
            max_duration: max_connection_duration.map(|limit| limit.min(FOREVER)),
            max_headers: max_headers_count
                .and_then(|most| usize::try_from(most).ok())
                .filter(|most| *most > CODEC_HEADERS)
                // One more than allowed is ours to refuse, with a reason.
                .map(|most| most.saturating_add(1).min(MOST_HEADERS)),
            idle_timeout: timeout(http.idle_timeout, self.idle_timeout),
            max_concurrent_streams: http.max_concurrent_streams.unwrap_or(self.max_concurrent_streams),
            max_header_bytes: http.max_header_bytes.unwrap_or(self.max_header_bytes),
        }
    }
}

/// Far enough away to be never, near enough for the arithmetic of instants.
pub(super) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
/// The headers that hyper reads of an HTTP/1.1 request when nothing is said.
const CODEC_HEADERS: usize = 100;
/// What a header map holds for certain.
const MOST_HEADERS: usize = 16_384;
