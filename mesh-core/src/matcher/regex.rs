//! Regular expressions as Envoy runs them: RE2 syntax, on bytes, the whole text must match.
//!
//! As Envoy: `\d`, `\w`, `\s` and `\b` are ASCII; `.` is one byte. Deviation: where RE2 and the
//! `regex` crate differ in syntax, this one's is refused at the border rather than read another way (`re2`). The size of a
//! program is counted in bytes, up to 1 MiB, where Envoy counts RE2's instructions, up to a limit of its own bootstrap.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::re2;

/// A compiled, anchored regular expression. Equal patterns are equal values.
#[derive(Clone)]
pub struct SafeRegex {
    pattern: std::sync::Arc<str>,
    compiled: regex::bytes::Regex,
}

/// A pattern that is not a regular expression, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression: {reason}")]
pub struct InvalidRegex {
    reason: String,
}

// === impl SafeRegex ===

impl SafeRegex {
    /// Largest compiled program, in bytes.
    const SIZE_LIMIT: usize = 1 << 20;

    /// Compiles a pattern, anchored at both ends.
    ///
    /// # Errors
    /// When the pattern is not valid, or its program would be too large.
    pub fn new(pattern: &str) -> Result<Self, InvalidRegex> {
        let build = |text: &str| {
            regex::bytes::RegexBuilder::new(text).unicode(false).size_limit(Self::SIZE_LIMIT).build()
        };
        let invalid = |e: regex::Error| InvalidRegex { reason: last_line(&e.to_string()) };
        if let Some(reason) = re2::differs(pattern) {
            return Err(InvalidRegex { reason: reason.to_owned() });
        }
        // The pattern alone first, so that `a)(b` cannot escape the group that anchors it.
        build(pattern).map_err(invalid)?;
        let compiled = build(&format!(r"\A(?:{pattern})\z")).map_err(invalid)?;
        Ok(Self { pattern: pattern.into(), compiled })
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

impl fmt::Debug for SafeRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SafeRegex").field(&self.pattern).finish()
    }
}

impl PartialEq for SafeRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for SafeRegex {}

impl Hash for SafeRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pattern.hash(state);
    }
}

fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
