//! Decides: is this peer allowed this request?
//!
//! Policies are tried in order; one matches if one of its permissions and one of its principals does.
//!
//! What cannot be known never widens access. A rule may ask for what is not there: a header or a path before any
//! request is (network RBAC), an address of a unix socket. Such a rule is answered *against* the request, whatever
//! stands around it: it does not match where a match would let in, and matches where a match would keep out, and
//! `not` swaps the two. Deviation: Envoy answers "no match" in both places, so that a network DENY on a path denies
//! nothing there, and a network ALLOW on `not` a path allows all.
//!
//! A header has two readings: gRPC joins repeated lines and hides hop-by-hop ones, Envoy takes line by line. The kind
//! of the request says which one lets in; either one keeps out, because the caller chooses the kind.

use http::HeaderMap;

use super::{Policy, RbacAction, RbacConfig};
use crate::identity::Peer;
use crate::matcher::header::{HeaderMatcher, MatchedHeader};
use crate::request::{RequestHead, RequestKind};

/// What the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Let it in.
    Allow,
    /// Keep it out.
    Deny {
        /// The policy that keeps it out; none if no policy lets it in.
        policy: Option<&'a str>,
    },
    /// Let it in, and tell which policy matched (action `LOG`).
    Shadow {
        /// The policy that matched.
        policy: Option<&'a str>,
    },
}

/// What a rule is asked about, and which answer is the careful one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) peer: &'a Peer,
    pub(super) head: Option<&'a RequestHead<'a>>,
    /// The answer to a rule about what is not there: true where a match keeps the request out.
    pub(super) careful: bool,
}

/// Decides by the rules. Without a request (network RBAC) only the connection is known.
#[must_use]
pub fn check<'a>(rules: &'a RbacConfig, peer: &Peer, head: Option<&RequestHead<'_>>) -> Decision<'a> {
    let asked = Asked { peer, head, careful: rules.action == RbacAction::Deny };
    let matched = rules.policies.iter().find(|policy| policy.is_match(asked)).map(|p| &*p.name);
    match (rules.action, matched) {
        (RbacAction::Allow, Some(_)) | (RbacAction::Deny, None) => Decision::Allow,
        (RbacAction::Allow, None) => Decision::Deny { policy: None },
        (RbacAction::Deny, policy) => Decision::Deny { policy },
        (RbacAction::Log, policy) => Decision::Shadow { policy },
    }
}

// === impl Decision ===

#[cfg(test)]
impl Decision<'_> {
    /// Whether the request goes on.
    pub(crate) fn is_allowed(&self) -> bool {
        !matches!(self, Self::Deny { .. })
    }
}

// === impl Policy ===

impl Policy {
    fn is_match(&self, asked: Asked<'_>) -> bool {
        self.permissions.iter().any(|p| p.is_match(asked))
            && self.principals.iter().any(|p| p.is_match(asked))
    }
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// The same question below a `not`.
    pub(super) fn inverted(self) -> Self {
        Self { careful: !self.careful, ..self }
    }

    /// The path of the request, the query not included.
    pub(super) fn path(self, rule: impl FnOnce(&[u8]) -> bool) -> bool {
        self.head.map_or(self.careful, |head| rule(head.path().as_bytes()))
    }

    /// A header of the request.
    pub(super) fn header(self, matcher: &HeaderMatcher) -> bool {
        let Some(head) = self.head else { return self.careful };
        let read_as = |kind| matcher.is_match(&RequestHead { kind, ..*head });
        let hit = match (&matcher.name, head.kind) {
            // gRFC A41: absent for rules, whatever has been left of it.
            (MatchedHeader::Name(name), RequestKind::Grpc) if HOP_BY_HOP.contains(&name.as_str()) => {
                matcher.is_match(&RequestHead { headers: &HeaderMap::new(), ..*head })
            }
            // gRFC A41 (unlike routing): the base64 form, which is what is on the wire.
            (MatchedHeader::Name(name), RequestKind::Grpc) if name.as_str().ends_with("-bin") => {
                read_as(RequestKind::Http)
            }
            (_, kind) => read_as(kind),
        };
        hit || (self.careful && (read_as(RequestKind::Grpc) || read_as(RequestKind::Http)))
    }
}

const HOP_BY_HOP: [&str; 8] = [
    "te",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
