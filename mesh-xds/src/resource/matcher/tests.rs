//! Matchers, seen through a route: what is accepted, and what is refused where.

use mesh_core::matcher::header::{HeaderRule, MatchedHeader};
use mesh_core::matcher::string::{StringMatcher, Text};
use proptest::prelude::*;

use super::reads_like_re2;
use crate::ads::Kind;
use crate::resource::tests::{refusals, routes};

fn matching(fields: &str) -> String {
    format!(
        "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  routes:\n  - match: {{{fields}}}\n    route: {{cluster: c}}"
    )
}

fn header(fields: &str) -> String {
    matching(&format!("prefix: /, headers: [{{{fields}}}]"))
}

fn query(fields: &str) -> String {
    matching(&format!("prefix: /, query_parameters: [{{{fields}}}]"))
}

fn rule(fields: &str) -> HeaderRule {
    routes(&header(&format!("name: x, {fields}"))).virtual_hosts[0].routes[0].matches.headers[0].rule.clone()
}

fn text(value: &str) -> Text {
    Text::new(value, false)
}

#[test]
fn both_spellings_of_a_header_rule_mean_the_same() {
    for (older, newer, wanted) in [
        ("exact_match: a", "string_match: {exact: a}", StringMatcher::Exact(text("a"))),
        ("prefix_match: a", "string_match: {prefix: a}", StringMatcher::Prefix(text("a"))),
        ("suffix_match: a", "string_match: {suffix: a}", StringMatcher::Suffix(text("a"))),
        ("contains_match: a", "string_match: {contains: a}", StringMatcher::Contains(text("a"))),
        (
            "safe_regex_match: {google_re2: {}, regex: 'a+'}",
            "string_match: {safe_regex: {regex: 'a+'}}",
            StringMatcher::Regex(mesh_core::matcher::regex::SafeRegex::new("a+").unwrap()),
        ),
    ] {
        assert_eq!(rule(older), HeaderRule::Value(wanted.clone()), "{older}");
        assert_eq!(rule(newer), HeaderRule::Value(wanted), "{newer}");
    }
    let ignoring = rule("string_match: {exact: A, ignore_case: true}");
    assert_eq!(ignoring, HeaderRule::Value(StringMatcher::Exact(Text::new("A", true))));
    assert_eq!(rule("string_match: {exact: ''}"), HeaderRule::Value(StringMatcher::exact("")));
    assert_eq!(rule("range_match: {start: -1, end: 5}"), HeaderRule::Range(-1..5));
    assert_eq!(rule("present_match: false"), HeaderRule::Present(false));
    assert_eq!(rule("invert_match: true"), HeaderRule::Present(true));
}

#[test]
fn pseudo_headers_and_flags_are_kept() {
    let of = |fields: &str| routes(&header(fields)).virtual_hosts[0].routes[0].matches.headers[0].clone();
    for (name, wanted) in [
        ("':method'", MatchedHeader::Method),
        ("':authority'", MatchedHeader::Authority),
        ("Host", MatchedHeader::Authority),
        ("':path'", MatchedHeader::Path),
        ("':scheme'", MatchedHeader::Scheme),
        ("X-User", MatchedHeader::Name(http::HeaderName::from_static("x-user"))),
    ] {
        assert_eq!(of(&format!("name: {name}")).name, wanted, "{name}");
    }
    let both = of("name: a, invert_match: true, treat_missing_header_as_empty: true");
    assert!(both.invert && both.missing_as_empty);
    let none = of("name: a");
    assert!(!none.invert && !none.missing_as_empty);
}

#[test]
fn a_broken_header_rule_is_refused_at_its_field() {
    const AT: &str = "virtual_hosts[0].routes[0].match.headers[0]";
    for (fields, rest) in [
        ("present_match: true", "name: \"\" is not a header name that can be matched"),
        ("name: ':status'", "name: \":status\" is not a header name that can be matched"),
        ("name: 'a b'", "name: \"a b\" is not a header name that can be matched"),
        ("name: a, prefix_match: ''", "prefix_match: must not be empty"),
        ("name: a, suffix_match: ''", "suffix_match: must not be empty"),
        ("name: a, contains_match: ''", "contains_match: must not be empty"),
        ("name: a, safe_regex_match: {}", "safe_regex_match.regex: must not be empty"),
        ("name: a, string_match: {}", "string_match: is required"),
        ("name: a, string_match: {prefix: ''}", "string_match.prefix: must not be empty"),
        ("name: a, string_match: {suffix: ''}", "string_match.suffix: must not be empty"),
        ("name: a, string_match: {contains: ''}", "string_match.contains: must not be empty"),
        ("name: a, string_match: {custom: {name: a}}", "string_match.custom: is not supported"),
        (
            "name: a, string_match: {safe_regex: {regex: a}, ignore_case: true}",
            "string_match.ignore_case: has no effect on a regular expression; write `(?i)`",
        ),
    ] {
        refusals(Kind::Route, header, &[(fields, &format!("{AT}.{rest}"))]);
    }
}

#[test]
fn a_query_rule_asks_for_presence_or_a_value() {
    let of = |fields: &str| routes(&query(fields)).virtual_hosts[0].routes[0].matches.query[0].clone();
    assert_eq!(of("name: q").value, None);
    assert_eq!(of("name: q, present_match: true").value, None);
    assert_eq!(of("name: q, string_match: {exact: a}").value, Some(StringMatcher::exact("a")));
    const AT: &str = "virtual_hosts[0].routes[0].match.query_parameters[0]";
    for (fields, rest) in [
        ("present_match: true", "name: must not be empty"),
        ("name: q, present_match: false", "present_match: \"false\" is not supported"),
        ("name: q, string_match: {prefix: ''}", "string_match.prefix: must not be empty"),
    ] {
        refusals(Kind::Route, query, &[(fields, &format!("{AT}.{rest}"))]);
    }
}

#[test]
fn a_broken_regular_expression_is_refused() {
    const AT: &str = "virtual_hosts[0].routes[0].match.safe_regex";
    let within = |pattern: &str| matching(&format!("safe_regex: {{regex: '{pattern}'}}"));
    for (pattern, rest) in [
        ("", ".regex: must not be empty"),
        ("(", ": invalid regular expression: unclosed group"),
        ("a)(b", ": invalid regular expression: unopened group"),
        ("[a&&b]", ": invalid regular expression: `&&` and `~~` within a class are not supported"),
        ("a{,3}", ": invalid regular expression: `{,n}` is not supported"),
        ("(?x)a b", ": invalid regular expression: only the flags i, m, s and U are supported"),
    ] {
        refusals(Kind::Route, within, &[(pattern, &format!("{AT}{rest}"))]);
    }
    let huge = crate::resource::tests::refusal(Kind::Route, &within("(((a{200}){200}){200})"));
    assert!(huge.starts_with(&format!("{AT}: invalid regular expression: ")), "{huge}");
}

#[test]
fn what_both_engines_read_alike_is_accepted() {
    for pattern in [
        r"/a/[^/]+/b",
        r"[a-z]+\.test",
        r"[]a]",
        r"[^]a]",
        r"[[:alpha:]_]+",
        r"[[:^digit:]]",
        r"(?i)abc",
        r"(?P<n>a)",
        r"(?<n>a)",
        r"(?:a|b)*",
        r"(?i-s:a)",
        r"a{2,3}",
        r"a{2}",
        r"\d+\w\s\b",
        r"\[a&&b\]",
        r"a&&b",
        r"a--b",
        r"[a\-z]",
        r"[a\[]",
        r"\\<",
        r"[:a]",
        r"",
        r".*/ns/shop/.*",
        r"spiffe://.+/ns/a/(.+/|)sa/b(/.+)?",
    ] {
        assert_eq!(reads_like_re2(pattern), Ok(()), "{pattern}");
    }
}

#[test]
fn what_the_engines_read_differently_is_refused() {
    for pattern in [
        r"\<a",
        r"a\>",
        r"\b{start}a",
        r"\B{end}a",
        r"[a[b]]",
        r"[[a]",
        r"[a&&b]",
        r"[a--b]",
        r"[a~~b]",
        r"a{,3}",
        r"(?x)a",
        r"(?u)a",
        r"(?R)a",
        r"(?i-x:a)",
        r"[\]a&&b]",
        r"[]&&a]",
    ] {
        assert!(reads_like_re2(pattern).is_err(), "{pattern}");
    }
}

proptest! {
    #[test]
    fn any_pattern_is_judged_without_a_panic(pattern in r"[a\[\]\\\(\)\?:{},^&~\-<>bxi*é]{0,24}") {
        let _ = reads_like_re2(&pattern);
    }
}
