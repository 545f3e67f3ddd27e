//! Who asks: `envoy.config.rbac.v3.Principal`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Principal;
use super::engine::Asked;
use crate::identity::{CertificateNames, Peer};
use crate::matcher::string::StringMatcher;
use crate::request::RequestHead;

impl Principal {
    /// Whether the rule matches.
    pub(super) fn is_match(&self, asked: Asked<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::And(rules) => rules.iter().all(|rule| rule.is_match(asked)),
            Self::Or(rules) => rules.iter().any(|rule| rule.is_match(asked)),
            Self::Not(rule) => !rule.is_match(asked.inverted()),
            Self::Authenticated(name) => authenticated(asked.peer, name.as_ref()),
            Self::DirectRemoteIp(range) => direct(asked, range),
            Self::RemoteIp(range) => match asked.head.and_then(RequestHead::forwarded_for) {
                Some(address) => contains(range, address),
                None => direct(asked, range),
            },
            Self::Header(matcher) => asked.header(matcher),
            Self::UrlPath(matcher) => asked.path(|path| matcher.is_match(path)),
            Self::Metadata { invert } => *invert,
        }
    }
}

/// Whether the peer's socket address is in a range.
fn direct(asked: Asked<'_>, range: &IpNet) -> bool {
    asked.peer.remote.map_or(asked.careful, |address| contains(range, address.ip()))
}

/// Any TLS peer without a name to match; else the names of its certificate, as in Envoy.
fn authenticated(peer: &Peer, name: Option<&StringMatcher>) -> bool {
    let Some(tls) = &peer.tls else { return false };
    let Some(matcher) = name else { return true };
    let matches = |name: &std::sync::Arc<str>| matcher.is_match(name.as_bytes());
    match &tls.certificate {
        // One kind after the other, until one has a name that matches; the subject is looked at even where it is empty.
        Some(CertificateNames { uris, dns, subject, .. }) => {
            uris.iter().any(matches) || dns.iter().any(matches) || matches(subject)
        }
        None => matcher.is_match(b""),
    }
}

/// Whether a range holds an address. An IPv4 peer of a socket that serves both families shows as a mapped IPv6
/// address; it is an IPv4 peer all the same.
pub(super) fn contains(range: &IpNet, addr: IpAddr) -> bool {
    range.contains(&addr.to_canonical()) || range.contains(&addr)
}
