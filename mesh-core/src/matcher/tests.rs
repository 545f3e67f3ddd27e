use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::cidr::{InvalidCidr, cidr};
use super::domain::{DomainPattern, InvalidDomain};
use super::header::{HeaderMatcher, HeaderRule, MatchedHeader};
use super::query::QueryMatcher;
use super::regex::SafeRegex;
use super::san::{SanKind, SanMatcher};
use super::string::{StringMatcher, Text};
use crate::request::{RequestHead, RequestKind, Target};

#[test]
fn texts_compare_by_their_rule_and_their_case() {
    let text = |value| Text::new(value, false);
    let folded = |value| Text::new(value, true);
    for (matcher, hits, misses) in [
        (StringMatcher::Exact(text("aB")), &["aB"][..], &["ab", "aBc", ""][..]),
        (StringMatcher::Exact(folded("aB")), &["aB", "ab", "AB"], &["abc"]),
        (StringMatcher::Prefix(text("ab")), &["ab", "abc"], &["a", "Ab", "xab"]),
        (StringMatcher::Suffix(folded("bc")), &["bc", "aBC"], &["c", "bcd"]),
        (StringMatcher::Contains(text("bc")), &["bc", "abcd"], &["b", "cb", "BC"]),
        (StringMatcher::Contains(folded("bc")), &["aBCd"], &["b-c"]),
        (StringMatcher::Regex(SafeRegex::new("a|bc").unwrap()), &["a", "bc"], &["ab", "abc", ""]),
    ] {
        assert!(hits.iter().all(|t| matcher.is_match(t.as_bytes())), "{matcher:?}");
        assert!(misses.iter().all(|t| !matcher.is_match(t.as_bytes())), "{matcher:?}");
    }
}

#[test]
fn a_regex_matches_the_whole_text_as_bytes() {
    let hit = |pattern: &str, text: &[u8]| SafeRegex::new(pattern).unwrap().is_match(text);
    assert!(hit("a.c", b"abc") && !hit("a.c", b"abcd") && !hit("a", b"ba"));
    assert!(hit(".", &[0xff]) && !hit(".", "é".as_bytes()), "`.` is one byte");
    assert!(!hit(r"\d", "٣".as_bytes()), "digits are ASCII");
    assert!(!hit("a|b", b"ab"), "an alternation is anchored as a whole");
}

#[test]
fn what_is_no_linear_time_expression_is_refused() {
    for bad in ["(", "a)(b", r"(?=x)", r"(a)\1", r"a{1000}{1000}"] {
        assert!(SafeRegex::new(bad).is_err(), "{bad}");
    }
    assert_eq!(SafeRegex::new("a").unwrap(), SafeRegex::new("a").unwrap());
}

fn holds(rule: HeaderRule, invert: bool, missing_as_empty: bool, kind: RequestKind, lines: &[&str]) -> bool {
    let name = HeaderName::from_static("x-a");
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, HeaderValue::from_str(line).unwrap());
    }
    let method = Method::POST;
    let head = RequestHead {
        method: &method,
        scheme: "http",
        authority: "h",
        target: Target::new("/"),
        headers: &headers,
        kind,
        trusts_forwarded_for: false,
    };
    HeaderMatcher { name: MatchedHeader::Name(name), rule, invert, missing_as_empty }.is_match(&head)
}

#[test]
fn a_missing_header_never_matches_inverted_or_not_except_by_presence() {
    let exact = || HeaderRule::Value(StringMatcher::exact("v"));
    for kind in [RequestKind::Http, RequestKind::Grpc] {
        for invert in [false, true] {
            assert!(!holds(exact(), invert, false, kind, &[]));
            assert!(!holds(HeaderRule::Range(0..9), invert, false, kind, &[]));
            assert_eq!(holds(HeaderRule::Present(true), invert, false, kind, &[]), invert);
            assert_eq!(holds(HeaderRule::Present(false), invert, false, kind, &[]), !invert);
            assert_eq!(holds(HeaderRule::Present(true), invert, false, kind, &["v"]), !invert);
        }
        assert!(holds(exact(), true, true, kind, &[]), "missing as empty: `` is not `v`");
        assert!(holds(HeaderRule::Present(true), false, true, kind, &[]));
        assert!(!holds(HeaderRule::Present(false), false, true, kind, &[]));
    }
}

#[test]
fn repeated_lines_match_one_by_one_for_http_and_joined_for_grpc() {
    let exact = |v: &str| HeaderRule::Value(StringMatcher::exact(v));
    assert!(holds(exact("b"), false, false, RequestKind::Http, &["a", "b"]));
    assert!(!holds(exact("a,b"), false, false, RequestKind::Http, &["a", "b"]));
    assert!(!holds(exact("b"), true, false, RequestKind::Http, &["a", "b"]));
    assert!(!holds(exact("b"), false, false, RequestKind::Grpc, &["a", "b"]));
    assert!(holds(exact("a,b"), false, false, RequestKind::Grpc, &["a", "b"]));
}

#[test]
fn a_range_is_half_open_over_a_whole_number() {
    let hit = |text: &str| holds(HeaderRule::Range(-5..10), false, false, RequestKind::Http, &[text]);
    assert!(hit("-5") && hit("+5") && hit("007") && hit("9"));
    assert!(!hit("10") && !hit("1.0") && !hit("") && !hit("9x") && !hit("99999999999999999999"));
}

#[test]
fn binary_headers_never_match_for_grpc() {
    let name = HeaderName::from_static("x-bin");
    let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("AA"))]);
    let matcher = HeaderMatcher {
        name: MatchedHeader::Name(name),
        rule: HeaderRule::Value(StringMatcher::exact("AA")),
        invert: false,
        missing_as_empty: false,
    };
    let hit = |kind| {
        matcher.is_match(&RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "",
            target: Target::new("/"),
            headers: &headers,
            kind,
            trusts_forwarded_for: false,
        })
    };
    assert!(hit(RequestKind::Http) && !hit(RequestKind::Grpc));
}

#[test]
fn the_first_occurrence_of_a_query_parameter_counts_as_it_is_written() {
    let rule =
        |value: Option<&str>| QueryMatcher { name: "q".into(), value: value.map(StringMatcher::exact) };
    for (value, query, hit) in [
        (Some("1"), Some("q=1&q=2"), true),
        (Some("2"), Some("q=1&q=2"), false),
        (Some("a b"), Some("q=a%20b"), false),
        (None, Some("x&q"), true),
        (Some(""), Some("q"), true),
        (None, Some("qq=1"), false),
        (None, None, false),
    ] {
        assert_eq!(rule(value).is_match(query), hit, "{value:?} {query:?}");
    }
}

#[test]
fn domains_are_read_by_the_place_of_their_wildcard() {
    let parse = |text| DomainPattern::parse(text);
    assert_eq!(parse("A.com"), Ok(DomainPattern::Exact("a.com".into())));
    assert_eq!(parse("*.Com"), Ok(DomainPattern::Suffix(".com".into())));
    assert_eq!(parse("a.*"), Ok(DomainPattern::Prefix("a.".into())));
    assert_eq!(parse("*"), Ok(DomainPattern::Any));
    assert_eq!(parse(""), Err(InvalidDomain::Empty));
    for bad in ["a.*.b", "*a*", "**", "*.a.*"] {
        assert!(matches!(parse(bad), Err(InvalidDomain::Wildcard(_))), "{bad}");
    }
}

#[test]
fn ranges_of_addresses_drop_the_bits_below_their_prefix() {
    let range = |text, length| cidr(text, length).map(|net| net.to_string());
    assert_eq!(range("10.1.2.3", Some(8)), Ok("10.0.0.0/8".into()));
    assert_eq!(range("10.1.2.3", None), Ok("0.0.0.0/0".into()));
    assert_eq!(range("::1", Some(128)), Ok("::1/128".into()));
    assert_eq!(range("10.1.2.3", Some(33)), Err(InvalidCidr::Length(33)));
    assert_eq!(range("host", Some(8)), Err(InvalidCidr::Address("host".into())));
}

#[test]
fn names_in_a_certificate_match_by_kind_and_wildcards_by_label() {
    let exact = |kind, text| SanMatcher { kind, matcher: StringMatcher::exact(text) };
    let any = |text| exact(None, text);
    for (certificate, wanted, hit) in [
        ("*.test.com", "a.test.com", true),
        ("*.test.com", "A.TEST.COM.", true),
        ("*.test.com", "a.b.test.com", false),
        ("*.test.com", "test.com", false),
        ("a.test.com", "a.test.com", true),
        ("a*.test.com", "ab.test.com", false),
        ("", "", false),
    ] {
        assert_eq!(any(wanted).is_match(SanKind::Dns, certificate), hit, "{certificate} {wanted}");
    }
    assert!(any("spiffe://td/a").is_match(SanKind::Uri, "spiffe://td/a"));
    assert!(!any("spiffe://td/A").is_match(SanKind::Uri, "spiffe://td/a"));
    assert!(!exact(Some(SanKind::Uri), "a").is_match(SanKind::Dns, "a"));
    let prefix = SanMatcher { kind: None, matcher: StringMatcher::prefix("*.te") };
    assert!(prefix.is_match(SanKind::Dns, "*.test.com"), "other rules see the raw name");
}
