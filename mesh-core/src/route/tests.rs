use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::table::{Draws, more_matches};
use super::*;
use crate::config::filter::FilterOverride;
use crate::config::route::{
    ClusterSpecifier, ForwardAction, RequestKinds, Route, RouteConfig, RouteMatch, VirtualHost,
    WeightedCluster,
};
use crate::config::units::{NonZeroWeight, PerMillion};
use crate::matcher::domain::DomainPattern;
use crate::matcher::header::{HeaderMatcher, HeaderRule, MatchedHeader};
use crate::matcher::path::PathMatcher;
use crate::matcher::query::QueryMatcher;
use crate::matcher::regex::SafeRegex;
use crate::matcher::string::{StringMatcher, Text};
use crate::request::{RequestHead, RequestKind, Target};
use crate::rng::{Rng, Xoshiro};

fn forward(cluster: &str) -> RouteAction {
    RouteAction::Forward(ForwardAction::to(cluster))
}

fn route(matches: RouteMatch, cluster: &str) -> Route {
    Route { name: cluster.into(), matches, action: forward(cluster), overrides: FilterOverrides::default() }
}

fn prefix(text: &str) -> RouteMatch {
    RouteMatch::path(PathMatcher::Prefix(Text::new(text, false)))
}

fn host(domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    let domains = domains.iter().map(|d| DomainPattern::parse(d).unwrap()).collect();
    VirtualHost { name: "vh".into(), domains, routes, overrides: FilterOverrides::default() }
}

fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
    RouteTable::compile(Arc::new(RouteConfig { name: "r".into(), virtual_hosts }))
}

fn head<'a>(authority: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    let kind = RequestKind::of(headers);
    RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority,
        target: Target::new(path),
        headers,
        kind,
        trusts_forwarded_for: false,
    }
}

fn cluster(table: &RouteTable, authority: &str, path: &str) -> Result<String, NoRoute> {
    let headers = HeaderMap::new();
    let decision = table.decide(&head(authority, path, &headers), &mut Xoshiro::seeded(1))?;
    Ok(table.clusters()[decision.cluster.unwrap().get()].to_string())
}

#[test]
fn the_most_specific_domain_wins_whatever_its_position() {
    let of = |domain: &str| host(&[domain], vec![route(prefix(""), domain)]);
    let t = table(vec![of("*"), of("a.*"), of("*.com"), of("*.b.com"), of("a.b.com"), of("*.foo.com:8080")]);
    for (authority, wanted) in [
        ("a.b.com", "a.b.com"),
        ("A.B.COM", "a.b.com"),
        ("x.b.com", "*.b.com"),
        ("b.com", "*.com"),
        ("a.org", "a.*"),
        ("org", "*"),
        (".com", "*"), // `*` stands for at least one byte
        ("x.foo.com:8080", "*.foo.com:8080"),
        ("x.foo.com", "*.com"),
    ] {
        assert_eq!(cluster(&t, authority, "/").unwrap(), wanted, "{authority}");
    }
    assert_eq!(cluster(&table(vec![of("a")]), "b", "/"), Err(NoRoute::VirtualHost));
}

#[test]
fn the_first_route_that_matches_wins_not_the_most_specific() {
    let exact = RouteMatch::path(PathMatcher::Exact(Text::new("/a/b", false)));
    let t = table(vec![host(&["*"], vec![route(prefix("/a"), "p"), route(exact.clone(), "e")])]);
    assert_eq!(cluster(&t, "h", "/a/b").unwrap(), "p");
    let t = table(vec![host(&["*"], vec![route(exact, "e"), route(prefix("/a"), "p")])]);
    assert_eq!(cluster(&t, "h", "/a/b?q=1").unwrap(), "e");
    assert_eq!(cluster(&t, "h", "/a/c").unwrap(), "p");
    assert_eq!(cluster(&t, "h", "/b"), Err(NoRoute::Route));
}

#[test]
fn a_separated_prefix_ends_at_a_segment() {
    let rule = RouteMatch::path(PathMatcher::SeparatedPrefix(Text::new("/api", false)));
    let t = table(vec![host(&["*"], vec![route(rule, "api")])]);
    for (path, hit) in [("/api", true), ("/api/v1", true), ("/api?x", true), ("/apis", false), ("/ap", false)]
    {
        assert_eq!(cluster(&t, "h", path).is_ok(), hit, "{path}");
    }
}

#[test]
fn weighted_clusters_get_their_shares() {
    let of = |name: &str, weight| WeightedCluster {
        name: name.into(),
        weight: NonZeroWeight::new(weight).unwrap(),
        overrides: FilterOverrides::default(),
    };
    let mut action = ForwardAction::to("");
    action.cluster = ClusterSpecifier::Weighted(vec![of("a", 1), of("b", 9), of("c", 90)]);
    let weighted = Route { action: RouteAction::Forward(action), ..route(prefix(""), "") };
    let t = table(vec![host(&["*"], vec![weighted])]);
    let (headers, mut rng, mut hits) = (HeaderMap::new(), Xoshiro::seeded(9), [0u32; 3]);
    for _ in 0..100_000 {
        hits[t.decide(&head("h", "/", &headers), &mut rng).unwrap().cluster.unwrap().get()] += 1;
    }
    for (share, wanted) in hits.iter().zip([1_000, 9_000, 90_000]) {
        assert!(share.abs_diff(wanted) < 600, "{hits:?}");
    }
}

#[test]
fn a_fraction_takes_its_share_and_leaves_the_rest_to_the_next_route() {
    let mut some = prefix("");
    some.fraction = Some(PerMillion::new(250_000).unwrap());
    let t =
        table(vec![host(&["*"], vec![route(some.clone(), "a"), route(some, "b"), route(prefix(""), "c")])]);
    let (headers, mut rng, mut hits) = (HeaderMap::new(), Xoshiro::seeded(9), [0u32; 3]);
    for _ in 0..100_000 {
        hits[t.decide(&head("h", "/", &headers), &mut rng).unwrap().cluster.unwrap().get()] += 1;
    }
    // Independent draws: a quarter, a quarter of the rest, the rest of that.
    for (share, wanted) in hits.iter().zip([25_000, 18_750, 56_250]) {
        assert!(share.abs_diff(wanted) < 800, "{hits:?}");
    }
}

#[test]
fn the_overrides_of_a_route_win_over_its_virtual_hosts() {
    let mut vh = host(&["*"], vec![route(prefix("/own"), "own"), route(prefix(""), "inherited")]);
    vh.overrides.0.insert("a".into(), FilterOverride::Disabled);
    vh.overrides.0.insert("b".into(), FilterOverride::Disabled);
    vh.routes[0].overrides.0.insert("b".into(), FilterOverride::Rbac(None));
    let t = table(vec![vh]);
    let headers = HeaderMap::new();
    let of =
        |path| t.decide(&head("h", path, &headers), &mut Xoshiro::seeded(1)).unwrap().route.overrides.clone();
    assert_eq!(of("/own").find("a"), Some(&FilterOverride::Disabled));
    assert_eq!(of("/own").find("b"), Some(&FilterOverride::Rbac(None)));
    assert_eq!(of("/x").find("b"), Some(&FilterOverride::Disabled));
}

// --- the table decides exactly as a linear search does ---

/// A linear search, as the specification words it.
fn naive(config: &RouteConfig, head: &RequestHead<'_>, rng: &mut Xoshiro) -> Result<(usize, usize), NoRoute> {
    let authority = head.authority.to_ascii_lowercase();
    let rank = |domain: &DomainPattern| match domain {
        DomainPattern::Exact(_) => (3, 0),
        DomainPattern::Suffix(text) => (2, text.len()),
        DomainPattern::Prefix(text) => (1, text.len()),
        DomainPattern::Any => (0, 0),
    };
    let mut found = None;
    for (ix, host) in config.virtual_hosts.iter().enumerate() {
        for domain in host.domains.iter().filter(|d| d.is_match(&authority)) {
            if found.is_none_or(|(best, _): ((u8, usize), usize)| rank(domain) > best) {
                found = Some((rank(domain), ix));
            }
        }
    }
    let (_, host) = found.ok_or(NoRoute::VirtualHost)?;
    let mut draws = Draws::new(rng);
    let routes = config.virtual_hosts[host].routes.iter().enumerate();
    for (ix, route) in routes {
        if route.matches.path.is_match(head.path())
            && route.matches.headers.iter().all(|header| header.is_match(head))
            && more_matches(&route.matches, head, ix as u32, &mut draws)
        {
            return Ok((host, ix));
        }
    }
    Err(NoRoute::Route)
}

fn segment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "ab", "A", "", "abc", "x.y"])
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn path_matcher() -> impl Strategy<Value = PathMatcher> {
    let regexes = ["/a.*", "/[ab]/.*", ".*b", "/", "(/a|/b)+"];
    prop_oneof![
        (path(), any::<bool>()).prop_map(|(p, i)| PathMatcher::Exact(Text::new(&p, i))),
        (path(), 0usize..8, any::<bool>()).prop_map(|(p, n, i)| {
            PathMatcher::Prefix(Text::new(p.get(..n.min(p.len())).unwrap_or(""), i))
        }),
        path().prop_map(|p| PathMatcher::SeparatedPrefix(Text::new(p.trim_end_matches('/'), false))),
        prop::sample::select(regexes.to_vec()).prop_map(|r| PathMatcher::Regex(SafeRegex::new(r).unwrap())),
    ]
}

fn header_matcher() -> impl Strategy<Value = HeaderMatcher> {
    // More names than a decision remembers look-ups of.
    let names = ["x-a", "x-b", ":method", "content-type", "x-c", "x-d", ":path"];
    let rule = prop_oneof![
        prop::sample::select(vec!["1", "12", ""]).prop_map(|v| HeaderRule::Value(StringMatcher::exact(v))),
        Just(HeaderRule::Value(StringMatcher::prefix("1"))),
        (0i64..3).prop_map(|n| HeaderRule::Range(n..n + 5)),
        any::<bool>().prop_map(HeaderRule::Present),
    ];
    (prop::sample::select(names.to_vec()), rule, any::<bool>(), any::<bool>()).prop_map(
        |(name, rule, invert, missing_as_empty)| {
            let name = match name {
                ":method" => MatchedHeader::Method,
                ":path" => MatchedHeader::Path,
                name => MatchedHeader::Name(HeaderName::from_static(name)),
            };
            HeaderMatcher { name, rule, invert, missing_as_empty }
        },
    )
}

fn a_route() -> impl Strategy<Value = Route> {
    let query = prop::option::of(prop::sample::select(vec!["q", "r"]));
    let share = prop::option::weighted(0.2, (0u32..=4).prop_map(|n| PerMillion::new(n * 250_000).unwrap()));
    let headers = prop::collection::vec(header_matcher(), 0..3);
    let requests = prop_oneof![
        8 => Just(RequestKinds::All), 1 => Just(RequestKinds::Grpc), 1 => Just(RequestKinds::NotGrpc)
    ];
    (path_matcher(), headers, query, share, requests).prop_map(
        |(path, headers, query, fraction, requests)| {
            let query =
                query.map(|name| QueryMatcher { name: name.into(), value: None }).into_iter().collect();
            route(RouteMatch { path, headers, query, fraction, requests }, "c")
        },
    )
}

fn domain() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["*", "a.com", "b.com", "*.com", "*.a.com", "a.*", "a.b.*", "*-x", "a.com:80"])
}

fn route_config() -> impl Strategy<Value = RouteConfig> {
    // Prefixes are found in another way when they are many.
    let routes = prop_oneof![
        3 => prop::collection::vec(a_route(), 0..12),
        1 => prop::collection::vec(a_route(), 60..90),
    ];
    let vh = (prop::collection::vec(domain(), 1..3), routes);
    prop::collection::vec(vh, 0..4).prop_map(|hosts| {
        let mut virtual_hosts: Vec<_> = hosts.into_iter().map(|(d, routes)| host(&d, routes)).collect();
        // The name of a route is its position, so that two decisions can be compared.
        for (h, vh) in virtual_hosts.iter_mut().enumerate() {
            for (r, route) in vh.routes.iter_mut().enumerate() {
                route.name = format!("{h}/{r}").into();
            }
        }
        RouteConfig { name: "r".into(), virtual_hosts }
    })
}

fn a_request() -> impl Strategy<Value = (String, String, HeaderMap)> {
    let authority =
        prop::sample::select(vec!["a.com", "A.com", "x.a.com", "a.org", "a.b.org", "c-x", "z", ""]);
    let query = prop::sample::select(vec!["", "?q=1", "?r", "?z&q"]);
    let value = || prop::sample::select(vec!["1", "12", "", "3", "x"]);
    let headers =
        prop::collection::vec((prop::sample::select(vec!["x-a", "x-b", "x-c", "x-d"]), value()), 0..4);
    (authority, path(), query, headers, any::<bool>()).prop_map(|(authority, path, query, lines, grpc)| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        if grpc {
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        }
        (authority.to_owned(), format!("{path}{query}"), headers)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_table_decides_exactly_as_a_linear_search_does(
        config in route_config(),
        requests in prop::collection::vec(a_request(), 1..8),
        seed: u64,
    ) {
        let compiled = RouteTable::compile(Arc::new(config.clone()));
        for (authority, path, headers) in &requests {
            let head = head(authority, path, headers);
            let wanted = naive(&config, &head, &mut Xoshiro::seeded(seed)).map(|(h, r)| format!("{h}/{r}"));
            let got = compiled.decide(&head, &mut Xoshiro::seeded(seed)).map(|d| d.route.name.to_string());
            prop_assert_eq!(got, wanted);
        }
    }
}

#[test]
fn a_decision_costs_no_draw_where_nothing_is_random() {
    struct Never;
    impl Rng for Never {
        fn next_u64(&mut self) -> u64 {
            unreachable!("a draw was made")
        }
    }
    let t = table(vec![host(&["*"], vec![route(prefix("/"), "a")])]);
    let headers = HeaderMap::new();
    assert!(t.decide(&head("h", "/", &headers), &mut Never).is_ok());
}
