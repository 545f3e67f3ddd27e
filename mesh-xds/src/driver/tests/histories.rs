//! Histories of a control plane, generated: types in any order, pushes split and merged, routes that move, removals,
//! refusals, lost streams, messages that are late. However it went, a client ends in the snapshot that the last complete
//! state names, and what served is never taken away.
//!
//! `MESH_HISTORIES` says how many there are, `MESH_SEED` which is the first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesh_core::config::cluster::{ClusterConfig, Discovery};
use mesh_core::config::listener::{HttpConfig, ListenerConfig, RouteSource, ServerListener};
use mesh_core::rng::{Rng as _, Xoshiro};
use mesh_core::snapshot::{ClientSnapshot, Resolution, ServerSnapshot, Subscription};

use super::super::engine::Engine;
use super::super::reports::Reports;
use super::super::targets::Targets;
use super::engine::{chain, endpoints, listener, route};
use super::planes::{Habit, Plane, Value};
use crate::ads::{Kind, Name, Protocol};
use crate::authority::{Authorities, ServerIx};
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::resolve::Resolver;
use crate::resource::Checked;

const CLIENTS: [&str; 2] = ["l", "m"];
const ROUTES: [&str; 2] = ["r", "s"];
const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];
const SERVER: &str = "servers/127.0.0.1:9080";

/// A client with its control plane, and the dice.
struct History {
    engine: Engine,
    targets: Arc<Targets>,
    plane: Plane,
    now: Instant,
    rng: Xoshiro,
    port: u16,
    clients: [Option<Subscription<ClientSnapshot>>; 2],
    server: Option<Subscription<ServerSnapshot>>,
    /// Which clients have been served.
    served: [bool; 2],
    log: Vec<String>,
}

// === impl History ===

impl History {
    fn new(habit: Habit, seed: u64, now: Instant) -> Self {
        let bootstrap = Bootstrap::builder("node-1")
            .server(ServerConfig::insecure("xds:1").unwrap().with_protocol(habit.protocol()))
            .server_listener_template("servers/%s")
            .build()
            .unwrap();
        let node: Arc<str> = "node-1".into();
        let engine = Engine::new(Authorities::new(&bootstrap), node.clone(), Reports::default());
        Self {
            engine,
            targets: Targets::new(Resolver::new(Arc::new(bootstrap), node)),
            plane: Plane::new(habit),
            now,
            rng: Xoshiro::seeded(seed),
            port: 1,
            clients: [None, None],
            server: None,
            served: [false; 2],
            log: Vec::new(),
        }
    }

    fn pick(&mut self, names: &[&'static str]) -> &'static str {
        names[self.rng.below(names.len() as u64) as usize]
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.rng.below(one_in) == 0
    }

    fn turn(&mut self) {
        self.engine.settle();
        while let Some(request) = self.engine.poll_transmit(ServerIx::of_test(0), self.now) {
            self.log.push(format!("  asked: {request:?}"));
            self.plane.take(request);
        }
    }

    fn sync(&mut self) {
        self.engine.sync(self.targets.open());
        self.turn();
    }

    fn connect(&mut self) {
        self.plane.connect();
        self.engine.handle_connected(ServerIx::of_test(0), self.now);
        self.turn();
    }

    fn disconnect(&mut self) {
        self.plane.disconnect();
        self.engine.handle_disconnected(ServerIx::of_test(0), self.now, &"lost".into());
        self.turn();
    }

    /// The next message reaches the client. False where there is none.
    fn deliver(&mut self) -> bool {
        let Some(response) = self.plane.poll_response() else { return false };
        let names: Vec<_> =
            response.resources.iter().filter_map(|received| received.name.as_deref()).collect();
        self.log.push(format!(
            "  got: {} {} {names:?} but {:?}",
            response.kind, response.nonce, response.removed
        ));
        self.engine.handle_response(ServerIx::of_test(0), self.now, response);
        self.turn();
        true
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.engine.handle_timeout(self.now);
        self.turn();
    }

    fn set(&mut self, kind: Kind, name: &str, value: Value) {
        self.log.push(format!("{kind} {name} {}", if value.is_ok() { "set" } else { "bad" }));
        self.plane.truth.insert((kind, name.into()), value);
    }

    /// Some routes of a name, to these clusters.
    fn set_route(&mut self, name: &str, clusters: &[&str]) {
        self.log.push(format!("{name} -> {clusters:?}"));
        self.set(Kind::Route, name, Ok(route(name, clusters)));
    }

    fn set_cluster(&mut self, name: &str) {
        // Now and then its endpoints are found under another name.
        let service: Arc<str> =
            if self.chance(4) { format!("other-{name}") } else { format!("eds-{name}") }.into();
        let config = ClusterConfig::new(name, Discovery::Eds { service: service.clone() });
        self.set(Kind::Cluster, name, Ok(Checked::Cluster(Arc::new(config))));
        if !self.plane.truth.contains_key(&(Kind::Endpoints, service.clone())) {
            self.set_endpoints(&service);
        }
    }

    fn set_endpoints(&mut self, service: &str) {
        self.port += 1;
        self.set(Kind::Endpoints, service, Ok(endpoints([self.port])));
    }

    fn set_listener(&mut self, client: &str) {
        let routes = self.pick(&ROUTES);
        self.set(Kind::Listener, client, Ok(listener(routes)));
    }

    fn set_server(&mut self) {
        let routes = self.pick(&ROUTES);
        let config = ServerListener {
            address: address().into(),
            chains: Vec::new(),
            default_chain: Some(chain("all", routes)),
        };
        self.set(Kind::Listener, SERVER, Ok(Checked::Listener(Arc::new(ListenerConfig::Server(config)))));
    }

    fn change(&mut self) {
        match self.rng.below(12) {
            0 => {
                let client = self.pick(&CLIENTS);
                self.set_listener(client);
            }
            1..=3 => {
                let name = self.pick(&ROUTES);
                let clusters: Vec<&str> = CLUSTERS.into_iter().filter(|_| self.rng.below(3) == 0).collect();
                self.set_route(name, &clusters);
            }
            4 | 5 => {
                let name = self.pick(&CLUSTERS);
                self.set_cluster(name);
            }
            6 | 7 => {
                let prefix = self.pick(&["eds", "other"]);
                let name = format!("{prefix}-{}", self.pick(&CLUSTERS));
                self.set_endpoints(&name);
            }
            8 | 9 => {
                let keys: Vec<_> = self.plane.truth.keys().cloned().collect();
                if !keys.is_empty() {
                    let key = keys[self.rng.below(keys.len() as u64) as usize].clone();
                    self.log.push(format!("{} {} gone", key.0, key.1));
                    self.plane.truth.remove(&key);
                }
            }
            10 => {
                let (kind, name) = match self.rng.below(4) {
                    0 => (Kind::Listener, self.pick(&CLIENTS).to_owned()),
                    1 => (Kind::Route, self.pick(&ROUTES).to_owned()),
                    2 => (Kind::Cluster, self.pick(&CLUSTERS).to_owned()),
                    _ => (Kind::Endpoints, format!("eds-{}", self.pick(&CLUSTERS))),
                };
                self.set(kind, &name, Err("bad".into()));
            }
            _ => self.set_server(),
        }
    }

    fn push(&mut self, kind: Kind) {
        self.log.push(format!("push {kind}"));
        self.plane.push(kind);
    }

    /// Pushes every type, in any order, with something in between now and then.
    fn push_all(&mut self) {
        let mut kinds = Kind::ALL.to_vec();
        while !kinds.is_empty() {
            let kind = kinds.swap_remove(self.rng.below(kinds.len() as u64) as usize);
            self.push(kind);
            for _ in 0..self.rng.below(4) {
                self.pump();
            }
        }
    }

    /// One message goes one step.
    fn pump(&mut self) {
        if self.chance(2) {
            self.plane.serve();
        } else {
            self.deliver();
        }
    }

    fn open_or_close(&mut self) {
        match self.rng.below(6) {
            0 => self.server = None,
            1 => self.server = Some(self.targets.server(&address().into())),
            n => {
                let client = (n % 2) as usize;
                self.log.push(format!("open or close {}", CLIENTS[client]));
                if self.clients[client].take().is_none() {
                    self.clients[client] = Some(self.targets.client(CLIENTS[client]));
                }
                self.served[client] = false;
            }
        }
        self.sync();
    }

    fn step(&mut self) {
        match self.rng.below(24) {
            0..=4 => self.change(),
            5 => self.push_all(),
            6 => {
                let kind = Kind::ALL[self.rng.below(4) as usize];
                self.push(kind);
            }
            7 => self.open_or_close(),
            8 if self.plane.is_connected() && self.chance(3) => {
                self.log.push("lost".to_owned());
                self.disconnect();
            }
            8 | 9 if !self.plane.is_connected() => {
                self.log.push("connected".to_owned());
                self.connect();
            }
            10 => {
                let millis = self.rng.below(20_000);
                self.log.push(format!("wait {millis}"));
                self.advance(Duration::from_millis(millis));
            }
            _ => self.pump(),
        }
    }

    /// What served goes on serving, and nothing is missed that could be published.
    fn check(&mut self) -> Result<(), String> {
        for (client, served) in self.clients.iter().zip(&mut self.served) {
            let Some(client) = client else { continue };
            let is_ready = matches!(&*client.cell().load(), Resolution::Ready(_));
            if *served && !is_ready {
                return Err("what served was taken away".to_owned());
            }
            *served |= is_ready;
        }
        match self.engine.missed() {
            missed if missed.is_empty() => Ok(()),
            missed => Err(format!("missed: {missed:?}")),
        }
    }

    /// Makes everything whole, and lets it come to rest; then the routes move on a few times.
    fn end(&mut self) -> Result<(), String> {
        for client in CLIENTS {
            self.set_listener(client);
        }
        self.set_server();
        let mut clusters: Vec<&str> = CLUSTERS.into_iter().filter(|_| self.rng.below(2) == 0).collect();
        clusters.push("d");
        clusters.dedup();
        for name in ROUTES {
            self.set_route(name, &clusters);
        }
        for name in clusters {
            self.set_cluster(name);
            self.set_endpoints(&format!("eds-{name}"));
            self.set_endpoints(&format!("other-{name}"));
        }
        for (client, target) in CLIENTS.into_iter().zip(&mut self.clients) {
            target.get_or_insert_with(|| self.targets.client(client));
        }
        self.sync();
        self.push_all();
        if !self.plane.is_connected() {
            self.connect();
        }
        self.rest()?;
        for _ in 0..self.rng.below(4) {
            self.switch()?;
        }
        self.is_nothing_else_asked_for()
    }

    /// The routes move to a cluster that comes later, with its endpoints, in any order. What served goes on until then,
    /// and changes of its endpoints are heard.
    fn switch(&mut self) -> Result<(), String> {
        self.log.push("switch".to_owned());
        let before = self.expected().unwrap_or_default();
        let to = self.pick(&["e", "f", "g"]);
        let service = format!("eds-{to}");
        let is_new = !before.contains_key(to);
        if is_new {
            self.plane.truth.remove(&(Kind::Cluster, to.into()));
            self.plane.truth.remove(&(Kind::Endpoints, service.as_str().into()));
            let kinds = if self.chance(2) {
                [Kind::Cluster, Kind::Endpoints]
            } else {
                [Kind::Endpoints, Kind::Cluster]
            };
            kinds.into_iter().for_each(|kind| self.push(kind));
            if self.chance(2) {
                while self.plane.serve() || self.deliver() {}
            }
        }
        for name in ROUTES {
            self.set_route(name, &[to]);
        }
        self.push(Kind::Route);
        if self.chance(2) {
            while self.plane.serve() || self.deliver() {}
            // In incremental the control plane says at once that there is none.
            if is_new && self.plane.protocol() == Protocol::StateOfTheWorld {
                self.old_endpoints_are_heard(&before)?;
            }
            if self.chance(4) {
                let seconds = self.rng.below(30);
                self.advance(Duration::from_secs(seconds));
            }
        } else {
            for _ in 0..self.rng.below(12) {
                self.pump();
            }
        }
        let config = ClusterConfig::new(to, Discovery::Eds { service: service.as_str().into() });
        self.set(Kind::Cluster, to, Ok(Checked::Cluster(Arc::new(config))));
        self.set_endpoints(&service);
        let first = if self.chance(2) { Kind::Cluster } else { Kind::Endpoints };
        self.push(first);
        for _ in 0..self.rng.below(6) {
            self.pump();
        }
        if self.chance(8) {
            self.disconnect();
            self.connect();
        }
        self.push(if first == Kind::Cluster { Kind::Endpoints } else { Kind::Cluster });
        self.rest()
    }

    fn old_endpoints_are_heard(&mut self, before: &BTreeMap<Name, Vec<u16>>) -> Result<(), String> {
        let Some(name) = before.keys().next().cloned() else { return Ok(()) };
        let Some(Ok(Checked::Cluster(cluster))) = self.plane.truth.get(&(Kind::Cluster, name.clone())) else {
            return Ok(());
        };
        let service = cluster.eds_service().expect("all of them have one").clone();
        self.set_endpoints(&service);
        self.push(Kind::Endpoints);
        while self.plane.serve() || self.deliver() {}
        let mut expected = before.clone();
        expected.insert(name, vec![self.port]);
        let expected = Some(expected);
        match self.seen().iter().find(|seen| **seen != expected) {
            None => Ok(()),
            Some(seen) => Err(format!("meanwhile {expected:?} should serve, and {seen:?} does")),
        }
    }

    /// Everything that is under way arrives, and timers run where there is nothing else.
    fn rest(&mut self) -> Result<(), String> {
        let until = self.now + Duration::from_secs(90);
        loop {
            while self.plane.serve() || self.deliver() {}
            self.check()?;
            if self.is_as_it_should_be() {
                return Ok(());
            }
            match self.engine.poll_timeout(self.now) {
                Some(at) if at <= until => self.advance(at - self.now),
                _ => return Err(format!("it came to rest elsewhere: {:?}", self.seen())),
            }
        }
    }

    /// Each client's clusters, with their ports.
    fn seen(&self) -> Vec<Option<BTreeMap<Name, Vec<u16>>>> {
        let ports = |client: &Subscription<ClientSnapshot>| match &*client.cell().load() {
            Resolution::Ready(snapshot) => Some(
                snapshot
                    .clusters
                    .iter()
                    .map(|entry| {
                        let cluster = entry.cluster.as_ref().ok();
                        let endpoints = cluster.into_iter().flat_map(|cluster| cluster.endpoints.iter());
                        (entry.name.clone(), endpoints.map(|e| port(&e.address.to_string())).collect())
                    })
                    .collect(),
            ),
            Resolution::Pending(_) | Resolution::Failed(_) => None,
        };
        self.clients.iter().flatten().map(ports).collect()
    }

    /// The same, as the control plane has it.
    fn expected(&self) -> Option<BTreeMap<Name, Vec<u16>>> {
        let truth = &self.plane.truth;
        let Some(Ok(Checked::Route(route))) = truth.get(&(Kind::Route, "r".into())) else { return None };
        let table = mesh_core::route::RouteTable::compile(route.clone());
        let ports = |name: &Name| {
            let Some(Ok(Checked::Cluster(cluster))) = truth.get(&(Kind::Cluster, name.clone())) else {
                return None;
            };
            let service = cluster.eds_service()?.clone();
            let Some(Ok(Checked::Endpoints(endpoints))) = truth.get(&(Kind::Endpoints, service)) else {
                return None;
            };
            Some(endpoints.iter().map(|endpoint| port(&endpoint.address.to_string())).collect())
        };
        table.clusters().iter().map(|name| Some((name.clone(), ports(name)?))).collect()
    }

    fn is_as_it_should_be(&self) -> bool {
        let expected = self.expected();
        assert!(expected.is_some(), "the last state is complete");
        self.seen().into_iter().all(|seen| seen == expected)
    }

    /// Once it serves what it should, nothing is subscribed to but what that needs; and in the end nothing is.
    fn is_nothing_else_asked_for(&mut self) -> Result<(), String> {
        let clusters = self.expected().map_or(0, |clusters| clusters.len());
        let watched = [Kind::Cluster, Kind::Endpoints].map(|kind| self.engine.watched(kind));
        if watched != [clusters; 2] {
            return Err(format!("{watched:?} clusters and endpoints are watched instead of {clusters}"));
        }
        self.clients = [None, None];
        self.server = None;
        self.sync();
        match self.engine.is_idle(ServerIx::of_test(0)) {
            true => Ok(()),
            false => Err("something is still watched".to_owned()),
        }
    }
}

fn address() -> SocketAddr {
    SERVER.strip_prefix("servers/").and_then(|address| address.parse().ok()).expect("an address")
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("an address with a port")
}

/// How one history failed, if it did.
fn run(habit: Habit, seed: u64, now: Instant) -> Result<(), String> {
    let mut history = History::new(habit, seed, now);
    history.clients[0] = Some(history.targets.client(CLIENTS[0]));
    history.connect();
    history.sync();
    let steps = 20 + history.rng.below(80);
    let mut outcome = Ok(());
    for _ in 0..steps {
        history.step();
        outcome = history.check();
        if outcome.is_err() {
            break;
        }
    }
    let outcome = outcome.and_then(|()| history.end());
    outcome.map_err(|why| format!("{habit:?}, seed {seed}: {why}\n{}", history.log.join("\n")))
}

#[test]
fn every_history_ends_in_the_snapshot_that_the_last_complete_state_names() {
    #[expect(clippy::disallowed_methods, reason = "how much a test does is not the product's to know")]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let histories = number("MESH_HISTORIES").unwrap_or(1_200);
    let first = number("MESH_SEED").unwrap_or(1);
    #[expect(clippy::disallowed_methods, reason = "the origin of a clock that is moved by hand")]
    let now = Instant::now();
    let next = AtomicU64::new(first);
    let end = first + histories.div_ceil(Habit::ALL.len() as u64);
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < end
        {
            for habit in Habit::ALL {
                run(habit, seed, now).unwrap_or_else(|why| panic!("{why}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
}

/// The routes within a listener of a server name clusters that it has nothing to send to.
#[test]
fn routes_within_the_listener_of_a_server_ask_for_no_clusters() {
    #[expect(clippy::disallowed_methods, reason = "the origin of a clock that is moved by hand")]
    let mut history = History::new(Habit::Plain, 1, Instant::now());
    let Checked::Route(routes) = route("r", &["a"]) else { unreachable!("route() makes routes") };
    let mut all = chain("all", "r");
    all.http = HttpConfig::new(RouteSource::Inline(routes));
    let config = ServerListener { address: address().into(), chains: Vec::new(), default_chain: Some(all) };
    history.set(Kind::Listener, SERVER, Ok(Checked::Listener(Arc::new(ListenerConfig::Server(config)))));
    let target = history.targets.server(&address().into());
    history.connect();
    history.sync();
    history.push(Kind::Listener);
    while history.plane.serve() || history.deliver() {}
    assert!(matches!(&*target.cell().load(), Resolution::Ready(_)));
    assert_eq!(history.engine.watched(Kind::Cluster), 0);
}
