//! Domains of a virtual host: exact, `*suffix`, `prefix*`, `*`; ASCII case is ignored.

use std::sync::Arc;

/// A domain pattern, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// This authority.
    Exact(Arc<str>),
    /// Authorities that end so and are longer (`*.example.com`, without the `*`).
    Suffix(Arc<str>),
    /// Authorities that begin so and are longer (`example.*`, without the `*`).
    Prefix(Arc<str>),
    /// Every authority.
    Any,
}

/// A text that is no domain pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDomain {
    /// It is empty.
    #[error("a domain must not be empty")]
    Empty,
    /// A `*` inside.
    #[error("domain {0:?}: `*` may only be the first or the last character")]
    Wildcard(String),
    /// A control character, which no authority has.
    #[error("domain {0:?}: holds a control character")]
    Control(String),
}

// === impl DomainPattern ===

impl DomainPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, holds a control character, or a `*` that is neither its first nor its last character.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        if text.contains(char::is_control) {
            return Err(InvalidDomain::Control(text.to_owned()));
        }
        let lower = text.to_ascii_lowercase();
        match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
            (Some(""), _) => Ok(Self::Any),
            (Some(rest), _) if !rest.contains('*') => Ok(Self::Suffix(rest.into())),
            (None, Some(rest)) if !rest.contains('*') => Ok(Self::Prefix(rest.into())),
            (None, None) if lower.is_empty() => Err(InvalidDomain::Empty),
            (None, None) if !lower.contains('*') => Ok(Self::Exact(lower.into())),
            _ => Err(InvalidDomain::Wildcard(text.to_owned())),
        }
    }

    /// Whether an authority, in lower case, matches.
    #[must_use]
    pub fn is_match(&self, authority: &str) -> bool {
        match self {
            Self::Exact(name) => authority == &**name,
            Self::Suffix(tail) => authority.len() > tail.len() && authority.ends_with(&**tail),
            Self::Prefix(head) => authority.len() > head.len() && authority.starts_with(&**head),
            Self::Any => true,
        }
    }
}
