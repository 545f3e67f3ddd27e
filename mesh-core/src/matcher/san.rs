//! Subject alternative names of a certificate (`match_subject_alt_names`, `match_typed_subject_alt_names`).

use super::string::StringMatcher;

/// A rule about the names in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SanMatcher {
    /// Only names of this kind; none is any kind (gRFC A29).
    pub kind: Option<SanKind>,
    /// What the name must be. An exact matcher against a DNS name honours a wildcard certificate.
    pub matcher: StringMatcher,
}

/// The kind of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// `dNSName`.
    Dns,
    /// `uniformResourceIdentifier`.
    Uri,
    /// `rfc822Name`.
    Email,
    /// `iPAddress`, in its text form.
    Ip,
}

// === impl SanMatcher ===

impl SanMatcher {
    /// Whether a name of the certificate satisfies the rule.
    #[must_use]
    pub fn is_match(&self, kind: SanKind, name: &str) -> bool {
        if self.kind.is_some_and(|wanted| wanted != kind) {
            return false;
        }
        match (&self.matcher, kind) {
            (StringMatcher::Exact(text), SanKind::Dns) => dns_matches(name, text.value()),
            (matcher, _) => matcher.is_match(name.as_bytes()),
        }
    }
}

/// RFC 6125: `*` stands for one whole left-most label, and DNS names ignore case.
fn dns_matches(certificate: &str, wanted: &str) -> bool {
    let (certificate, wanted) = (certificate.trim_end_matches('.'), wanted.trim_end_matches('.'));
    match certificate.strip_prefix("*.") {
        Some(parent) => match wanted.split_once('.') {
            Some((label, rest)) => {
                !label.is_empty() && rest.eq_ignore_ascii_case(parent) && !parent.is_empty()
            }
            None => false,
        },
        None => !certificate.is_empty() && certificate.eq_ignore_ascii_case(wanted),
    }
}
