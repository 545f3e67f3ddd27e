//! Role-based access control (gRFC A41, `envoy.config.rbac.v3.RBAC`): the rules, and [`check`] which decides by them.
//!
//! An `RBAC` message without `rules` allows everything; here that is [`RbacAction::Deny`] without policies.
//! [`RbacAction::Allow`] without policies allows nothing.

mod engine;
mod permission;
mod principal;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ipnet::IpNet;

use crate::matcher::header::HeaderMatcher;
use crate::matcher::string::StringMatcher;

pub use engine::{Decision, check};

/// Policies and what a match of one means.
#[derive(Debug, Clone, PartialEq)]
pub struct RbacConfig {
    /// What a match means.
    pub action: RbacAction,
    /// In the order of their names, as Envoy tries them.
    pub policies: Vec<Policy>,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbacAction {
    /// Only what matches is let in.
    Allow,
    /// What matches is kept out.
    Deny,
    /// Nothing is decided.
    Log,
}

/// A named policy: one of the permissions and one of the principals must match.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// What is asked for.
    pub permissions: Vec<Permission>,
    /// Who asks.
    pub principals: Vec<Principal>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// A header of the request.
    Header(HeaderMatcher),
    /// The path without the query.
    UrlPath(StringMatcher),
    /// Our address.
    DestinationIp(IpNet),
    /// Our port.
    DestinationPort(u16),
    /// Our port, the end excluded.
    DestinationPortRange(std::ops::Range<u32>),
    /// Dynamic metadata, which this library never has: matches only when inverted (gRFC A41).
    Metadata {
        /// The opposite is wanted.
        invert: bool,
    },
    /// The server name of the TLS handshake.
    RequestedServerName(StringMatcher),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    /// Anybody.
    Any,
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// A TLS peer, and a name in its certificate where one is given (URI names, then DNS names, then the subject).
    Authenticated(Option<StringMatcher>),
    /// The peer's socket address.
    DirectRemoteIp(IpNet),
    /// The address that the caller comes from: what `x-forwarded-for` says where that is believed, else the peer's.
    RemoteIp(IpNet),
    /// A header of the request.
    Header(HeaderMatcher),
    /// The path without the query.
    UrlPath(StringMatcher),
    /// Dynamic metadata, which this library never has: matches only when inverted (gRFC A41).
    Metadata {
        /// The opposite is wanted.
        invert: bool,
    },
}
