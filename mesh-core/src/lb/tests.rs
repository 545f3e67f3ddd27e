//! What a pick decides; priorities have their own tests.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::config::cluster::LbPolicy;
use crate::config::units::Percent;
use crate::rng::Xoshiro;
use crate::testing::{EndpointsBuilder, cluster, endpoints, loopback};

const IDLE: EndpointState = EndpointState { connectivity: Connectivity::Idle, ejected: false };
const CONNECTING: EndpointState = EndpointState { connectivity: Connectivity::Connecting, ejected: false };
const READY: EndpointState = EndpointState { connectivity: Connectivity::Ready, ejected: false };
const FAILED: EndpointState = EndpointState { connectivity: Connectivity::TransientFailure, ejected: false };
const EJECTED: EndpointState = EndpointState { connectivity: Connectivity::Ready, ejected: true };

const LEAST: LbPolicy = LbPolicy::LeastRequest { choices: 2 };

fn idle(_: EndpointIx) -> u32 {
    0
}

/// A cluster of these endpoints under a policy, localities weighted.
fn under(lb: LbPolicy, endpoints: EndpointsConfig) -> ClusterConfig {
    ClusterConfig { lb, locality_weighted: true, ..cluster("c", endpoints) }
}

fn inline(cluster: &ClusterConfig) -> &EndpointsConfig {
    match &cluster.discovery {
        crate::config::cluster::Discovery::Static(endpoints) => endpoints,
        other => panic!("{other:?}"),
    }
}

fn picker(cluster: &ClusterConfig, states: &[EndpointState], priority: usize, seed: u64) -> Picker {
    View::new(cluster, inline(cluster), states).picker(Some(priority), &mut Xoshiro::seeded(seed))
}

/// How often each endpoint is picked in `n` picks.
fn count(picker: &Picker, n: usize, seed: u64) -> HashMap<usize, usize> {
    let mut rng = Xoshiro::seeded(seed);
    let mut counts = HashMap::new();
    for _ in 0..n {
        match picker.pick(&mut rng, &idle) {
            Pick::Endpoint(ix) => *counts.entry(ix.get()).or_default() += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}

fn counts(picker: &Picker, endpoints: usize, n: usize) -> Vec<usize> {
    let counts = count(picker, n, 1);
    (0..endpoints).map(|ix| counts.get(&ix).copied().unwrap_or(0)).collect()
}

fn outcome(picker: &Picker) -> Pick {
    picker.pick(&mut Xoshiro::seeded(1), &idle)
}

#[test]
fn only_ready_endpoints_are_picked() {
    for lb in [LbPolicy::RoundRobin, LbPolicy::Random, LEAST] {
        let cluster = under(lb, endpoints(1..=6));
        let states = [IDLE, CONNECTING, READY, FAILED, EJECTED, READY];
        let counts = counts(&picker(&cluster, &states, 0, 1), 6, 100);
        assert_eq!(counts[2] + counts[5], 100, "{lb:?}");
        assert!(counts[2] > 20 && counts[5] > 20, "{lb:?}");
    }
}

#[test]
fn without_a_ready_endpoint_a_request_waits_or_fails() {
    let cluster = under(LbPolicy::RoundRobin, endpoints(1..=2));
    let of = |states: [EndpointState; 2]| outcome(&picker(&cluster, &states, 0, 1));
    assert_eq!(of([IDLE, FAILED]), Pick::Queue);
    assert_eq!(of([FAILED, CONNECTING]), Pick::Queue);
    assert_eq!(of([FAILED, FAILED]), Pick::Fail(Reason::ConnectFailed));
    assert_eq!(of([FAILED, EJECTED]), Pick::Fail(Reason::ConnectFailed));
    assert_eq!(of([EJECTED, EJECTED]), Pick::Fail(Reason::NoHealthyUpstream));
    let view = View::new(&cluster, inline(&cluster), &[]);
    assert_eq!(
        outcome(&view.picker(Some(0), &mut Xoshiro::seeded(1))),
        Pick::Queue,
        "unknown states are idle"
    );
}

#[test]
fn nothing_to_pick_from_is_no_healthy_upstream() {
    let fail = Pick::Fail(Reason::NoHealthyUpstream);
    let none = under(LbPolicy::RoundRobin, EndpointsConfig::empty("c"));
    let view = View::new(&none, inline(&none), &[]);
    assert!(view.connectivity().is_empty());
    assert_eq!(outcome(&view.picker(None, &mut Xoshiro::seeded(1))), fail);
    assert_eq!(outcome(&view.picker(Some(0), &mut Xoshiro::seeded(1))), fail);
    let sick = EndpointsBuilder::new()
        .health(loopback(1), HealthStatus::Unhealthy)
        .health(loopback(2), HealthStatus::Draining);
    let sick = under(LbPolicy::RoundRobin, sick.build());
    assert_eq!(outcome(&picker(&sick, &[READY, READY], 0, 1)), fail);
}

#[test]
fn round_robin_is_exact_over_each_cycle_wherever_it_starts() {
    let weights = [5, 1, 3, 1];
    let build =
        weights.iter().zip(1..).fold(EndpointsBuilder::new(), |b, (w, p)| b.weighted(loopback(p), *w));
    let cluster = under(LbPolicy::RoundRobin, build.build());
    let mut firsts = std::collections::HashSet::new();
    for seed in 0..40 {
        let picker = picker(&cluster, &[READY; 4], 0, seed);
        for _ in 0..3 {
            assert_eq!(counts(&picker, 4, 10), [5, 1, 3, 1], "seed {seed}");
        }
        firsts.insert(outcome(&picker).endpoint());
    }
    assert_eq!(firsts.len(), 4, "different clients begin at different endpoints");
}

#[test]
fn round_robin_of_equals_takes_turns() {
    let cluster = under(LbPolicy::RoundRobin, endpoints(1..=3));
    let picker = picker(&cluster, &[READY; 3], 0, 1);
    let turns: Vec<_> = (0..9).map(|_| outcome(&picker).endpoint().unwrap()).collect();
    assert!(turns.windows(2).all(|w| w[1] == (w[0] + 1) % 3), "{turns:?}");
}

#[test]
fn weights_hold_for_random_and_least_request() {
    for lb in [LbPolicy::Random, LEAST] {
        let build = EndpointsBuilder::new().weighted(loopback(1), 1).weighted(loopback(2), 3);
        let cluster = under(lb, build.build());
        for seed in 0..5 {
            let counts = count(&picker(&cluster, &[READY; 2], 0, seed), 20_000, seed);
            assert!((14_600..15_400).contains(&counts[&1]), "{lb:?} seed {seed}: {counts:?}");
        }
    }
}

#[test]
fn least_request_takes_the_least_loaded_of_its_draws() {
    let cluster = under(LbPolicy::LeastRequest { choices: 10 }, endpoints(1..=4));
    let picker = picker(&cluster, &[READY; 4], 0, 1);
    let mut rng = Xoshiro::seeded(9);
    let mut loads = [0u32; 4];
    for _ in 0..4_000 {
        let ix = picker.pick(&mut rng, &|ix: EndpointIx| loads[ix.get()]).endpoint().unwrap();
        loads[ix] += 1;
    }
    // Requests that never end pile up evenly.
    assert!(loads.iter().all(|l| (995..1_005).contains(l)), "{loads:?}");
    let busy = |ix: EndpointIx| if ix.get() == 2 { 0 } else { 50 };
    let hits = (0..1_000).filter(|_| picker.pick(&mut rng, &busy).endpoint() == Some(2)).count();
    // 1 - (3/4)^10 of all picks see it.
    assert!((920..970).contains(&hits), "{hits}");
}

#[test]
fn equally_loaded_endpoints_are_picked_equally() {
    let cluster = under(LEAST, endpoints(1..=3));
    let counts = counts(&picker(&cluster, &[READY; 3], 0, 1), 3, 30_000);
    assert!(counts.iter().all(|n| (9_600..10_400).contains(n)), "{counts:?}");
}

#[test]
fn localities_share_by_weight_however_many_endpoints_they_have() {
    let build = EndpointsBuilder::new()
        .locality("a", 1)
        .endpoint(loopback(1))
        .endpoint(loopback(2))
        .endpoint(loopback(3))
        .locality("b", 3)
        .endpoint(loopback(4))
        .locality("c", 4)
        .endpoint(loopback(5));
    let config = under(LbPolicy::RoundRobin, build.build());
    let all = picker(&config, &[READY; 5], 0, 1);
    assert_eq!(counts(&all, 5, 24), [1, 1, 1, 9, 12]);
    // A locality without a READY endpoint gives its share to the others.
    let without = picker(&config, &[READY, READY, READY, READY, FAILED], 0, 1);
    assert_eq!(counts(&without, 5, 12), [1, 1, 1, 9, 0]);
    let flat = ClusterConfig { locality_weighted: false, ..config.clone() };
    assert_eq!(counts(&picker(&flat, &[READY; 5], 0, 1), 5, 10), [2; 5]);
    for lb in [LbPolicy::Random, LEAST] {
        let random = ClusterConfig { lb, ..config.clone() };
        let counts = counts(&picker(&random, &[READY; 5], 0, 1), 5, 24_000);
        for (n, share) in counts.iter().zip([1_000usize, 1_000, 1_000, 9_000, 12_000]) {
            assert!(n.abs_diff(share) < 350, "{lb:?} {counts:?}");
        }
    }
}

#[test]
fn degraded_endpoints_are_a_last_resort_within_their_priority() {
    let build = EndpointsBuilder::new().endpoint(loopback(1)).health(loopback(2), HealthStatus::Degraded);
    let cluster = under(LbPolicy::RoundRobin, build.build());
    let of = |states: [EndpointState; 2]| outcome(&picker(&cluster, &states, 0, 1));
    assert_eq!(of([READY, READY]).endpoint(), Some(0));
    assert_eq!(of([CONNECTING, READY]), Pick::Queue);
    assert_eq!(of([FAILED, READY]).endpoint(), Some(1));
    assert_eq!(of([EJECTED, READY]).endpoint(), Some(1));
    assert_eq!(of([FAILED, CONNECTING]), Pick::Queue);
    assert_eq!(of([FAILED, FAILED]), Pick::Fail(Reason::ConnectFailed));
}

#[test]
fn panic_ignores_health_only_below_a_threshold_that_is_set() {
    let build = EndpointsBuilder::new()
        .endpoint(loopback(1))
        .endpoint(loopback(2))
        .health(loopback(3), HealthStatus::Unhealthy)
        .health(loopback(4), HealthStatus::Unhealthy);
    let config = under(LbPolicy::RoundRobin, build.build());
    let half = ClusterConfig { panic_threshold: Some(Percent::new(50).unwrap()), ..config.clone() };
    let ready = |cluster: &ClusterConfig, states: [EndpointState; 4]| picker(cluster, &states, 0, 1).ready();
    assert_eq!(ready(&half, [READY; 4]), 2, "exactly half is no panic");
    assert_eq!(ready(&half, [EJECTED, READY, READY, READY]), 4, "ejection is ignored as well");
    assert_eq!(ready(&half, [EJECTED, READY, FAILED, READY]), 3, "an endpoint must still be connected");
    assert_eq!(ready(&config, [EJECTED, READY, READY, READY]), 1);
    let view = |cluster, states| View::new(cluster, inline(cluster), states).candidates(0).count();
    assert_eq!((view(&half, &[EJECTED; 4]), view(&config, &[EJECTED; 4])), (4, 2));
}

#[test]
fn one_priority_that_is_well_prevents_panic() {
    let build =
        EndpointsBuilder::new().health(loopback(1), HealthStatus::Unhealthy).priority().endpoint(loopback(2));
    let config = under(LbPolicy::RoundRobin, build.build());
    let config = ClusterConfig { panic_threshold: Some(Percent::new(50).unwrap()), ..config };
    let view = View::new(&config, inline(&config), &[READY, READY]);
    assert!(!view.is_panic());
    assert_eq!(view.connectivity(), [Connectivity::TransientFailure, Connectivity::Ready]);
    assert!(View::new(&config, inline(&config), &[READY, EJECTED]).is_panic());
}

#[test]
fn a_picker_serves_the_endpoints_of_its_priority_alone() {
    let build = EndpointsBuilder::new()
        .endpoint(loopback(1))
        .endpoint(loopback(2))
        .priority()
        .priority()
        .endpoint(loopback(3))
        .endpoint(loopback(4));
    let cluster = under(LbPolicy::RoundRobin, build.build());
    let states = [FAILED, FAILED, READY, READY];
    assert_eq!(counts(&picker(&cluster, &states, 2, 1), 4, 10), [0, 0, 5, 5]);
    let view = View::new(&cluster, inline(&cluster), &states);
    let failed = Connectivity::TransientFailure;
    assert_eq!(view.connectivity(), [failed, failed, Connectivity::Ready]);
    assert_eq!(view.candidates(2).map(EndpointIx::get).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(outcome(&picker(&cluster, &states, 1, 1)), Pick::Fail(Reason::NoHealthyUpstream));
}

#[test]
fn connectivity_together_is_the_best_there_is() {
    use Connectivity::{Connecting, Idle, Ready, TransientFailure};
    for (states, together) in [
        (vec![], None),
        (vec![TransientFailure, TransientFailure], Some(TransientFailure)),
        (vec![TransientFailure, Idle], Some(Idle)),
        (vec![Idle, Connecting, TransientFailure], Some(Connecting)),
        (vec![Connecting, Ready, Idle], Some(Ready)),
    ] {
        assert_eq!(Connectivity::aggregate(states), together);
    }
}

#[test]
fn overload_drops_are_drawn_by_themselves_and_in_order_and_only_once_per_attempt() {
    let build = EndpointsBuilder::new()
        .drop_overload("throttle", 500_000)
        .drop_overload("lb", 500_000)
        .endpoint(loopback(1));
    let cluster = under(LbPolicy::RoundRobin, build.build());
    let picker = picker(&cluster, &[READY], 0, 1);
    let mut rng = Xoshiro::seeded(4);
    let (mut throttle, mut lb) = (0, 0);
    for _ in 0..40_000 {
        match picker.pick(&mut rng, &idle) {
            Pick::Drop(category) if &*category == "throttle" => throttle += 1,
            Pick::Drop(category) if &*category == "lb" => lb += 1,
            _ => {}
        }
        assert_eq!(picker.repick(&mut rng, &idle).endpoint(), Some(0));
    }
    assert!((19_500..20_500).contains(&throttle) && (9_600..10_400).contains(&lb), "{throttle} {lb}");
    let queue = View::new(&cluster, inline(&cluster), &[FAILED]).picker(Some(0), &mut rng);
    let drops = (0..1_000).filter(|_| matches!(queue.pick(&mut rng, &idle), Pick::Drop(_))).count();
    assert!(drops > 700, "drops come first: {drops}");
}

#[test]
fn a_thousand_threads_worth_of_picks_keep_the_proportions() {
    let build = EndpointsBuilder::new().weighted(loopback(1), 3).weighted(loopback(2), 7);
    let cluster = under(LbPolicy::RoundRobin, build.build());
    let picker = picker(&cluster, &[READY; 2], 0, 1);
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let picker = &picker;
                    move || count(picker, 2_500, seed)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()[&0]).sum::<usize>()
    });
    assert_eq!(total, 3_000);
}

#[test]
fn weights_beyond_what_a_sum_can_hold_keep_their_proportions() {
    let build = (1..=4).fold(EndpointsBuilder::new(), |b, p| b.weighted(loopback(p), u32::MAX));
    let build = build.weighted(loopback(5), 1);
    let cluster = under(LbPolicy::Random, build.build());
    let counts = counts(&picker(&cluster, &[READY; 5], 0, 1), 5, 40_000);
    assert!(counts[..4].iter().all(|n| (9_600..10_400).contains(n)), "{counts:?}");
    let round = under(LbPolicy::RoundRobin, inline(&cluster).clone());
    assert_eq!(picker(&round, &[READY; 5], 0, 1).ready(), 5);
}

impl Pick {
    fn endpoint(&self) -> Option<usize> {
        match self {
            Self::Endpoint(ix) => Some(ix.get()),
            Self::Queue | Self::Drop(_) | Self::Fail(_) => None,
        }
    }
}

fn any_state() -> impl Strategy<Value = EndpointState> {
    let connectivity = prop_oneof![
        Just(Connectivity::Idle),
        Just(Connectivity::Connecting),
        Just(Connectivity::Ready),
        Just(Connectivity::TransientFailure),
    ];
    (connectivity, prop::bool::weighted(0.2))
        .prop_map(|(connectivity, ejected)| EndpointState { connectivity, ejected })
}

fn any_health() -> impl Strategy<Value = HealthStatus> {
    prop_oneof![
        3 => Just(HealthStatus::Unknown),
        3 => Just(HealthStatus::Healthy),
        1 => Just(HealthStatus::Degraded),
        1 => Just(HealthStatus::Draining),
        1 => Just(HealthStatus::Unhealthy),
    ]
}

proptest! {
    #[test]
    fn smooth_round_robin_is_exact_over_a_cycle_and_never_far_off_within_it(
        weights in prop::collection::vec(1u32..120, 1..8),
        seed in any::<u64>(),
    ) {
        let build = weights.iter().zip(1..)
            .fold(EndpointsBuilder::new(), |b, (w, p)| b.weighted(loopback(p), *w));
        let cluster = under(LbPolicy::RoundRobin, build.build());
        let picker = picker(&cluster, &vec![READY; weights.len()], 0, seed);
        let total: u32 = weights.iter().sum();
        let mut seen = vec![0f64; weights.len()];
        let mut rng = Xoshiro::seeded(seed);
        for n in 1..=total {
            let ix = picker.pick(&mut rng, &idle).endpoint().unwrap();
            seen[ix] += 1.0;
            let due = |weight: u32| f64::from(n) * f64::from(weight) / f64::from(total);
            let off = seen.iter().zip(&weights).map(|(seen, weight)| (seen - due(*weight)).abs());
            let worst = off.fold(0.0, f64::max);
            prop_assert!(worst < 4.0, "after {n} of {total}: {worst} off");
        }
        if weights.iter().any(|w| *w != weights[0]) {
            let exact: Vec<f64> = weights.iter().copied().map(f64::from).collect();
            prop_assert_eq!(seen, exact);
        }
    }

    #[test]
    fn a_pick_is_always_one_that_the_rules_allow(
        shape in prop::collection::vec(
            prop::collection::vec(
                (1u32..5, prop::collection::vec((1u32..9, any_health(), any_state()), 0..4)), 0..3,
            ), 0..3,
        ),
        policy in prop_oneof![Just(LbPolicy::RoundRobin), Just(LbPolicy::Random), Just(LEAST)],
        weighted in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut build = EndpointsConfig::empty("c");
        let mut states = Vec::new();
        let mut facts = Vec::new();
        for (priority, localities) in shape.iter().enumerate() {
            let mut level = EndpointsBuilder::new();
            for (share, endpoints) in localities {
                level = level.locality("z", *share);
                for (weight, health, state) in endpoints {
                    let endpoint = crate::config::endpoints::EndpointConfig {
                        weight: crate::testing::weight(*weight),
                        health: *health,
                        ..crate::config::endpoints::EndpointConfig::new(loopback(states.len() as u16))
                    };
                    level = level.push(endpoint);
                    states.push(*state);
                    facts.push((priority, *health, *state));
                }
            }
            build.priorities.extend(level.build().priorities);
        }
        let cluster = ClusterConfig { lb: policy, locality_weighted: weighted, ..cluster("c", build) };
        let view = View::new(&cluster, inline(&cluster), &states);
        for (priority, connectivity) in view.connectivity().into_iter().enumerate() {
            let picker = view.picker(Some(priority), &mut Xoshiro::seeded(seed));
            let good = |health: HealthStatus| facts.iter().any(|(p, h, s)| {
                *p == priority && *h == health && *s == READY
            });
            match picker.pick(&mut Xoshiro::seeded(seed), &idle) {
                Pick::Endpoint(ix) => {
                    let (at, health, state) = facts[ix.get()];
                    prop_assert_eq!((at, state), (priority, READY));
                    prop_assert!(health.is_usable() || health == HealthStatus::Degraded);
                    if health == HealthStatus::Degraded {
                        prop_assert!(!good(HealthStatus::Healthy) && !good(HealthStatus::Unknown));
                    }
                    prop_assert_eq!(connectivity, Connectivity::Ready);
                }
                Pick::Queue => prop_assert!(matches!(
                    connectivity, Connectivity::Idle | Connectivity::Connecting
                )),
                Pick::Fail(_) => prop_assert_eq!(connectivity, Connectivity::TransientFailure),
                Pick::Drop(category) => prop_assert!(false, "dropped as {category}"),
            }
        }
    }
}
