//! `envoy.type.matcher.v3.StringMatcher`.

use std::sync::Arc;

use super::regex::SafeRegex;

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatcher {
    /// Equal.
    Exact(Text),
    /// Begins with; not empty.
    Prefix(Text),
    /// Ends with; not empty.
    Suffix(Text),
    /// Contains; not empty.
    Contains(Text),
    /// Matches as a whole; `ignore_case` is refused at the border.
    Regex(SafeRegex),
}

/// A text to compare with, and whether ASCII case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text {
    /// Lower case already where case does not count.
    value: Arc<str>,
    ignore_case: bool,
}

// === impl StringMatcher ===

impl StringMatcher {
    /// Whether `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(t) => t.equals(text),
            Self::Prefix(t) => text.get(..t.len()).is_some_and(|head| t.equals(head)),
            Self::Suffix(t) => text
                .len()
                .checked_sub(t.len())
                .and_then(|at| text.get(at..))
                .is_some_and(|tail| t.equals(tail)),
            Self::Contains(t) => t.len() == 0 || text.windows(t.len()).any(|part| t.equals(part)),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// Equal, case counts.
    #[must_use]
    pub fn exact(value: &str) -> Self {
        Self::Exact(Text::new(value, false))
    }

    /// Begins with, case counts.
    #[must_use]
    pub fn prefix(value: &str) -> Self {
        Self::Prefix(Text::new(value, false))
    }
}

// === impl Text ===

impl Text {
    /// A text to compare with.
    #[must_use]
    pub fn new(value: &str, ignore_case: bool) -> Self {
        let value = if ignore_case { value.to_ascii_lowercase().into() } else { value.into() };
        Self { value, ignore_case }
    }

    /// The text, in lower case where case does not count.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether ASCII case is ignored.
    #[must_use]
    pub(crate) fn ignores_case(&self) -> bool {
        self.ignore_case
    }

    fn len(&self) -> usize {
        self.value.len()
    }

    fn equals(&self, text: &[u8]) -> bool {
        if self.ignore_case {
            self.value.as_bytes().eq_ignore_ascii_case(text)
        } else {
            self.value.as_bytes() == text
        }
    }
}
