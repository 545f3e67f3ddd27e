//! `envoy.config.route.v3.QueryParameterMatcher`: the first occurrence, names and values not decoded.

use std::sync::Arc;

use super::string::StringMatcher;

/// A rule about one query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatcher {
    /// Which parameter.
    pub name: Arc<str>,
    /// What its value must be; none asks for presence.
    pub value: Option<StringMatcher>,
}

// === impl QueryMatcher ===

impl QueryMatcher {
    /// Whether the query (without `?`) satisfies the rule.
    #[must_use]
    pub fn is_match(&self, query: Option<&str>) -> bool {
        let Some(query) = query else { return false };
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        match pairs.find(|(name, _)| *name == &*self.name) {
            Some((_, value)) => self.value.as_ref().is_none_or(|m| m.is_match(value.as_bytes())),
            None => false,
        }
    }
}
