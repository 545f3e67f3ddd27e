//! What is asked for: `envoy.config.rbac.v3.Permission`.

use super::Permission;
use super::engine::Asked;
use super::principal::contains;

impl Permission {
    /// Whether the rule matches.
    pub(super) fn is_match(&self, asked: Asked<'_>) -> bool {
        let local = asked.peer.local;
        match self {
            Self::Any => true,
            Self::And(rules) => rules.iter().all(|rule| rule.is_match(asked)),
            Self::Or(rules) => rules.iter().any(|rule| rule.is_match(asked)),
            Self::Not(rule) => !rule.is_match(asked.inverted()),
            Self::Header(matcher) => asked.header(matcher),
            Self::UrlPath(matcher) => asked.path(|path| matcher.is_match(path)),
            Self::DestinationIp(range) => local.map_or(asked.careful, |a| contains(range, a.ip())),
            Self::DestinationPort(port) => local.map_or(asked.careful, |a| a.port() == *port),
            Self::DestinationPortRange(ports) => {
                local.map_or(asked.careful, |a| ports.contains(&a.port().into()))
            }
            // gRFC A41: there is no metadata, and no rule about it holds but the opposite of one.
            Self::Metadata { invert } => *invert,
            Self::RequestedServerName(matcher) => {
                // No server name is an empty one, in plaintext and in TLS alike.
                let name = asked.peer.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
                matcher.is_match(name.unwrap_or_default().as_bytes())
            }
        }
    }
}
