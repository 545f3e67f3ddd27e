//! Single decisions: a route among few and many, a pick among a thousand endpoints, building what they need.
//!
//! `cargo bench -p mesh-core --features testing`. The bounds of these numbers are checked by `mesh-bench --check`, in
//! instructions where that is possible; this bench is for looking closer while something is being changed.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mesh_core::config::cluster::LbPolicy;
use mesh_core::config::endpoints::EndpointsConfig;
use mesh_core::config::route::RouteConfig;
use mesh_core::lb::{Connectivity, EndpointIx, EndpointState, View};
use mesh_core::rng::Xoshiro;
use mesh_core::route::RouteTable;
use mesh_core::testing::{
    EndpointsBuilder, TestRequest, cluster, loopback, route, route_config, virtual_host,
};

const HOST: &str = "echo.bench.svc";

fn routes(count: usize) -> RouteConfig {
    let rules = (0..count).map(|n| route(&format!("/pkg.Service{n:05}/"), "c")).collect();
    route_config("routes", vec![virtual_host(&[HOST], rules)])
}

fn endpoints() -> EndpointsConfig {
    let start = EndpointsBuilder::new();
    (0..1_000).fold(start, |b, port| b.weighted(loopback(port), 1 + u32::from(port % 7))).build()
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for count in [10, 10_000] {
        let table = RouteTable::compile(Arc::new(routes(count)));
        let last = TestRequest::grpc(&format!("/pkg.Service{:05}/Get", count - 1)).authority(HOST);
        let head = last.head();
        let mut rng = Xoshiro::seeded(1);
        group.bench_with_input(BenchmarkId::new("last of", count), &table, |b, table| {
            b.iter(|| table.decide(black_box(&head), &mut rng));
        });
    }
    group.finish();
    let config = Arc::new(routes(10_000));
    c.bench_function("compile 10000 routes", |b| b.iter(|| RouteTable::compile(Arc::clone(&config))));
}

fn pick(c: &mut Criterion) {
    let endpoints = endpoints();
    let ready = EndpointState { connectivity: Connectivity::Ready, ejected: false };
    let states = vec![ready; endpoints.iter().count()];
    let loads = |ix: EndpointIx| (ix.get() % 13) as u32;
    let mut group = c.benchmark_group("pick of 1000");
    for policy in [LbPolicy::RoundRobin, LbPolicy::LeastRequest { choices: 2 }, LbPolicy::Random] {
        let mut rng = Xoshiro::seeded(2);
        let mut config = cluster("c", endpoints.clone());
        config.lb = policy;
        let view = View::new(&config, &endpoints, &states);
        let picker = view.picker(Some(0), &mut rng);
        group.bench_function(format!("{policy:?}"), |b| b.iter(|| picker.pick(&mut rng, &loads)));
        let name = format!("{policy:?}, building the picker");
        group.bench_function(name, |b| b.iter(|| view.picker(Some(0), &mut rng)));
    }
    group.finish();
}

criterion_group!(benches, decide, pick);
criterion_main!(benches);
