//! What is tried again, and what never is.

use mesh_tests::echo::EchoRequest;
use mesh_tests::fault::{FramePeer, Verdict};
use mesh_tests::fleet::{Fleet, at};
use mesh_xds::server::{Retry, Route};
use std::time::Duration;
use tonic::Code;

use crate::{client, main_cluster, one_cluster, routed, say};

fn quick(retry: Retry) -> Route {
    Route::prefix("/")
        .cluster("main")
        .retry(retry.back_off(Duration::from_millis(1), Duration::from_millis(5)))
}

#[tokio::test]
async fn a_status_of_the_policy_is_retried_until_it_succeeds() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let route = quick(Retry::on("unavailable").times(3));
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    let reply =
        client.unary(EchoRequest::say("flaky").failing(Code::Unavailable, 2)).await.unwrap().into_inner();
    assert_eq!(reply.attempt, 3);
}

#[tokio::test]
async fn the_number_of_retries_is_kept() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let route = quick(Retry::on("unavailable").times(2));
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    let status = client.unary(EchoRequest::say("down").failing(Code::Unavailable, 0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(a.app.attempts("down"), 3);
}

#[tokio::test]
async fn another_status_is_not_retried() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let route = quick(Retry::on("unavailable").times(3));
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    let status = client.unary(EchoRequest::say("no").failing(Code::InvalidArgument, 0)).await.unwrap_err();
    assert_eq!((status.code(), a.app.attempts("no")), (Code::InvalidArgument, 1));
}

#[tokio::test]
async fn without_a_policy_nothing_is_retried() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    fleet.control.set(one_cluster(main_cluster(at([a.address()]))));
    let (_mesh, mut client) = client(&fleet);
    client.unary(EchoRequest::say("once").failing(Code::Unavailable, 0)).await.unwrap_err();
    assert_eq!(a.app.attempts("once"), 1);
}

#[tokio::test]
async fn a_refused_stream_is_repeated_without_a_policy_and_processed_once() {
    let fleet = Fleet::start();
    let peer = FramePeer::start(|opened| if opened.total == 2 { Verdict::Refuse } else { Verdict::Answer });
    fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
    let (_mesh, mut client) = client(&fleet);
    for i in 0..4 {
        say(&mut client, &format!("call {i}")).await.unwrap();
    }
    let seen = peer.seen();
    assert_eq!(seen.streams, 5, "one of them was refused");
    assert!(seen.processed.len() == 4 && seen.processed.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn calls_above_the_last_stream_of_a_goaway_are_neither_lost_nor_doubled() {
    let fleet = Fleet::start();
    let peer =
        FramePeer::start(|opened| if opened.stream == 20 { Verdict::GoAwayBelow } else { Verdict::Answer });
    fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
    let (_mesh, client) = client(&fleet);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4 {
        let mut client = client.clone();
        callers.spawn(async move {
            for i in 0..50 {
                say(&mut client, &format!("caller {caller} call {i}")).await.expect("no call is lost");
            }
        });
    }
    while let Some(done) = mesh_tests::wait::soon(callers.join_next()).await {
        done.unwrap();
    }
    let seen = peer.seen();
    assert_eq!(seen.processed.len(), 200);
    assert!(seen.processed.values().all(|times| *times == 1), "a call was doubled");
    assert!(seen.connections > 5, "{} connections", seen.connections);
}

#[tokio::test]
async fn a_stream_that_may_have_been_processed_is_not_repeated() {
    let fleet = Fleet::start();
    for verdict in [Verdict::Fail, Verdict::Cut] {
        let peer = FramePeer::start(move |opened| if opened.total == 2 { verdict } else { Verdict::Answer });
        fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
        let (_mesh, mut client) = client(&fleet);
        mesh_tests::wait::soon(async { while say(&mut client, "first").await.is_err() {} }).await;
        if peer.seen().streams == 1 {
            say(&mut client, "second").await.expect_err("an I/O error proves nothing about the peer");
            assert_eq!(peer.seen().streams, 2, "{verdict:?}");
        }
    }
}
