//! One event per request, whatever became of it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::config::units::PerMillion;
use mesh_core::outcome::Outcome;
use mesh_core::telemetry::event::{EventSink, RequestEvent, TraceIds};
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::soon;
use mesh_tower::telemetry::{AccessLog, Format, LiveSpan, Metrics, SpanRecorder, SpanStart, TraceContext};
use mesh_xds::server::{Retry, Route};
use tokio::sync::Notify;
use tonic::Code;
use tower::ServiceExt as _;

use crate::{main_cluster, routed};

/// The lines that were written.
#[derive(Debug, Clone, Default)]
struct Written(Arc<(Mutex<Vec<u8>>, Notify)>);

impl Written {
    /// The first line, once it is there.
    async fn line(&self) -> String {
        loop {
            let more = self.0.1.notified();
            let text = String::from_utf8(self.0.0.lock().expect("no panic under the lock").clone());
            if let Some((line, _)) = text.expect("text").split_once('\n') {
                return line.to_owned();
            }
            more.await;
        }
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.0.0.lock().expect("no panic under the lock").write(bytes);
        self.0.1.notify_one();
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The code, the details and the upstream cluster that each span ended with.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<(u16, String, String)>>>);

impl SpanRecorder for Spans {
    fn start(&self, _: &SpanStart<'_>) -> Box<dyn LiveSpan> {
        Box::new(self.clone())
    }

    fn current(&self) -> Option<TraceContext> {
        None
    }
}

impl LiveSpan for Spans {
    fn ids(&self) -> TraceIds {
        TraceIds { trace: 1, span: 1, sampled: true }
    }

    fn end(self: Box<Self>, event: &RequestEvent<'_>) {
        let seen = (event.response_code, event.details.to_owned(), event.cluster.to_owned());
        self.0.lock().expect("no panic under the lock").push(seen);
    }

    fn end_attempt(self: Box<Self>, _: Outcome, _: &str) {}
}

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

#[tokio::test]
async fn a_direct_response_is_told_as_one_in_log_metric_and_span() {
    let fleet = Fleet::start();
    for (status, text, grpc, told) in [
        (200, "hello", false, 200),
        (404, "no", false, 404),
        (302, "", false, 302),
        (204, "", false, 204),
        (503, "later", true, 200),
    ] {
        let route = Route::prefix("/").direct_response(status, text);
        fleet.control.set(routed(route, main_cluster(at([]))));
        let (written, spans) = (Written::default(), Spans::default());
        let metrics = Metrics::new(Arc::new(WorkloadLabels::unknown()));
        let log = Arc::new(AccessLog::new(Format::Json, written.clone()).unwrap());
        let mesh = fleet
            .mesh_builder("client")
            .event_sink(metrics.clone())
            .event_sink(log)
            .trace_sampling(PerMillion::new(1_000_000).unwrap())
            .span_recorder(Arc::new(spans.clone()))
            .build()
            .unwrap();
        let channel = shop(&mesh);
        let kind = if grpc { "application/grpc" } else { "text/plain" };
        let request = Request::post("/a").header("content-type", kind).body(Empty::<Bytes>::new()).unwrap();
        let response = soon(channel.oneshot(request)).await.unwrap();
        assert_eq!(response.status(), told, "{status}");
        response.into_body().collect().await.unwrap();
        mesh.shutdown(std::time::Duration::from_secs(5)).await;

        let direct = (told, "direct_response".to_owned(), String::new());
        assert_eq!(*spans.0.lock().unwrap(), [direct], "{status}");
        let series = metrics.render();
        let line = series.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
        for label in [format!("response_code=\"{told}\""), "response_flags=\"-\"".to_owned()] {
            assert!(line.contains(&label), "{status}: {line}");
        }
        assert!(line.contains("destination_service=\"unknown\"") && line.ends_with(" 1"), "{status}: {line}");
        let line = soon(written.line()).await;
        let log: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{status}: {line:?}"));
        assert_eq!(log["response_code"], told);
        assert_eq!(log["response_code_details"], "direct_response");
        assert_eq!(log["response_flags"], "-");
        assert!(log["upstream_host"].is_null() || log["upstream_host"] == "-", "{log}");
    }
}
