//! Matchers of `envoy.type.matcher.v3` and of routes: strings, regular expressions, headers, query parameters.
//!
//! gRFC A28, A41, Envoy. Deviations: a pattern whose meaning differs between RE2 and the `regex`
//! crate is refused, never read another way; header names that HTTP does not allow are refused.
#![expect(deprecated, reason = "control planes still write the older spellings of header matchers")]

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher as PbHeaderMatcher, QueryParameterMatcher};
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher::Rule as PathRule;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    PathMatcher as PbPathMatcher, RegexMatcher, StringMatcher as PbStringMatcher,
};
use envoy_types::pb::envoy::r#type::v3::Int64Range;
use http::HeaderName;
use mesh_core::matcher::header::{HeaderMatcher, HeaderRule, MatchedHeader};
use mesh_core::matcher::query::QueryMatcher;
use mesh_core::matcher::regex::SafeRegex;
use mesh_core::matcher::string::{StringMatcher, Text};

use crate::invalid::{Invalid, Place, Reason};

/// Longest name of a query parameter that Envoy takes.
const MAX_QUERY_NAME_BYTES: usize = 1024;

/// `StringMatcher`.
pub(super) fn string(pb: PbStringMatcher, at: &Place<'_>) -> Result<StringMatcher, Invalid> {
    let PbStringMatcher { ignore_case, match_pattern } = pb;
    Ok(match at.required(match_pattern)? {
        // An empty exact value is a meaning of its own: the empty text.
        MatchPattern::Exact(value) => StringMatcher::Exact(Text::new(&value, ignore_case)),
        MatchPattern::Prefix(value) => StringMatcher::Prefix(text(&value, ignore_case, &at.at("prefix"))?),
        MatchPattern::Suffix(value) => StringMatcher::Suffix(text(&value, ignore_case, &at.at("suffix"))?),
        MatchPattern::Contains(value) => {
            StringMatcher::Contains(text(&value, ignore_case, &at.at("contains"))?)
        }
        MatchPattern::SafeRegex(_) if ignore_case => {
            return at
                .at("ignore_case")
                .fail(Reason::Rule("has no effect on a regular expression; write `(?i)`"));
        }
        MatchPattern::SafeRegex(pb) => StringMatcher::Regex(regex(pb, &at.at("safe_regex"))?),
        MatchPattern::Custom(_) => return at.at("custom").fail(Reason::Unsupported),
    })
}

/// `RegexMatcher`.
pub(super) fn regex(pb: RegexMatcher, at: &Place<'_>) -> Result<SafeRegex, Invalid> {
    // `google_re2` is the only engine there is, and the default.
    let RegexMatcher { regex, engine_type: _ } = pb;
    if regex.is_empty() {
        return at.at("regex").fail(Reason::Empty);
    }
    at.check(reads_like_re2(&regex))?;
    at.check(SafeRegex::new(&regex))
}

/// `PathMatcher`: a string matcher against the path without the query.
pub(super) fn path(pb: PbPathMatcher, at: &Place<'_>) -> Result<StringMatcher, Invalid> {
    let PbPathMatcher { rule } = pb;
    match at.required(rule)? {
        PathRule::Path(pb) => string(pb, &at.at("path")),
    }
}

/// A list of `HeaderMatcher`.
pub(super) fn headers(list: Vec<PbHeaderMatcher>, at: &Place<'_>) -> Result<Vec<HeaderMatcher>, Invalid> {
    list.into_iter().enumerate().map(|(i, pb)| header(pb, &at.index(i))).collect()
}

/// `HeaderMatcher`.
pub(super) fn header(pb: PbHeaderMatcher, at: &Place<'_>) -> Result<HeaderMatcher, Invalid> {
    let PbHeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = pb;
    let name = header_name(&name, &at.at("name"))?;
    let sensitive = |value: &str, field| text(value, false, &at.at(field));
    let rule = match header_match_specifier {
        // Envoy: without a specifier the header only has to be there.
        None => HeaderRule::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(wanted)) => HeaderRule::Present(wanted),
        Some(HeaderMatchSpecifier::StringMatch(pb)) => HeaderRule::Value(string(pb, &at.at("string_match"))?),
        Some(HeaderMatchSpecifier::ExactMatch(value)) => HeaderRule::Value(StringMatcher::exact(&value)),
        Some(HeaderMatchSpecifier::SafeRegexMatch(pb)) => {
            HeaderRule::Value(StringMatcher::Regex(regex(pb, &at.at("safe_regex_match"))?))
        }
        Some(HeaderMatchSpecifier::PrefixMatch(value)) => {
            HeaderRule::Value(StringMatcher::Prefix(sensitive(&value, "prefix_match")?))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(value)) => {
            HeaderRule::Value(StringMatcher::Suffix(sensitive(&value, "suffix_match")?))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(value)) => {
            HeaderRule::Value(StringMatcher::Contains(sensitive(&value, "contains_match")?))
        }
        Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start, end })) => HeaderRule::Range(start..end),
    };
    Ok(HeaderMatcher { name, rule, invert: invert_match, missing_as_empty: treat_missing_header_as_empty })
}

/// `QueryParameterMatcher`.
pub(super) fn query(pb: QueryParameterMatcher, at: &Place<'_>) -> Result<QueryMatcher, Invalid> {
    let QueryParameterMatcher { name, query_parameter_match_specifier } = pb;
    if name.is_empty() {
        return at.at("name").fail(Reason::Empty);
    }
    if name.len() > MAX_QUERY_NAME_BYTES {
        return at.at("name").fail(Reason::TooLarge { size: name.len(), limit: MAX_QUERY_NAME_BYTES });
    }
    let value = match query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::StringMatch(pb)) => Some(string(pb, &at.at("string_match"))?),
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return at.at("present_match").fail(Reason::UnsupportedValue("false".to_owned()));
        }
    };
    Ok(QueryMatcher { name: Arc::from(name), value })
}

fn header_name(name: &str, at: &Place<'_>) -> Result<MatchedHeader, Invalid> {
    match name.to_ascii_lowercase().as_str() {
        ":method" => Ok(MatchedHeader::Method),
        ":authority" | "host" => Ok(MatchedHeader::Authority),
        ":path" => Ok(MatchedHeader::Path),
        ":scheme" => Ok(MatchedHeader::Scheme),
        lower => match HeaderName::from_bytes(lower.as_bytes()) {
            Ok(name) => Ok(MatchedHeader::Name(name)),
            Err(_) => at.fail(Reason::HeaderName(name.to_owned())),
        },
    }
}

fn text(value: &str, ignore_case: bool, at: &Place<'_>) -> Result<Text, Invalid> {
    if value.is_empty() { at.fail(Reason::Empty) } else { Ok(Text::new(value, ignore_case)) }
}

/// Refuses what both engines accept and read differently; what only RE2 accepts fails to compile anyway.
fn reads_like_re2(pattern: &str) -> Result<(), Reason> {
    let differs = |what| Err(Reason::RegexSyntax(what));
    let mut rest = pattern.as_bytes();
    let mut in_class = false;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail, in_class) {
            (b'\\', [b'<' | b'>', ..], _) => return differs(r"`\<` and `\>` are not supported"),
            (b'\\', [b'b' | b'B', b'{', ..], false) => return differs(r"`\b{` is not supported"),
            (b'\\', [_, after @ ..], _) => rest = after,
            (b'[', [b':', ..], true) => {}
            (b'[', _, true) => return differs("`[` within a class must be escaped"),
            (b'&', [b'&', ..], true) | (b'~', [b'~', ..], true) => {
                return differs("`&&` and `~~` within a class are not supported");
            }
            (b'-', [b'-', ..], true) => return differs("`--` within a class is not supported"),
            (b'[', _, false) => {
                in_class = true;
                // A `]` that comes first is a literal to both.
                rest = match tail {
                    [b'^', b']', after @ ..] | [b']', after @ ..] | [b'^', after @ ..] => after,
                    _ => tail,
                };
            }
            (b':', [b']', after @ ..], true) if ends_named_class(pattern, after) => rest = after,
            (b']', _, true) => in_class = false,
            (b'{', [b',', ..], false) => return differs("`{,n}` is not supported"),
            (b'(', [b'?', after @ ..], false) => flags(after)?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether the `:]` before `after` closes a named class such as `[:alpha:]`, and not the class around it.
fn ends_named_class(pattern: &str, after: &[u8]) -> bool {
    let end = pattern.len() - after.len();
    let head = pattern.get(..end.saturating_sub(2)).unwrap_or_default();
    head.rfind("[:").is_some_and(|at| {
        head.get(at + 2..).is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'^'))
    })
}

/// The flags of a group: only those that mean the same to both engines.
fn flags(after: &[u8]) -> Result<(), Reason> {
    for byte in after {
        match byte {
            b':' | b')' | b'P' | b'<' => return Ok(()),
            b'i' | b'm' | b's' | b'U' | b'-' => {}
            _ => return Err(Reason::RegexSyntax("only the flags i, m, s and U are supported")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
