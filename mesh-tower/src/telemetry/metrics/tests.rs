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
        downstream: None,
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

/// The value of the request counter of a cluster, where the page has it.
fn requests_of(page: &str, cluster: &str) -> Option<u64> {
    let label = format!("destination_service=\"{cluster}\"");
    let line = page.lines().find(|line| line.starts_with("istio_requests_total{") && line.contains(&label));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
}

fn overflow(page: &str) -> u64 {
    let line =
        page.lines().find(|line| line.starts_with(r#"istio_requests_total{otel_metric_overflow="true"}"#));
    line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[test]
fn clusters_one_after_the_other_leave_a_small_page_and_lose_no_request() {
    let metrics = Metrics::new(own());
    for n in 0..2_100 {
        let name = format!("c{n}");
        metrics.cluster_in_use(&name);
        for code in [200, 503] {
            metrics.record(&RequestEvent { cluster: &name, response_code: code, ..event() });
        }
        if n < 2_099 {
            metrics.cluster_gone(&name);
        }
    }
    let page = metrics.render();
    assert_eq!(requests_of(&page, "c2099"), Some(1), "the cluster in use has its series");
    assert!(page.len() < 4 << 20, "{} bytes", page.len());
    assert_eq!(metrics.requests(), 4_200);
    // What was never rendered under its own name is in the overflow series.
    let shown = u64::try_from(metrics.series()).unwrap();
    assert_eq!(overflow(&page) + shown, 4_200);
    for _ in 0..8 {
        drop(metrics.render());
    }
    assert_eq!((metrics.series(), metrics.requests()), (2, 4_200));
}

#[test]
fn a_series_that_is_gone_is_rendered_until_scrapers_have_its_last_value() {
    let metrics = Metrics::new(own());
    metrics.cluster_in_use("a");
    metrics.record(&RequestEvent { cluster: "a", ..event() });
    metrics.cluster_gone("a");
    assert_eq!(requests_of(&metrics.render(), "a"), Some(1));
    // A request that began before is told after.
    metrics.record(&RequestEvent { cluster: "a", ..event() });
    for _ in 0..5 {
        assert_eq!(requests_of(&metrics.render(), "a"), Some(2));
    }
    let page = metrics.render();
    assert_eq!((requests_of(&page, "a"), overflow(&page), metrics.requests()), (None, 0, 2));
    // One that is told later still is of a cluster that is gone, and goes the same way.
    metrics.record(&RequestEvent { cluster: "a", ..event() });
    assert_eq!(requests_of(&metrics.render(), "a"), Some(1), "to Prometheus a reset");
    for _ in 0..5 {
        drop(metrics.render());
    }
    assert_eq!((metrics.series(), metrics.requests()), (0, 3));
}

#[test]
fn a_cluster_that_comes_back_keeps_its_counters() {
    let metrics = Metrics::new(own());
    metrics.cluster_in_use("a");
    metrics.record(&RequestEvent { cluster: "a", ..event() });
    // Its new life begins before the last one has ended, or after.
    for is_early in [true, false] {
        if is_early {
            metrics.cluster_in_use("a");
            metrics.cluster_gone("a");
        } else {
            metrics.cluster_gone("a");
            metrics.cluster_in_use("a");
        }
        for _ in 0..10 {
            assert_eq!(requests_of(&metrics.render(), "a"), Some(1));
        }
    }
    // However many others go.
    for n in 0..100 {
        let name = format!("c{n}");
        metrics.cluster_in_use(&name);
        metrics.record(&RequestEvent { cluster: &name, ..event() });
        metrics.cluster_gone(&name);
    }
    assert_eq!(requests_of(&metrics.render(), "a"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_what_was_idle_for_long_gives_way_and_nothing_else() {
    let metrics = Metrics::new(own());
    let served = |principal: &str| {
        let spiffe = format!("spiffe://td/ns/web/sa/{principal}");
        metrics.record(&RequestEvent {
            reporter: Reporter::Destination,
            peer_principal: Some(&spiffe),
            ..event()
        });
    };
    for n in 0..Metrics::MAX_SERIES {
        served(&n.to_string());
    }
    drop(metrics.render());
    served("new");
    assert_eq!((metrics.series(), overflow(&metrics.render())), (Metrics::MAX_SERIES, 1));
    for _ in 0..12 {
        tokio::time::advance(Duration::from_mins(1)).await;
        served("7");
        drop(metrics.render());
    }
    served("new");
    assert_eq!(metrics.series(), 2, "that in use, and the new one");
    let page = metrics.render();
    assert!(page.contains("sa/7\"") && page.contains("sa/new\""));
    assert_eq!(metrics.requests(), u64::try_from(Metrics::MAX_SERIES).unwrap() + 1 + 12 + 1);
}

#[test]
fn threads_lose_no_count_while_series_come_and_go() {
    let metrics = Metrics::new(own());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let metrics = &metrics;
            scope.spawn(move || {
                for n in 0..400 {
                    // Some of the names are shared by the threads.
                    let name = format!("c{}", if n % 3 == 0 { n } else { n * 4 + thread });
                    metrics.cluster_in_use(&name);
                    metrics.record(&RequestEvent { cluster: &name, ..event() });
                    metrics.cluster_gone(&name);
                    metrics.record(&RequestEvent { cluster: &name, ..event() });
                    if n % 50 == 0 {
                        drop(metrics.render());
                    }
                }
            });
        }
    });
    assert_eq!(metrics.requests(), 3_200);
    for _ in 0..6 {
        drop(metrics.render());
    }
    assert_eq!(metrics.requests(), 3_200);
}
