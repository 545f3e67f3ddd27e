//! Exact times, on a clock that is moved by hand.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use mesh_core::error::Reason;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tower::{Layer as _, Service as _, service_fn};

use super::*;
use crate::body::BoxError;
use crate::server::Peer;
use crate::server::layer::ResponseBody;
use crate::server::testing::{World, chain};

const LIMIT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(1);

fn idle() -> ServingConfig {
    ServingConfig { stream_idle_timeout: Some(LIMIT), ..ServingConfig::default() }
}

fn whole() -> ServingConfig {
    ServingConfig { request_timeout: Some(LIMIT), ..ServingConfig::default() }
}

type Sender = mpsc::Sender<&'static str>;

/// A body that goes on whenever something is sent, and ends when the sender is gone.
fn fed() -> (Sender, Body) {
    let (sender, receiver) = mpsc::channel::<&'static str>(8);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let data = receiver.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(data))), receiver))
    });
    (sender, Body::new(StreamBody::new(frames)))
}

struct Call {
    world: World,
    feed: Option<Sender>,
    answer: JoinHandle<Result<Response<ResponseBody<Body>>, BoxError>>,
}

/// Sends a request with a body that is fed by hand to `app`.
fn call<F, A>(serving: ServingConfig, content_type: &'static str, app: A) -> Call
where
    A: FnMut(Request<Body>) -> F + Send + 'static,
    F: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
{
    let world = World::new();
    let mut all = chain("all", vec![]);
    all.http.serving = serving;
    let (feed, body) = fed();
    let mut request = Request::post("http://shop.test/")
        .header("host", "shop.test")
        .header("content-type", content_type)
        .body(body)
        .unwrap();
    request.extensions_mut().insert(Peer::from(world.peer(&all, "10.0.0.1:40000")));
    let mut service = world.server.layer().layer(service_fn(app));
    let answer = tokio::task::spawn(service.call(request));
    Call { world, feed: Some(feed), answer }
}

async fn reads_all(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let data = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Body::full(data)))
}

/// Lets everybody run until nobody has anything to do, then moves the clock.
async fn pass(time: Duration) {
    for _ in 0..20 {
        yield_now().await;
    }
    tokio::time::advance(time).await;
    for _ in 0..20 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_awaited_and_never_goes_on_ends_at_the_limit() {
    for (serving, flags) in [(idle(), "SI"), (whole(), "-")] {
        for (kind, status, grpc) in [("text/plain", 408, None), ("application/grpc", 200, Some("4"))] {
            let call = call(serving, kind, reads_all);
            call.feed.as_ref().unwrap().send("some").await.unwrap();
            pass(LIMIT - TICK).await;
            assert!(!call.answer.is_finished(), "{serving:?} {kind}");
            pass(TICK).await;
            let answer = call.answer.await.unwrap().unwrap();
            assert_eq!(answer.status(), status, "{serving:?} {kind}");
            let of_grpc = answer.headers().get("grpc-status").map(|value| value.to_str().unwrap());
            assert_eq!(of_grpc, grpc, "{serving:?} {kind}");
            drop(answer);
            let seen = call.world.events.wait_for(1).await;
            assert_eq!(seen[0].flags, flags, "{serving:?} {kind}");
            assert_eq!(call.world.server.requests.used(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_on_is_not_idle_but_may_be_late() {
    for (serving, is_late) in [(idle(), false), (whole(), true)] {
        let mut call = call(serving, "text/plain", reads_all);
        for _ in 0..4 {
            let _ = call.feed.as_ref().unwrap().send("x").await;
            pass(LIMIT / 2).await;
        }
        call.feed = None;
        let answer = call.answer.await.unwrap().unwrap();
        assert_eq!(answer.status().as_u16(), if is_late { 408 } else { 200 }, "{serving:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_arrived_or_that_nobody_waits_for_is_not_late() {
    // All of it is here; the application drops the rest; the application has not begun to read.
    for way in 0..3 {
        let mut call = call(whole(), "text/plain", move |request: Request<Body>| async move {
            let mut body = request.into_body();
            if way == 0 {
                (&mut body).collect().await?;
            }
            let kept = (way == 2).then_some(body);
            tokio::time::sleep(LIMIT * 2).await;
            drop(kept);
            Ok(Response::new(Body::full("done")))
        });
        if way == 0 {
            call.feed = None;
        }
        pass(LIMIT * 2).await;
        assert_eq!(call.answer.await.unwrap().unwrap().status(), 200, "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_begins_to_wait_for_a_late_request_is_told_at_once() {
    let call = call(whole(), "text/plain", |request: Request<Body>| async move {
        // In a task of its own, so that only the body can tell.
        let reader = tokio::task::spawn(async move {
            tokio::time::sleep(LIMIT * 2).await;
            reads_all(request).await
        });
        reader.await?
    });
    pass(LIMIT * 2 - TICK).await;
    assert!(!call.answer.is_finished());
    pass(TICK).await;
    assert_eq!(call.answer.await.unwrap().unwrap().status(), 408);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_does_not_go_on_is_ended_after_its_head() {
    for kind in ["text/plain", "application/grpc"] {
        let (feed, body) = fed();
        let mut body = Some(body);
        let call = call(idle(), kind, move |_: Request<Body>| {
            let response = Response::new(body.take().unwrap());
            async { Ok(response) }
        });
        let mut answer = call.answer.await.unwrap().unwrap().into_body();
        for _ in 0..3 {
            pass(LIMIT - TICK).await;
            feed.send("x").await.unwrap();
            assert!(answer.frame().await.unwrap().unwrap().is_data(), "{kind}");
        }
        let end = tokio::task::spawn(async move { answer.frame().await.unwrap() });
        pass(LIMIT - TICK).await;
        assert!(!end.is_finished(), "{kind}");
        pass(TICK).await;
        match (kind, end.await.unwrap()) {
            ("text/plain", Err(error)) => {
                assert_eq!(crate::Error::from(error).reason(), Some(Reason::StreamIdle));
            }
            (_, Ok(frame)) => assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "4"),
            (_, Err(error)) => panic!("{error:?}"),
        }
        assert_eq!(call.world.events.wait_for(1).await[0].flags, "SI", "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_another_task_reads_ends_with_the_request_or_by_itself() {
    // The request is ended by its timeout; or it is answered, and only the body is left.
    for is_answered in [false, true] {
        let (told, read) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let call = call(idle(), "text/plain", move |request: Request<Body>| {
            let told = told.take().unwrap();
            tokio::task::spawn(async move { told.send(request.into_body().collect().await.is_err()) });
            async move {
                if !is_answered {
                    std::future::pending::<()>().await;
                }
                Ok(Response::new(Body::full("early")))
            }
        });
        let mut read = Box::pin(read);
        if is_answered {
            assert_eq!(call.answer.await.unwrap().unwrap().status(), 200);
            pass(LIMIT - TICK).await;
            assert!(futures_util::poll!(&mut read).is_pending());
            pass(TICK).await;
        } else {
            pass(LIMIT).await;
            assert_eq!(call.answer.await.unwrap().unwrap().status(), 408);
        }
        assert_eq!(read.await, Ok(true), "{is_answered}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_ends_where_nothing_is_configured() {
    let mut call = call(ServingConfig::default(), "application/grpc", reads_all);
    pass(Duration::from_secs(24 * 3_600)).await;
    assert!(!call.answer.is_finished());
    call.feed = None;
    assert_eq!(call.answer.await.unwrap().unwrap().status(), 200);
}
