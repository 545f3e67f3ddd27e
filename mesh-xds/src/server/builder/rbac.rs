//! `envoy.config.rbac.v3.RBAC`: who may do what (gRFC A41).

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::rbac::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as filter;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher};
use pb::permission::Rule;
use pb::principal::Identifier;

use super::route::HeaderMatch;
use super::{exactly, prefixed, uint32};

/// A set of policies with one effect.
#[derive(Debug, Clone)]
pub struct Rbac {
    rules: pb::Rbac,
}

/// Some principals and what they may do, or may not. What is not limited is not restricted.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pb: pb::Policy,
}

/// Who.
#[derive(Debug, Clone)]
pub struct Principal {
    id: Identifier,
}

/// What.
#[derive(Debug, Clone)]
pub struct Permission {
    rule: Rule,
}

// === impl Rbac ===

impl Rbac {
    /// Only what a policy names is allowed.
    #[must_use]
    pub fn allow() -> Self {
        Self::new(pb::rbac::Action::Allow)
    }

    /// What a policy names is denied.
    #[must_use]
    pub fn deny() -> Self {
        Self::new(pb::rbac::Action::Deny)
    }

    /// Adds a policy under a name that refusals will give.
    #[must_use]
    pub fn policy(mut self, name: impl Into<String>, policy: Policy) -> Self {
        let Policy { mut pb } = policy;
        if pb.principals.is_empty() {
            pb.principals.push(Principal::any().into_message());
        }
        if pb.permissions.is_empty() {
            pb.permissions.push(Permission::any().into_message());
        }
        self.rules.policies.insert(name.into(), pb);
        self
    }

    pub(super) fn into_message(self) -> filter::Rbac {
        filter::Rbac { rules: Some(self.rules), ..Default::default() }
    }

    fn new(action: pb::rbac::Action) -> Self {
        Self { rules: pb::Rbac { action: action.into(), ..Default::default() } }
    }
}

// === impl Policy ===

impl Policy {
    /// Everybody, everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a principal; any of them is enough.
    #[must_use]
    pub fn principal(mut self, principal: Principal) -> Self {
        self.pb.principals.push(principal.into_message());
        self
    }

    /// Adds a permission; any of them is enough.
    #[must_use]
    pub fn permission(mut self, permission: Permission) -> Self {
        self.pb.permissions.push(permission.into_message());
        self
    }
}

// === impl Principal ===

impl Principal {
    /// Everybody.
    #[must_use]
    pub fn any() -> Self {
        Self { id: Identifier::Any(true) }
    }

    /// The peer whose certificate carries this identity, such as `spiffe://cluster.local/ns/default/sa/reviews`.
    #[must_use]
    pub fn spiffe(id: impl Into<String>) -> Self {
        Self::authenticated(Some(exactly(id)))
    }

    /// A peer whose identity begins with this.
    #[must_use]
    pub fn spiffe_prefix(prefix: impl Into<String>) -> Self {
        Self::authenticated(Some(prefixed(prefix)))
    }

    /// Every peer with a verified certificate.
    #[must_use]
    pub fn any_authenticated() -> Self {
        Self::authenticated(None)
    }

    /// A peer that connects from this network.
    #[must_use]
    pub fn network(address: IpAddr, prefix_len: u32) -> Self {
        Self { id: Identifier::DirectRemoteIp(cidr(address, prefix_len)) }
    }

    /// A request with this header.
    #[must_use]
    pub fn header(header: HeaderMatch) -> Self {
        Self { id: Identifier::Header(header.into_message()) }
    }

    /// All of these.
    #[must_use]
    pub fn all(of: impl IntoIterator<Item = Self>) -> Self {
        let ids = of.into_iter().map(Self::into_message).collect();
        Self { id: Identifier::AndIds(pb::principal::Set { ids }) }
    }

    /// Any of these.
    #[must_use]
    pub fn one(of: impl IntoIterator<Item = Self>) -> Self {
        let ids = of.into_iter().map(Self::into_message).collect();
        Self { id: Identifier::OrIds(pb::principal::Set { ids }) }
    }

    /// Everybody else.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { id: Identifier::NotId(Box::new(self.into_message())) }
    }

    fn authenticated(principal_name: Option<StringMatcher>) -> Self {
        Self { id: Identifier::Authenticated(pb::principal::Authenticated { principal_name }) }
    }

    fn into_message(self) -> pb::Principal {
        pb::Principal { identifier: Some(self.id) }
    }
}

// === impl Permission ===

impl Permission {
    /// Everything.
    #[must_use]
    pub fn any() -> Self {
        Self { rule: Rule::Any(true) }
    }

    /// Exactly this path.
    #[must_use]
    pub fn path(path: impl Into<String>) -> Self {
        Self::url_path(exactly(path))
    }

    /// Paths that begin with this.
    #[must_use]
    pub fn path_prefix(prefix: impl Into<String>) -> Self {
        Self::url_path(prefixed(prefix))
    }

    /// One method.
    #[must_use]
    pub fn method(method: impl Into<String>) -> Self {
        Self::header(HeaderMatch::exact(":method", method))
    }

    /// Requests with this header.
    #[must_use]
    pub fn header(header: HeaderMatch) -> Self {
        Self { rule: Rule::Header(header.into_message()) }
    }

    /// Connections to this port of ours.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self { rule: Rule::DestinationPort(port.into()) }
    }

    /// Connections to an address of ours in this network.
    #[must_use]
    pub fn network(address: IpAddr, prefix_len: u32) -> Self {
        Self { rule: Rule::DestinationIp(cidr(address, prefix_len)) }
    }

    /// All of these.
    #[must_use]
    pub fn all(of: impl IntoIterator<Item = Self>) -> Self {
        let rules = of.into_iter().map(Self::into_message).collect();
        Self { rule: Rule::AndRules(pb::permission::Set { rules }) }
    }

    /// Any of these.
    #[must_use]
    pub fn one(of: impl IntoIterator<Item = Self>) -> Self {
        let rules = of.into_iter().map(Self::into_message).collect();
        Self { rule: Rule::OrRules(pb::permission::Set { rules }) }
    }

    /// Everything else.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { rule: Rule::NotRule(Box::new(self.into_message())) }
    }

    fn url_path(path: StringMatcher) -> Self {
        Self { rule: Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(path)) }) }
    }

    fn into_message(self) -> pb::Permission {
        pb::Permission { rule: Some(self.rule) }
    }
}

fn cidr(address: IpAddr, prefix_len: u32) -> CidrRange {
    CidrRange { address_prefix: address.to_string(), prefix_len: Some(uint32(prefix_len)) }
}
