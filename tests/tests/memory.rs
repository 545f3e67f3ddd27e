//! What the heap holds while large bodies stream through a mesh whose retries are armed: windows, not bodies.

use std::alloc::System;
use std::time::Duration;

use bytes::Bytes;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_xds::server::{Cluster, Listener, Retry, Route, RouteConfig, VirtualHost};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CHUNK: usize = 64 << 10;
const CHUNKS: u32 = 3200;
const ALLOWED: usize = 2 << 20;

fn held() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

fn armed() -> Route {
    let retry =
        Retry::on("unavailable,reset").times(3).back_off(Duration::from_millis(1), Duration::from_millis(5));
    Route::prefix("/").cluster("main").retry(retry)
}

/// One test, because the heap is one.
#[tokio::test]
async fn two_hundred_mebibytes_up_and_down_hold_two_at_most() {
    let fleet = Fleet::start();
    let backend = fleet.backend("a");
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(VirtualHost::any().route(armed())),
        Cluster::eds("main").endpoints(at([backend.address()])),
    ));
    let mesh = fleet.mesh("client");
    let mut client = EchoClient::new(shop(&mesh));
    let payload = Bytes::from(vec![7; CHUNK]);
    // The first calls make what stays: connections, tables, buffers.
    for chunks in [100, CHUNKS] {
        let before = held();
        let (sample, samples) = std::sync::mpsc::sync_channel::<usize>(1);
        let mut most = 0;
        let message = EchoRequest { payload: payload.clone(), ..EchoRequest::say("up") };
        let source = futures_util::stream::iter((0..chunks).map(move |_| {
            // The previous sample was taken by nobody if the channel is full; the next one will do.
            let _ = sample.try_send(held());
            message.clone()
        }));
        let uploading = client.upload(source);
        tokio::pin!(uploading);
        let reply = loop {
            tokio::select! {
                reply = &mut uploading => break reply,
                () = tokio::task::yield_now() => most = most.max(samples.try_recv().unwrap_or(0)),
            }
        };
        assert_eq!(reply.expect("an upload").into_inner().received, u64::from(chunks) * CHUNK as u64);
        let above = most.saturating_sub(before);
        assert!(chunks < CHUNKS || above <= ALLOWED, "an upload held {above} bytes");
    }
    for chunks in [100, CHUNKS] {
        let before = held();
        let request = EchoRequest { payload: payload.clone(), replies: chunks, ..EchoRequest::say("down") };
        let mut replies = client.download(request).await.expect("a download").into_inner();
        let (mut most, mut received) = (0, 0);
        while let Some(reply) = replies.message().await.expect("a reply") {
            received += reply.payload.len();
            most = most.max(held());
        }
        assert_eq!(received, chunks as usize * CHUNK);
        let above = most.saturating_sub(before);
        assert!(chunks < CHUNKS || above <= ALLOWED, "a download held {above} bytes");
    }
}
