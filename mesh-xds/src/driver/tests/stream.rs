//! The driver over in-memory connections: one stream, its life and its end. Time is paused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::{ClientSnapshot, ConfigSource as _, Resolution, Subscription};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::Status;

use super::script::{AdsStream, ControlPlane, Manner};
use crate::XdsSource;
use crate::ads::Kind;
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::server::{Cluster, Endpoints, Listener, Resource, Resources, Route, RouteConfig, VirtualHost};

fn source(control: &ControlPlane) -> XdsSource {
    let server = ServerConfig::insecure("xds.test:18000").unwrap();
    let bootstrap = Bootstrap::builder("node-1").server(server).metadata("ZONE", "z").build().unwrap();
    XdsSource::builder(bootstrap).connector(control.pipes.clone()).start(&Handle::current())
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Listener `name` with a route to each of `clusters`, and the clusters with one endpoint each.
pub(super) fn service(name: &str, clusters: &[&str], port: u16) -> Vec<Resource> {
    let route = |cluster: &&str| Route::prefix(format!("/{cluster}")).cluster(*cluster);
    let host = clusters.iter().map(route).fold(VirtualHost::any(), VirtualHost::route);
    let cluster = |name: &&str| Cluster::eds(*name).endpoints(Endpoints::of([address(port)]));
    let clusters: Vec<Cluster> = clusters.iter().map(cluster).collect();
    (Listener::client(name).rds(name), RouteConfig::new(name).host(host), clusters).into_resources()
}

/// Answers each request that asks for other names than the last one of its type, until a second passes without any.
pub(super) async fn serve_until_quiet(stream: &mut AdsStream, version: &str, resources: &[Resource]) {
    while let Ok(Some(request)) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
        let kind = Kind::from_type_url(&request.type_url).unwrap();
        assert_eq!(request.error_detail, None);
        if stream.asks_for_more(&request) {
            let is_asked =
                |resource: &&Resource| request.resource_names.iter().any(|n| **n == **resource.name());
            let asked: Vec<Resource> = resources.iter().filter(is_asked).cloned().collect();
            stream.send(kind, version, asked).await;
        }
    }
}

pub(super) async fn ready(subscription: &Subscription<ClientSnapshot>) -> Arc<ClientSnapshot> {
    let mut changes = subscription.cell().subscribe();
    let wait = async {
        loop {
            if let Resolution::Ready(snapshot) = &*changes.changed().await {
                return snapshot.clone();
            }
        }
    };
    let limit = Duration::from_secs(600);
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("{:?}", subscription.cell().load()))
}

async fn failed(subscription: &Subscription<ClientSnapshot>) -> String {
    let mut changes = subscription.cell().subscribe();
    loop {
        if let Resolution::Failed(error) = &*changes.changed().await {
            return error.to_string();
        }
    }
}

pub(super) fn ports(snapshot: &ClientSnapshot) -> Vec<String> {
    let clusters = snapshot.clusters.iter().filter_map(|entry| entry.cluster.as_ref().ok());
    clusters.flat_map(|cluster| cluster.endpoints.iter()).map(|e| e.address.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_target_becomes_ready_over_one_stream() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let target = source.client("shop");
    let mut stream = control.stream().await;
    let first = stream.expect(Kind::Listener).await;
    let node = first.node.unwrap();
    assert_eq!((node.id.as_str(), node.user_agent_name.as_str()), ("node-1", "mesh"));
    assert!(node.metadata.unwrap().fields.contains_key("ZONE"));
    assert_eq!(first.resource_names, ["shop"]);
    let resources = service("shop", &["a"], 1);
    stream.send(Kind::Listener, "1", resources.clone()).await;
    let (mut ack, mut routes) = (stream.next().await.unwrap(), stream.next().await.unwrap());
    if ack.type_url != Kind::Listener.type_url() {
        std::mem::swap(&mut ack, &mut routes);
    }
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str(), ack.node), ("1", "1", None));
    assert_eq!((routes.type_url.as_str(), routes.node), (Kind::Route.type_url(), None));
    stream.send(Kind::Route, "1", resources.clone()).await;
    serve_until_quiet(&mut stream, "1", &resources).await;
    assert_eq!(ports(&*ready(&target).await), ["127.0.0.1:1"]);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_sends_its_headers_with_the_first_response_is_served() {
    let mut control = ControlPlane::with(Manner { late_headers: true, ..Manner::default() });
    let source = source(&control);
    let target = source.client("shop");
    let mut stream = control.stream().await;
    serve_until_quiet(&mut stream, "1", &service("shop", &["a"], 1)).await;
    ready(&target).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clusters_take_at_most_ten_requests() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let names: Vec<String> = (0..1_000).map(|i| format!("cluster-{i:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let target = source.client("shop");
    let mut stream = control.stream().await;
    serve_until_quiet(&mut stream, "1", &service("shop", &names, 1)).await;
    assert_eq!(ports(&*ready(&target).await).len(), 1_000);
    assert!(stream.read <= 10, "{} requests", stream.read);
}

/// The nearest peer deadlocks here, after some 190 requests: neither side reads while it writes.
#[tokio::test(start_paused = true)]
async fn a_control_plane_that_does_not_read_while_it_writes_cannot_stall_the_client() {
    let mut control = ControlPlane::with(Manner { pipe: 1 << 10, window: Some(65_535), late_headers: false });
    let source = source(&control);
    let names: Vec<String> = (0..1_000).map(|i| format!("cluster-{i:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let resources = service("shop", &names, 1);
    let target = source.client("shop");
    let mut stream = control.stream().await;
    let mut served = 0;
    while let Ok(Some(request)) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
        let kind = Kind::from_type_url(&request.type_url).unwrap();
        if !stream.asks_for_more(&request) {
            continue;
        }
        let of_kind = resources.iter().filter(|resource| resource.kind().type_url() == kind.type_url());
        // Endpoints one by one: a thousand responses before the next request is read.
        let each = if kind == Kind::Endpoints { 1 } else { 1_000 };
        for some in of_kind.cloned().collect::<Vec<_>>().chunks(each) {
            stream.send(kind, "1", some.to_vec()).await;
            served += 1;
        }
    }
    assert_eq!((served, ports(&*ready(&target).await).len()), (1_003, 1_000));
    assert!(stream.read <= 20, "{} requests: acknowledgements are not queued", stream.read);
}

#[tokio::test(start_paused = true)]
async fn many_targets_share_one_connection_and_one_stream() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let targets: Vec<_> = (0..50).map(|i| source.client(&format!("target-{i:02}"))).collect();
    let mut stream = control.stream().await;
    let resources: Vec<Resource> =
        (0..50).flat_map(|i| service(&format!("target-{i:02}"), &["a"], 1)).collect();
    let mut unique: Vec<Resource> = Vec::new();
    for resource in resources {
        if !unique.contains(&resource) {
            unique.push(resource);
        }
    }
    serve_until_quiet(&mut stream, "1", &unique).await;
    for target in &targets {
        ready(target).await;
    }
    assert_eq!((control.attempts().len(), control.open_streams()), (1, 1));
    assert!(stream.read <= 10, "{} requests", stream.read);
}

#[tokio::test(start_paused = true)]
async fn the_last_user_of_a_target_unsubscribes_and_the_idle_stream_ends() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let (first, second) = (source.client("shop"), source.client("cart"));
    let mut stream = control.stream().await;
    let mut resources = service("shop", &["a"], 1);
    resources.extend(service("cart", &["b"], 2));
    serve_until_quiet(&mut stream, "1", &resources).await;
    ready(&first).await;
    drop(first);
    assert_eq!(stream.expect(Kind::Listener).await.resource_names, ["cart"]);
    for kind in [Kind::Route, Kind::Cluster, Kind::Endpoints] {
        let expected = if kind == Kind::Route { "cart" } else { "b" };
        assert_eq!(stream.expect(kind).await.resource_names, [expected]);
    }
    drop(second);
    for kind in Kind::ALL {
        assert_eq!(stream.expect(kind).await.resource_names, [""; 0]);
    }
    assert_eq!(stream.next().await, None, "the stream ends");
    let again = source.client("shop");
    let mut stream = control.stream().await;
    serve_until_quiet(&mut stream, "1", &resources).await;
    ready(&again).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_source_ends_stream_and_tasks_and_leaves_the_last_snapshot() {
    let metrics = Handle::current().metrics();
    let mut control = ControlPlane::new();
    let before = metrics.num_alive_tasks();
    for _ in 0..5 {
        let source = source(&control);
        let target = source.client("shop");
        let mut stream = control.stream().await;
        serve_until_quiet(&mut stream, "1", &service("shop", &["a"], 1)).await;
        ready(&target).await;
        drop(source);
        assert_eq!(stream.next().await, None);
        drop(stream);
        ready(&target).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((control.open_streams(), metrics.num_alive_tasks()), (0, before));
}

#[tokio::test(start_paused = true)]
async fn reconnects_wait_longer_each_time_and_the_error_is_told() {
    let mut control = ControlPlane::new();
    control.refuse(true);
    let source = source(&control);
    let target = source.client("shop");
    let text = failed(&target).await;
    let expected = r#"listener "shop" is not available: control plane unreachable: xds.test:18000: connect failed: connection refused (node "node-1")"#;
    assert_eq!(text, expected);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let attempts = control.attempts();
    let waits: Vec<f64> = attempts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    for (wait, expected) in waits.iter().zip([1.0, 1.6, 2.56, 4.096, 6.5536]) {
        assert!((expected * 0.8..=expected * 1.2 + 0.01).contains(wait), "{waits:?}");
    }
    assert!(waits.len() >= 5, "{waits:?}");
    control.refuse(false);
    let mut stream = control.stream().await;
    serve_until_quiet(&mut stream, "1", &service("shop", &["a"], 1)).await;
    ready(&target).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_opened_again_and_nothing_that_serves_is_lost() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let target = source.client("shop");
    let mut stream = control.stream().await;
    serve_until_quiet(&mut stream, "7", &service("shop", &["a"], 1)).await;
    let before = ready(&target).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let lost = Instant::now();
    stream.fail(Status::unavailable("rolling restart")).await;
    let mut stream = control.stream().await;
    assert!(lost.elapsed() < Duration::from_millis(100), "at once, after a stream that lived");
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let request = stream.expect(kind).await;
        assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), ("7", ""));
        kinds.push(request.node.is_some());
    }
    assert_eq!(kinds, [true, false, false, false]);
    assert!(Arc::ptr_eq(&before, &ready(&target).await));
    let moved = service("shop", &["a"], 2);
    stream.send(Kind::Endpoints, "8", moved).await;
    stream.expect(Kind::Endpoints).await;
    assert_eq!(ports(&*ready(&target).await), ["127.0.0.1:2"]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_resource_is_refused_by_name_and_the_good_one_used() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let (good, bad) = (source.client("good"), source.client("bad"));
    let mut stream = control.stream().await;
    stream.expect(Kind::Listener).await;
    let garbage = Resource::opaque(Kind::Listener, "bad", vec![0xff, 0xff, 0xff]);
    let filter = "type.googleapis.com/example.Unknown";
    let broken = (Listener::client("bad").http_filter("unknown", filter, Vec::new()), garbage);
    let mut resources = service("good", &["a"], 1);
    resources.extend(broken.into_resources());
    stream.send(Kind::Listener, "1", resources.clone()).await;
    let nack = stream.expect(Kind::Listener).await;
    let text = nack.error_detail.unwrap().message;
    assert!(text.contains("listener \"bad\": ") && text.contains("resources[2]: "), "{text}");
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("", "1"));
    assert!(failed(&bad).await.contains("is invalid"));
    resources.retain(|resource| &**resource.name() != "bad");
    serve_until_quiet(&mut stream, "2", &resources).await;
    ready(&good).await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_does_not_come_is_absent_after_fifteen_seconds() {
    let mut control = ControlPlane::new();
    let source = source(&control);
    let target = source.client("shop");
    let mut stream = control.stream().await;
    stream.expect(Kind::Listener).await;
    let asked = Instant::now();
    assert_eq!(failed(&target).await, r#"listener "shop" does not exist (node "node-1")"#);
    let waited = asked.elapsed();
    assert!((Duration::from_millis(14_990)..Duration::from_millis(15_010)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_found_dead_and_replaced() {
    let control = ControlPlane::deaf();
    let source = source(&control);
    let _target = source.client("shop");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = control.attempts();
    assert!(attempts.len() >= 2, "{attempts:?}");
    let waited = attempts[1] - attempts[0];
    assert!(waited <= Duration::from_secs(41), "keepalive: 30 s and 10 s, {waited:?}");
}

#[test]
fn it_works_on_a_runtime_with_threads_and_a_real_socket() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let control = crate::server::ControlPlane::new();
        control.set(service("shop", &["a", "b"], 1));
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = tcp.local_addr().unwrap().to_string();
        let mut server = tokio::task::JoinSet::new();
        let serving = control.clone();
        server.spawn(async move { serving.serve(tcp, std::future::pending()).await });
        let bootstrap =
            Bootstrap::builder("n").server(ServerConfig::insecure(&uri).unwrap()).build().unwrap();
        let source = XdsSource::new(bootstrap, &Handle::current());
        let target = source.client("shop");
        assert_eq!(ports(&*ready(&target).await), ["127.0.0.1:1", "127.0.0.1:1"]);
        control.set(service("shop", &["a"], 2));
        let mut changes = target.cell().subscribe();
        loop {
            if let Resolution::Ready(snapshot) = &*changes.changed().await
                && ports(snapshot) == ["127.0.0.1:2"]
            {
                break;
            }
        }
        control.settled(1).await;
        drop(source);
        control.wait_for(<[_]>::is_empty).await;
    });
}
