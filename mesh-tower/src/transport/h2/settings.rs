//! How HTTP/2 connections are configured, of clients and servers alike. This is the one place where the codec is told
//! anything, with the reason of each value.

use std::time::Duration;

use super::guard::{GuardSettings, Role};

/// How HTTP/2 connections are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http2Settings {
    /// Bytes that one body whose reader keeps up may have in flight. Each stream begins with less, see
    /// [`UnreadLimits`](super::UnreadLimits).
    pub(crate) stream_window: u32,
    /// Our own bound on concurrent streams; as clients, the peer's applies in addition.
    pub(crate) max_concurrent_streams: u32,
    /// The largest head, and the largest trailers, that are accepted: bytes of names and values and 32 for each field
    /// (RFC 9113 §6.5.2).
    pub(crate) max_header_list_size: u32,
    /// PINGs on a silent connection.
    pub(crate) keepalive: Option<KeepAlive>,
}

/// PING keepalive (Envoy: `connection_keepalive`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// A PING is sent when nothing was read for this long (at most twice this long: activity is looked at when
    /// the timer fires, not on each read).
    pub(crate) interval: Duration,
    /// The connection is dead when the PING is not answered for this long.
    pub(crate) timeout: Duration,
    /// Whether a connection without calls is probed as well.
    pub(crate) while_idle: bool,
}

/// The largest window of RFC 9113.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// A head that is larger than what is accepted fails its own call, so the codec has to read it. One that is larger than
/// this ends the connection: its sender is not one that made a mistake.
const READABLE_HEAD: u32 = 4 * 1024 * 1024;

// === impl Http2Settings ===

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            max_concurrent_streams: 1024,
            max_header_list_size: 60 * 1024,
            keepalive: None,
        }
    }
}

impl Http2Settings {
    pub(crate) const fn guard(&self, role: Role) -> GuardSettings {
        GuardSettings {
            role,
            streams: self.max_concurrent_streams,
            stream_window: self.stream_window,
            max_header_list_size: self.max_header_list_size,
        }
    }

    fn readable_head(&self) -> u32 {
        self.max_header_list_size.max(READABLE_HEAD)
    }

    /// The codec of a client.
    pub(crate) fn client(&self) -> ::h2::client::Builder {
        let mut builder = ::h2::client::Builder::new();
        builder
            // Zero until the peer's SETTINGS: that is how their arrival is seen.
            .initial_max_send_streams(0)
            // Streams wait for the guard's windows alone.
            .initial_window_size(LARGEST_WINDOW)
            .initial_connection_window_size(LARGEST_WINDOW)
            .max_header_list_size(self.readable_head())
            // Counts over the life of a connection: the guard keeps rates instead.
            .max_local_error_reset_streams(None)
            .data_frame_budget(usize::MAX)
            // Nobody would read what a peer pushes.
            .enable_push(false);
        builder
    }

    /// The codec of a server.
    pub(crate) fn server(&self) -> ::h2::server::Builder {
        let mut builder = ::h2::server::Builder::new();
        builder
            .initial_window_size(LARGEST_WINDOW)
            .initial_connection_window_size(LARGEST_WINDOW)
            .max_concurrent_streams(self.max_concurrent_streams)
            .max_header_list_size(self.readable_head())
            .max_local_error_reset_streams(None)
            // Bounded by how many streams the guard lets in before a turn.
            .max_pending_accept_reset_streams(usize::MAX)
            .data_frame_budget(usize::MAX);
        builder
    }
}
