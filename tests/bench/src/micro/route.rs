//! Route decisions: many virtual hosts, many routes in one host, many routes on one path, many regexes.

use std::hint::black_box;
use std::sync::Arc;

use http::HeaderName;
use mesh_core::config::route::{Route, RouteConfig};
use mesh_core::matcher::header::{HeaderMatcher, HeaderRule, MatchedHeader};
use mesh_core::matcher::path::PathMatcher;
use mesh_core::matcher::regex::SafeRegex;
use mesh_core::matcher::string::{StringMatcher, Text};
use mesh_core::rng::{Rng, Xoshiro};
use mesh_core::route::RouteTable;
use mesh_core::testing::{TestRequest, route, route_config, virtual_host};

use super::{Case, ITERATIONS};
use crate::Result;

/// Keys of each of the four sorts: first, last, random, missing.
const KEYS: usize = 16;
/// Routes of one group: an exact path and prefixes nested in one another.
const GROUP: usize = 5;
const HOST: &str = "echo.bench.svc.cluster.local";

/// All cases of the family.
pub(super) fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for count in [10, 10_000] {
        cases.push(hosts(count));
    }
    for count in [10, 10_000] {
        cases.push(routes(count));
    }
    for count in [1, 201] {
        cases.push(same_path(count)?);
    }
    for count in [1, 101] {
        cases.push(regexes(count)?);
    }
    Ok(cases)
}

fn hosts(count: usize) -> Case {
    let host = |n: usize| virtual_host(&[&authority(n)], group(0));
    let config = route_config("hosts", (0..count).map(host).collect());
    let request = |n: usize, kind: usize| TestRequest::grpc(&path(0, kind)).authority(&authority(n));
    let mut requests = keys(count, request);
    for _ in 0..KEYS {
        requests.push(TestRequest::grpc(&path(0, 0)).authority("svc-99999.other.svc.cluster.local"));
    }
    decide(format!("hosts {count}"), config, requests)
}

fn routes(count: usize) -> Case {
    let groups = count / GROUP;
    let all = (0..groups).flat_map(group).collect();
    let config = route_config("routes", vec![virtual_host(&[HOST], all)]);
    let request = |n: usize, kind: usize| TestRequest::grpc(&path(n, kind)).authority(HOST);
    let mut requests = keys(groups, request);
    for kind in 0..KEYS {
        // Shares its beginning with the others and matches none of them.
        let missing = path(99_999, kind).replacen("/pkg", "/pkh", 1);
        requests.push(TestRequest::grpc(&missing).authority(HOST));
    }
    decide(format!("routes {count}"), config, requests)
}

/// Routes that share one prefix and differ in a header; the request matches the last.
fn same_path(count: usize) -> Result<Case> {
    let wanted = |n: usize| -> Result<Route> {
        let mut rule = route("/pkg.Service/", "c");
        rule.matches.headers.push(HeaderMatcher {
            name: MatchedHeader::Name(HeaderName::from_static("x-version")),
            rule: HeaderRule::Value(StringMatcher::exact(&format!("v{n:05}"))),
            invert: false,
            missing_as_empty: false,
        });
        Ok(rule)
    };
    let rules = (0..count).map(wanted).collect::<Result<Vec<_>>>()?;
    let config = route_config("same path", vec![virtual_host(&[HOST], rules)]);
    let request = TestRequest::grpc("/pkg.Service/Method").authority(HOST);
    let request = request.header("x-version", &format!("v{:05}", count - 1));
    Ok(decide(format!("same path {count}"), config, vec![request]))
}

fn regexes(count: usize) -> Result<Case> {
    let rule = |n: usize| -> Result<Route> {
        let mut rule = route("/", "c");
        rule.matches.path = PathMatcher::Regex(SafeRegex::new(&format!("/v{n:05}/[a-z]+/[0-9]+"))?);
        Ok(rule)
    };
    let rules = (0..count).map(rule).collect::<Result<Vec<_>>>()?;
    let config = route_config("regexes", vec![virtual_host(&[HOST], rules)]);
    let request = TestRequest::grpc(&format!("/v{:05}/items/42", count - 1)).authority(HOST);
    Ok(decide(format!("regexes {count}"), config, vec![request]))
}

/// Requests for the first of `count`, for the last, and for random ones, over all kinds of path.
fn keys(count: usize, request: impl Fn(usize, usize) -> TestRequest) -> Vec<TestRequest> {
    let mut rng = Xoshiro::seeded(7);
    let mut requests = Vec::new();
    for kind in 0..KEYS {
        requests.push(request(0, kind));
        requests.push(request(count - 1, kind));
        requests.push(request(rng.below(count as u64) as usize, kind));
    }
    requests
}

fn authority(n: usize) -> String {
    format!("svc-{n:05}.bench.svc.cluster.local")
}

/// A path that the `kind`-th route of a group takes.
fn path(group: usize, kind: usize) -> String {
    let tail = ["Get", "a/b/c/Get", "a/b/Get", "a/Get", "Other"];
    format!("/pkg.Service{group:05}/{}", tail[kind % GROUP])
}

fn group(n: usize) -> Vec<Route> {
    let base = format!("/pkg.Service{n:05}/");
    let mut exact = route(&base, "exact");
    exact.matches.path = PathMatcher::Exact(Text::new(&format!("{base}Get"), false));
    let nested = ["a/b/c/", "a/b/", "a/", ""].map(|tail| route(&format!("{base}{tail}"), tail));
    std::iter::once(exact).chain(nested).collect()
}

fn decide(name: String, config: RouteConfig, requests: Vec<TestRequest>) -> Case {
    let table = RouteTable::compile(Arc::new(config));
    let mut rng = Xoshiro::seeded(1);
    Case::new(name, ITERATIONS, move |iterations| {
        let heads: Vec<_> = requests.iter().map(TestRequest::head).collect();
        for head in heads.iter().cycle().take(iterations as usize) {
            black_box(table.decide(black_box(head), &mut rng)).ok();
        }
        Ok(())
    })
}
