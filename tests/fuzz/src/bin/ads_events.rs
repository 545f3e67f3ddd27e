//! The ADS machine under any order of events: no panic, no loop without end, and nothing asked for that nobody watches.
#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use mesh_xds::ads::{Ads, Kind, Protocol, Received, Response};

#[derive(Debug, Arbitrary)]
enum Event {
    Watch(u8, u8),
    Unwatch(u8, u8),
    Connected,
    Disconnected,
    Response { kind: u8, version: u8, nonce: u8, resources: Vec<(u8, bool)> },
    Later(u16),
    Transmit,
}

type Watched = BTreeSet<(Kind, Arc<str>)>;

fn kind(choice: u8) -> Kind {
    Kind::ALL[usize::from(choice) % Kind::ALL.len()]
}

fn name(choice: u8) -> Arc<str> {
    format!("r{}", choice % 8).into()
}

/// Takes all requests, as a stream with room does.
fn transmit(ads: &mut Ads<u8>, now: Instant, watched: &Watched) {
    let mut requests = 0;
    while let Some(request) = ads.poll_transmit(now) {
        requests += 1;
        assert!(requests <= Kind::ALL.len() * 4, "requests come to an end");
        assert!(request.names().windows(2).all(|pair| pair[0] < pair[1]), "sorted, once each");
        let wanted = |name: &Arc<str>| watched.contains(&(request.kind, name.clone()));
        assert!(request.refusal.is_some() || request.names().iter().all(wanted), "asks for what is watched alone");
    }
}

libfuzzer_sys::fuzz_target!(|events: Vec<Event>| {
    let mut now = Instant::now();
    let mut ads: Ads<u8> = Ads::new(Protocol::StateOfTheWorld, Duration::from_secs(15));
    let mut watched = Watched::new();
    for event in events {
        match event {
            Event::Watch(k, n) => {
                ads.watch(kind(k), &name(n));
                watched.insert((kind(k), name(n)));
            }
            Event::Unwatch(k, n) => {
                ads.unwatch(kind(k), &name(n));
                watched.remove(&(kind(k), name(n)));
            }
            Event::Connected => ads.handle_connected(now),
            Event::Disconnected => ads.handle_disconnected(now),
            Event::Response { kind: k, version, nonce, resources } => {
                let one = |(n, valid): &(u8, bool)| Received {
                    name: (*n != u8::MAX).then(|| name(*n)),
                    version: None,
                    ttl: None,
                    verdict: if *valid { Ok(*n) } else { Err("refused".into()) },
                };
                ads.handle_response(
                    now,
                    Response {
                        kind: kind(k),
                        version: version.to_string().into(),
                        nonce: nonce.to_string().into(),
                        resources: resources.iter().map(one).collect(),
                        heartbeats: Vec::new(),
                        removed: Vec::new(),
                    },
                );
            }
            Event::Later(millis) => {
                now += Duration::from_millis(u64::from(millis));
                ads.handle_timeout(now);
                let passed = ads.poll_timeout().is_some_and(|at| at <= now);
                assert!(!passed || ads.wants_transmit(now), "what has passed waits for room on the stream alone");
            }
            Event::Transmit => {
                transmit(&mut ads, now, &watched);
                assert!(!ads.wants_transmit(now), "nothing is held back without a time");
            }
        }
        let mut updates = 0;
        while ads.poll_update().is_some() {
            updates += 1;
            assert!(updates < 100_000, "updates come to an end");
        }
    }
});
