//! Waiting for a first configuration: bounded in number and in time.

use std::time::Duration;

use http::Request;
use mesh_core::config::endpoints::Address;
use mesh_core::error::Reason;
use mesh_core::snapshot::ConfigProblem;
use mesh_core::testing::endpoints;
use tokio::time::Instant;
use tokio_test::task;
use tower::ServiceExt as _;

use crate::body::Body;
use crate::client::testing::{Answer, Unreachable, World, get, grpc, grpc_response};
use crate::runtime::endpoint::UpstreamFuture;
use crate::transport::pool::ConnectivityState;

fn unreachable() -> ConfigProblem {
    ConfigProblem::Unreachable("connection refused".into())
}

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
async fn without_a_control_plane_a_call_waits_exactly_as_long_as_its_caller_said() {
    let world = world();
    world.publish_failure(unreachable());
    let mut request = grpc("/");
    request.headers_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let began = Instant::now();
    let error = world.channel().strict().oneshot(request).await.unwrap_err();
    assert_eq!(
        (error.reason(), began.elapsed()),
        (Some(Reason::DeadlineExceeded), Duration::from_millis(500))
    );
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_a_control_plane_a_call_without_a_deadline_fails_at_once() {
    let world = world();
    world.publish_failure(unreachable());
    let began = Instant::now();
    let error = world.channel().strict().oneshot(get("/")).await.unwrap_err();
    assert_eq!((error.reason(), began.elapsed()), (Some(Reason::NoConfiguration), Duration::ZERO));
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_control_plane_is_served_once_it_answers() {
    let world = World::over(Answer(|_: &Address, _: Request<Body>| -> UpstreamFuture {
        Box::pin(async { Ok(grpc_response("0")) })
    }));
    world.publish_failure(unreachable());
    let mut request = grpc("/");
    request.headers_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let mut call = task::spawn(world.channel().strict().oneshot(request));
    assert!(call.poll().is_pending());
    world.publish_endpoints(endpoints([1]));
    assert_eq!(call.await.unwrap().status(), 200);
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
