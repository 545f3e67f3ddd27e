//! What a route matches on. The route under test answers 403, everything else 404.

use crate::{ask, channel, mesh, routed, shop};

/// The fields of a match, requests that it has, and requests that it has not.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

async fn hold(rows: &[Row]) {
    for (matches, hits, misses) in rows {
        let routes = format!(
            "{{match: {{{matches}}}, direct_response: {{status: 403}}}}, {{match: {{prefix: /}}, direct_response: {{status: 404}}}}"
        );
        let mesh = mesh(&[routed(&routes)]);
        let channel = channel(&mesh);
        for hit in *hits {
            assert_eq!(ask(&channel, hit).await.0, 403, "{matches}: {hit}");
        }
        for miss in *misses {
            assert_eq!(ask(&channel, miss).await.0, 404, "{matches}: {miss}");
        }
    }
}

#[tokio::test]
async fn paths() {
    hold(&[
        ("path: /a", &["GET /a", "GET /a?b"], &["GET /ab", "GET /", "GET /A"]),
        ("prefix: /a", &["GET /a", "GET /ab"], &["GET /", "GET /b"]),
        ("path_separated_prefix: /a", &["GET /a", "GET /a/b"], &["GET /ab", "GET /"]),
        ("safe_regex: {regex: '/[0-9]+'}", &["GET /12"], &["GET /x", "GET /12x"]),
        ("path: /A, case_sensitive: false", &["GET /a", "GET /A"], &["GET /b"]),
        ("prefix: /A, case_sensitive: false", &["GET /ab"], &["GET /b"]),
        ("path_separated_prefix: /A, case_sensitive: false", &["GET /a/b"], &["GET /ab"]),
    ])
    .await;
}

#[tokio::test]
async fn kinds_of_request() {
    const GRPC: &str = "POST /a.B/C content-type:application/grpc te:trailers";
    hold(&[("prefix: /, grpc: {}", &[GRPC], &["POST /a.B/C content-type:text/plain"])]).await;
}

#[tokio::test]
async fn headers() {
    hold(&[
        ("prefix: /, headers: [{name: a}]", &["GET / a:x"], &["GET /", "GET / b:x"]),
        ("prefix: /, headers: [{name: a, exact_match: b}]", &["GET / a:b"], &["GET / a:c", "GET /"]),
        (
            "prefix: /, headers: [{name: a, safe_regex_match: {regex: 'b+'}}]",
            &["GET / a:bb"],
            &["GET / a:bc"],
        ),
        (
            "prefix: /, headers: [{name: a, range_match: {start: 5, end: 9}}]",
            &["GET / a:5", "GET / a:8"],
            &["GET / a:4", "GET / a:9"],
        ),
        ("prefix: /, headers: [{name: a, present_match: true}]", &["GET / a:b"], &["GET /"]),
        ("prefix: /, headers: [{name: a, present_match: false}]", &["GET /"], &["GET / a:b"]),
        ("prefix: /, headers: [{name: a, prefix_match: b}]", &["GET / a:bc"], &["GET / a:cb"]),
        ("prefix: /, headers: [{name: a, suffix_match: b}]", &["GET / a:cb"], &["GET / a:bc"]),
        ("prefix: /, headers: [{name: a, contains_match: b}]", &["GET / a:cbc"], &["GET / a:c"]),
        (
            "prefix: /, headers: [{name: a, exact_match: b, invert_match: true}]",
            &["GET / a:c"],
            &["GET / a:b"],
        ),
        (
            "prefix: /, headers: [{name: a, string_match: {exact: ''}, treat_missing_header_as_empty: true}]",
            &["GET /"],
            &["GET / a:b"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn strings() {
    for holder in
        ["headers: [{name: a, string_match: STRING}]", "query_parameters: [{name: a, string_match: STRING}]"]
    {
        let rows: [(&str, &[&str], &[&str]); 6] = [
            ("{exact: b}", &["b"], &["c", "bb"]),
            ("{prefix: b}", &["bc"], &["cb"]),
            ("{suffix: b}", &["cb"], &["bc"]),
            ("{contains: b}", &["cbc"], &["c"]),
            ("{safe_regex: {regex: 'b+'}}", &["bb"], &["bc", "c"]),
            ("{exact: B, ignore_case: true}", &["b", "B"], &["c"]),
        ];
        for (string, hits, misses) in rows {
            let matches = holder.replace("STRING", string);
            let routes = format!(
                "{{match: {{prefix: /, {matches}}}, direct_response: {{status: 403}}}}, {{match: {{prefix: /}}, direct_response: {{status: 404}}}}"
            );
            let mesh = mesh(&[routed(&routes)]);
            let channel = channel(&mesh);
            for (values, status) in [(hits, 403), (misses, 404)] {
                for value in values {
                    let text = if holder.starts_with('h') {
                        format!("GET / a:{value}")
                    } else {
                        format!("GET /?a={value}")
                    };
                    assert_eq!(ask(&channel, &text).await.0, status, "{matches}: {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn query_parameters() {
    hold(&[
        ("prefix: /, query_parameters: [{name: a}]", &["GET /?a=x", "GET /?b&a"], &["GET /", "GET /?b=a"]),
        (
            "prefix: /, query_parameters: [{name: a, string_match: {exact: b}}]",
            &["GET /?a=b"],
            &["GET /?a=c", "GET /"],
        ),
    ])
    .await;
}

/// How many of 200 requests have the fraction.
async fn share(fraction: &str) -> usize {
    let routes = format!(
        "{{match: {{prefix: /, runtime_fraction: {{default_value: {{{fraction}}}}}}}, direct_response: {{status: 403}}}}, {{match: {{prefix: /}}, direct_response: {{status: 404}}}}"
    );
    let mesh = mesh(&[routed(&routes)]);
    let channel = channel(&mesh);
    let mut hits = 0;
    for _ in 0..200 {
        hits += usize::from(ask(&channel, "GET /").await.0 == 403);
    }
    hits
}

/// The bounds leave room for chance: a fraction read wrongly is off by a factor of 100.
#[tokio::test]
async fn fractions() {
    assert_eq!(share("numerator: 0").await, 0);
    assert_eq!(share("numerator: 100").await, 200);
    let half = share("numerator: 50").await;
    assert!((50..150).contains(&half), "{half}");
    let half = share("numerator: 5000, denominator: TEN_THOUSAND").await;
    assert!((50..150).contains(&half), "{half}");
    let half = share("numerator: 500000, denominator: MILLION").await;
    assert!((50..150).contains(&half), "{half}");
}

#[tokio::test]
async fn domains() {
    let host = |name: &str, domain: &str, status: u16| {
        format!(
            "{{name: {name}, domains: ['{domain}'], routes: [{{match: {{prefix: /}}, direct_response: {{status: {status}}}}}]}}"
        )
    };
    let hosts = [host("a", "a.example", 403), host("b", "*.b.example", 410), host("any", "*", 404)];
    let mesh = mesh(&[shop(&format!("route_config: {{virtual_hosts: [{}]}}", hosts.join(", ")))]);
    let channel = channel(&mesh);
    for (target, status) in
        [("http://a.example/", 403), ("http://x.b.example/", 410), ("http://c.example/", 404)]
    {
        assert_eq!(ask(&channel, &format!("GET {target}")).await.0, status, "{target}");
    }
}
