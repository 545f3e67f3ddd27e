//! Plain HTTP through the same channel.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tower::MeshChannel;
use mesh_xds::server::{Cluster, Listener, Retry, Route, RouteConfig, VirtualHost};
use tower::ServiceExt as _;

use crate::{main_cluster, one_cluster, routed};

async fn get(channel: &MeshChannel, path: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::get(path).body(Empty::<Bytes>::new()).expect("a request");
    let response = mesh_tests::wait::soon(channel.clone().oneshot(request)).await.expect("never an error");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn http1_and_http2_clusters_serve_the_same_application() {
    for cluster in [Cluster::http1 as fn(Cluster) -> Cluster, Cluster::http2] {
        let fleet = Fleet::start();
        let a = fleet.backend("a");
        fleet.control.set(one_cluster(cluster(main_cluster(at([a.address()])))));
        let mesh = fleet.mesh("client");
        let channel = shop(&mesh);
        for i in 0..20 {
            let (status, body) = get(&channel, &format!("/reviews/{i}")).await;
            assert_eq!((status, body["server"].as_str()), (StatusCode::OK, Some("a")));
        }
        let request = Request::post("/upload").body(Full::new(Bytes::from(vec![1; 100_000]))).unwrap();
        let response = channel.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["received"], 100_000);
        assert_eq!(a.app.stats().connections, 1, "connections are reused");
    }
}

#[tokio::test]
async fn method_and_query_choose_the_cluster() {
    let fleet = Fleet::start();
    let (a, b, c) = (fleet.backend("a"), fleet.backend("b"), fleet.backend("c"));
    let host = VirtualHost::any()
        .route(Route::prefix("/").method("POST").cluster("a"))
        .route(Route::prefix("/").query("version", "2").cluster("b"))
        .route(Route::regex("/reviews/[0-9]+").cluster("c"));
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(host),
        Cluster::eds("a").endpoints(at([a.address()])),
        Cluster::eds("b").endpoints(at([b.address()])),
        Cluster::eds("c").endpoints(at([c.address()])),
    ));
    let mesh = fleet.mesh("client");
    let channel = shop(&mesh);
    let request = Request::post("/x").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(channel.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert_eq!(a.app.stats().requests, 1);
    assert_eq!(get(&channel, "/x?version=2").await.1["server"], "b");
    assert_eq!(get(&channel, "/reviews/12").await.1["server"], "c");
    assert_eq!(get(&channel, "/reviews/12/x").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_gateway_error_is_retried_by_policy() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let route = Route::prefix("/").cluster("main").retry(Retry::on("5xx").times(2));
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let mesh = fleet.mesh("client");
    let (status, body) = get(&shop(&mesh), "/flaky?status=503&first=1").await;
    assert_eq!((status, body["attempt"].as_u64()), (StatusCode::OK, Some(2)));
}

#[tokio::test]
async fn each_try_has_its_own_timeout() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let retry = Retry::on("gateway-error").times(2).per_try_timeout(Duration::from_millis(50));
    let route = Route::prefix("/").cluster("main").retry(retry);
    fleet.control.set(routed(route, main_cluster(at([a.address()]))));
    let mesh = fleet.mesh("client");
    let (status, _) = get(&shop(&mesh), "/slow?hold").await;
    assert_eq!((status, a.app.attempts("/slow")), (StatusCode::GATEWAY_TIMEOUT, 3));
}

#[tokio::test]
async fn a_refusal_is_a_response_and_strict_makes_it_an_error() {
    let fleet = Fleet::start();
    let host = VirtualHost::any().route(Route::path("/only").cluster("main"));
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(host),
        Cluster::eds("main"),
    ));
    let mesh = fleet.mesh("client");
    let channel = shop(&mesh);
    let request = || Request::get("/other").body(Empty::<Bytes>::new()).unwrap();
    let response = channel.clone().oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.extensions().get::<mesh_tower::Error>().is_some_and(mesh_tower::Error::is_no_route));
    let error = channel.strict().oneshot(request()).await.unwrap_err();
    assert!(error.is_no_route() && error.is_local(), "{error}");
}
