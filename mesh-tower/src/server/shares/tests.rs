use super::*;
use crate::server::testing::{World, chain};

fn world(requests: usize, per_connection: Option<usize>, per_address: Option<usize>) -> World {
    let limits = ServerLimits {
        requests,
        requests_per_connection: per_connection,
        requests_per_address: per_address,
        ..ServerLimits::default()
    };
    World::with(limits, None)
}

/// A connection with its requests.
struct Caller {
    peer: AcceptedPeer,
    permits: Vec<Permit>,
}

impl Caller {
    fn new(world: &World, remote: &str) -> Self {
        Self { peer: world.peer(&chain("all", vec![]), remote), permits: Vec::new() }
    }

    /// One more request, as the stack does it; it stays if it is served.
    fn ask(&mut self) -> bool {
        let connection = self.peer.connection();
        connection.request_began();
        match connection.server.shares.acquire(&connection.server.requests, &self.peer) {
            Ok(permit) => self.permits.push(permit),
            Err(_) => {
                connection.request_ended(tokio::time::Instant::now());
                return false;
            }
        }
        true
    }

    fn ask_for(&mut self, requests: usize) -> usize {
        (0..requests).filter(|_| self.ask()).count()
    }

    fn end_one(&mut self) {
        drop(self.permits.pop().unwrap());
        self.peer.connection().request_ended(tokio::time::Instant::now());
    }

    fn end(&mut self) {
        while !self.permits.is_empty() {
            self.end_one();
        }
    }

    fn is_told(&self) -> bool {
        self.peer.connection().holding.is_told()
    }
}

#[tokio::test]
async fn a_connection_has_half_of_the_requests_or_what_is_set() {
    for (requests, set, share) in
        [(64, None, 32), (1, None, 1), (3, None, 1), (64, Some(5), 5), (64, Some(64), 64)]
    {
        let world = world(requests, set, None);
        let mut caller = Caller::new(&world, "10.0.0.1:1");
        assert_eq!(caller.ask_for(requests + 1), share, "{requests} {set:?}");
        caller.end_one();
        assert_eq!(caller.ask_for(2), 1, "{requests} {set:?}");
    }
}

#[tokio::test]
async fn the_heaviest_gives_way_once_and_what_it_held_is_for_others() {
    let world = world(16, Some(16), None);
    let (mut heavy, mut middle) = (Caller::new(&world, "10.0.0.1:1"), Caller::new(&world, "10.0.0.1:2"));
    let mut light = Caller::new(&world, "10.0.0.1:3");
    assert_eq!((heavy.ask_for(10), middle.ask_for(6)), (10, 6));
    assert!(light.ask() && heavy.is_told() && !middle.is_told());
    // On the account of the ten.
    assert_eq!(light.ask_for(2), 2);
    assert!(!middle.is_told());
    assert_eq!(world.server.requests.used(), 19);
    heavy.end();
    assert_eq!((world.server.requests.used(), world.server.shares.leaving.load(Ordering::Relaxed)), (9, 0));
    assert_eq!(light.ask_for(7), 7);
    // Full again: six are not clearly less than the ten that asks, nor the other way round.
    assert!(!light.ask() && !middle.ask());
    assert!(!light.is_told() && !middle.is_told());
}

#[tokio::test]
async fn nobody_gives_way_to_an_equal_nor_who_holds_few() {
    let world = world(24, Some(24), None);
    let (mut one, mut other) = (Caller::new(&world, "10.0.0.1:1"), Caller::new(&world, "10.0.0.1:2"));
    assert_eq!((one.ask_for(12), other.ask_for(13)), (12, 12));
    assert!(!one.is_told() && !other.is_told());

    let world = self::world(6, None, None);
    let (mut one, mut other) = (Caller::new(&world, "10.0.0.1:1"), Caller::new(&world, "10.0.0.1:2"));
    assert_eq!((one.ask_for(3), other.ask_for(3)), (3, 3));
    assert!(!Caller::new(&world, "10.0.0.1:3").ask());
    assert!(!one.is_told() && !other.is_told());
}

#[tokio::test]
async fn a_connection_that_has_become_light_or_is_gone_is_forgotten() {
    let world = world(16, Some(16), None);
    let mut gone = Caller::new(&world, "10.0.0.1:1");
    assert_eq!(gone.ask_for(8), 8);
    let listed = || lock(&world.server.shares.heavy).connections.len();
    assert_eq!(listed(), 1);
    gone.end();
    drop(gone);
    assert_eq!(listed(), 0);
    let (mut was, mut is) = (Caller::new(&world, "10.0.0.1:2"), Caller::new(&world, "10.0.0.1:3"));
    assert_eq!((was.ask_for(8), is.ask_for(8)), (8, 8));
    (0..6).for_each(|_| was.end_one());
    assert_eq!(is.ask_for(6), 6);
    let mut asks = Caller::new(&world, "10.0.0.1:4");
    assert!(asks.ask() && is.is_told() && !was.is_told());
    assert_eq!(listed(), 1);
}

#[tokio::test]
async fn the_address_with_the_most_is_the_heaviest_however_it_spreads_them() {
    let world = world(16, None, Some(16));
    let mut attackers: Vec<_> = (0..12).map(|n| Caller::new(&world, &format!("10.0.0.1:{n}"))).collect();
    assert!(attackers.iter_mut().all(Caller::ask));
    let mut gateway = Caller::new(&world, "10.0.0.2:1");
    assert_eq!(gateway.ask_for(4), 4);
    let told = |of: &[Caller]| of.iter().filter(|caller| caller.is_told()).count();
    // One more of the heavy address makes nobody give way, least of all the gateway.
    assert!(!Caller::new(&world, "10.0.0.1:99").ask());
    assert_eq!(told(&attackers), 0);
    let mut other = Caller::new(&world, "10.0.0.3:1");
    assert!(other.ask() && gateway.ask());
    // As many connections as hold a few requests together.
    assert_eq!((told(&attackers), gateway.is_told()), (4, false));
}

#[tokio::test]
async fn within_one_address_the_heaviest_connection_gives_way_to_its_neighbour() {
    let world = world(16, Some(16), Some(16));
    let (mut heavy, mut light) = (Caller::new(&world, "10.0.0.1:1"), Caller::new(&world, "10.0.0.1:2"));
    assert_eq!(heavy.ask_for(16), 16);
    // The share of the address is spent.
    assert!(!light.ask() && !heavy.is_told());
    let world = self::world(16, Some(16), Some(20));
    let (mut heavy, mut light) = (Caller::new(&world, "10.0.0.1:1"), Caller::new(&world, "10.0.0.1:2"));
    assert_eq!(heavy.ask_for(16), 16);
    assert!(light.ask() && heavy.is_told());
}

#[tokio::test]
async fn an_address_has_its_share_and_is_forgotten_with_its_connections() {
    let world = world(64, None, Some(3));
    let mut callers: Vec<_> = (0..4).map(|n| Caller::new(&world, &format!("[2001:db8::{n}]:1"))).collect();
    let served = callers.iter_mut().filter_map(|caller| caller.ask().then_some(())).count();
    assert_eq!(served, 3, "one /64 is one peer");
    assert!(Caller::new(&world, "[2001:db8:0:1::1]:1").ask());
    callers.iter_mut().for_each(Caller::end);
    drop(callers);
    let all = world.server.shares.addresses.as_ref().unwrap();
    assert_eq!(lock(&all.known).values().filter(|address| address.strong_count() > 0).count(), 0);
    assert_eq!(one_peer("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
}
