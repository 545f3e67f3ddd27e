//! Routes that are switched a thousand times under load: no call is lost, and none reaches a cluster that no configuration
//! named while the call was under way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_tests::backend::Backend;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop as channel};
use mesh_tests::wait::soon;
use mesh_tower::{MeshBuilder, MeshChannel};
use mesh_xds::Protocol;
use mesh_xds::server::{Cluster, Listener, RouteConfig};
use tokio::task::JoinSet;

/// Optimized, it is a thousand.
const SWITCHES: usize = if cfg!(debug_assertions) { 150 } else { 1_000 };
const CLUSTERS: usize = 8;
const CALLERS: usize = 6;

/// What was configured when. A call may use the configuration that was seen in use before it began, and all that were set
/// until it ended.
#[derive(Debug, Default)]
struct History {
    /// The cluster of each configuration, in their order.
    clusters: Mutex<Vec<usize>>,
    oldest: AtomicUsize,
    calls: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

// === impl History ===

impl History {
    /// A configuration is about to be set.
    fn set(&self, cluster: usize) -> usize {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.push(cluster);
        clusters.len() - 1
    }

    /// One call, and whether it went where it could.
    async fn call(&self, client: &mut EchoClient<MeshChannel>) {
        let oldest = self.oldest.load(Ordering::SeqCst);
        let reply = client.unary(EchoRequest::say("switch")).await;
        self.calls.fetch_add(1, Ordering::SeqCst);
        let problem = match reply {
            Err(status) => status.to_string(),
            Ok(reply) => {
                let server = reply.into_inner().server;
                let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
                let may: BTreeSet<String> = clusters[oldest..].iter().map(|cluster| name(*cluster)).collect();
                if may.contains(&server) {
                    return;
                }
                format!("{server} where only {may:?} could be, from configuration {oldest} on")
            }
        };
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_in_state_of_the_world_lose_no_call_and_misdirect_none() {
    switch(Protocol::StateOfTheWorld).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incremental_switches_lose_no_call_and_misdirect_none() {
    switch(Protocol::Incremental).await;
}

fn name(cluster: usize) -> String {
    format!("v{cluster}")
}

async fn switch(protocol: Protocol) {
    let fleet = Fleet::start();
    let backends: Vec<Backend> = (0..CLUSTERS).map(|i| fleet.backend(&name(i))).collect();
    let history = Arc::new(History::default());
    history.set(0);
    fleet.control.set((Listener::client("shop").rds("shop"), RouteConfig::to("shop", name(0))));
    for (i, backend) in backends.iter().enumerate() {
        fleet.control.set(Cluster::eds(name(i)).endpoints(at([backend.address()])));
    }
    let bootstrap = fleet.bootstrap("client").with_protocol(protocol);
    let mesh = MeshBuilder::from_bootstrap(bootstrap).and_then(MeshBuilder::build).expect("a mesh");
    let client = EchoClient::new(channel(&mesh));
    let mut probe = client.clone();
    until_served_by(&mut probe, 0).await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (history, mut client) = (Arc::clone(&history), client.clone());
        callers.spawn(async move {
            loop {
                history.call(&mut client).await;
                tokio::task::yield_now().await;
            }
        });
    }
    for round in 1..=SWITCHES {
        // Another one each time, in an order without a pattern that connections could follow.
        let cluster = (round * 5 + round / CLUSTERS) % CLUSTERS;
        let index = history.set(cluster);
        fleet.control.set(RouteConfig::to("shop", name(cluster)));
        // Some are replaced before anybody has seen them.
        if round % 7 != 0 || round == SWITCHES {
            until_served_by(&mut probe, cluster).await;
            history.oldest.store(index, Ordering::SeqCst);
        }
        if round % 50 == 0 {
            let before = history.calls.load(Ordering::SeqCst);
            let more = async {
                while history.calls.load(Ordering::SeqCst) < before + 20 {
                    tokio::task::yield_now().await;
                }
            };
            soon(more).await;
        }
    }
    callers.shutdown().await;
    let wrong = history.wrong.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = history.calls.load(Ordering::SeqCst);
    assert!(wrong.is_empty(), "{protocol:?}: {} of {calls} calls: {:?}", wrong.len(), wrong.first());
    assert!(calls > SWITCHES as u64, "{calls} calls");
    eprintln!("{protocol:?}: {calls} calls over {SWITCHES} switches");
}

/// Calls until a cluster answers: from then on nothing older is in use.
async fn until_served_by(probe: &mut EchoClient<MeshChannel>, cluster: usize) {
    let served = async {
        while probe.unary(EchoRequest::say("probe")).await.expect("a reply").into_inner().server
            != name(cluster)
        {
            tokio::task::yield_now().await;
        }
    };
    soon(served).await;
}
