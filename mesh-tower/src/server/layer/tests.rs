use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tokio_test::{assert_pending, assert_ready, assert_ready_ok};
use tower_test::mock;

use super::*;
use crate::server::AcceptedPeer;
use crate::server::testing::{Seen, World, chain};

type Mock = mock::Mock<Request<()>, Response<Full<Bytes>>>;

struct Stage {
    world: World,
    peer: AcceptedPeer,
    service: mock::Spawn<ServerService<Mock>>,
    app: mock::Handle<Request<()>, Response<Full<Bytes>>>,
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let peer = world.peer(&chain("all", vec![]), "10.0.0.1:40000");
        let (service, app) = mock::spawn_layer(world.server.layer());
        Self { world, peer, service, app }
    }

    fn request(&self, timeout: Option<&str>) -> Request<()> {
        let mut request =
            Request::post("http://shop.test/shop.Reviews/List").header("host", "shop.test").body(()).unwrap();
        let headers = request.headers_mut();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        if let Some(timeout) = timeout {
            headers.insert("grpc-timeout", timeout.parse().unwrap());
        }
        request.extensions_mut().insert(Peer::from(self.peer.clone()));
        request
    }

    fn used(&self) -> usize {
        self.world.server.requests.used()
    }

    async fn seen(&self, n: usize) -> Vec<Seen> {
        self.world.events.wait_for(n).await
    }
}

#[tokio::test]
async fn back_pressure_of_the_application_is_passed_on() {
    let mut stage = Stage::new();
    stage.app.allow(0);
    assert_pending!(stage.service.poll_ready());
    stage.app.allow(1);
    assert_ready_ok!(stage.service.poll_ready());
}

#[tokio::test]
async fn an_error_of_the_application_stays_its_own_and_gives_the_permit_back() {
    let mut stage = Stage::new();
    stage.app.allow(1);
    assert_ready_ok!(stage.service.poll_ready());
    let mut call = tokio_test::task::spawn(stage.service.call(stage.request(None)));
    assert_pending!(call.poll());
    let (_, respond) = stage.app.next_request().await.unwrap();
    assert_eq!(stage.used(), 1);
    respond.send_error("on fire");
    assert_eq!(assert_ready!(call.poll()).unwrap_err().to_string(), "on fire");
    assert_eq!(stage.used(), 0);
}

#[tokio::test]
async fn dropped_at_each_point_the_permit_is_back_and_the_request_told_of_once() {
    // Before the first poll, while the application works, and with an unread response body.
    for point in 0..3 {
        let mut stage = Stage::new();
        stage.app.allow(1);
        assert_ready_ok!(stage.service.poll_ready());
        let mut call = tokio_test::task::spawn(stage.service.call(stage.request(None)));
        let mut response = None;
        if point > 0 {
            assert_pending!(call.poll());
        }
        if point > 1 {
            let (_, respond) = stage.app.next_request().await.unwrap();
            respond.send_response(Response::new(Full::from("unread")));
            response = Some(assert_ready!(call.poll()).unwrap());
        }
        assert_eq!(stage.used(), 1);
        drop((call, response));
        assert_eq!(stage.used(), 0, "{point}");
        let seen = stage.seen(1).await;
        assert_eq!((seen.len(), seen[0].flags.as_str()), (1, "DC"), "{point}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_to_the_millisecond() {
    let mut stage = Stage::new();
    stage.app.allow(1);
    assert_ready_ok!(stage.service.poll_ready());
    let mut call = tokio_test::task::spawn(stage.service.call(stage.request(Some("500m"))));
    assert_pending!(call.poll());
    tokio::time::advance(Duration::from_millis(499)).await;
    assert_pending!(call.poll());
    tokio::time::advance(Duration::from_millis(1)).await;
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(stage.used(), 1, "the refusal is on its way");
    assert!(response.body().is_end_stream());
    drop(response);
    assert_eq!((stage.used(), stage.seen(1).await[0].flags.as_str()), (0, "UT"));
}

#[tokio::test]
async fn a_request_without_a_peer_never_reaches_the_application() {
    let mut stage = Stage::new();
    stage.app.allow(1);
    assert_ready_ok!(stage.service.poll_ready());
    let mut call = tokio_test::task::spawn(stage.service.call(Request::new(())));
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.status(), http::StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_body_read_to_its_end_is_told_of_with_its_bytes() {
    let mut stage = Stage::new();
    stage.app.allow(1);
    assert_ready_ok!(stage.service.poll_ready());
    let mut call = tokio_test::task::spawn(stage.service.call(stage.request(None)));
    assert_pending!(call.poll());
    let (_, respond) = stage.app.next_request().await.unwrap();
    respond.send_response(Response::new(Full::from("twelve bytes")));
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "twelve bytes");
    let seen = stage.seen(1).await;
    assert_eq!((seen[0].flags.as_str(), seen[0].response_bytes), ("-", 12));
}
