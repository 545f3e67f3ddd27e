//! The ADS machine under any order of events, in both protocols: no panic, no loop without end, nothing asked for that
//! nobody watches, and a control plane that always knows what is watched.
#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use mesh_xds::testing::{Ads, Ask, Heartbeat, Received, Request, ResourceError, Response, WILDCARD};
use mesh_xds::{Kind, Protocol};

#[derive(Debug, Arbitrary)]
struct Input {
    incremental: bool,
    events: Vec<Event>,
}

#[derive(Debug, Arbitrary)]
enum Event {
    Watch(u8, u8),
    Unwatch(u8, u8),
    Connected,
    Disconnected,
    Response {
        kind: u8,
        version: u8,
        nonce: u8,
        resources: Vec<Resource>,
        removed: Vec<u8>,
        heartbeats: Vec<(u8, u8)>,
        errors: Vec<(u8, bool)>,
    },
    Later(u16),
    Transmit,
}

#[derive(Debug, Arbitrary)]
struct Resource {
    name: u8,
    version: u8,
    ttl: Option<u8>,
    valid: bool,
}

type Watched = BTreeSet<(Kind, Arc<str>)>;

fn kind(choice: u8) -> Kind {
    Kind::ALL[usize::from(choice) % Kind::ALL.len()]
}

fn name(choice: u8) -> Arc<str> {
    match choice % 8 {
        0 => WILDCARD.into(),
        number => format!("r{number}").into(),
    }
}

/// What the control plane is told: which names are watched.
#[derive(Debug, Default)]
struct Told {
    connected: bool,
    names: Watched,
    asked: BTreeSet<Kind>,
}

impl Told {
    /// Takes all requests, as a stream with room does.
    fn transmit(&mut self, ads: &mut Ads<u8>, now: Instant, watched: &Watched) {
        let mut requests = 0;
        while let Some(request) = ads.poll_transmit(now) {
            requests += 1;
            assert!(requests <= Kind::ALL.len() * 70, "requests come to an end");
            assert!(request.names().windows(2).all(|pair| pair[0] < pair[1]), "sorted, once each");
            self.hear(&request, watched);
        }
        assert!(!self.connected || self.names == *watched, "the control plane knows what is watched");
    }

    fn hear(&mut self, request: &Request, watched: &Watched) {
        let kind = request.kind;
        let is_first = self.asked.insert(kind);
        assert!(!is_first || !request.names().is_empty(), "an empty list first would ask for everything");
        match &request.ask {
            Ask::All { names, .. } => {
                let wanted = |name: &Arc<str>| watched.contains(&(kind, name.clone()));
                assert!(
                    request.refusal.is_some() || names.iter().all(wanted),
                    "asks for what is watched alone"
                );
                self.names.retain(|(of, _)| *of != kind);
                self.names.extend(names.iter().map(|name| (kind, name.clone())));
            }
            Ask::Changes { subscribe, unsubscribe, held } => {
                let is_change = !subscribe.is_empty() || !unsubscribe.is_empty();
                assert!(request.nonce.is_empty() || !is_change, "an answer and a change of names are apart");
                assert!(is_first || held.is_empty(), "what is held is told once");
                assert!(subscribe.iter().all(|name| !unsubscribe.contains(name)), "both ways at once");
                self.names.extend(subscribe.iter().map(|name| (kind, name.clone())));
                unsubscribe.iter().for_each(|name| _ = self.names.remove(&(kind, name.clone())));
            }
        }
    }
}

fn response(incremental: bool, event: &Event) -> Option<Response<u8>> {
    let Event::Response { kind: k, version, nonce, resources, removed, heartbeats, errors } = event else {
        return None;
    };
    let error = |(n, is_data_error): &(u8, bool)| ResourceError {
        name: name(*n),
        is_data_error: *is_data_error,
        reason: "refused".into(),
    };
    let ttl = |seconds: u8| Duration::from_secs(seconds.into());
    let one = |resource: &Resource| Received {
        name: (resource.name != u8::MAX).then(|| name(resource.name)),
        version: incremental.then(|| resource.version.to_string().into()),
        ttl: resource.ttl.map(ttl),
        verdict: if resource.valid { Ok(resource.name) } else { Err("refused".into()) },
    };
    Some(Response {
        kind: kind(*k),
        version: version.to_string().into(),
        nonce: nonce.to_string().into(),
        resources: resources.iter().map(one).collect(),
        heartbeats: heartbeats.iter().map(|(n, t)| Heartbeat { name: name(*n), ttl: ttl(*t) }).collect(),
        removed: removed.iter().filter(|_| incremental).map(|n| name(*n)).collect(),
        errors: errors.iter().map(error).collect(),
    })
}

libfuzzer_sys::fuzz_target!(|input: Input| {
    let Input { incremental, events } = input;
    let protocol = if incremental { Protocol::Incremental } else { Protocol::StateOfTheWorld };
    let mut now = Instant::now();
    let mut ads: Ads<u8> = Ads::new(protocol, Duration::from_secs(15));
    let mut watched = Watched::new();
    let mut told = Told::default();
    for event in &events {
        match event {
            Event::Watch(k, n) => {
                ads.watch(kind(*k), name(*n));
                watched.insert((kind(*k), name(*n)));
            }
            Event::Unwatch(k, n) => {
                ads.unwatch(kind(*k), &name(*n));
                watched.remove(&(kind(*k), name(*n)));
            }
            Event::Connected => {
                ads.handle_connected(now);
                told = Told { connected: true, ..Told::default() };
            }
            Event::Disconnected => {
                ads.handle_disconnected(now);
                told = Told::default();
            }
            Event::Response { .. } => {
                response(incremental, event)
                    .into_iter()
                    .for_each(|response| ads.handle_response(now, response));
            }
            Event::Later(millis) => {
                now += Duration::from_millis(u64::from(*millis));
                ads.handle_timeout(now);
                let passed = ads.poll_timeout().is_some_and(|at| at <= now);
                assert!(
                    !passed || ads.wants_transmit(now),
                    "what has passed waits for room on the stream alone"
                );
            }
            Event::Transmit => {
                told.transmit(&mut ads, now, &watched);
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
