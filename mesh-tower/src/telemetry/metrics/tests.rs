use std::time::Duration;

use mesh_core::config::cluster::ServiceLabels;
use mesh_core::outcome::{GrpcCode, ResponseFlags};
use mesh_core::request::RequestKind;
use mesh_core::telemetry::event::Reporter;

use super::*;

pub(in crate::telemetry) fn event() -> RequestEvent<'static> {
    RequestEvent {
        reporter: Reporter::Source,
        kind: RequestKind::Http,
        method: "GET",
        authority: "reviews:9080",
        path: "/reviews/1",
        protocol: "HTTP/2",
        response_code: 200,
        grpc_status: None,
        flags: ResponseFlags::NONE,
        details: "via_upstream",
        duration: Duration::from_micros(7_500),
        request_bytes: 100,
        response_bytes: 2_000,
        attempts: 1,
        route: "default",
        cluster: "outbound|9080||reviews",
        service: None,
        upstream: None,
        upstream_workload: None,
        peer_principal: None,
        mutual_tls: false,
        trace: None,
        snapshot: 1,
    }
}

fn own() -> Arc<WorkloadLabels> {
    Arc::new(WorkloadLabels {
        workload: "productpage-v1".into(),
        namespace: "shop".into(),
        ..WorkloadLabels::unknown()
    })
}

#[test]
fn a_request_is_counted_once_under_istios_labels() {
    let metrics = Metrics::new(own());
    let service = Arc::new(ServiceLabels {
        host: "reviews.shop.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "shop".into(),
        workload: None,
    });
    metrics.record(&RequestEvent { service: Some(&service), ..event() });
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    for wanted in [
        r#"reporter="source""#,
        r#"source_workload="productpage-v1""#,
        r#"source_workload_namespace="shop""#,
        r#"destination_service="reviews.shop.svc.cluster.local""#,
        r#"destination_service_name="reviews""#,
        r#"destination_workload="unknown""#,
        r#"request_protocol="http""#,
        r#"response_code="200""#,
        r#"grpc_response_status="""#,
        r#"response_flags="-""#,
        r#"connection_security_policy="unknown""#,
    ] {
        assert!(line.contains(wanted), "{wanted} in {line}");
    }
    assert!(line.ends_with("} 1"), "{line}");
}

#[test]
fn histograms_are_cumulative_in_milliseconds_and_bytes() {
    let metrics = Metrics::new(own());
    metrics.record(&event());
    metrics.record(&RequestEvent { duration: Duration::from_hours(2), ..event() });
    let text = metrics.render();
    let value = |start: &str, part: &str| {
        let line = text.lines().find(|line| line.starts_with(start) && line.contains(part)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let duration = "istio_request_duration_milliseconds";
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="5""#), 0.0);
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="10""#), 1.0);
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="3600000""#), 1.0);
    assert_eq!(value(&format!("{duration}_bucket"), r#"le="+Inf""#), 2.0);
    assert_eq!(value(&format!("{duration}_sum"), ""), 7_200_007.5);
    assert_eq!(value("istio_response_bytes_sum", ""), 4_000.0);
    assert_eq!(value("istio_request_bytes_count", ""), 2.0);
}

#[test]
fn a_server_takes_the_callers_namespace_from_its_principal_alone() {
    let metrics = Metrics::new(own());
    let principal = Some("spiffe://td/ns/web/sa/front");
    let served = RequestEvent {
        reporter: Reporter::Destination,
        peer_principal: principal,
        mutual_tls: true,
        ..event()
    };
    metrics.record(&served);
    let text = metrics.render();
    for wanted in [
        r#"source_principal="spiffe://td/ns/web/sa/front""#,
        r#"source_workload_namespace="web""#,
        r#"destination_workload="productpage-v1""#,
        r#"connection_security_policy="mutual_tls""#,
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
}

#[test]
fn past_the_bound_everything_goes_to_one_overflow_series() {
    let metrics = Metrics::new(own());
    let names: Vec<String> = (0..Metrics::MAX_SERIES + 50).map(|n| format!("c{n}")).collect();
    for name in &names {
        metrics.record(&RequestEvent { cluster: name, ..event() });
    }
    assert_eq!(metrics.series(), Metrics::MAX_SERIES);
    assert_eq!(metrics.requests(), names.len() as u64);
    assert!(metrics.render().contains(r#"istio_requests_total{otel_metric_overflow="true"} 50"#));
}

#[test]
fn outcomes_are_told_apart_and_threads_lose_no_count() {
    let metrics = Metrics::new(own());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..1_000u16 {
                    let grpc_status = Some(GrpcCode::parse((n % 7).to_string().as_bytes()));
                    metrics.record(&RequestEvent { kind: RequestKind::Grpc, grpc_status, ..event() });
                }
            });
        }
    });
    assert_eq!((metrics.series(), metrics.requests()), (7, 4_000));
}

#[test]
fn a_label_cannot_break_out_of_its_quotes() {
    let metrics = Metrics::new(own());
    metrics.record(&RequestEvent { cluster: "a\"b\\c\nd", ..event() });
    assert!(metrics.render().contains(r#"destination_service="a\"b\\c\nd""#));
}
