//! `envoy.config.route.v3.HeaderMatcher`.
//!
//! Where Envoy and gRPC differ the kind of the request decides: repeated lines match one by one for Envoy
//! and joined by `,` for gRPC (gRFC A28), and `-bin` headers never match for gRPC. A
//! missing header never matches, inverted or not, except by presence or with `treat_missing_header_as_empty`.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::FixedState;
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// A rule whose header has a number within its table, by which the look-ups of a decision are shared.
#[derive(Debug)]
pub(crate) struct HeaderCondition {
    slot: u32,
    matcher: HeaderMatcher,
}

/// Gives each header its number, in the order of first mention.
#[derive(Debug, Default)]
pub(crate) struct HeaderSlots(HashMap<MatchedHeader, u32, FixedState>);

/// The header look-ups of one decision. The latest few are remembered: routes that share a path mostly differ by the
/// values of one or two headers.
#[derive(Debug)]
pub(crate) struct HeaderLookup<'a> {
    head: &'a RequestHead<'a>,
    known: [Option<(u32, Lines<'a>)>; 4],
}

/// The lines of one header.
#[derive(Debug, Clone, Copy)]
enum Lines<'a> {
    Missing,
    One(&'a [u8]),
    Many,
}

// === impl HeaderSlots ===

impl HeaderSlots {
    /// A rule with its header's number.
    pub(crate) fn condition(&mut self, matcher: &HeaderMatcher) -> HeaderCondition {
        let next = self.0.len() as u32;
        let slot = *self.0.entry(matcher.name.clone()).or_insert(next);
        HeaderCondition { slot, matcher: matcher.clone() }
    }
}

// === impl HeaderLookup ===

impl<'a> HeaderLookup<'a> {
    /// Look-ups in a request.
    pub(crate) fn new(head: &'a RequestHead<'a>) -> Self {
        Self { head, known: [None; 4] }
    }

    /// Whether the request satisfies every condition.
    pub(crate) fn satisfies(&mut self, conditions: &[HeaderCondition]) -> bool {
        conditions.iter().all(|HeaderCondition { slot, matcher }| {
            let lines = self.find(*slot, &matcher.name);
            matcher.judge(lines, self.head)
        })
    }

    fn find(&mut self, slot: u32, name: &MatchedHeader) -> Lines<'a> {
        let place = &mut self.known[slot as usize % 4];
        match place {
            Some((known, lines)) if *known == slot => *lines,
            _ => place.insert((slot, Lines::of(self.head, name))).1,
        }
    }
}

// === impl Lines ===

impl<'a> Lines<'a> {
    fn of(head: &RequestHead<'a>, name: &MatchedHeader) -> Self {
        let name = match name {
            MatchedHeader::Method => return Self::One(head.method.as_str().as_bytes()),
            MatchedHeader::Authority => return Self::One(head.authority.as_bytes()),
            MatchedHeader::Path => return Self::One(head.target.as_str().as_bytes()),
            MatchedHeader::Scheme => return Self::One(head.scheme.as_bytes()),
            MatchedHeader::Name(name) => name,
        };
        if head.kind == RequestKind::Grpc && name.as_str().ends_with("-bin") {
            return Self::Missing;
        }
        let mut lines = head.headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::Missing,
            (Some(only), None) => Self::One(only.as_bytes()),
            (Some(_), Some(_)) => Self::Many,
        }
    }
}

// === impl HeaderMatcher ===

impl HeaderMatcher {
    /// Whether the request satisfies the rule.
    #[must_use]
    pub fn is_match(&self, head: &RequestHead<'_>) -> bool {
        self.judge(Lines::of(head, &self.name), head)
    }

    fn judge(&self, lines: Lines<'_>, head: &RequestHead<'_>) -> bool {
        match lines {
            Lines::Missing => self.decide(None),
            Lines::One(value) => self.decide(Some(value)),
            Lines::Many => self.judge_many(head),
        }
    }

    #[cold]
    fn judge_many(&self, head: &RequestHead<'_>) -> bool {
        let MatchedHeader::Name(name) = &self.name else { return false };
        let lines = head.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        match head.kind {
            // Any line may satisfy the rule; the inversion is of that whole answer.
            RequestKind::Http => lines.into_iter().any(|line| self.holds(line)) != self.invert,
            // One allocation for the rare case of a repeated header.
            RequestKind::Grpc => self.decide(Some(&lines.collect::<Vec<_>>().join(&b','))),
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
