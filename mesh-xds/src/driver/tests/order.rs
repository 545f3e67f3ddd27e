//! Any order of events: a published snapshot is complete, versions grow, and nothing is asked for that is not reached.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::snapshot::{ClientSnapshot, Resolution, Subscription};
use proptest::prelude::*;

use super::engine::{World, cluster, endpoints, listener, route};
use crate::ads::{ABSENT_AFTER, Kind};
use crate::authority::ServerIx;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Event {
    Open(usize),
    Close(usize),
    Listener(usize, usize),
    Route(usize, BTreeSet<usize>),
    Clusters(BTreeSet<usize>),
    Endpoints(usize, u16),
    Refuse(Kind, usize),
    Wait,
    Disconnect,
    Connect,
}

fn event() -> impl Strategy<Value = Event> {
    let name = || 0..NAMES.len();
    let names = || prop::collection::btree_set(0..NAMES.len(), 0..3);
    prop_oneof![
        3 => name().prop_map(Event::Open),
        1 => name().prop_map(Event::Close),
        4 => (name(), name()).prop_map(|(name, route)| Event::Listener(name, route)),
        4 => (name(), names()).prop_map(|(name, clusters)| Event::Route(name, clusters)),
        4 => names().prop_map(Event::Clusters),
        4 => (name(), 1..100u16).prop_map(|(name, port)| Event::Endpoints(name, port)),
        2 => (prop::sample::select(Kind::ALL.to_vec()), name()).prop_map(|(kind, name)| Event::Refuse(kind, name)),
        1 => Just(Event::Wait),
        1 => Just(Event::Disconnect),
        1 => Just(Event::Connect),
    ]
}

type Open = [Option<Subscription<ClientSnapshot>>; 3];

fn apply(world: &mut World, open: &mut Open, event: Event) {
    match event {
        Event::Open(i) => open[i] = Some(world.client(NAMES[i])),
        Event::Close(i) => {
            open[i] = None;
            world.sync();
        }
        Event::Listener(i, r) => world.respond(Kind::Listener, vec![(NAMES[i], listener(NAMES[r]))], &[]),
        Event::Route(i, clusters) => {
            let clusters: Vec<&str> = clusters.iter().map(|c| NAMES[*c]).collect();
            world.respond(Kind::Route, vec![(NAMES[i], route(NAMES[i], &clusters))], &[]);
        }
        Event::Clusters(clusters) => {
            let clusters = clusters.iter().map(|c| (NAMES[*c], cluster(NAMES[*c]))).collect();
            world.respond(Kind::Cluster, clusters, &[]);
        }
        Event::Endpoints(i, port) => {
            world.respond(Kind::Endpoints, vec![(&format!("eds-{}", NAMES[i]), endpoints([port]))], &[]);
        }
        Event::Refuse(kind, i) => world.respond(kind, vec![], &[(NAMES[i], "bad")]),
        Event::Wait => world.advance(ABSENT_AFTER),
        Event::Disconnect => world.disconnect("lost"),
        Event::Connect => world.connect(),
    }
}

fn check(snapshot: &ClientSnapshot) -> Result<(), TestCaseError> {
    let named: Vec<_> = snapshot.routes.clusters().to_vec();
    let present: Vec<_> = snapshot.clusters.iter().map(|entry| entry.name.clone()).collect();
    prop_assert_eq!(named, present, "one entry for each cluster that a route names");
    for entry in &snapshot.clusters {
        if let Ok(cluster) = &entry.cluster {
            let has_endpoints = cluster.endpoints.iter().next().is_some();
            prop_assert!(
                has_endpoints != cluster.note.is_some(),
                "endpoints, or the reason why there are none"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_snapshot_is_complete_and_what_serves_is_never_taken_away(
        events in prop::collection::vec(event(), 0..50)
    ) {
        let mut world = World::new();
        let mut open: Open = [None, None, None];
        let mut served: [Option<Arc<ClientSnapshot>>; 3] = [None, None, None];
        for event in events {
            if let Event::Close(i) | Event::Open(i) = event && open[i].is_none() {
                served[i] = None;
            }
            if let Event::Close(i) = event {
                served[i] = None;
            }
            apply(&mut world, &mut open, event);
            prop_assert_eq!(world.engine.missed(), Vec::<String>::new());
            for (target, served) in open.iter().zip(&mut served) {
                let Some(target) = target else { continue };
                match &*target.cell().load() {
                    Resolution::Ready(snapshot) => {
                        check(snapshot)?;
                        if let Some(before) = &served {
                            let same = Arc::ptr_eq(before, snapshot);
                            prop_assert!(same || before.version < snapshot.version, "versions grow");
                        }
                        *served = Some(snapshot.clone());
                    }
                    Resolution::Pending(_) | Resolution::Failed(_) => {
                        prop_assert!(served.is_none(), "what served was taken away");
                    }
                }
            }
        }
        drop(open);
        world.sync();
        prop_assert!(world.engine.is_idle(ServerIx::of_test(0)), "everything is unsubscribed in the end");
    }
}
