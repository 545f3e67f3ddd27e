//! What a cluster says beyond its endpoints: protocol, limits, balancing.

use std::sync::Arc;

use mesh_tests::backend::Backend;
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::{ask, channel, cluster, count, endpoint, locality, mesh, one, request, routed, servers, to};

const OPTIONS: &str = "@envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What a cluster of one server with these fields first sends to it, up to the end of the line.
async fn first_line(fields: &str) -> String {
    let port = Port::reserve();
    let listener = port.listen();
    let mesh = mesh(&[to("main"), cluster("main", &locality(&[port.address()]), fields)]);
    let channel = channel(&mesh);
    let calling = beside(async move { tower::ServiceExt::oneshot(channel, request("GET /")).await });
    let (mut tcp, _) = soon(listener.accept()).await.expect("a connection");
    let mut line = [0; 14];
    soon(tcp.read_exact(&mut line)).await.expect("a request");
    calling.abort();
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test]
async fn protocols() {
    let typed = |fields: &str| format!(", typed_extension_protocol_options: {{o: {{{OPTIONS}, {fields}}}}}");
    let http2 = typed("explicit_http_config: {http2_protocol_options: {}}");
    let http1 = format!(
        "{}, http2_protocol_options: {{}}",
        typed("explicit_http_config: {http_protocol_options: {}}")
    );
    // Without TLS there is nothing to choose by: HTTP/1.1, also where the older field says HTTP/2.
    let auto = format!("{}, http2_protocol_options: {{}}", typed("auto_config: {}"));
    let downstream = format!("{}, http2_protocol_options: {{}}", typed("use_downstream_protocol_config: {}"));
    for (fields, expected) in [
        ("", "GET / HTTP/1.1"),
        (", http2_protocol_options: {}", "PRI * HTTP/2.0"),
        (&*http2, "PRI * HTTP/2.0"),
        (&*http1, "GET / HTTP/1.1"),
        (&*auto, "GET / HTTP/1.1"),
        (&*downstream, "GET / HTTP/1.1"),
    ] {
        assert_eq!(first_line(fields).await, expected, "{fields}");
    }
}

/// A peer that speaks HTTP/2 and answers nothing, PINGs least of all: whether it gets one, and is then left.
async fn is_pinged_and_left(fields: &str) -> bool {
    let port = Port::reserve();
    let listener = port.listen();
    let mesh = mesh(&[to("main"), cluster("main", &locality(&[port.address()]), fields)]);
    let channel = channel(&mesh);
    let calling = beside(async move { tower::ServiceExt::oneshot(channel, request("GET /")).await });
    let (mut tcp, _) = soon(listener.accept()).await.expect("a connection");
    tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("SETTINGS are written");
    let mut preface = [0; 24];
    soon(tcp.read_exact(&mut preface)).await.expect("the preface of HTTP/2");
    let is_pinged = soon(pings(&mut tcp)).await;
    let is_left = soon(async { while tcp.read_u8().await.is_ok() {} });
    is_left.await;
    calling.abort();
    is_pinged
}

/// Reads frames up to a PING.
pub(crate) async fn pings(tcp: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut head = [0; 9];
    while tcp.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if tcp.read_exact(&mut payload).await.is_err() {
            return false;
        }
        // Type 6, without ACK.
        if head[3] == 6 && head[4] == 0 {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn keepalive() {
    let ping = "http2_protocol_options: {connection_keepalive: {interval: 0.1s, timeout: 0.1s}}";
    let typed =
        format!(", typed_extension_protocol_options: {{o: {{{OPTIONS}, explicit_http_config: {{{ping}}}}}}}");
    assert!(is_pinged_and_left(&typed).await);
    assert!(is_pinged_and_left(&format!(", {ping}")).await);
}

/// The status of a request while another is held, in a cluster with these limits.
async fn beside_a_held_one(limits: &str) -> u16 {
    let a = Backend::start("a");
    let routes = "{match: {path: /held}, route: {cluster: main, timeout: 0s}}, {match: {prefix: /}, route: {cluster: main, timeout: 1s}}";
    let fields = format!(", circuit_breakers: {{thresholds: [{{{limits}}}]}}");
    let mesh = mesh(&[routed(routes), cluster("main", &locality(&[a.address()]), &fields)]);
    let channel = channel(&mesh);
    let holder = channel.clone();
    let held = beside(async move { ask(&holder, "GET /held?hold").await });
    a.app.until(|stats| stats.in_flight == 1).await;
    let status = ask(&channel, "GET /").await.0;
    held.abort();
    status
}

#[tokio::test]
async fn limits() {
    for (limits, expected) in [
        ("", 200),
        ("max_requests: 1", 503),
        ("max_requests: 2", 200),
        // There is one connection and it is busy: the request waits, until it may not.
        ("max_connections: 1", 504),
        ("max_connections: 1, max_pending_requests: 0", 503),
        ("priority: HIGH, max_requests: 1", 200),
    ] {
        assert_eq!(beside_a_held_one(limits).await, expected, "{limits}");
    }
}

#[tokio::test]
async fn limits_of_retries() {
    for (limits, attempts) in [
        ("", 2),
        ("max_retries: 0", 1),
        ("max_retries: 1", 2),
        ("retry_budget: {budget_percent: {value: 0}}", 2),
        ("retry_budget: {budget_percent: {value: 0}, min_retry_concurrency: 0}", 1),
        ("retry_budget: {budget_percent: {value: 100}, min_retry_concurrency: 0}", 2),
    ] {
        let a = Backend::start("a");
        let routes = "{match: {prefix: /}, route: {cluster: main, retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}}";
        let fields = format!(", circuit_breakers: {{thresholds: [{{{limits}}}]}}");
        let mesh = mesh(&[routed(routes), cluster("main", &locality(&[a.address()]), &fields)]);
        ask(&channel(&mesh), "GET /a?status=503").await;
        assert_eq!(a.app.attempts("/a"), attempts, "{limits}");
    }
}

/// A server of HTTP/2 that takes one request at a time on each connection, and never answers `/held`.
async fn one_at_a_time(listener: tokio::net::TcpListener, is_held: Arc<Notify>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let is_held = is_held.clone();
        connections.spawn(async move {
            let mut connection = h2::server::Builder::new()
                .max_concurrent_streams(1)
                .handshake::<_, bytes::Bytes>(tcp)
                .await?;
            let mut held = Vec::new();
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted?;
                if request.uri().path() == "/held" {
                    held.push(respond);
                    is_held.notify_one();
                } else {
                    respond.send_response(http::Response::new(()), true)?;
                }
            }
            Ok::<_, h2::Error>(())
        });
    }
}

/// One more connection is made for the second request, unless there may be one.
#[tokio::test]
async fn connections_to_one_endpoint() {
    for (limit, expected) in [
        ("", 200),
        (", per_host_thresholds: [{max_connections: 1}]", 504),
        (", per_host_thresholds: [{max_connections: 2}]", 200),
    ] {
        let port = Port::reserve();
        let is_held = Arc::new(Notify::new());
        let serving = beside(one_at_a_time(port.listen(), is_held.clone()));
        let routes = "{match: {path: /held}, route: {cluster: main, timeout: 0s}}, {match: {prefix: /}, route: {cluster: main, timeout: 1s}}";
        let fields = format!(", http2_protocol_options: {{}}, circuit_breakers: {{thresholds: []{limit}}}");
        let mesh = mesh(&[routed(routes), cluster("main", &locality(&[port.address()]), &fields)]);
        let channel = channel(&mesh);
        // The peer has said how many it takes before the one that is held.
        assert_eq!(ask(&channel, "GET /").await.0, 200);
        let holder = channel.clone();
        let held = beside(async move { ask(&holder, "GET /held").await });
        soon(is_held.notified()).await;
        assert_eq!(ask(&channel, "GET /").await.0, expected, "{limit}");
        held.abort();
        serving.abort();
    }
}

/// The two fields of a policy: its enumeration, and the message that has replaced it.
fn policies(name: &str, message: &str) -> [String; 2] {
    [format!(", lb_policy: {name}"), newer(message, "")]
}

fn newer(message: &str, fields: &str) -> String {
    let config = format!("@envoy.extensions.load_balancing_policies.{message}{fields}");
    format!(
        ", load_balancing_policy: {{policies: [{{typed_extension_config: {{name: p, typed_config: {{{config}}}}}}}]}}"
    )
}

/// The longest run of one server in 600 requests to two, once both are connected.
async fn longest_run(fields: &str) -> usize {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let mesh = mesh(&[to("main"), cluster("main", &locality(&[a.address(), b.address()]), fields)]);
    let channel = channel(&mesh);
    servers(&channel, 50).await;
    let found = servers(&channel, 600).await;
    found.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0)
}

/// In turn, or by chance: 600 throws of a coin have a run of five.
#[tokio::test]
async fn in_turn_or_by_chance() {
    for fields in policies("ROUND_ROBIN", "round_robin.v3.RoundRobin") {
        let run = longest_run(&fields).await;
        assert!(run <= 2, "{fields}: {run}");
    }
    // What is named first decides, and what is not known is passed over.
    for fields in policies("RANDOM", "random.v3.Random") {
        let run = longest_run(&fields).await;
        assert!(run >= 5, "{fields}: {run}");
    }
    let within = ", endpoint_picking_policy: {policies: [{typed_extension_config: {name: q, typed_config: {@envoy.extensions.load_balancing_policies.random.v3.Random}}}]}";
    let run = longest_run(&newer("wrr_locality.v3.WrrLocality", within)).await;
    assert!(run >= 5, "wrr_locality: {run}");
}

/// How many of 100 requests find the one idle server of eight; the others hold one request each.
async fn finds_the_idle_one(fields: &str) -> usize {
    let backends: Vec<Backend> = (0..8).map(|i| Backend::start(i.to_string())).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let mesh = mesh(&[to("main"), cluster("main", &locality(&addresses), fields)]);
    let channel = channel(&mesh);
    servers(&channel, 100).await;
    // Requests are held until each server but one has a share of them.
    let idle = backends.len() - 1;
    let is_busy = || backends[..idle].iter().all(|b| b.app.stats().in_flight > 0);
    let mut holding = Vec::new();
    while !is_busy() {
        let channel = channel.clone();
        let before: u64 = backends.iter().map(|b| b.app.stats().requests).sum();
        let task = beside(async move { ask(&channel, "GET /?hold").await });
        holding.push(task);
        soon(async {
            while backends.iter().map(|b| b.app.stats().requests).sum::<u64>() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // What the idle one got is let go again.
        backends[idle].app.open_gate();
        backends[idle].app.until(|stats| stats.in_flight == 0).await;
    }
    let found = count(&servers(&channel, 100).await, &idle.to_string());
    for task in holding {
        task.abort();
    }
    found
}

#[tokio::test]
async fn the_least_busy_of_so_many() {
    let turns = finds_the_idle_one(", lb_policy: ROUND_ROBIN").await;
    assert!(turns < 20, "in turn: {turns}");
    let few = finds_the_idle_one(", lb_policy: LEAST_REQUEST").await;
    let many =
        finds_the_idle_one(", lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 10}").await;
    assert!(few < 45, "of two: {few}");
    assert!(many > 50, "of ten: {many}");
    let message = "least_request.v3.LeastRequest";
    let few = finds_the_idle_one(&newer(message, "")).await;
    let many = finds_the_idle_one(&newer(message, ", choice_count: 10")).await;
    assert!(few < 45 && many > 50, "by the message: of two {few}, of ten {many}");
}

/// How many of 200 requests go to the lighter of two localities, of weights 9 and 1, that has one endpoint like the other.
async fn of_the_lighter(fields: &str) -> usize {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let of = |zone: &str, weight: u32, at| {
        format!(
            "{{locality: {{zone: {zone}}}, load_balancing_weight: {weight}, lb_endpoints: [{{{}}}]}}",
            endpoint(at)
        )
    };
    let both = format!("{}, {}", of("a", 9, a.address()), of("b", 1, b.address()));
    let mesh = mesh(&[to("main"), cluster("main", &both, fields)]);
    let channel = channel(&mesh);
    servers(&channel, 50).await;
    count(&servers(&channel, 200).await, "b")
}

#[tokio::test]
async fn localities_by_weight_or_not() {
    let weighted = ", locality_lb_config: {locality_weighted_lb_config: {}}";
    for fields in [
        ", lb_policy: RANDOM, common_lb_config: {locality_weighted_lb_config: {}}".to_owned(),
        newer("random.v3.Random", weighted),
        newer("round_robin.v3.RoundRobin", weighted),
        newer("least_request.v3.LeastRequest", weighted),
    ] {
        let lighter = of_the_lighter(&fields).await;
        assert!((1..50).contains(&lighter), "{fields}: {lighter}");
    }
    for message in ["random.v3.Random", "least_request.v3.LeastRequest"] {
        let lighter = of_the_lighter(&newer(message, "")).await;
        assert!((60..140).contains(&lighter), "{message}: {lighter}");
    }
}

/// Below the threshold of healthy endpoints every one is used: half of them are healthy.
#[tokio::test]
async fn panic() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let list = format!(
        "{{lb_endpoints: [{{{}, health_status: UNHEALTHY}}, {{{}}}]}}",
        endpoint(a.address()),
        endpoint(b.address())
    );
    for (threshold, least, most) in [("0", 0, 0), ("50", 0, 0), ("90", 50, 150)] {
        let fields = format!(", common_lb_config: {{healthy_panic_threshold: {{value: {threshold}}}}}");
        let mesh = mesh(&[to("main"), cluster("main", &list, &fields)]);
        let unhealthy = count(&servers(&channel(&mesh), 200).await, "a");
        assert!((least..=most).contains(&unhealthy), "{threshold}: {unhealthy}");
    }
}

/// A cluster is what its type says; its name is what routes go to.
#[tokio::test]
async fn endpoints_by_name_or_inline() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for source in ["ads", "self"] {
        let eds = format!(
            "@envoy.config.cluster.v3.Cluster, name: main, type: EDS, eds_cluster_config: {{eds_config: {{{source}: {{}}}}}}"
        );
        let assignment = format!(
            "@envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: main, endpoints: [{{locality: {{zone: z}}, load_balancing_weight: 1, lb_endpoints: [{{{}}}]}}]",
            endpoint(a.address())
        );
        let mesh = mesh(&[to("main"), eds, assignment, one("other", &b)]);
        assert_eq!(ask(&channel(&mesh), "GET /").await.1["server"], "a", "{source}");
    }
}
