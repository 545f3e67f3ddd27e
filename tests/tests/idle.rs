//! What a mesh costs while its control plane is gone and nobody calls: next to nothing. A process of its own, because
//! the processor time of the whole process is what counts.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::Duration;

use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_xds::server::{Cluster, Listener, RouteConfig};

/// How long it is looked at, and which share of that time it may take.
const WATCHED: (Duration, f64) = if cfg!(debug_assertions) {
    // Unoptimised, and not for a minute in every run.
    (Duration::from_secs(10), 0.01)
} else {
    (Duration::from_secs(60), 0.001)
};

/// The processor time that every thread of this process has had.
fn processor_time() -> Duration {
    let of = |task: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = fs::read_dir("/proc/self/task").expect("Linux has it");
    Duration::from_nanos(threads.filter_map(of).sum())
}

#[tokio::test]
async fn a_mesh_without_its_control_plane_costs_less_than_a_thousandth_of_a_processor() {
    let mut fleet = Fleet::start();
    let backend = fleet.backend("a");
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main").endpoints(at([backend.address()])),
    ));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    client.unary(EchoRequest::say("x")).await.expect("a working mesh");
    fleet.kill_control_plane().await;

    let (span, share) = WATCHED;
    let before = processor_time();
    // Real time on purpose: what is measured is what the machine did in it.
    tokio::time::sleep(span).await;
    let used = processor_time() - before;
    client.unary(EchoRequest::say("x")).await.expect("the last good configuration serves");
    let limit = span.mul_f64(share);
    println!("{used:?} of processor time in {span:?}");
    assert!(used <= limit, "{used:?} of {span:?}, and {limit:?} are allowed");
}
