//! Who is not let in: connections before their first request, and requests that policy denies. Told in the log with
//! address, principal and policy, a bounded number of lines a second; connections are counted by reason.
//!
//! Nothing here is on the path of who is let in.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_core::identity::Peer;
use tokio::time::Instant;

use super::peer::RemoteOf;
use crate::telemetry::throttle::Throttle;

/// Lines a second, of each kind.
const LINES: u64 = 20;

/// Why a connection is closed before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No filter chain of the listener matches.
    NoChain,
    /// TLS: either side refused the other, or we have no certificate.
    Handshake,
    /// The peer did not end its handshake: it went away, or took too long.
    Unfinished,
    /// A network filter denies it.
    Policy,
}

/// What a mesh refused.
#[derive(Debug)]
pub(crate) struct Refused {
    counts: [AtomicU64; Why::ALL.len()],
    connections: Throttle,
    requests: Throttle,
}

/// A verified principal, as policies name it.
struct Principal<'a>(&'a Peer);

// === impl Why ===

impl Why {
    pub(crate) const ALL: [Self; 4] = [Self::NoChain, Self::Handshake, Self::Unfinished, Self::Policy];

    /// Its label in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::NoChain => "no_filter_chain",
            Self::Handshake => "tls",
            Self::Unfinished => "tls_unfinished",
            Self::Policy => "policy",
        }
    }
}

// === impl Refused ===

impl Refused {
    /// A connection is closed. `error` says more than the reason.
    pub(crate) fn connection(&self, why: Why, peer: &Peer, error: &dyn fmt::Display) {
        if let Some(count) = self.counts.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let (reason, remote, principal) = (why.label(), RemoteOf(peer), Principal(peer));
        // Port scans and health checks end before their handshake: of no interest to anybody, and not at others' expense.
        let throttle = (why != Why::Unfinished).then_some(&self.connections);
        match throttle.and_then(|throttle| throttle.take(Instant::now())) {
            Some(left_out) => {
                tracing::info!(reason, %remote, %principal, %error, left_out, "connection refused");
            }
            None => tracing::debug!(reason, %remote, %principal, %error, "connection refused"),
        }
    }

    /// A request is denied by a filter.
    pub(crate) fn request(&self, filter: &str, policy: Option<&str>, peer: &Peer, path: &str) {
        let (remote, principal, policy) = (RemoteOf(peer), Principal(peer), policy.unwrap_or(NO_POLICY));
        match self.requests.take(Instant::now()) {
            Some(left_out) => {
                tracing::info!(filter, policy, %remote, %principal, path, left_out, "request denied");
            }
            None => tracing::debug!(filter, policy, %remote, %principal, path, "request denied"),
        }
    }

    /// Connections so far, by reason.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = Why::ALL.map(Why::label);
        labels.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl Default for Refused {
    fn default() -> Self {
        Self { counts: Default::default(), connections: Throttle::new(LINES), requests: Throttle::new(LINES) }
    }
}

/// What an `ALLOW` filter says whom no policy lets in.
pub(crate) const NO_POLICY: &str = "(no policy allows it)";

// === impl Principal ===

impl fmt::Display for Principal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(names) = self.0.certificate() else { return f.write_str("(no certificate)") };
        match names.uris.first().or_else(|| names.dns.first()) {
            Some(name) => f.write_str(name),
            None => f.write_str(&names.subject),
        }
    }
}
