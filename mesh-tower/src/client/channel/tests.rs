//! The channel as its users see it.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mesh_core::testing::endpoints;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use tower_service::Service as _;

use super::{MeshChannel, StrictChannel};
use crate::body::Body;
use crate::client::request::Call;
use crate::client::testing::{Unreachable, World, get, read};
use crate::transport::pool::ConnectivityState;

fn world() -> World {
    let world = World::over(Unreachable(ConnectivityState::Ready));
    world.publish_endpoints(endpoints([1]));
    world
}

#[test]
fn a_channel_is_shared_and_sent_like_any_value() {
    fn is<T: Clone + Send + Sync + 'static>() {}
    is::<MeshChannel>();
    is::<StrictChannel>();
}

#[tokio::test]
async fn a_call_in_flight_is_small() {
    let future = world().channel().call(get("/"));
    let sizes = (size_of_val(&*future.0), size_of::<Call>());
    // The allocator of glibc keeps blocks of up to 1,032 bytes for the thread that freed them.
    assert!(sizes.0 <= 1024 && sizes.1 <= 1032, "future and call are {sizes:?} bytes");
}

#[tokio::test]
async fn a_call_can_be_spawned_and_takes_any_body() {
    let world = world();
    let mut channel = world.channel();
    let task = crate::spawn(async move { channel.call(Request::new(Empty::<bytes::Bytes>::new())).await });
    tokio::task::yield_now().await;
    task.abort();
    let mut strict = world.channel().strict();
    drop(crate::spawn(async move { strict.call(Request::new(Full::<bytes::Bytes>::from("x"))).await }));
}

#[tokio::test]
async fn dns_targets_are_dialled_directly_over_http_1() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    crate::spawn(async move {
        let (stream, _) = socket.accept().await.unwrap();
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Body::full(format!("{host} {}", body.len()))))
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    });
    let world = World::with(|builder| builder);
    let channel = world.mesh.channel(&format!("dns:///localhost:{port}")).unwrap();
    for _ in 0..2 {
        let request = Request::post("/x").body(Full::<bytes::Bytes>::from("four")).unwrap();
        let (body, _) = read(channel.clone().oneshot(request).await.unwrap()).await;
        assert_eq!(body, format!("localhost:{port} 4"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_was_shut_down_refuses_calls_and_channels() {
    let world = world();
    let channel = world.channel();
    world.mesh.shutdown(Duration::from_secs(1)).await;
    assert!(world.mesh.channel("shop").is_err());
    let response = channel.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn outside_a_runtime_a_channel_is_an_error_and_never_a_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(async { world() });
    assert!(world.mesh.channel("shop").is_err());
}
