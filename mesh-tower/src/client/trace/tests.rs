//! What the peer and the sinks are told.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use mesh_core::config::endpoints::Address;
use mesh_core::outcome::GrpcCode;
use mesh_core::testing::endpoints;
use tokio_test::task;
use tower::ServiceExt as _;

use crate::body::Body;
use crate::client::testing::{Answer, World, get, grpc, grpc_response, read};
use crate::context::{MeshContext, scope};
use crate::runtime::endpoint::UpstreamFuture;
use crate::telemetry::TraceContext;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-00000000000000000000000000000abc-00f067aa0ba902b7-00";

fn context(value: &str) -> TraceContext {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", value.parse().unwrap());
    TraceContext::extract(&headers).unwrap()
}

type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// A world whose upstream keeps the headers that it saw.
fn seeing() -> (World, Seen) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let world = World::over(Answer(move |_: &Address, request: Request<Body>| -> UpstreamFuture {
        log.lock().unwrap().push(request.headers().clone());
        Box::pin(std::future::ready(Ok(Response::new(Body::empty()))))
    }));
    world.publish_endpoints(endpoints([1]));
    (world, seen)
}

#[tokio::test]
async fn the_application_s_traceparent_comes_first_then_the_incoming_request_s() {
    let (world, seen) = seeing();
    let incoming = MeshContext { trace: Some(context(OTHER)), deadline: None };
    let mut own = get("/");
    own.headers_mut().insert("traceparent", PARENT.parse().unwrap());
    for request in [own, get("/")] {
        scope(incoming.clone(), world.channel().oneshot(request)).await.unwrap();
    }
    world.channel().oneshot(get("/")).await.unwrap();
    let traces: Vec<_> =
        seen.lock().unwrap().iter().map(|headers| TraceContext::extract(headers).unwrap().ids).collect();
    assert_eq!((traces[0].trace, traces[0].sampled), (context(PARENT).ids.trace, true));
    assert_ne!(traces[0].span, context(PARENT).ids.span, "a span of its own");
    assert_eq!((traces[1].trace, traces[1].sampled), (0xabc, false));
    assert!(traces[2].trace != traces[1].trace && !traces[2].sampled, "a new trace, not sampled");
}

#[tokio::test]
async fn a_call_is_told_of_once_at_the_end_of_its_body() {
    let world = World::over(Answer(|_: &Address, _: Request<Body>| -> UpstreamFuture {
        Box::pin(std::future::ready(Ok(grpc_response("5"))))
    }));
    world.publish_endpoints(endpoints([1]));
    let response = world.channel().oneshot(grpc("/s/m")).await.unwrap();
    assert!(world.events.take().is_empty());
    read(response).await;
    let events = world.events.take();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].grpc, events[0].attempts), (Some(GrpcCode::NOT_FOUND), 1));
    assert!(events[0].request_bytes > 7 && events[0].response_bytes > 7, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_poll_gives_everything_back_and_is_told_of_as_cancelled() {
    let world = World::over(Answer(|_: &Address, request: Request<Body>| -> UpstreamFuture {
        Box::pin(async move {
            tokio::task::yield_now().await;
            request.into_body().collect().await.map_err(|_| std::fmt::Error).unwrap();
            tokio::task::yield_now().await;
            Ok(grpc_response("0"))
        })
    }));
    world.publish_endpoints(endpoints([1]));
    for polls in 0..3 {
        let mut call = task::spawn(world.channel().oneshot(grpc("/s/m")));
        for _ in 0..polls {
            assert!(call.poll().is_pending());
        }
        drop(call);
        let events = world.events.take();
        let told: Vec<_> = events.iter().map(|event| (&*event.flags, event.grpc)).collect();
        // Before the first poll of `oneshot` there is no call yet.
        let expected: &[_] = if polls == 0 { &[] } else { &[("DC", Some(GrpcCode::CANCELLED))] };
        assert_eq!(told, expected, "dropped after {polls} polls");
        let clusters = world.mesh.runtime().clusters();
        assert_eq!(clusters.is_empty(), polls == 0, "a cluster is made by the first call that goes there");
        for cluster in clusters {
            assert_eq!(cluster.permits().used(mesh_core::breaker::PermitKind::Request), 0);
            assert_eq!(cluster.table().endpoints[0].runtime.in_flight(), 0);
        }
    }
}

#[tokio::test]
async fn a_response_that_is_dropped_half_way_is_told_of_as_cancelled() {
    let world = World::over(Answer(|_: &Address, _: Request<Body>| -> UpstreamFuture {
        Box::pin(std::future::ready(Ok(grpc_response("0"))))
    }));
    world.publish_endpoints(endpoints([1]));
    let response = world.channel().oneshot(grpc("/s/m")).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let events = world.events.take();
    assert_eq!((events.len(), &*events[0].flags), (1, "DC"));
}

/// What an upstream says instead of gRPC.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_grpc_becomes_the_status_that_it_means() {
    for (status, kind, text, code) in [
        (502, Some("text/html"), "<h1>Bad Gateway</h1>", "14"),
        (503, Some("text/plain"), "upstream connect error", "14"),
        (504, None, "", "14"),
        (429, Some("application/json"), "{}", "14"),
        (400, Some("text/html"), "no", "13"),
        (401, Some("text/html"), "who?", "16"),
        (403, Some("text/html"), "no", "7"),
        (404, Some("text/html"), "where?", "12"),
        (500, Some("text/html"), "oops", "2"),
        (302, Some("text/html"), "elsewhere", "2"),
        (503, Some("application/grpc"), "", "14"),
        (200, Some("text/html"), "<p>hello", "2"),
        (200, Some("application/grpc-web"), "x", "2"),
    ] {
        let world = World::over(Answer(move |_: &Address, _: Request<Body>| -> UpstreamFuture {
            let mut response = Response::builder().status(status);
            if let Some(kind) = kind {
                response = response.header("content-type", kind);
            }
            // The rest never comes: nobody waits for it for long.
            let text = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(
                http_body::Frame::data(text.into()),
            )]);
            let body = http_body_util::StreamBody::new(futures_util::StreamExt::chain(
                text,
                futures_util::stream::pending(),
            ));
            Box::pin(std::future::ready(Ok(response.body(Body::new(body)).unwrap())))
        }));
        world.publish_endpoints(endpoints([1]));
        let response = world.channel().oneshot(grpc("/s/m")).await.unwrap();
        let message = response.headers()["grpc-message"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()["grpc-status"], code, "{status} {kind:?}");
        assert!(message.starts_with(&format!("HTTP status {status}")), "{message}");
        assert!(message.contains(kind.unwrap_or_default()) && message.ends_with(text), "{message}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        let event = world.events.take().remove(0);
        assert_eq!((event.status, event.grpc.unwrap().as_str()), (status, code));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_grpc_stays_as_it_is() {
    for (kind, status) in [
        (Some("application/grpc"), None),
        (Some("application/grpc+proto"), None),
        (None, None),
        (Some("text/html"), Some("5")),
    ] {
        let world = World::over(Answer(move |_: &Address, _: Request<Body>| -> UpstreamFuture {
            let mut response = grpc_response("0");
            response.headers_mut().remove("content-type");
            if let Some(kind) = kind {
                response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
            }
            if let Some(status) = status {
                response.headers_mut().insert("grpc-status", http::HeaderValue::from_static(status));
            }
            Box::pin(std::future::ready(Ok(response)))
        }));
        world.publish_endpoints(endpoints([1]));
        let response = world.channel().oneshot(grpc("/s/m")).await.unwrap();
        assert_eq!(response.headers().get("grpc-message"), None, "{kind:?}");
        let (body, _) = read(response).await;
        assert_eq!(body.len(), 7, "{kind:?}");
    }
}
