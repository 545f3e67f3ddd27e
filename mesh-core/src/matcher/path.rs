//! The path part of a route match.

use super::regex::SafeRegex;
use super::string::Text;

/// Which paths, the query not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatcher {
    /// Begins with; the empty prefix and `/` match every path.
    Prefix(Text),
    /// Equal.
    Exact(Text),
    /// `path_separated_prefix`: equal, or followed by `/`. Never ends with `/`.
    SeparatedPrefix(Text),
    /// Matches as a whole.
    Regex(SafeRegex),
}

// === impl PathMatcher ===

impl PathMatcher {
    /// Whether `path` matches.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        let begins = |t: &Text| path.as_bytes().get(..t.value().len()).is_some_and(|head| same(t, head));
        match self {
            Self::Prefix(t) => begins(t),
            Self::Exact(t) => same(t, path.as_bytes()),
            Self::SeparatedPrefix(t) => {
                begins(t) && matches!(path.as_bytes().get(t.value().len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }

    /// How many bytes of a matching path are those that the configuration names; none under a regex.
    #[must_use]
    pub(crate) fn text_len(&self) -> Option<usize> {
        match self {
            Self::Prefix(t) | Self::Exact(t) | Self::SeparatedPrefix(t) => Some(t.value().len()),
            Self::Regex(_) => None,
        }
    }

    /// Every path.
    #[must_use]
    pub fn any() -> Self {
        Self::Prefix(Text::new("", false))
    }
}

fn same(text: &Text, bytes: &[u8]) -> bool {
    if text.ignores_case() {
        text.value().as_bytes().eq_ignore_ascii_case(bytes)
    } else {
        text.value().as_bytes() == bytes
    }
}
