use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "an instant to count from: there is no other way to make one")]
static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

const MS: Duration = Duration::from_millis(1);

#[test]
fn every_unit_is_read() {
    for (text, nanos) in [
        ("1n", 1),
        ("2u", 2_000),
        ("3m", 3_000_000),
        ("4S", 4_000_000_000),
        ("5M", 300_000_000_000),
        ("6H", 21_600_000_000_000),
        ("0n", 0),
        ("00000001S", 1_000_000_000),
        ("99999999H", 359_999_996_400_000_000_000u128),
    ] {
        assert_eq!(parse_grpc_timeout(text.as_bytes()).unwrap().as_nanos(), nanos, "{text}");
    }
}

#[test]
fn what_is_no_timeout_is_refused_and_bounds_nothing() {
    for text in
        ["", "S", "1", "123456789S", "-1S", "+1S", " 1S", "1 S", "1S ", "1.5S", "1s", "1h", "1x", "1SS", "١S"]
    {
        assert_eq!(parse_grpc_timeout(text.as_bytes()), Err(InvalidTimeout), "{text:?}");
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, value)]);
            assert_eq!(caller_timeout(&headers), None);
        }
    }
    assert_eq!(caller_timeout(&HeaderMap::new()), None);
    let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static("7m"))]);
    assert_eq!(caller_timeout(&headers), Some(7 * MS));
}

#[test]
fn what_remains_is_written_in_the_finest_unit_that_fits_and_rounded_up() {
    let second = Duration::from_secs(1);
    for (remaining, text) in [
        (Duration::ZERO, "1n"),
        (Duration::from_nanos(1), "1n"),
        (Duration::from_nanos(99_999_999), "99999999n"),
        (Duration::from_nanos(100_000_000), "100000u"),
        (Duration::from_nanos(100_000_001), "100001u"),
        (Duration::from_micros(99_999_999), "99999999u"),
        (Duration::from_nanos(99_999_999_001), "100000m"),
        (100 * second, "100000m"),
        (99_999 * second + 999 * MS, "99999999m"),
        (100_000 * second, "100000S"),
        (100_000_000 * second, "1666667M"),
        (Duration::from_nanos(u64::MAX), "5124096H"),
        (Duration::from_secs(20_000_000_000), "5555556H"),
        (Duration::MAX, "99999999H"),
    ] {
        assert_eq!(format_grpc_timeout(remaining), text, "{remaining:?}");
    }
}

fn bounds(kind: RequestKind) -> Bounds<'static> {
    Bounds { kind, arrived: *NOW, caller: None, inherited: None, route: None, listener: None }
}

fn stream(route: Option<u64>, grpc: Option<u64>) -> MaxStreamDuration {
    let ms = Duration::from_millis;
    MaxStreamDuration { max_stream_duration: route.map(ms), grpc_timeout_header_max: grpc.map(ms) }
}

/// Milliseconds until the end, and which bound it is.
fn ends(bounds: &Bounds<'_>) -> Option<(u128, Reason)> {
    effective(bounds).map(|d| (d.remaining(*NOW).as_millis(), d.bound))
}

#[test]
fn the_implicit_fifteen_seconds_are_for_other_http_alone() {
    let route = ForwardAction::to("c");
    let of = |kind| ends(&Bounds { route: Some(&route), ..bounds(kind) });
    assert_eq!(of(RequestKind::Http), Some((15_000, Reason::DeadlineExceeded)));
    assert_eq!(of(RequestKind::Grpc), None);
    assert_eq!(ends(&bounds(RequestKind::Http)), None, "before there is a route");
}

#[test]
fn an_explicit_route_timeout_is_for_both_kinds() {
    for (timeout, expected) in [
        (Duration::from_millis(700), Some((700, Reason::DeadlineExceeded))),
        (MS, Some((1, Reason::DeadlineExceeded))),
        (Duration::from_micros(999), None),
        (Duration::ZERO, None),
        (Duration::MAX, None),
    ] {
        let route = ForwardAction { timeout: Some(timeout), ..ForwardAction::to("c") };
        for kind in [RequestKind::Grpc, RequestKind::Http] {
            assert_eq!(ends(&Bounds { route: Some(&route), ..bounds(kind) }), expected, "{timeout:?}");
        }
    }
}

#[test]
fn max_stream_duration_disables_the_route_timeout_and_overrides_the_listeners() {
    let at = |ms| Some((ms, Reason::MaxStreamDuration));
    // (on the route, the listener's) -> (gRPC, other HTTP)
    for (on_route, listener, grpc, http) in [
        (stream(None, None), None, None, None),
        (stream(None, None), Some(900), at(900), at(900)),
        (stream(Some(300), None), Some(900), at(300), at(300)),
        (stream(Some(0), None), Some(900), None, None),
        (stream(Some(300), Some(200)), Some(900), at(200), at(300)),
        (stream(Some(300), Some(400)), Some(900), at(400), at(300)),
        (stream(Some(300), Some(0)), Some(900), None, at(300)),
        (stream(None, Some(200)), Some(900), at(200), at(900)),
    ] {
        let route = ForwardAction {
            timeout: Some(MS),
            max_stream_duration: Some(on_route),
            ..ForwardAction::to("c")
        };
        let of = |kind| {
            let listener = listener.map(Duration::from_millis);
            ends(&Bounds { route: Some(&route), listener, ..bounds(kind) })
        };
        assert_eq!((of(RequestKind::Grpc), of(RequestKind::Http)), (grpc, http), "{on_route:?} {listener:?}");
    }
}

#[test]
fn the_earliest_bound_wins_and_is_named() {
    let route = ForwardAction { timeout: Some(500 * MS), ..ForwardAction::to("c") };
    let with = |caller: u32, inherited: u32, listener: u32| {
        ends(&Bounds {
            caller: Some(caller * MS),
            inherited: Some(*NOW + inherited * MS),
            route: Some(&route),
            listener: Some(listener * MS),
            ..bounds(RequestKind::Grpc)
        })
    };
    assert_eq!(with(100, 200, 300), Some((100, Reason::DeadlineExceeded)));
    assert_eq!(with(400, 200, 300), Some((200, Reason::DeadlineExceeded)));
    assert_eq!(with(400, 400, 300), Some((300, Reason::MaxStreamDuration)));
    assert_eq!(with(900, 900, 900), Some((500, Reason::DeadlineExceeded)));
    assert_eq!(
        with(300, 900, 300),
        Some((300, Reason::DeadlineExceeded)),
        "the caller's own, of two equal ones"
    );
    assert_eq!(with(0, 900, 900), Some((0, Reason::DeadlineExceeded)), "zero has passed already");
}

#[test]
fn a_timeout_beyond_time_itself_is_no_bound() {
    let caller = Some(Duration::MAX);
    assert_eq!(effective(&Bounds { caller, ..bounds(RequestKind::Grpc) }), None);
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_read_is_what_was_written(value in prop::collection::vec(any::<u8>(), 0..12)) {
        let by_hand = std::str::from_utf8(&value).ok().and_then(|text| {
            let unit = text.chars().next_back()?;
            let digits = text.strip_suffix(unit)?;
            let plain = (1..=8).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit());
            let seconds = [('H', 3600.0), ('M', 60.0), ('S', 1.0), ('m', 1e-3), ('u', 1e-6), ('n', 1e-9)];
            let unit = seconds.iter().find(|(u, _)| *u == unit)?.1;
            plain.then(|| digits.parse::<f64>().unwrap() * unit)
        });
        let read = parse_grpc_timeout(&value).ok().map(|d| d.as_secs_f64());
        match (read, by_hand) {
            (Some(a), Some(b)) => prop_assert!((a - b).abs() <= b * 1e-9, "{a} {b}"),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn every_well_formed_timeout_is_read(digits in "[0-9]{1,8}", unit in "[HMSmun]") {
        let text = format!("{digits}{unit}");
        prop_assert!(parse_grpc_timeout(text.as_bytes()).is_ok(), "{text}");
    }

    #[test]
    fn what_is_written_is_never_shorter_and_hardly_longer(nanos in any::<u64>()) {
        let remaining = Duration::from_nanos(nanos);
        let text = format_grpc_timeout(remaining);
        prop_assert!(text.len() <= 9);
        let read = parse_grpc_timeout(text.as_bytes()).unwrap();
        prop_assert!(read >= remaining);
        prop_assert!(read.as_secs_f64() <= remaining.as_secs_f64() * 1.001 + 1e-8, "{read:?} {remaining:?}");
    }
}
