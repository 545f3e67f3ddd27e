//! What the listener grants a request, from the control plane to the wire: gRPC over mutual TLS, mesh to mesh.

use std::time::Duration;

use mesh_tests::echo::EchoRequest;
use mesh_tests::wait::soon;
use tonic::{Code, Request};

use crate::{Pair, say, until_ok};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn an_upload_that_never_goes_on_ends_and_its_neighbours_do_not() {
    for is_idle in [false, true] {
        let mut pair = Pair::start(|_, listener| {
            if is_idle { listener.stream_idle_timeout(SHORT) } else { listener.request_timeout(SHORT) }
        });
        until_ok(&mut pair.client).await;
        let stalled = || {
            let first = futures_util::stream::iter([EchoRequest::say("first")]);
            futures_util::StreamExt::chain(first, futures_util::stream::pending())
        };
        let refused = soon(pair.client.upload(stalled())).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{is_idle}: {refused}");
        // Its response has begun: only silence ends it.
        let mut chat = soon(pair.client.chat(stalled())).await.unwrap().into_inner();
        assert_eq!(soon(chat.message()).await.unwrap().unwrap().text, "first");
        if is_idle {
            let cut = soon(chat.message()).await.unwrap_err();
            assert_eq!(cut.code(), Code::DeadlineExceeded, "{cut}");
        } else {
            let quiet = tokio::time::timeout(SHORT * 2, chat.message()).await;
            assert!(quiet.is_err(), "a quiet stream goes on: {quiet:?}");
        }
        assert_eq!(say(&mut pair.client, "after").await.unwrap().text, "after", "{is_idle}");
    }
}

#[tokio::test]
async fn a_call_of_too_many_headers_is_refused_and_the_next_one_served() {
    let mut pair = Pair::start(|_, listener| listener.max_headers_count(30));
    until_ok(&mut pair.client).await;
    let mut many = Request::new(EchoRequest::say("many"));
    for _ in 0..30 {
        many.metadata_mut().append("x-many", "1".parse().unwrap());
    }
    let refused = soon(pair.client.unary(many)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(say(&mut pair.client, "few").await.unwrap().text, "few");
}

#[tokio::test]
async fn connections_that_are_sent_away_by_age_cost_no_call() {
    let mut pair = Pair::start(|_, listener| listener.max_connection_duration(SHORT));
    until_ok(&mut pair.client).await;
    let begin = tokio::time::Instant::now();
    let mut calls = 0;
    while begin.elapsed() < SHORT * 10 {
        assert_eq!(say(&mut pair.client, "x").await.unwrap().text, "x", "after {calls} calls");
        calls += 1;
    }
    let (client, server) = (pair.mesh, pair.served);
    drop((client, server));
}
