//! Both protocols, driven through the same history, end in the same configuration.
//!
//! The history has changes, removals, refused values, watches, lost connections, and messages that are held up or lost
//! with the connection; each protocol has its own pace. Only what is *last good* is a matter of that pace, because of two
//! values in a row one client may see both and the other one the second alone. So a value is spoilt or removed only when
//! both clients have seen it; what happens from there on is again left to chance. The same goes for a change of watches
//! beside a wildcard: whether there is something good to keep of what came by it is again a matter of pace.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::model::{Server, Value, World};
use super::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Set(Kind, usize, u64),
    Spoil(Kind, usize),
    Remove(Kind, usize),
    Watch(Kind, usize),
    Unwatch(Kind, usize),
    Connect,
    Lose,
    Requests(Protocol, usize),
    Responses(Protocol, usize),
    Wait(u64),
}

/// The last one is for listeners and clusters alone.
const NAMES: [&str; 4] = ["a", "b", "c", WILDCARD];

/// Long enough for every timer to have its say.
const SETTLED: Duration = Duration::from_secs(40);

fn event() -> impl Strategy<Value = Event> {
    let kind = || prop::sample::select(vec![Kind::Cluster, Kind::Endpoints]);
    let protocol = || prop::sample::select(BOTH.to_vec());
    let watched =
        || kind().prop_flat_map(|kind| (Just(kind), 0..if kind == Kind::Cluster { NAMES.len() } else { 3 }));
    prop_oneof![
        6 => (kind(), 0..3usize, 0..100u64).prop_map(|(kind, name, value)| Event::Set(kind, name, value)),
        2 => (kind(), 0..3usize).prop_map(|(kind, name)| Event::Spoil(kind, name)),
        2 => (kind(), 0..3usize).prop_map(|(kind, name)| Event::Remove(kind, name)),
        5 => watched().prop_map(|(kind, name)| Event::Watch(kind, name)),
        3 => watched().prop_map(|(kind, name)| Event::Unwatch(kind, name)),
        3 => Just(Event::Connect),
        2 => Just(Event::Lose),
        8 => (protocol(), 1..4usize).prop_map(|(protocol, count)| Event::Requests(protocol, count)),
        8 => (protocol(), 1..4usize).prop_map(|(protocol, count)| Event::Responses(protocol, count)),
        2 => (0..20_000u64).prop_map(Event::Wait),
    ]
}

/// What a client knows of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Known {
    good: Option<u64>,
    trouble: Trouble,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Trouble {
    #[default]
    None,
    Refused(Arc<str>),
    Gone,
}

/// One client with its control plane and all that is between them.
struct Side {
    protocol: Protocol,
    ads: Ads<u64>,
    server: Option<Server>,
    requests: VecDeque<Request>,
    by_name: BTreeSet<(Kind, Name)>,
    known: BTreeMap<(Kind, Name), Known>,
}

// === impl Side ===

impl Side {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            ads: Ads::new(protocol, ABSENT_AFTER),
            server: None,
            requests: VecDeque::new(),
            by_name: BTreeSet::new(),
            known: BTreeMap::new(),
        }
    }

    fn watch(&mut self, kind: Kind, name: &str) {
        self.ads.watch(kind, name);
        if name != WILDCARD {
            self.by_name.insert((kind, name.into()));
            self.known.entry((kind, name.into())).or_default();
        }
    }

    fn unwatch(&mut self, kind: Kind, name: &str) {
        self.ads.unwatch(kind, name);
        self.by_name.remove(&(kind, name.into()));
        let Self { ads, known, .. } = self;
        known.retain(|(kind, name), _| ads.is_watched(*kind, name));
    }

    fn connect(&mut self, now: Instant) {
        if self.server.is_none() {
            self.server = Some(Server::new(self.protocol));
            self.ads.handle_connected(now);
        }
    }

    fn lose(&mut self, now: Instant) {
        if self.server.take().is_some() {
            self.requests.clear();
            self.ads.handle_disconnected(now);
        }
    }

    fn changed(&mut self, world: &World, kind: Kind, name: &str) {
        if let Some(server) = &mut self.server {
            server.handle_change(world, kind, name);
        }
    }

    /// The client says what it has to say, and the control plane hears the first of all that is under way.
    fn hear_request(&mut self, now: Instant, world: &World) -> bool {
        self.requests.extend(std::iter::from_fn(|| self.ads.poll_transmit(now)));
        match (&mut self.server, self.requests.pop_front()) {
            (Some(server), Some(request)) => {
                server.handle_request(world, request);
                true
            }
            (_, _) => false,
        }
    }

    fn hear_response(&mut self, now: Instant) -> bool {
        let response = self.server.as_mut().and_then(Server::poll_response);
        let heard = response.is_some();
        if let Some(response) = response {
            self.ads.handle_response(now, response);
        }
        self.learn();
        heard
    }

    fn learn(&mut self) {
        while let Some(update) = self.ads.poll_update() {
            match update {
                Update::Changed { kind, name, value, .. } => {
                    self.known.insert((kind, name), Known { good: Some(value), trouble: Trouble::None });
                }
                Update::Refused { kind, name, reason, .. } => {
                    self.known.entry((kind, name)).or_default().trouble = Trouble::Refused(reason);
                }
                Update::Deleted { kind, name } | Update::Absent { kind, name } => {
                    let key = (kind, name);
                    if self.by_name.contains(&key) {
                        self.known.entry(key).or_default().trouble = Trouble::Gone;
                    } else {
                        self.known.remove(&key);
                    }
                }
                Update::Nameless { .. } | Update::Failed { .. } | Update::Unreachable => {}
            }
        }
    }

    /// What is known, but for what state of the world cannot say: that routes or endpoints are gone.
    fn snapshot(&self, world: &World) -> BTreeMap<(Kind, Name), Known> {
        let mut known = self.known.clone();
        for ((kind, name), known) in &mut known {
            if *kind == Kind::Endpoints && world.get(*kind, name).is_none() {
                known.trouble = Trouble::Gone;
            }
        }
        known
    }
}

struct History {
    now: Instant,
    world: World,
    sides: [Side; 2],
}

// === impl History ===

impl History {
    fn each(&mut self, mut act: impl FnMut(&mut Side, Instant, &World)) {
        let Self { now, world, sides } = self;
        for side in sides {
            act(side, *now, world);
            side.learn();
        }
    }

    fn side(&mut self, protocol: Protocol) -> (&mut Side, Instant, &World) {
        let Self { now, world, sides } = self;
        let side = sides.iter_mut().find(|side| side.protocol == protocol).unwrap();
        (side, *now, world)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Set(kind, name, value) => self.change(kind, NAMES[name], Some(Ok(value))),
            Event::Spoil(kind, name) => {
                self.settle();
                let reason = format!("bad {}", NAMES[name]);
                self.change(kind, NAMES[name], Some(Err(reason.into())));
            }
            Event::Remove(kind, name) => {
                self.settle();
                self.change(kind, NAMES[name], None);
            }
            Event::Watch(kind, name) => {
                self.settle_everything(kind);
                self.each(|side, _, _| side.watch(kind, NAMES[name]));
            }
            Event::Unwatch(kind, name) => {
                self.settle_everything(kind);
                self.each(|side, _, _| side.unwatch(kind, NAMES[name]));
            }
            Event::Connect => self.each(|side, now, _| side.connect(now)),
            Event::Lose => self.each(|side, now, _| side.lose(now)),
            Event::Requests(protocol, count) => {
                let (side, now, world) = self.side(protocol);
                _ = (0..count).take_while(|_| side.hear_request(now, world)).count();
            }
            Event::Responses(protocol, count) => {
                let (side, now, _) = self.side(protocol);
                _ = (0..count).take_while(|_| side.hear_response(now)).count();
            }
            Event::Wait(millis) => self.advance(self.now + Duration::from_millis(millis)),
        }
    }

    fn change(&mut self, kind: Kind, name: &str, value: Option<Value>) {
        match value {
            Some(value) => self.world.set(kind, name, value),
            None => self.world.remove(kind, name),
        }
        self.each(|side, _, world| side.changed(world, kind, name));
    }

    fn advance(&mut self, to: Instant) {
        self.now = to;
        self.each(|side, now, _| side.ads.handle_timeout(now));
    }

    /// Where everything of a kind is watched, so that a name may be known that is not watched by itself.
    fn settle_everything(&mut self, kind: Kind) {
        if self.sides.iter().any(|side| side.ads.is_watched(kind, WILDCARD)) {
            self.settle();
        }
    }

    /// All messages arrive, and all timers have their time.
    fn settle(&mut self) {
        self.each(|side, now, _| side.connect(now));
        let end = self.now + SETTLED;
        for _ in 0..1_000 {
            self.each(|side, now, world| while side.hear_request(now, world) || side.hear_response(now) {});
            match self.sides.iter().filter_map(|side| side.ads.poll_timeout()).min() {
                Some(at) if at <= end => self.advance(at.max(self.now)),
                Some(_) | None => {
                    self.advance(end);
                    return;
                }
            }
        }
        panic!("no end of requests or timers");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_same_history_ends_in_the_same_configuration(events in prop::collection::vec(event(), 0..80)) {
        let sides = BOTH.map(Side::new);
        let mut history = History { now: Instant::now_for_tests(), world: World::default(), sides };
        for event in events {
            history.handle(event);
        }
        history.settle();
        let [one, other] = &history.sides;
        prop_assert_eq!(one.snapshot(&history.world), other.snapshot(&history.world));
        for ((kind, name), known) in one.snapshot(&history.world) {
            match history.world.get(kind, &name) {
                Some(Ok(value)) => prop_assert_eq!(known, Known { good: Some(*value), trouble: Trouble::None }),
                Some(Err(reason)) => prop_assert_eq!(known.trouble, Trouble::Refused(reason.clone())),
                None => prop_assert_eq!(known.trouble, Trouble::Gone),
            }
        }
    }
}
