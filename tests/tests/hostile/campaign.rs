//! Thousands of responses that are bad, or half bad.

use std::time::Duration;

use envoy_types::pb::google::protobuf::Any;
use futures_util::future::join_all;
use mesh_core::config::listener::ListenerConfig;
use mesh_core::rng::Xoshiro;
use mesh_core::snapshot::ClientSnapshot;
use mesh_tests::wait::until_snapshot;
use mesh_tests::wire::{WireResponse, WireStream};
use mesh_xds::{Kind, Protocol};

use crate::answer::{Expected, Sent, judge};
use crate::breaks::{Break, choose, for_doc, table};
use crate::docs::{Doc, Shape, encode};
use crate::lane::{Good, Lane, Role, any};
use crate::mutation::mutate;
use crate::{Alone, BOTH, Choices, FULL, below, held, once_in, seed};

/// Responses of each protocol.
const RESPONSES: u32 = if FULL { 6_000 } else { 120 };

/// How much of the heap a campaign may come to hold beyond what it held when it had warmed up.
const GROWTH: usize = 8 << 20;

/// How much it may hold at any time beyond that.
const PEAK: usize = 64 << 20;

/// What a campaign has done.
#[derive(Debug, Default)]
struct Tally {
    responses: u32,
    refused: usize,
    accepted: u32,
    blind: u32,
    broken: u32,
    peak: usize,
}

/// One lane under fire.
struct Campaign {
    lane: Lane,
    stream: WireStream,
    table: Vec<Break>,
    rng: Xoshiro,
    tally: Tally,
    /// The canary's cluster is deleted and kept, so that it takes no other endpoints.
    is_kept: bool,
}

#[test]
fn bad_responses_are_refused_by_name_and_path_and_no_call_notices() {
    Alone::new().run(async {
        let campaigns = join_all(BOTH.map(Campaign::start)).await;
        let campaigns = join_all(campaigns.into_iter().map(|c| c.rounds(RESPONSES / 5))).await;
        let warm = held();
        let campaigns = join_all(campaigns.into_iter().map(|c| c.rounds(RESPONSES - RESPONSES / 5))).await;
        let mut campaigns = join_all(campaigns.into_iter().map(Campaign::repaired)).await;
        let now = held();
        assert!(now <= warm + GROWTH, "{warm} bytes became {now}");
        for Campaign { lane, tally, .. } in &mut campaigns {
            let calls = lane.assert_no_call_failed();
            eprintln!("{:?}: {calls} calls, {tally:?}, {warm} bytes became {now}", lane.protocol);
            assert_eq!(tally.responses, RESPONSES);
            assert!(tally.peak <= warm + PEAK, "{} bytes", tally.peak);
            assert!(tally.blind > RESPONSES / 4 && tally.broken > RESPONSES / 4, "{tally:?}");
            assert!(tally.accepted > 0 && calls > u64::from(RESPONSES) / 4, "{calls} calls, {tally:?}");
        }
    });
}

// === impl Campaign ===

impl Campaign {
    async fn start(protocol: Protocol) -> Self {
        let (lane, stream) = Lane::start(protocol, 2).await;
        Self {
            lane,
            stream,
            table: table(),
            rng: Xoshiro::seeded(seed()),
            tally: Tally::default(),
            is_kept: false,
        }
    }

    async fn rounds(mut self, rounds: u32) -> Self {
        for _ in 0..rounds {
            self.tally.responses += 1;
            if once_in(&mut self.rng, 12) {
                self.oddity().await;
            } else {
                self.round().await;
            }
            self.tally.peak = self.tally.peak.max(held());
            self.lane.assert_no_call_failed();
        }
        self
    }

    async fn repaired(mut self) -> Self {
        self.lane.repair(&mut self.stream).await;
        self.lane.more_calls(100).await;
        self
    }

    /// A response of bad and good resources, and its answer.
    async fn round(&mut self) {
        const SHAPES: [Shape; 4] = [Shape::Client, Shape::Route, Shape::Cluster, Shape::Endpoints];
        let shape = SHAPES[below(&mut self.rng, SHAPES.len())];
        let kind = shape.kind();
        self.lane.renew_canary(shape, self.tally.responses);
        let before = self.lane.canary_version();
        // A response that is good as a whole comes now and then.
        let all_good = once_in(&mut self.rng, 10);
        let (mut sent, mut removed) = (Vec::new(), Vec::new());
        let world: Vec<Good> =
            self.lane.world.iter().filter(|good| good.doc.kind() == kind).cloned().collect();
        for good in &world {
            if good.role == Role::Canary || all_good {
                sent.push(unchanged(good));
            } else if once_in(&mut self.rng, 16) {
                // Left out: in state of the world, listeners and clusters that are left out are gone.
                if self.lane.protocol == Protocol::Incremental && once_in(&mut self.rng, 2) {
                    removed.push(good.doc.name.clone());
                }
            } else {
                sent.push(self.spoilt(good));
            }
        }
        if !all_good {
            self.strays(shape, &mut sent);
        }
        let first = below(&mut self.rng, sent.len());
        sent.rotate_left(first);
        self.tell(kind, sent, removed).await;
        match shape {
            Shape::Cluster => self.is_kept = false,
            Shape::Endpoints if self.is_kept => {
                // What comes of a response is published before it is answered.
                assert_eq!(self.lane.canary_version(), before, "endpoints of a deleted cluster");
                return;
            }
            Shape::Client | Shape::Server | Shape::Route | Shape::Endpoints => {}
        }
        until_snapshot(&self.lane.canary, |snapshot| {
            snapshot.version > before && is_tagged(snapshot, shape, self.tally.responses)
        })
        .await;
    }

    /// Sends, and compares the answer with what it has to be.
    async fn tell(&mut self, kind: Kind, sent: Vec<Sent>, removed: Vec<String>) {
        let expected = Expected::of(kind, self.lane.protocol, &sent);
        self.tally.refused += expected.refused();
        self.tally.accepted += u32::from(expected.refused() == 0);
        let resources = sent.iter().map(|one| (one.outer.clone(), one.any.clone())).collect();
        let nonce = self.lane.send(&mut self.stream, kind, resources, removed);
        let answer = self.lane.answer(&mut self.stream, &nonce).await;
        if let Err(why) = expected.check(&answer) {
            panic!("seed {}, response {}: {why}: {answer:?}", seed(), self.tally.responses);
        }
    }

    /// A resource of the world, broken or not.
    fn spoilt(&mut self, good: &Good) -> Sent {
        match below(&mut self.rng, 4) {
            0 => unchanged(good),
            1 => self.blind(good),
            _ => self.broken(good),
        }
    }

    /// Broken where we know.
    fn broken(&mut self, good: &Good) -> Sent {
        let Self { table, rng, tally, .. } = self;
        tally.broken += 1;
        let kind = good.doc.kind();
        let breaks = for_doc(table, &good.doc);
        loop {
            let chosen = choose(&breaks, rng);
            let mut json = good.doc.json.clone();
            // What one takes away, another may need.
            if !chosen.iter().all(|one| one.apply(&mut json)) {
                continue;
            }
            let Ok(bytes) = encode(kind, &json) else { continue };
            let broken = chosen.iter().map(|one| one.path.clone()).collect();
            return Sent { outer: good.doc.name.clone(), any: any(kind, bytes), broken };
        }
    }

    /// Mutated without knowing what.
    fn blind(&mut self, good: &Good) -> Sent {
        let kind = good.doc.kind();
        for _ in 0..64 {
            let mut bytes = mutate(good.bytes.clone(), &mut Choices(&mut self.rng));
            if once_in(&mut self.rng, 16) {
                bytes.truncate(below(&mut self.rng, bytes.len()));
            }
            let sent = Sent { outer: good.doc.name.clone(), any: any(kind, bytes), broken: Vec::new() };
            // What calls go by may be told badly, but not well and differently.
            if good.role == Role::Victim || judge(kind, self.lane.protocol, &sent).verdict.is_err() {
                self.tally.blind += 1;
                return sent;
            }
        }
        unchanged(good)
    }

    /// What nobody asked for. The first of them makes each refusal another text: the same one again would be held back.
    fn strays(&mut self, shape: Shape, sent: &mut Vec<Sent>) {
        let kind = shape.kind();
        let doc = Doc::rich(shape, &format!("stray-{}", self.tally.responses));
        let good = Good { role: Role::Victim, bytes: doc.bytes(), doc };
        let stray = self.broken(&good);
        sent.push(stray);
        match below(&mut self.rng, 8) {
            0 => {
                let again = sent[below(&mut self.rng, sent.len())].clone();
                sent.push(Sent { broken: Vec::new(), ..again });
            }
            1 => sent.push(Sent { outer: "other".to_owned(), ..unchanged(&good) }),
            2 => {
                let other = Kind::ALL[below(&mut self.rng, 4)];
                sent.push(Sent {
                    outer: "mixed".to_owned(),
                    any: any(other, good.bytes),
                    broken: Vec::new(),
                });
            }
            3 => {
                // The name is no UTF-8.
                let value = [[0x0a, 2, 0xff, 0xfe].as_slice(), &good.bytes].concat();
                sent.push(Sent { outer: "text".to_owned(), any: any(kind, value), broken: Vec::new() });
            }
            4 => {
                let any = Any { type_url: "type.example.com/unheard.Of".to_owned(), value: good.bytes };
                sent.push(Sent { outer: String::new(), any, broken: Vec::new() });
            }
            5 => sent.push(Sent { outer: String::new(), any: Any::default(), broken: Vec::new() }),
            6 => sent.push(Sent {
                outer: "nothing".to_owned(),
                any: any(kind, Vec::new()),
                broken: Vec::new(),
            }),
            _ => {}
        }
    }

    /// A response that breaks a rule of the conversation. What follows shows that it did no harm.
    async fn oddity(&mut self) {
        let kind = Kind::ALL[below(&mut self.rng, 4)];
        let good = self.lane.world.iter().filter(|good| good.doc.kind() == kind);
        let resources: Vec<_> =
            good.map(|good| (good.doc.name.clone(), any(kind, good.bytes.clone()))).collect();
        let mut response = WireResponse {
            type_url: kind.type_url().to_owned(),
            version: "odd".to_owned(),
            nonce: self.lane.nonce(),
            resources,
            removed: Vec::new(),
        };
        match below(&mut self.rng, 7) {
            0 => response.nonce = String::new(),
            1 => response.nonce = "n1".to_owned(),
            2 => response.version = "v1".to_owned(),
            3 => response.version = String::new(),
            4 => response.resources.clear(),
            5 => {
                // All of it is gone, what is served by it included.
                let gone = response.resources.drain(..).map(|(name, _)| name);
                response.removed = gone.collect();
            }
            _ => {
                // Nobody ever asked for this type, so nothing is answered.
                let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
                secret.clone_into(&mut response.type_url);
                return self.stream.send(&response);
            }
        }
        let is_incremental = self.lane.protocol == Protocol::Incremental;
        let is_gone = response.resources.is_empty() && !(is_incremental && response.removed.is_empty());
        self.is_kept |= kind == Kind::Cluster && is_gone;
        self.stream.send(&response);
        // An answer is told from what was asked for in between where the nonce is new.
        if response.nonce.len() > 2 {
            let answer = self.lane.answer(&mut self.stream, &response.nonce).await;
            assert_eq!(answer.refusal, None, "{kind}");
        }
    }
}

fn unchanged(good: &Good) -> Sent {
    let any = any(good.doc.kind(), good.bytes.clone());
    Sent { outer: good.doc.name.clone(), any, broken: Vec::new() }
}

/// Whether a canary's snapshot has what was last sent.
fn is_tagged(snapshot: &ClientSnapshot, shape: Shape, tag: u32) -> bool {
    let cluster = snapshot.clusters.get(0).and_then(|entry| entry.cluster.as_ref().ok());
    let seconds = Duration::from_secs(u64::from(1 + tag));
    match shape {
        Shape::Client => {
            matches!(&*snapshot.listener, ListenerConfig::Client(http) if http.max_stream_duration == Some(seconds))
        }
        // Its version says it: a table of routes is no place to look for a header.
        Shape::Server | Shape::Route => true,
        Shape::Cluster => cluster.is_some_and(|cluster| cluster.config.connect_timeout == seconds),
        Shape::Endpoints => cluster.is_some_and(|cluster| {
            let wanted = format!("10.0.0.1:{}", 1 + tag % 60_000);
            cluster.endpoints.iter().any(|endpoint| endpoint.address.to_string() == wanted)
        }),
    }
}
