//! An exchange that is cut at every byte, in both directions, by a close and by a reset: a response that is not whole is
//! never taken for whole, and a call that is not safe to repeat never arrives twice, because no route here has a policy
//! that retries. A GET may (RFC 9110, section 9.2.2): it has no body and is idempotent.

mod exchange;
mod truncated;

use std::sync::Arc;

use mesh_tests::plain::Plain;
use mesh_tests::relay::{Cut, Cutter};
use mesh_tests::wait::LIMIT;
use mesh_tower::Mesh;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::exchange::{Exchange, Server};

/// Cuts an exchange everywhere; what is wrong with it, if anything.
async fn cut_everywhere(mesh: &Mesh, exchange: Exchange, server: &Arc<Server>) -> (usize, Vec<String>) {
    let whole = Cut { down: true, after: usize::MAX, reset: false };
    let relay = Cutter::start(server.address(), whole).await.expect("a relay");
    exchange.run(mesh, &relay, server, 0).await.expect("it works when nothing is cut");
    let [down, up] = relay.passed();
    assert!(down > 0 && up > 0, "{exchange:?}: nothing passed");
    drop(relay);
    let mut cuts = Vec::new();
    for reset in [false, true] {
        cuts.extend((0..=down).map(|after| Cut { down: true, after, reset }));
        cuts.extend((0..=up).map(|after| Cut { down: false, after, reset }));
    }
    let count = cuts.len();
    let mut wrong = Vec::new();
    let mut running = JoinSet::new();
    for (n, cut) in cuts.into_iter().enumerate() {
        if running.len() >= AT_ONCE {
            wrong.extend(running.join_next().await.and_then(|done| done.expect("no panic")));
        }
        let (mesh, server) = (mesh.clone(), Arc::clone(server));
        running.spawn(async move {
            let relay = Cutter::start(server.address(), cut).await.expect("a relay");
            let run = exchange.run(&mesh, &relay, &server, n + 1);
            let verdict = tokio::time::timeout(LIMIT, run).await;
            let verdict = verdict.unwrap_or_else(|_| Err("the call does not end".to_owned()));
            verdict.err().map(|why| format!("{exchange:?}, {cut:?}: {why}"))
        });
    }
    while let Some(done) = running.join_next().await {
        wrong.extend(done.expect("no panic"));
    }
    (count, wrong)
}

/// Runs some exchanges, each with a server of its own.
fn all_cuts(exchanges: impl IntoIterator<Item = Exchange>) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mesh = Mesh::builder(Plain).build().expect("a mesh");
        let (mut cuts, mut wrong) = (0, Vec::new());
        for exchange in exchanges {
            let server = Arc::new(Server::start(exchange));
            let (count, found) = cut_everywhere(&mesh, exchange, &server).await;
            cuts += count;
            wrong.extend(found);
        }
        assert!(wrong.is_empty(), "{} of {cuts} cuts went wrong:\n{}", wrong.len(), wrong.join("\n"));
    });
}

#[test]
fn http1_is_cut_at_every_byte() {
    all_cuts([Exchange::H1Get, Exchange::H1Chunked, Exchange::H1Post, Exchange::H1KeptAlive]);
}

#[test]
fn http1_of_another_server_is_cut_at_every_byte() {
    all_cuts([Exchange::RawLength, Exchange::RawChunked, Exchange::RawTrailers]);
}

#[test]
fn http2_is_cut_at_every_byte() {
    all_cuts([Exchange::H2Get, Exchange::H2Post, Exchange::H2KeptAlive]);
}

#[test]
fn grpc_is_cut_at_every_byte() {
    all_cuts([Exchange::GrpcUnary, Exchange::GrpcStream]);
}

/// Exchanges that are being cut at a time.
const AT_ONCE: usize = 32;
