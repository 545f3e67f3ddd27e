use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::backoff::BackOff;
use super::*;
use crate::config::cluster::RetryBudget;
use crate::config::retry::{BackOffConfig, RetryOn, RetryPolicy};
use crate::config::units::{Limit, PerMillion};
use crate::matcher::header::{HeaderMatcher, HeaderRule, MatchedHeader};
use crate::matcher::string::StringMatcher;
use crate::outcome::{Failure, GrpcCode, Outcome};
use crate::request::RequestKind;
use crate::rng::Xoshiro;

fn policy(on: &str, num_retries: u32) -> RetryPolicy {
    RetryPolicy { on: RetryOn::parse(on), num_retries, ..RetryPolicy::default() }
}

fn grpc(code: GrpcCode) -> Ended<'static> {
    let outcome = Outcome::Response { http: StatusCode::OK, grpc: Some(code) };
    Ended { kind: RequestKind::Grpc, outcome, headers: None, untouched: None }
}

fn http(code: u16) -> Ended<'static> {
    let outcome = Outcome::Response { http: StatusCode::from_u16(code).unwrap(), grpc: None };
    Ended { kind: RequestKind::Http, outcome, headers: None, untouched: None }
}

fn failed(kind: RequestKind, failure: Failure) -> Ended<'static> {
    Ended { kind, outcome: Outcome::Failed(failure), headers: None, untouched: None }
}

fn verdict(policy: &RetryPolicy, ended: &Ended<'_>) -> Verdict {
    Retries::new().after(Some(policy), ended, &mut Xoshiro::seeded(1))
}

fn retries(policy: &RetryPolicy, ended: &Ended<'_>) -> bool {
    matches!(verdict(policy, ended), Verdict::Retry { .. })
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let value = HeaderValue::try_from(value).unwrap();
    HeaderMap::from_iter([(HeaderName::from_static(name), value)])
}

const KINDS: [RequestKind; 2] = [RequestKind::Grpc, RequestKind::Http];

const EVERYTHING: &str = "5xx,gateway-error,reset,connect-failure,refused-stream,retriable-4xx,\
    retriable-status-codes,retriable-headers,reset-before-request,\
    cancelled,deadline-exceeded,internal,resource-exhausted,unavailable";

#[test]
fn a_grpc_call_is_retried_for_the_codes_of_its_policy() {
    let codes = [
        ("cancelled", GrpcCode::CANCELLED),
        ("deadline-exceeded", GrpcCode::DEADLINE_EXCEEDED),
        ("internal", GrpcCode::INTERNAL),
        ("resource-exhausted", GrpcCode::RESOURCE_EXHAUSTED),
        ("unavailable", GrpcCode::UNAVAILABLE),
    ];
    for (token, _) in codes {
        for (other, code) in codes {
            assert_eq!(retries(&policy(token, 1), &grpc(code)), token == other, "{token} {other}");
        }
    }
    for code in [GrpcCode::OK, GrpcCode::UNKNOWN, GrpcCode::ABORTED, GrpcCode::PERMISSION_DENIED] {
        assert_eq!(verdict(&policy(EVERYTHING, 3), &grpc(code)), Verdict::Stop(Stop::NotRetriable));
    }
    // Envoy's conditions are not for gRPC: 5xx covers no status.
    assert!(!retries(&policy("5xx,reset,connect-failure", 1), &grpc(GrpcCode::UNAVAILABLE)));
}

#[test]
fn a_grpc_call_without_a_response_is_unavailable_and_one_with_headers_is_committed() {
    let unavailable = policy("unavailable", 1);
    for failure in [Failure::Connect, Failure::Refused, Failure::Reset] {
        assert!(retries(&unavailable, &failed(RequestKind::Grpc, failure)), "{failure:?}");
        assert!(!retries(&policy("internal", 1), &failed(RequestKind::Grpc, failure)));
    }
    let cancelled = failed(RequestKind::Grpc, Failure::RemoteReset(GrpcCode::CANCELLED));
    assert!(retries(&policy("cancelled", 1), &cancelled), "a reset is the status of its code");
    assert!(!retries(&unavailable, &cancelled));
    let denied = failed(RequestKind::Grpc, Failure::RemoteReset(GrpcCode::PERMISSION_DENIED));
    assert!(!retries(&policy(EVERYTHING, 1), &denied));
    let of = |code: u16| Ended { kind: RequestKind::Grpc, ..http(code) };
    assert!(!retries(&policy(EVERYTHING, 1), &of(200)), "headers without a status commit");
    assert_eq!(classify::grpc_code(of(200).outcome), None);
    assert!(retries(&unavailable, &of(503)), "a proxy's 503 is UNAVAILABLE");
    assert!(!retries(&unavailable, &of(404)));
}

#[test]
fn an_http_request_is_retried_on_envoys_conditions() {
    let on = |on: &str, code: u16| retries(&policy(on, 1), &http(code));
    for (condition, yes, no) in [
        ("5xx", &[500u16, 502, 503, 599][..], &[200u16, 404, 409, 429][..]),
        ("gateway-error", &[502, 503, 504], &[500, 501, 505, 200]),
        ("retriable-4xx", &[409], &[400, 404, 429, 500]),
        ("reset", &[], &[500, 503]),
        ("unavailable", &[], &[503]),
    ] {
        for code in yes {
            assert!(on(condition, *code), "{condition} {code}");
        }
        for code in no {
            assert!(!on(condition, *code), "{condition} {code}");
        }
    }
    let mut codes = policy("retriable-status-codes", 1);
    codes.retriable_status_codes = vec![StatusCode::TOO_MANY_REQUESTS];
    assert!(retries(&codes, &http(429)) && !retries(&codes, &http(503)));
    codes.on = RetryOn::parse("5xx");
    assert!(!retries(&codes, &http(429)), "the list counts only with its condition");
}

#[test]
fn an_http_request_without_a_response_is_retried_by_how_it_failed() {
    let reset = ["5xx", "gateway-error", "reset"];
    let cases = [
        (Failure::Connect, &["connect-failure", "reset-before-request"][..]),
        (Failure::Refused, &["refused-stream"]),
        (Failure::Reset, &[]),
        (Failure::RemoteReset(GrpcCode::CANCELLED), &[]),
        (Failure::PerTryTimeout, &[]),
    ];
    for (failure, more) in cases {
        for condition in ["connect-failure", "reset-before-request", "refused-stream"].iter().chain(&reset) {
            let ended = failed(RequestKind::Http, failure);
            let expected = more.contains(condition) || reset.contains(condition);
            assert_eq!(retries(&policy(condition, 1), &ended), expected, "{failure:?} {condition}");
        }
        assert!(!retries(&policy("retriable-4xx", 1), &failed(RequestKind::Http, failure)));
    }
}

#[test]
fn a_response_header_may_ask_for_a_retry() {
    let matcher = HeaderMatcher {
        name: MatchedHeader::Name(HeaderName::from_static("x-again")),
        rule: HeaderRule::Value(StringMatcher::exact("yes")),
        invert: false,
        missing_as_empty: false,
    };
    let method = HeaderMatcher { name: MatchedHeader::Method, rule: HeaderRule::Present(true), ..matcher };
    let mut on = policy("retriable-headers", 1);
    on.retriable_headers = vec![method, matcher];
    let (yes, no) = (headers("x-again", "yes"), headers("x-again", "no"));
    assert!(retries(&on, &Ended { headers: Some(&yes), ..http(200) }));
    assert!(!retries(&on, &Ended { headers: Some(&no), ..http(200) }));
    assert!(!retries(&on, &http(200)));
    on.on = RetryOn::parse("5xx");
    assert!(!retries(&on, &Ended { headers: Some(&yes), ..http(200) }));
    let limited = headers("x-envoy-ratelimited", "true");
    let ended = Ended { headers: Some(&limited), ..http(503) };
    assert_eq!(verdict(&on, &ended), Verdict::Stop(Stop::Pushback));
}

#[test]
fn our_own_refusals_and_ends_of_the_whole_request_are_never_retried() {
    for kind in KINDS {
        for failure in [Failure::Local, Failure::Deadline] {
            assert_eq!(
                verdict(&policy(EVERYTHING, 3), &failed(kind, failure)),
                Verdict::Stop(Stop::NotRetriable),
            );
        }
        let cancelled = Ended { outcome: Outcome::Cancelled, ..failed(kind, Failure::Reset) };
        assert!(!retries(&policy(EVERYTHING, 3), &cancelled));
        let mut none = Retries::new();
        let ended = failed(kind, Failure::Reset);
        assert_eq!(none.after(None, &ended, &mut Xoshiro::seeded(1)), Verdict::Stop(Stop::NotRetriable));
    }
}

#[test]
fn attempts_are_counted_and_grpc_caps_them_at_five() {
    for (ended, num_retries, attempts) in [
        (grpc(GrpcCode::UNAVAILABLE), 1, 2),
        (grpc(GrpcCode::UNAVAILABLE), 9, 5),
        (grpc(GrpcCode::UNAVAILABLE), u32::MAX, 5),
        (http(503), 9, 10),
        (http(503), 0, 1),
    ] {
        let policy = policy("unavailable,5xx", num_retries);
        let (mut retries, mut rng) = (Retries::new(), Xoshiro::seeded(1));
        let mut made = 1;
        while let Verdict::Retry { .. } = retries.after(Some(&policy), &ended, &mut rng) {
            made += 1;
        }
        assert_eq!((made, retries.attempts()), (attempts, attempts));
        let last = retries.after(Some(&policy), &ended, &mut rng);
        assert_eq!(last, Verdict::Stop(Stop::Exhausted));
    }
}

#[test]
fn the_servers_pushback_is_obeyed() {
    let policy = policy("unavailable", 3);
    let with = |value: &str| {
        let headers = headers("grpc-retry-pushback-ms", value);
        verdict(&policy, &Ended { headers: Some(&headers), ..grpc(GrpcCode::UNAVAILABLE) })
    };
    assert_eq!(with("250"), Verdict::Retry { after: Duration::from_millis(250) });
    assert_eq!(with("0"), Verdict::Retry { after: Duration::ZERO });
    for stop in ["-1", "", "x", "1.5", " 5", "99999999999"] {
        assert_eq!(with(stop), Verdict::Stop(Stop::Pushback), "{stop:?}");
    }
    let asked = headers("grpc-retry-pushback-ms", "5");
    let other = Ended { headers: Some(&asked), ..grpc(GrpcCode::ABORTED) };
    assert_eq!(verdict(&policy, &other), Verdict::Stop(Stop::NotRetriable), "it asks for no new code");
}

#[test]
fn after_a_pushback_the_back_off_starts_over() {
    let mut on = policy("unavailable", 4);
    on.back_off = BackOffConfig { base: Duration::from_millis(8), max: Duration::from_secs(100) };
    let asked = headers("grpc-retry-pushback-ms", "7000");
    let plain = grpc(GrpcCode::UNAVAILABLE);
    for seed in 0..200 {
        let (mut retries, mut rng) = (Retries::new(), Xoshiro::seeded(seed));
        retries.after(Some(&on), &plain, &mut rng);
        retries.after(Some(&on), &plain, &mut rng);
        retries.after(Some(&on), &Ended { headers: Some(&asked), ..plain }, &mut rng);
        match retries.after(Some(&on), &plain, &mut rng) {
            Verdict::Retry { after } => assert!(after <= Duration::from_millis(8), "{after:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_the_peer_never_saw_is_repeated_without_a_policy() {
    let mut rng = Xoshiro::seeded(1);
    for kind in KINDS {
        let never = Ended { untouched: Some(Untouched::NeverSent), ..failed(kind, Failure::Refused) };
        let by_peer = Ended { untouched: Some(Untouched::ByPeer), ..failed(kind, Failure::Refused) };
        let mut retries = Retries::new();
        for _ in 0..50 {
            assert_eq!(retries.after(None, &never, &mut rng), Verdict::Transparent);
        }
        assert_eq!(retries.after(None, &by_peer, &mut rng), Verdict::Transparent);
        assert_eq!(retries.after(None, &by_peer, &mut rng), Verdict::Stop(Stop::NotRetriable));
        assert_eq!(retries.attempts(), 1, "transparent ones are not counted");
        let gone_away = Ended { untouched: Some(Untouched::GoneAway), ..failed(kind, Failure::Refused) };
        for _ in 0..50 {
            assert_eq!(retries.after(None, &gone_away, &mut rng), Verdict::Transparent, "refuses nothing");
        }
        // An I/O error proves nothing, whatever is claimed beside it.
        let reset = Ended { outcome: Outcome::Failed(Failure::Reset), ..never };
        assert_eq!(Retries::new().after(None, &reset, &mut rng), Verdict::Stop(Stop::NotRetriable));
    }
}

#[test]
fn a_reused_connection_that_was_closed_costs_one_repetition_where_that_is_safe() {
    use http::Method;
    for (written, method, has_body, safe) in [
        (false, Method::POST, true, true),
        (true, Method::POST, false, false),
        (true, Method::GET, false, true),
        (true, Method::GET, true, false),
        (true, Method::HEAD, false, true),
        (true, Method::OPTIONS, false, true),
        (true, Method::TRACE, false, true),
        (true, Method::PUT, true, false),
        (true, Method::PUT, false, false),
        (true, Method::DELETE, false, false),
        (true, Method::PATCH, false, false),
        (true, Method::CONNECT, false, false),
        (true, Method::from_bytes(b"PURGE").unwrap(), false, false),
        (false, Method::DELETE, false, true),
    ] {
        assert_eq!(Untouched::of_reused(written, &method, has_body).is_some(), safe, "{written} {method}");
    }
    let mut rng = Xoshiro::seeded(1);
    for failure in [Failure::Refused, Failure::Reset] {
        let mut retries = Retries::new();
        let ended = Ended { untouched: Some(Untouched::Reused), ..failed(RequestKind::Http, failure) };
        assert_eq!(retries.after(None, &ended, &mut rng), Verdict::Transparent);
        assert_eq!(retries.after(None, &ended, &mut rng), Verdict::Stop(Stop::NotRetriable));
    }
}

#[test]
fn after_the_transparent_retry_a_refusal_is_the_policys() {
    let mut rng = Xoshiro::seeded(1);
    let policy = policy("unavailable,refused-stream", 1);
    for kind in KINDS {
        let ended = Ended { untouched: Some(Untouched::ByPeer), ..failed(kind, Failure::Refused) };
        let mut retries = Retries::new();
        assert_eq!(retries.after(Some(&policy), &ended, &mut rng), Verdict::Transparent);
        assert!(matches!(retries.after(Some(&policy), &ended, &mut rng), Verdict::Retry { .. }));
        assert_eq!(retries.after(Some(&policy), &ended, &mut rng), Verdict::Stop(Stop::Exhausted));
    }
}

#[test]
fn one_attempt_is_bounded_for_http_alone() {
    let bounded = RetryPolicy { per_try_timeout: Some(Duration::from_secs(1)), ..policy("5xx", 1) };
    assert_eq!(attempt_timeout(Some(&bounded), RequestKind::Http), Some(Duration::from_secs(1)));
    assert_eq!(attempt_timeout(Some(&bounded), RequestKind::Grpc), None);
    let none = RetryPolicy { per_try_timeout: Some(Duration::ZERO), ..bounded };
    assert_eq!(attempt_timeout(Some(&none), RequestKind::Http), None);
    assert_eq!(attempt_timeout(None, RequestKind::Http), None);
}

#[test]
fn a_budget_is_a_share_with_a_floor() {
    let budget =
        RetryBudget { budget: PerMillion::new(200_000).unwrap(), min_retry_concurrency: Limit::new(3) };
    for (active, allowed) in [(0, 3), (15, 3), (20, 4), (100, 20), (u32::MAX, u32::MAX / 5)] {
        assert_eq!(budget::allowed(&budget, active), allowed, "{active}");
    }
}

#[test]
fn connections_back_off_from_one_second_to_two_minutes() {
    let mut rng = Xoshiro::seeded(5);
    let mut back_off = BackOff::connection();
    let mut whole = 1.0f64;
    for _ in 0..30 {
        let wait = back_off.next(&mut rng).as_secs_f64();
        assert!((whole * 0.8 - 1e-6..=whole * 1.2 + 1e-6).contains(&wait), "{wait} around {whole}");
        whole = (whole * 1.6).min(120.0);
    }
    back_off.reset();
    assert!(back_off.next(&mut rng) <= Duration::from_millis(1_200));
}

#[test]
fn retry_waits_fill_the_whole_interval() {
    let config = BackOffConfig { base: Duration::from_millis(100), max: Duration::from_millis(100) };
    let mut rng = Xoshiro::seeded(5);
    let mut tenths = [0; 10];
    for _ in 0..10_000 {
        let wait = BackOff::retry(&config).next(&mut rng);
        tenths[(wait.as_secs_f64() * 100.0) as usize] += 1;
    }
    assert!(tenths.iter().all(|n| (850..1_150).contains(n)), "{tenths:?}");
}

proptest! {
    #[test]
    fn a_retry_never_waits_longer_than_its_policy_says(
        base in 1u64..10_000, times in 1u64..2_000, steps in 1usize..80, seed in any::<u64>(),
    ) {
        let base = Duration::from_millis(base);
        let max = base * times as u32;
        let mut back_off = BackOff::retry(&BackOffConfig { base, max });
        let mut rng = Xoshiro::seeded(seed);
        let mut whole = base;
        for _ in 0..steps {
            let wait = back_off.next(&mut rng);
            prop_assert!(wait <= whole && wait <= max, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(max);
        }
    }

    #[test]
    fn no_back_off_overflows(base in any::<u64>(), max in any::<u64>(), seed in any::<u64>()) {
        let config = BackOffConfig { base: Duration::from_secs(base), max: Duration::from_secs(max) };
        let mut rng = Xoshiro::seeded(seed);
        let mut back_off = BackOff::retry(&config);
        for _ in 0..100 {
            prop_assert!(back_off.next(&mut rng) <= Duration::from_secs(86_400));
        }
    }

    #[test]
    fn every_sequence_of_ends_comes_to_a_stop(
        ends in prop::collection::vec((any::<bool>(), 0u8..17, 0u8..7), 1..40), num_retries in 0u32..10,
    ) {
        // Whatever happens to a gRPC call, it makes five counted attempts and one transparent one at most.
        let policy = policy(EVERYTHING, num_retries);
        let (mut retries, mut rng) = (Retries::new(), Xoshiro::seeded(1));
        let (mut counted, mut transparent) = (0, 0);
        for (refused, code, failure) in ends {
            let failure = [
                Failure::Connect, Failure::Refused, Failure::Reset, Failure::PerTryTimeout,
                Failure::Deadline, Failure::Local,
            ].get(usize::from(failure)).copied();
            let mut ended = grpc(GrpcCode::parse(code.to_string().as_bytes()));
            if let Some(failure) = failure {
                ended.outcome = Outcome::Failed(failure);
            }
            ended.untouched = refused.then_some(Untouched::ByPeer);
            match retries.after(Some(&policy), &ended, &mut rng) {
                Verdict::Transparent => transparent += 1,
                Verdict::Retry { .. } => counted += 1,
                Verdict::Stop(_) => break,
            }
        }
        prop_assert!(counted <= num_retries.min(4) && transparent <= 1);
    }
}
