//! What a server grants its callers: how many, how much, how long. The listener's configuration may say less.

use std::time::Duration;

use mesh_core::config::listener::HttpConfig;

/// Limits and timeouts of every server of one mesh.
///
/// Build it from [`ServerLimits::default`]; where the listener's configuration has a value of its own, that one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections open at once; one more is closed at once.
    pub connections: usize,
    /// Requests in flight over all connections; one more is answered UNAVAILABLE or 503.
    pub requests: usize,
    /// TLS handshakes at once. A client that stays silent counts only once it has sent something.
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
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_header_bytes: u32,
}

// === impl ServerLimits ===

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            requests: 100_000,
            handshakes: 1_024,
            handshake_timeout: Duration::from_secs(10),
            headers_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(3_600),
            drain_grace: Duration::from_secs(600),
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
        ConnectionLimits {
            headers_timeout: timeout(http.headers_timeout, self.headers_timeout),
            idle_timeout: timeout(http.idle_timeout, self.idle_timeout),
            max_concurrent_streams: http.max_concurrent_streams.unwrap_or(self.max_concurrent_streams),
            max_header_bytes: http.max_header_bytes.unwrap_or(self.max_header_bytes),
        }
    }
}

/// Far enough away to be never, near enough for the arithmetic of instants.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
