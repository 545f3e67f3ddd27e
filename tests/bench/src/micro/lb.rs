//! Endpoint picks among a thousand endpoints: bare, and with weights, localities, two priorities and endpoints that
//! may not be used, all of them in random order.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_core::config::cluster::LbPolicy;
use mesh_core::config::endpoints::{EndpointConfig, EndpointsConfig, HealthStatus};
use mesh_core::lb::{Connectivity, EndpointIx, EndpointState, Picker, View};
use mesh_core::rng::{Rng, Xoshiro};
use mesh_core::testing::{EndpointsBuilder, cluster, loopback, weight};

use super::{Case, ITERATIONS};
use crate::Result;

const ENDPOINTS: u16 = 1_000;
const LOCALITIES: u16 = 10;

/// All cases of the family.
pub(super) fn cases() -> Result<Vec<Case>> {
    let policies = [
        ("round robin", LbPolicy::RoundRobin),
        ("least request", LbPolicy::LeastRequest { choices: 2 }),
        ("random", LbPolicy::Random),
    ];
    let mut cases = Vec::new();
    for (name, policy) in policies {
        cases.push(plain(name, policy)?);
        cases.push(everything(name, policy)?);
    }
    Ok(cases)
}

fn plain(name: &str, policy: LbPolicy) -> Result<Case> {
    let endpoints = (0..ENDPOINTS).fold(EndpointsBuilder::new(), |b, port| b.endpoint(loopback(port)));
    let states = vec![ready(); usize::from(ENDPOINTS)];
    picks(format!("{name}, plain"), policy, &endpoints.build(), &states)
}

fn everything(name: &str, policy: LbPolicy) -> Result<Case> {
    let mut rng = Xoshiro::seeded(11);
    let mut states = Vec::new();
    let mut builder = EndpointsBuilder::new();
    for priority in 0..2 {
        if priority > 0 {
            builder = builder.priority();
        }
        for locality in 0..LOCALITIES {
            builder = builder.locality(&format!("zone-{locality}"), 1 + rng.below(9) as u32);
            for port in 0..ENDPOINTS / LOCALITIES {
                let draw = rng.below(200);
                let health = if draw == 0 { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
                states.push(EndpointState { ejected: draw == 1, ..ready() });
                let address = loopback(locality * 100 + port);
                let share = weight(1 + rng.below(9) as u32);
                builder =
                    builder.push(EndpointConfig { weight: share, health, ..EndpointConfig::new(address) });
            }
        }
    }
    picks(format!("{name}, everything"), policy, &builder.build(), &states)
}

fn picks(
    name: String,
    policy: LbPolicy,
    endpoints: &EndpointsConfig,
    states: &[EndpointState],
) -> Result<Case> {
    let mut rng = Xoshiro::seeded(3);
    let mut config = cluster("c", endpoints.clone());
    config.lb = policy;
    config.locality_weighted = true;
    let picker: Picker = View::new(&config, endpoints, states).picker(Some(0), &mut rng);
    let usable = usize::from(ENDPOINTS) * 9 / 10;
    if picker.ready() < usable {
        return Err(format!("{name}: {} endpoints may be picked", picker.ready()).into());
    }
    let loads: Vec<_> = states.iter().map(|_| AtomicU32::new(rng.below(50) as u32)).collect();
    let in_flight = move |ix: EndpointIx| loads.get(ix.get()).map_or(0, |load| load.load(Ordering::Relaxed));
    Ok(Case::new(name, ITERATIONS, move |iterations| {
        for _ in 0..iterations {
            black_box(picker.pick(&mut rng, &in_flight));
        }
        Ok(())
    }))
}

fn ready() -> EndpointState {
    EndpointState { connectivity: Connectivity::Ready, ejected: false }
}
