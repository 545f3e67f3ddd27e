//! Who asks: `envoy.config.rbac.v3.Principal`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Principal;
use super::engine::Asked;
use crate::identity::{CertificateNames, Peer};
use crate::matcher::string::StringMatcher;

impl Principal {
    /// Whether the rule matches.
    pub(super) fn is_match(&self, asked: Asked<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::And(rules) => rules.iter().all(|rule| rule.is_match(asked)),
            Self::Or(rules) => rules.iter().any(|rule| rule.is_match(asked)),
            Self::Not(rule) => !rule.is_match(asked.inverted()),
            Self::Authenticated(name) => authenticated(asked.peer, name.as_ref()),
            Self::DirectRemoteIp(range) => {
                asked.peer.remote.map_or(asked.careful, |a| contains(range, a.ip()))
            }
            Self::Header(matcher) => asked.header(matcher),
            Self::UrlPath(matcher) => asked.path(|path| matcher.is_match(path)),
            Self::Metadata { invert } => *invert,
        }
    }
}

/// Any TLS peer without a name to match; else the names of its certificate (`envoy-semantics.md` §14).
fn authenticated(peer: &Peer, name: Option<&StringMatcher>) -> bool {
    let Some(tls) = &peer.tls else { return false };
    let Some(matcher) = name else { return true };
    let matches = |name: &std::sync::Arc<str>| matcher.is_match(name.as_bytes());
    match &tls.certificate {
        // The first kind of name that the certificate has decides; there is no falling through to the next.
        Some(CertificateNames { uris, .. }) if !uris.is_empty() => uris.iter().any(matches),
        Some(CertificateNames { dns, .. }) if !dns.is_empty() => dns.iter().any(matches),
        Some(CertificateNames { subject, .. }) => matches(subject),
        None => matcher.is_match(b""),
    }
}

/// Whether a range holds an address. An IPv4 peer of a socket that serves both families shows as a mapped IPv6
/// address; it is an IPv4 peer all the same.
pub(super) fn contains(range: &IpNet, addr: IpAddr) -> bool {
    range.contains(&addr.to_canonical()) || range.contains(&addr)
}
