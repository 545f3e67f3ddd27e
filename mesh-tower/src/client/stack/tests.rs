//! The production stack over an upstream in memory, and over real sockets.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::config::cluster::BreakerConfig;
use mesh_core::config::endpoints::Address;
use mesh_core::config::retry::{RetryOn, RetryPolicy};
use mesh_core::config::route::ForwardAction;
use mesh_core::config::units::Limit;
use mesh_core::error::Reason;
use mesh_core::outcome::GrpcCode;
use mesh_core::snapshot::ConfigProblem;
use mesh_core::testing::{self, endpoints};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::Error;
use crate::body::Body;
use crate::client::testing::{
    Answer, Unreachable, World, cluster, get, grpc, grpc_response, read, settle, trailers_only,
};
use crate::runtime::endpoint::{Upstream, UpstreamFuture};
use crate::transport::error::{FailureKind, Progress, SendError};
use crate::transport::pool::ConnectivityState;

fn answer(
    reply: impl Fn(&Address, &Request<Body>) -> Response<Body> + Send + Sync + 'static,
) -> impl Upstream + 'static {
    Answer(move |address: &Address, request: Request<Body>| -> UpstreamFuture {
        let response = reply(address, &request);
        Box::pin(std::future::ready(Ok(response)))
    })
}

fn ok() -> impl Upstream + 'static {
    answer(|_, _| Response::new(Body::full("hello")))
}

type Make = Box<dyn Fn() -> World>;

/// A real HTTP/2 server that answers with its own name.
async fn server(name: &'static str) -> (u16, Arc<AtomicUsize>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    crate::spawn(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(Response::new(Body::full(format!("{name}:{}", body.len()))))
                });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            crate::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, connections)
}

#[tokio::test]
async fn a_call_reaches_each_endpoint_in_turn_over_real_connections() {
    let (a, connections_a) = server("a").await;
    let (b, connections_b) = server("b").await;
    let world = World::with(|builder| builder);
    world.publish_endpoints(endpoints([a, b]));
    let channel = world.channel();
    // Both must be connected before the turns are exact.
    while connections_a.load(Ordering::SeqCst) + connections_b.load(Ordering::SeqCst) < 2 {
        channel.clone().oneshot(get("/")).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut seen = [0, 0];
    for _ in 0..100 {
        let response = channel.clone().oneshot(get("/x")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let (body, _) = read(response).await;
        seen[usize::from(body.starts_with(b"b"))] += 1;
    }
    assert!(seen[0] >= 45 && seen[1] >= 45, "{seen:?}");
    assert_eq!(connections_a.load(Ordering::SeqCst), 1, "calls share a connection");
}

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_the_first_configuration() {
    let world = World::over(ok());
    let call = crate::spawn(world.channel().oneshot(get("/")));
    settle().await;
    assert!(!call.is_finished());
    world.publish_endpoints(endpoints([1]));
    let (body, _) = read(call.await.unwrap().unwrap()).await;
    assert_eq!(body, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_request_reaches_the_matcher_whole_and_the_upstream_completed() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let world = World::over(answer(move |address, request| {
        log.lock().unwrap().push(format!("{} {} {address}", request.method(), request.uri()));
        Response::new(Body::empty())
    }));
    world.publish(
        vec![testing::route("/reviews", "b"), testing::route("/", "a")],
        vec![cluster("a", endpoints([1])), cluster("b", endpoints([2]))],
    );
    let channel = world.channel();
    for request in [get("/reviews/0?x=1"), get("/other"), get("http://own.example:8080/")] {
        assert_eq!(channel.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "GET http://shop/reviews/0?x=1 127.0.0.1:2",
            "GET http://shop/other 127.0.0.1:1",
            "GET http://own.example:8080/ 127.0.0.1:1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_exist_is_404_or_unavailable_and_says_who_was_asked() {
    let world = World::over(ok());
    world.publish_failure(ConfigProblem::DoesNotExist);
    let channel = world.channel();
    let response = channel.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let error = response.extensions().get::<Error>().unwrap();
    assert!(error.is_no_route());
    assert_eq!(error.to_string(), r#"no such target: listener "shop" does not exist (node "node-1")"#);
    let (text, _) = read(response).await;
    assert_eq!(text, "NR: no such target");
    let response = channel.clone().oneshot(grpc("/s/m")).await.unwrap();
    assert_eq!(
        (response.status(), response.headers()["grpc-status"].as_bytes()),
        (StatusCode::OK, &b"14"[..])
    );
    let error = channel.strict().oneshot(get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownTarget));
    assert!(world.events.take().iter().all(|event| event.flags == "NR"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_exact_whatever_is_broken() {
    let broken: [(&str, Make); 5] = [
        ("no configuration", Box::new(|| World::over(ok()))),
        (
            "nothing connects",
            Box::new(|| {
                let world = World::over(Unreachable(ConnectivityState::Connecting));
                world.publish_endpoints(endpoints([1]));
                world
            }),
        ),
        (
            "idle for ever",
            Box::new(|| {
                let world = World::over(Unreachable(ConnectivityState::Idle));
                world.publish_endpoints(endpoints([1]));
                world
            }),
        ),
        (
            "no answer",
            Box::new(|| {
                let world = World::over(Unreachable(ConnectivityState::Ready));
                world.publish_endpoints(endpoints([1]));
                world
            }),
        ),
        (
            "retries",
            Box::new(|| {
                let world = World::over(answer(|_, _| trailers_only("14")));
                let policy =
                    RetryPolicy { on: RetryOn::UNAVAILABLE, num_retries: 3, ..RetryPolicy::default() };
                let back_off = mesh_core::config::retry::BackOffConfig {
                    base: Duration::from_secs(600),
                    max: Duration::from_secs(6_000),
                };
                let policy = RetryPolicy { back_off, ..policy };
                let action = ForwardAction { retry: Some(Arc::new(policy)), ..ForwardAction::to("a") };
                world.publish_action(action, cluster("a", endpoints([1])));
                world
            }),
        ),
    ];
    for (what, make) in broken {
        let world = make();
        let began = Instant::now();
        let mut request = grpc("/s/m");
        request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("500m"));
        let response = world.channel().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4", "{what}");
        assert_eq!(began.elapsed(), Duration::from_millis(500), "{what}");
        assert_eq!(world.events.take()[0].flags, "UT", "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_body_ends_a_grpc_stream_with_trailers_and_another_with_an_error() {
    let world = World::over(answer(|_, _| {
        let frames = futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok::<_, Infallible>(http_body::Frame::data("x".into()))]),
            futures_util::stream::pending(),
        );
        Response::new(Body::new(http_body_util::StreamBody::new(frames)))
    }));
    let action = ForwardAction { timeout: Some(Duration::from_secs(2)), ..ForwardAction::to("a") };
    world.publish_action(action, cluster("a", endpoints([1])));
    let began = Instant::now();
    let (data, trailers) = read(world.channel().oneshot(grpc("/s/m")).await.unwrap()).await;
    assert_eq!(
        (&data[..], &trailers.unwrap()["grpc-status"]),
        (&b"x"[..], &http::HeaderValue::from_static("4"))
    );
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let response = world.channel().oneshot(get("/")).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
    assert!(source.is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_retry_policy_repeats_the_whole_request_and_gives_up_with_a_flag() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    let upstream = Answer(move |_: &Address, request: Request<Body>| -> UpstreamFuture {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let previous = request
            .headers()
            .get("grpc-previous-rpc-attempts")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(previous, (n > 0).then(|| n.to_string()), "gRFC A6");
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), 7, "every attempt has the whole body");
            Ok(if n < 2 { trailers_only("14") } else { grpc_response("0") })
        })
    });
    let world = World::over(upstream);
    let policy = |n| RetryPolicy { on: RetryOn::UNAVAILABLE, num_retries: n, ..RetryPolicy::default() };
    let action = |n| ForwardAction { retry: Some(Arc::new(policy(n))), ..ForwardAction::to("a") };
    world.publish_action(action(2), cluster("a", endpoints([1, 2])));
    let (_, trailers) = read(world.channel().oneshot(grpc("/s/m")).await.unwrap()).await;
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    let event = world.events.take().remove(0);
    assert_eq!((event.attempts, event.grpc, &*event.flags), (3, Some(GrpcCode::OK), "-"));
    tries.store(0, Ordering::SeqCst);
    world.publish_action(action(1), cluster("a", endpoints([1, 2])));
    settle().await;
    let response = world.channel().oneshot(grpc("/s/m")).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    let event = world.events.take().remove(0);
    assert_eq!((event.attempts, &*event.flags), (2, "URX"));
}

#[tokio::test(start_paused = true)]
async fn the_breaker_admits_its_limit_and_every_end_of_a_call_gives_the_place_back() {
    let world = World::over(Unreachable(ConnectivityState::Ready));
    let limits = BreakerConfig { max_requests: Limit::new(1), ..BreakerConfig::default() };
    let config = mesh_core::config::cluster::ClusterConfig { limits, ..cluster("a", endpoints([1])) };
    world.publish_action(ForwardAction::to("a"), config);
    let channel = world.channel();
    let mut first = tokio_test::task::spawn(channel.clone().oneshot(get("/")));
    assert!(first.poll().is_pending());
    let refused = channel.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.extensions().get::<Error>().unwrap().flags().to_string(), "UO");
    drop(first);
    let mut second = tokio_test::task::spawn(channel.clone().oneshot(get("/")));
    assert!(second.poll().is_pending(), "admitted");
    drop(second);
    let flags: Vec<_> = world.events.take().into_iter().map(|event| event.flags).collect();
    assert_eq!(flags, ["UO", "DC", "DC"]);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_to_the_end_of_the_body_and_the_event_is_told_there() {
    let world = World::over(ok());
    let limits = BreakerConfig { max_requests: Limit::new(1), ..BreakerConfig::default() };
    let config = mesh_core::config::cluster::ClusterConfig { limits, ..cluster("a", endpoints([1])) };
    world.publish_action(ForwardAction::to("a"), config);
    let channel = world.channel();
    let response = channel.clone().oneshot(get("/")).await.unwrap();
    assert!(world.events.take().is_empty());
    let refused = channel.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.events.take();
    read(response).await;
    let event = world.events.take().remove(0);
    assert_eq!(
        (event.status, event.response_bytes, event.upstream.as_deref()),
        (200, 5, Some("127.0.0.1:1"))
    );
    assert_eq!(channel.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
}

/// Fails each attempt so late, by the peer's reset.
fn resets_after(wait: Duration, code: u32) -> World {
    World::over(Answer(move |_: &Address, _: Request<Body>| -> UpstreamFuture {
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            Err(SendError::new(FailureKind::Reset(code), Progress::Sent))
        })
    }))
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_call_once_its_deadline_has_passed_is_the_deadline() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let just_before = TIMEOUT - Duration::from_millis(1);
    for (wait, code, status) in
        [(TIMEOUT, 8, "4"), (TIMEOUT, 2, "4"), (just_before, 8, "1"), (just_before, 2, "13")]
    {
        let world = resets_after(wait, code);
        world.publish_endpoints(endpoints([1]));
        let mut request = grpc("/s/m");
        request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("500m"));
        let response = world.channel().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], status, "{code:#x} after {wait:?}");
        let event = world.events.take().remove(0);
        assert_eq!(event.grpc, Some(GrpcCode::parse(status.as_bytes())));
        assert_eq!(event.flags, if status == "4" { "UT" } else { "UR" });
    }
    for (wait, status) in [(TIMEOUT, 504), (just_before, 503)] {
        let world = resets_after(wait, 8);
        let action = ForwardAction { timeout: Some(TIMEOUT), ..ForwardAction::to("a") };
        world.publish_action(action, cluster("a", endpoints([1])));
        let response = world.channel().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_once_its_deadline_has_passed_ends_by_the_deadline() {
    for (millis, status) in [(500, "4"), (499, "14")] {
        let world = World::over(Answer(move |_: &Address, _: Request<Body>| -> UpstreamFuture {
            let breaks = futures_util::stream::once(async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Err::<http_body::Frame<bytes::Bytes>, _>(std::io::Error::other("cut"))
            });
            let body = Body::new(http_body_util::StreamBody::new(breaks));
            let response = Response::builder().header("content-type", "application/grpc").body(body);
            Box::pin(std::future::ready(Ok(response.unwrap())))
        }));
        world.publish_endpoints(endpoints([1]));
        let mut request = grpc("/s/m");
        request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("500m"));
        let (_, trailers) = read(world.channel().oneshot(request).await.unwrap()).await;
        assert_eq!(trailers.unwrap()["grpc-status"], status, "after {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_retried_as_the_status_that_it_stands_for() {
    for (on, code, attempts) in
        [("cancelled", 8, 2), ("unavailable", 8, 1), ("internal", 2, 2), ("internal", 12, 1)]
    {
        let world = resets_after(Duration::ZERO, code);
        let retry = RetryPolicy { on: RetryOn::parse(on), num_retries: 1, ..RetryPolicy::default() };
        let action = ForwardAction { retry: Some(Arc::new(retry)), ..ForwardAction::to("a") };
        world.publish_action(action, cluster("a", endpoints([1])));
        world.channel().oneshot(grpc("/s/m")).await.unwrap();
        assert_eq!(world.events.take().remove(0).attempts, attempts, "{on}, {code:#x}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_comes_back_never_serves_its_former_endpoints() {
    let world = World::over(answer(|address, _| Response::new(Body::full(address.to_string()))));
    let channel = world.channel();
    for round in 1..=100u16 {
        world.publish(vec![testing::route("/", "a")], vec![cluster("a", endpoints([round]))]);
        settle().await;
        let (body, _) = read(channel.clone().oneshot(get("/")).await.unwrap()).await;
        assert_eq!(body, format!("127.0.0.1:{round}"));
        world.publish(vec![testing::route("/", "b")], vec![cluster("b", endpoints([9_999]))]);
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_channels_that_are_dropped_leave_nothing_behind() {
    let world = World::over(ok());
    world.publish_endpoints(endpoints([1]));
    let alive = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..50 {
        let channel = world.channel();
        read(channel.oneshot(get("/")).await.unwrap()).await;
    }
    settle().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), alive);
}

#[tokio::test]
async fn a_callers_tight_loop_leaves_a_turn_to_the_other_tasks() {
    let world = World::over(ok());
    let limits = BreakerConfig { max_requests: Limit::new(0), ..BreakerConfig::default() };
    let config = mesh_core::config::cluster::ClusterConfig { limits, ..cluster("a", endpoints([1])) };
    world.publish_action(ForwardAction::to("a"), config);
    let channel = world.channel();
    let turned = Arc::new(AtomicUsize::new(0));
    let turns = turned.clone();
    let other = crate::spawn(async move { turns.store(1, Ordering::SeqCst) });
    // Every call here is refused on the spot; without a yield the other task would never run.
    for _ in 0..1_000 {
        assert!(channel.clone().oneshot(get("/")).await.unwrap().status().is_server_error());
    }
    assert_eq!(turned.load(Ordering::SeqCst), 1);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn the_metrics_of_a_cluster_that_left_the_configuration_go_with_it() {
    use mesh_core::config::telemetry::WorkloadLabels;
    let metrics = crate::telemetry::Metrics::new(Arc::new(WorkloadLabels::unknown()));
    let world = World::with(|builder| builder.upstream(Arc::new(ok())).event_sink(metrics.clone()));
    let channel = world.channel();
    for n in 0..200 {
        let name = format!("cluster-{n}");
        world.publish(vec![testing::route("/", &name)], vec![cluster(&name, endpoints([1]))]);
        settle().await;
        let response = channel.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        read(response).await;
    }
    let page = metrics.render();
    assert!(page.contains(r#"destination_service="cluster-199""#), "the one in use is there");
    assert!(metrics.series() < 40, "{} series", metrics.series());
    assert_eq!(metrics.requests(), 200);
    for _ in 0..8 {
        drop(metrics.render());
    }
    assert_eq!(metrics.series(), 1);
}
