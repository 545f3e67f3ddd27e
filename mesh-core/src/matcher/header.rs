//! `envoy.config.route.v3.HeaderMatcher`.
//!
//! Where Envoy and gRPC differ the kind of the request decides: repeated lines match one by one for Envoy
//! (`envoy-semantics.md` §1) and joined by `,` for gRPC (gRFC A28), and `-bin` headers never match for gRPC. A
//! missing header never matches, inverted or not, except by presence or with `treat_missing_header_as_empty`.

use std::ops::Range;

use http::{HeaderName, HeaderValue};

use super::string::StringMatcher;
use crate::request::{RequestHead, RequestKind};

/// A rule about one header.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatcher {
    /// Which header.
    pub name: MatchedHeader,
    /// What its value must be.
    pub rule: HeaderRule,
    /// The opposite is wanted.
    pub invert: bool,
    /// A missing header counts as an empty one.
    pub missing_as_empty: bool,
}

/// A header or pseudo-header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatchedHeader {
    /// `:method`.
    Method,
    /// `:authority`, `host`.
    Authority,
    /// `:path`, the query included.
    Path,
    /// `:scheme`.
    Scheme,
    /// Any other.
    Name(HeaderName),
}

/// What the value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderRule {
    /// A text.
    Value(StringMatcher),
    /// A whole number in `[start, end)`.
    Range(Range<i64>),
    /// Present, or absent.
    Present(bool),
}

/// The header look-ups of one decision. The last one is remembered: routes that share a path mostly differ by the value
/// of one header.
#[derive(Debug)]
pub struct HeaderLookup<'m, 'a> {
    head: &'a RequestHead<'a>,
    last: Option<(&'m HeaderName, Lines<'a>)>,
}

/// The lines of one header.
#[derive(Debug, Clone, Copy)]
enum Lines<'a> {
    Missing,
    One(&'a [u8]),
    Many,
}

// === impl HeaderLookup ===

impl<'m, 'a> HeaderLookup<'m, 'a> {
    /// Look-ups in a request.
    #[must_use]
    pub fn new(head: &'a RequestHead<'a>) -> Self {
        Self { head, last: None }
    }

    fn find(&mut self, name: &'m HeaderName) -> Lines<'a> {
        if let Some((last, lines)) = self.last
            && last == name
        {
            return lines;
        }
        let lines = self.lines(name);
        self.last = Some((name, lines));
        lines
    }

    fn lines(&self, name: &HeaderName) -> Lines<'a> {
        if self.head.kind == RequestKind::Grpc && name.as_str().ends_with("-bin") {
            return Lines::Missing;
        }
        let mut lines = self.head.headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Lines::Missing,
            (Some(only), None) => Lines::One(only.as_bytes()),
            (Some(_), Some(_)) => Lines::Many,
        }
    }
}

// === impl HeaderMatcher ===

impl HeaderMatcher {
    /// Whether the request satisfies the rule.
    #[must_use]
    pub fn is_match(&self, head: &RequestHead<'_>) -> bool {
        self.is_match_in(&mut HeaderLookup::new(head))
    }

    /// The same, within a decision that asks many matchers.
    #[must_use]
    pub fn is_match_in<'m>(&'m self, lookup: &mut HeaderLookup<'m, '_>) -> bool {
        let head = lookup.head;
        let name = match &self.name {
            MatchedHeader::Method => return self.decide(Some(head.method.as_str().as_bytes())),
            MatchedHeader::Authority => return self.decide(Some(head.authority.as_bytes())),
            MatchedHeader::Path => return self.decide(Some(head.path_and_query.as_bytes())),
            MatchedHeader::Scheme => return self.decide(Some(head.scheme.as_bytes())),
            MatchedHeader::Name(name) => name,
        };
        match (lookup.find(name), head.kind) {
            (Lines::Missing, _) => self.decide(None),
            (Lines::One(value), _) => self.decide(Some(value)),
            (Lines::Many, RequestKind::Http) => {
                // Any line may satisfy the rule; the inversion is of that whole answer.
                let hit = head.headers.get_all(name).iter().any(|line| self.holds(line.as_bytes()));
                hit != self.invert
            }
            (Lines::Many, RequestKind::Grpc) => {
                let lines: Vec<&[u8]> =
                    head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                self.decide(Some(&lines.join(&b','))) // the rare case of a repeated header: one allocation
            }
        }
    }

    fn decide(&self, value: Option<&[u8]>) -> bool {
        match (value, &self.rule) {
            (None, HeaderRule::Present(wanted)) => (self.missing_as_empty == *wanted) != self.invert,
            (None, _) if !self.missing_as_empty => false,
            (value, _) => self.holds(value.unwrap_or_default()) != self.invert,
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        match &self.rule {
            HeaderRule::Value(matcher) => matcher.is_match(value),
            HeaderRule::Range(range) => number(value).is_some_and(|n| range.contains(&n)),
            HeaderRule::Present(wanted) => *wanted,
        }
    }
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
