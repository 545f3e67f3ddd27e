//! One event per request, whatever became of it.

use std::sync::{Arc, Mutex};

use mesh_core::telemetry::event::{EventSink, RequestEvent};
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_xds::server::{Retry, Route};
use tonic::Code;

use crate::{main_cluster, routed};

#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<(String, u16, u32, String)>>);

impl EventSink for Recorder {
    fn record(&self, event: &RequestEvent<'_>) {
        let seen = (event.path.to_owned(), event.response_code, event.attempts, event.cluster.to_owned());
        self.0.lock().expect("no panic under the lock").push(seen);
    }
}

#[tokio::test]
async fn each_call_is_one_event_with_its_attempts_and_cluster() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let route = Route::prefix("/").cluster("main").retry(Retry::on("unavailable").times(2));
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let recorder = Arc::new(Recorder::default());
    let mesh = fleet.mesh_builder("client").event_sink(recorder.clone()).build().unwrap();
    let mut client = EchoClient::new(shop(&mesh));
    client.unary(EchoRequest::say("ok")).await.unwrap();
    client.unary(EchoRequest::say("flaky").failing(Code::Unavailable, 1)).await.unwrap();
    client.unary(EchoRequest::say("down").failing(Code::Internal, 0)).await.unwrap_err();
    let events = recorder.0.lock().unwrap().clone();
    let attempts: Vec<u32> = events.iter().map(|event| event.2).collect();
    assert_eq!(attempts, [1, 2, 1], "{events:?}");
    assert!(events.iter().all(|event| event.0 == mesh_tests::echo::UNARY && event.3 == "main"), "{events:?}");
}
