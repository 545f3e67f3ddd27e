//! Retry policies of virtual hosts and routes.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::config::retry::{BackOffConfig, RetryOn, RetryPolicy};
use mesh_core::config::route::RouteAction;

use crate::ads::Kind;
use crate::resource::tests::{not_applied, refusals, routes};

const AT: &str = "virtual_hosts[0].routes[0].route.retry_policy";

fn on_route(fields: &str) -> String {
    format!(
        "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  routes:\n  - match: {{prefix: /}}\n    route: {{cluster: c, retry_policy: {{{fields}}}}}"
    )
}

fn effective(yaml: &str) -> Option<Arc<RetryPolicy>> {
    match &routes(yaml).virtual_hosts[0].routes[0].action {
        RouteAction::Forward(forward) => forward.retry.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_policy_retries_nothing_once() {
    assert_eq!(*effective(&on_route("")).unwrap(), RetryPolicy::default());
}

#[test]
fn every_field_that_is_applied_is_kept() {
    let found = effective(&on_route(
        "retry_on: '5XX, unavailable,nonsense', num_retries: 9, per_try_timeout: 2s, \
         retry_back_off: {base_interval: 0.1s, max_interval: 3s}, retriable_status_codes: [409, 503], \
         retriable_headers: [{name: x-retry}]",
    ))
    .unwrap();
    assert_eq!(found.on, RetryOn::SERVER_ERROR.union(RetryOn::UNAVAILABLE));
    assert_eq!((found.num_retries, found.per_try_timeout), (9, Some(Duration::from_secs(2))));
    let back_off = BackOffConfig { base: Duration::from_millis(100), max: Duration::from_secs(3) };
    assert_eq!(found.back_off, back_off);
    assert_eq!(found.retriable_status_codes.iter().map(|s| s.as_u16()).collect::<Vec<_>>(), [409, 503]);
    assert_eq!(found.retriable_headers.len(), 1);
}

#[test]
fn back_off_is_at_least_a_millisecond_and_ten_times_the_base_at_most() {
    let of = |fields: &str| effective(&on_route(&format!("retry_back_off: {{{fields}}}"))).unwrap().back_off;
    let ms = Duration::from_millis;
    assert_eq!(of("base_interval: 0.02s"), BackOffConfig { base: ms(20), max: ms(200) });
    assert_eq!(of("base_interval: 0.0001s"), BackOffConfig { base: ms(1), max: ms(10) });
    let both = of("base_interval: 0.0001s, max_interval: 0.0002s");
    assert_eq!(both, BackOffConfig { base: ms(1), max: ms(1) });
}

#[test]
fn a_timeout_below_a_millisecond_is_none() {
    assert_eq!(effective(&on_route("per_try_timeout: 0.0009s")).unwrap().per_try_timeout, None);
    assert_eq!(effective(&on_route("per_try_timeout: 0s")).unwrap().per_try_timeout, None);
}

#[test]
fn a_routes_policy_replaces_that_of_the_virtual_host_whole() {
    let with = |route: &str| {
        format!(
            "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  retry_policy: {{retry_on: 5xx, num_retries: 4}}\n  routes:\n  - match: {{prefix: /}}\n    route: {{cluster: c{route}}}"
        )
    };
    assert_eq!(effective(&with("")).unwrap().num_retries, 4);
    let emptied = effective(&with(", retry_policy: {retry_on: nonsense}")).unwrap();
    assert!(emptied.on.is_empty() && emptied.num_retries == 1);
    let none = "name: r\nvirtual_hosts: [{name: v, domains: [a], routes: [{match: {prefix: /}, route: {cluster: c}}]}]";
    assert_eq!(effective(none), None);
}

#[test]
fn a_broken_policy_is_refused_at_its_field() {
    for (fields, rest) in [
        ("num_retries: 0", "num_retries: 0 is not within 1..=4294967295"),
        ("per_try_timeout: -1s", "per_try_timeout: duration of -1 s and 0 ns is negative or out of range"),
        ("retry_back_off: {}", "retry_back_off.base_interval: is required"),
        ("retry_back_off: {base_interval: 0s}", "retry_back_off.base_interval: must be more than 0"),
        (
            "retry_back_off: {base_interval: 1s, max_interval: 0s}",
            "retry_back_off.max_interval: must be more than 0",
        ),
        (
            "retry_back_off: {base_interval: 1s, max_interval: 0.5s}",
            "retry_back_off.max_interval: must not be less than base_interval",
        ),
        ("retriable_status_codes: [503, 99]", "retriable_status_codes[1]: 99 is not within 100..=999"),
        ("retriable_status_codes: [70000]", "retriable_status_codes[0]: 70000 is not within 100..=999"),
        (
            "retriable_headers: [{name: a, prefix_match: ''}]",
            "retriable_headers[0].prefix_match: must not be empty",
        ),
    ] {
        refusals(Kind::Route, on_route, &[(fields, &format!("{AT}.{rest}"))]);
    }
    let of_host = |fields: &str| {
        format!("name: r\nvirtual_hosts: [{{name: v, domains: [a], retry_policy: {{{fields}}}}}]")
    };
    refusals(
        Kind::Route,
        of_host,
        &[("num_retries: 0", "virtual_hosts[0].retry_policy.num_retries: 0 is not within 1..=4294967295")],
    );
}

#[test]
fn what_only_steers_the_next_attempt_is_listed() {
    for (fields, field) in [
        ("per_try_idle_timeout: 1s", "per_try_idle_timeout"),
        ("retry_priority: {name: a}", "retry_priority"),
        (
            "retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]",
            "retry_host_predicate",
        ),
        ("host_selection_retry_max_attempts: 5", "host_selection_retry_max_attempts"),
        ("rate_limited_retry_back_off: {}", "rate_limited_retry_back_off"),
        ("retriable_request_headers: [{name: a}]", "retriable_request_headers"),
        ("refresh_cluster_on_retry: true", "refresh_cluster_on_retry"),
    ] {
        not_applied(Kind::Route, on_route, &[(fields, &format!("{AT}.{field}"))]);
    }
}
