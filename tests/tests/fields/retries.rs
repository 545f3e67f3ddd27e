//! What a retry policy says. The backend fails as often as the request asks for, and counts what it gets.

use mesh_tests::backend::Backend;

use crate::{ask, channel, mesh, one, routed};

/// The status, and the number of attempts, of a request under a policy; the route's timeout is two seconds.
async fn tried(policy: &str, target: &str) -> (u16, u32) {
    let a = Backend::start("a");
    let routes =
        format!("{{match: {{prefix: /}}, route: {{cluster: a, timeout: 2s, retry_policy: {{{policy}}}}}}}");
    let mesh = mesh(&[routed(&routes), one("a", &a)]);
    let status = ask(&channel(&mesh), &format!("GET {target}")).await.0;
    let path = target.split('?').next().unwrap_or_default();
    (status, a.app.attempts(path))
}

const QUICK: &str = "retry_back_off: {base_interval: 0.001s, max_interval: 0.001s}";

#[tokio::test]
async fn what_is_tried_again_and_how_often() {
    let rows = [
        ("retry_on: 5xx", "/a?status=503&first=1", (200, 2)),
        ("retry_on: reset", "/a?status=503&first=1", (503, 1)),
        ("retry_on: gateway-error", "/a?status=500&first=1", (500, 1)),
        ("retry_on: 5xx", "/a?status=503", (503, 2)),
        ("retry_on: 5xx, num_retries: 3", "/a?status=503", (503, 4)),
        (
            "retry_on: retriable-status-codes, retriable_status_codes: [418]",
            "/a?status=418&first=1",
            (200, 2),
        ),
        (
            "retry_on: retriable-status-codes, retriable_status_codes: [419]",
            "/a?status=418&first=1",
            (418, 1),
        ),
        ("retry_on: 5xx, num_retries: 2, per_try_timeout: 0.05s", "/a?hold", (504, 3)),
        (
            "retry_on: retriable-headers, retriable_headers: [{name: content-length, exact_match: '0'}]",
            "/a?status=409&first=1",
            (200, 2),
        ),
        (
            "retry_on: retriable-headers, retriable_headers: [{name: content-length, exact_match: '1'}]",
            "/a?status=409&first=1",
            (409, 1),
        ),
    ];
    for (policy, target, expected) in rows {
        assert_eq!(tried(&format!("{policy}, {QUICK}"), target).await, expected, "{policy}: {target}");
    }
}

/// Pauses are drawn from twice the one before up to the longest: with these, a retry after the first few never comes.
#[tokio::test]
async fn pauses() {
    let long = "retry_back_off: {base_interval: 100000s, max_interval: 100000s}";
    assert_eq!(tried(&format!("retry_on: 5xx, {long}"), "/a?status=503").await, (504, 1));
    let growing = "retry_back_off: {base_interval: 0.001s, max_interval: 100000s}";
    let (status, attempts) =
        tried(&format!("retry_on: 5xx, num_retries: 20, {growing}"), "/a?status=503").await;
    assert!(status == 504 && (5..20).contains(&attempts), "{status} after {attempts}");
    let (status, attempts) =
        tried(&format!("retry_on: 5xx, num_retries: 20, {QUICK}"), "/a?status=503").await;
    assert_eq!((status, attempts), (503, 21));
}

/// A virtual host's policy is that of its routes, but of those that have one of their own.
#[tokio::test]
async fn policies_of_a_virtual_host() {
    let a = Backend::start("a");
    let host = "{name: all, domains: ['*'], retry_policy: {retry_on: 5xx}, routes: [{match: {path: /own}, route: {cluster: a, retry_policy: {retry_on: reset}}}, {match: {prefix: /}, route: {cluster: a}}]}";
    let mesh = mesh(&[crate::shop(&format!("route_config: {{virtual_hosts: [{host}]}}")), one("a", &a)]);
    let channel = channel(&mesh);
    assert_eq!(ask(&channel, "GET /own?status=503&first=1").await.0, 503);
    assert_eq!(ask(&channel, "GET /other?status=503&first=1").await.0, 200);
}
