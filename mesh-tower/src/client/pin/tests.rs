//! Waiting for a first configuration: bounded in number and in time.

use std::time::Duration;

use mesh_core::error::Reason;
use mesh_core::testing::endpoints;
use tokio::time::Instant;
use tokio_test::task;
use tower::ServiceExt as _;

use crate::client::testing::{Unreachable, World, get};
use crate::transport::pool::ConnectivityState;

fn world() -> World {
    World::over(Unreachable(ConnectivityState::Ready))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_and_twenty_four_calls_wait_and_one_more_is_refused_at_once() {
    let world = world();
    let channel = world.channel().strict();
    let call = || task::spawn(channel.clone().oneshot(get("/")));
    let mut waiting: Vec<_> = (0..super::MAX_WAITING).map(|_| call()).collect();
    for call in &mut waiting {
        assert!(call.poll().is_pending());
    }
    let refused = channel.clone().oneshot(get("/")).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::TooManyWaiting));
    waiting.pop();
    assert!(call().poll().is_pending(), "a call that goes away gives its place back");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_does_not_wait_for_ever() {
    let world = world();
    let began = Instant::now();
    let error = world.channel().strict().oneshot(get("/")).await.unwrap_err();
    assert_eq!((error.reason(), began.elapsed()), (Some(Reason::NoConfiguration), super::MAX_WAIT));
    assert!(error.to_string().contains("node-1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_every_open_target_and_says_what_is_missing() {
    let world = world();
    let _channel = world.channel();
    let error = world.mesh.ready(Duration::from_secs(1)).await.unwrap_err().to_string();
    assert!(error.contains(r#"listener "shop" has not arrived"#), "{error}");
    world.publish_endpoints(endpoints([1]));
    world.mesh.ready(Duration::from_secs(1)).await.unwrap();
}
