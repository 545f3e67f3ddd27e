//! Waiting for a first configuration: bounded in number and in time.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use mesh_core::config::endpoints::Address;
use mesh_core::error::Reason;
use mesh_core::route::ClusterIx;
use mesh_core::snapshot::{ClientSnapshot, ConfigProblem};
use mesh_core::testing::{endpoints, route, route_config, virtual_host};
use tokio::time::Instant;
use tokio_test::task;
use tower::ServiceExt as _;

use super::PinnedSnapshot;
use crate::body::Body;
use crate::client::testing::{
    Answer, Unreachable, World, cluster, get, grpc, grpc_response, snapshot as snapshot_of,
};
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

/// What each request to `/a`, `/b`, … finds: a snapshot of these clusters, each with one endpoint.
fn snapshot(version: u64, clusters: &[(&str, u16)]) -> ClientSnapshot {
    let routes = clusters.iter().map(|(name, _)| route(&format!("/{name}"), name)).collect();
    let configs: Vec<_> = clusters.iter().map(|(name, port)| cluster(name, endpoints([*port]))).collect();
    snapshot_of(version, route_config("routes", vec![virtual_host(&["*"], routes)]), &configs)
}

fn endpoint_of(pinned: &PinnedSnapshot, position: u32) -> String {
    let cluster = pinned.cluster(Some(ClusterIx::new(position))).unwrap();
    cluster.runtime.table().endpoints[0].runtime.address().to_string()
}

#[tokio::test]
async fn a_cluster_has_no_runtime_before_its_first_request_and_is_followed_from_then_on() {
    let world = world();
    let runtime = world.mesh.runtime();
    let first = PinnedSnapshot::new(&snapshot(1, &[("a", 1), ("b", 2)]), None, runtime);
    assert!(runtime.clusters().is_empty());
    assert_eq!(endpoint_of(&first, 1), "127.0.0.1:2");
    assert_eq!(runtime.clusters().len(), 1);
    let _second = PinnedSnapshot::new(&snapshot(2, &[("a", 3), ("b", 4)]), Some(&first), runtime);
    let [in_use] = <[_; 1]>::try_from(runtime.clusters()).unwrap();
    let address = in_use.table().endpoints[0].runtime.address().to_string();
    assert_eq!(address, "127.0.0.1:4", "what is in use is up to date before anybody asks");
}

#[tokio::test]
async fn a_request_pinned_to_an_older_snapshot_does_not_bring_older_endpoints_back() {
    let world = world();
    let runtime = world.mesh.runtime();
    let first = PinnedSnapshot::new(&snapshot(1, &[("a", 1)]), None, runtime);
    let second = PinnedSnapshot::new(&snapshot(2, &[("a", 2)]), Some(&first), runtime);
    assert_eq!(endpoint_of(&second, 0), "127.0.0.1:2");
    assert_eq!(endpoint_of(&first, 0), "127.0.0.1:2");
    // The other way round, the newer one moves the cluster on.
    let third = PinnedSnapshot::new(&snapshot(3, &[("b", 3)]), None, runtime);
    let fourth = PinnedSnapshot::new(&snapshot(4, &[("b", 4)]), Some(&third), runtime);
    assert_eq!(
        (endpoint_of(&third, 0), endpoint_of(&fourth, 0)),
        ("127.0.0.1:3".into(), "127.0.0.1:4".into())
    );
}

#[tokio::test]
async fn what_did_not_change_stays_the_same_cluster_whatever_changes_beside_it() {
    let world = world();
    let runtime = world.mesh.runtime();
    let before = snapshot(1, &[("a", 1), ("b", 2)]);
    let first = PinnedSnapshot::new(&before, None, runtime);
    let at = |pinned: &PinnedSnapshot, position| pinned.cluster(Some(ClusterIx::new(position))).unwrap();
    let (a, b) = (at(&first, 0), at(&first, 1));
    let mut after = ClientSnapshot { version: 2, ..before };
    after.clusters.set(1, snapshot(2, &[("a", 1), ("b", 3)]).clusters[1].clone());
    let second = PinnedSnapshot::new(&after, Some(&first), runtime);
    assert!(Arc::ptr_eq(&a, &at(&second, 0)) && !Arc::ptr_eq(&b, &at(&second, 1)));
    assert!(Arc::ptr_eq(&b.runtime, &at(&second, 1).runtime), "connections are kept");
    let fewer = ClientSnapshot { clusters: after.clusters.iter().take(1).cloned().collect(), ..after };
    let third = PinnedSnapshot::new(&fewer, Some(&second), runtime);
    assert!(Arc::ptr_eq(&a, &at(&third, 0)) && third.cluster(Some(ClusterIx::new(1))).is_err());
}
