//! Does-not-exist timers (gRFC A57), and the wait between connections (gRFC A27).

use mesh_core::rng::{Rng, Xoshiro};

use super::*;

#[test]
fn absent_after_exactly_the_timeout() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Route, &["r"]);
        assert_eq!(script.ads.poll_timeout(), Some(script.now + Duration::from_secs(15)));
        script.advance(Duration::from_millis(14_999));
        assert_eq!(script.updates(), []);
        script.advance(Duration::from_millis(1));
        assert_eq!(script.updates(), [absent(Kind::Route, "r")]);
        script.requests();
        script.advance(Duration::from_secs(300));
        assert_eq!(script.updates(), [], "it is told once");
    }
}

/// A subscription that the control plane lost, or never got, is not lost for ever.
#[test]
fn what_did_not_come_in_time_is_asked_for_again() {
    let mut script = Script::watching(SotW, Kind::Route, &["q", "r"]);
    script.respond(Kind::Route, "1", "n1", &[("q", Ok("v"))]);
    script.requests();
    script.advance(ABSENT_AFTER);
    let requests = script.requests();
    let told: Vec<_> = requests.iter().map(|r| (version(r), names(r))).collect();
    assert_eq!(told, [("1", vec!["q"]), ("1", vec!["q", "r"])], "dropped first, and nothing else sent again");

    let mut script = Script::watching(Incremental, Kind::Route, &["q", "r"]);
    script.respond(Kind::Route, "1", "n1", &[("q", Ok("v"))]);
    script.requests();
    script.advance(ABSENT_AFTER);
    assert_eq!(script.requests(), []);
    script.advance(script.ads.poll_timeout().unwrap() - script.now);
    assert_eq!(names(&script.request()), ["r"]);
}

/// An empty list would ask some control planes for every listener that they have.
#[test]
fn the_only_listener_that_did_not_come_in_time_is_asked_for_again_without_an_empty_list() {
    for kind in [Kind::Listener, Kind::Cluster] {
        let mut script = Script::watching(SotW, kind, &["only"]);
        script.respond(kind, "1", "n1", &[]);
        script.requests();
        script.advance(ABSENT_AFTER);
        let request = script.request();
        assert_eq!((version(&request), names(&request)), ("", vec!["only"]));
    }
}

#[test]
fn the_timer_runs_from_the_request_not_from_the_watch() {
    for protocol in BOTH {
        let mut script = Script::new(protocol);
        script.ads.watch(Kind::Route, "r");
        assert_eq!(script.ads.poll_timeout(), None, "not connected");
        script.advance(Duration::from_secs(60));
        script.connect();
        assert_eq!(script.ads.poll_timeout(), None, "not sent");
        script.advance(Duration::from_secs(60));
        script.requests();
        assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER));
        assert_eq!(script.updates(), []);
    }
}

#[test]
fn another_request_of_the_type_does_not_start_the_timer_again() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Route, &["r"]);
        let due = script.ads.poll_timeout();
        script.advance(Duration::from_secs(5));
        script.ads.watch(Kind::Route, "s");
        script.requests();
        assert_eq!(script.ads.poll_timeout(), due);
        script.advance(Duration::from_secs(10));
        assert_eq!(script.updates(), [absent(Kind::Route, "r")]);
        script.advance(Duration::from_secs(5));
        assert_eq!(script.updates(), [absent(Kind::Route, "s")]);
    }
}

#[test]
fn a_value_or_a_refusal_or_an_unwatch_ends_the_timer() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Endpoints, &["bad", "gone", "good"]);
        script.respond(Kind::Endpoints, "1", "n1", &[("good", Ok("v")), ("bad", Err("x"))]);
        script.ads.unwatch(Kind::Endpoints, "gone");
        script.requests();
        assert_eq!(script.ads.poll_timeout(), None);
        script.updates();
        script.advance(Duration::from_secs(60));
        assert_eq!(script.updates(), []);
    }
}

#[test]
fn a_lost_stream_stops_the_timers_and_the_next_one_starts_them_over() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Route, &["r"]);
        script.advance(Duration::from_secs(14));
        script.disconnect();
        assert_eq!(script.ads.poll_timeout(), None);
        script.advance(Duration::from_secs(60));
        script.connect();
        script.requests();
        assert_eq!(script.ads.poll_timeout(), Some(script.now + ABSENT_AFTER));
        script.advance(ABSENT_AFTER);
        assert_eq!(script.updates(), [Update::Unreachable, absent(Kind::Route, "r")]);
    }
}

#[test]
fn no_timer_runs_for_what_is_cached_or_known_to_be_absent() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Route, &["absent", "cached"]);
        script.respond(Kind::Route, "1", "n1", &[("cached", Ok("v"))]);
        script.advance(ABSENT_AFTER);
        script.disconnect();
        script.connect();
        assert_eq!(names(&script.request()), ["absent", "cached"]);
        assert_eq!(script.ads.poll_timeout(), None);
    }
}

#[test]
fn an_answer_that_waits_for_room_hides_no_timer() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a", "b"]);
        script.respond(Kind::Cluster, "1", "n1", &[("a", Err("bad"))]);
        script.advance(Duration::from_secs(1));
        assert!(script.ads.wants_transmit(script.now), "nobody reads it");
        assert_eq!(script.ads.poll_timeout(), Some(script.now + Duration::from_secs(14)));
        script.updates();
        script.advance(Duration::from_secs(14));
        assert_eq!(script.updates(), [absent(Kind::Cluster, "b")]);
    }
}

#[test]
fn what_was_absent_and_comes_is_a_change() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Route, &["r"]);
        script.advance(ABSENT_AFTER);
        script.respond(Kind::Route, "1", "n1", &[("r", Ok("v"))]);
        assert_eq!(script.updates(), [absent(Kind::Route, "r"), changed(Kind::Route, "r", "1", "v")]);
    }
}

/// Draws the same number for ever.
struct Fixed(u64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        self.0
    }
}

#[test]
fn the_wait_between_connections_grows_by_1_6_up_to_two_minutes() {
    let mut reconnect = Reconnect::new();
    let mut now = Instant::now_for_tests();
    let mut waits = Vec::new();
    for _ in 0..13 {
        reconnect.handle_attempt(now);
        let next = reconnect.next_attempt(now, &mut Fixed(1 << 63));
        waits.push((next - now).as_secs_f64());
        now = next;
    }
    let expected = [1.0, 1.6, 2.56, 4.096, 6.5536];
    assert!(waits.iter().zip(expected).all(|(wait, expected)| (wait - expected).abs() < 1e-6), "{waits:?}");
    assert!(waits[11..].iter().all(|wait| (wait - 120.0).abs() < 1e-6), "{waits:?}");
}

#[test]
fn the_wait_varies_by_a_fifth_and_never_passes_two_minutes() {
    let now = Instant::now_for_tests();
    let mut rng = Xoshiro::seeded(1);
    let (mut least, mut most) = (f64::MAX, f64::MIN);
    for _ in 0..1_000 {
        let mut reconnect = Reconnect::new();
        reconnect.handle_attempt(now);
        let wait = (reconnect.next_attempt(now, &mut rng) - now).as_secs_f64();
        (least, most) = (least.min(wait), most.max(wait));
    }
    assert!((0.8..0.81).contains(&least) && (1.19..1.2).contains(&most), "{least} {most}");
    let mut reconnect = Reconnect::new();
    for _ in 0..20 {
        reconnect.handle_attempt(now);
        assert!(reconnect.next_attempt(now, &mut Fixed(u64::MAX)) - now <= Duration::from_secs(120));
    }
}

#[test]
fn a_stream_that_lived_is_replaced_at_once_and_one_that_flaps_is_not() {
    let mut now = Instant::now_for_tests();
    let mut reconnect = Reconnect::new();
    for _ in 0..5 {
        reconnect.handle_attempt(now);
        now = reconnect.next_attempt(now, &mut Fixed(1 << 63));
    }
    reconnect.handle_attempt(now);
    reconnect.handle_response();
    let ended = now + Duration::from_secs(10);
    assert_eq!(reconnect.next_attempt(ended, &mut Fixed(1 << 63)), ended);
    reconnect.handle_attempt(ended);
    reconnect.handle_response();
    let flapped = ended + Duration::from_millis(1);
    assert_eq!(reconnect.next_attempt(flapped, &mut Fixed(1 << 63)), ended + Duration::from_secs(1));
}
