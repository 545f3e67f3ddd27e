#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh_core::config::telemetry::WorkloadLabels;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::server::testing::*;

/// A mesh with one server and its admin endpoint.
struct Site {
    mesh: Mesh,
    config: World,
    server: SocketAddr,
    admin: SocketAddr,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
}

impl Site {
    async fn new() -> Self {
        let config = World::new();
        let metrics = Metrics::new(Arc::new(WorkloadLabels::unknown()));
        let mesh = Mesh::builder(config.source()).event_sink(metrics.clone()).build().unwrap();
        let (server_tcp, server) = socket().await;
        let (admin_tcp, admin) = socket().await;
        let app = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
        let serving = mesh.clone();
        let endpoint = Admin::new(mesh.clone()).metrics(metrics);
        let tasks = vec![
            tokio::task::spawn(async move { serving.serve(server_tcp, app).await }),
            tokio::task::spawn(endpoint.serve(admin_tcp)),
        ];
        Self { mesh, config, server, admin, tasks }
    }

    async fn ask(&self, path: &str) -> (StatusCode, String) {
        let response = http1(self.admin).await.send_request(get(path)).await.unwrap();
        (response.status(), text(response).await)
    }

    async fn until_ready_is(&self, status: StatusCode) {
        soon("readiness", async { while self.ask("/ready").await.0 != status {} }).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[tokio::test]
async fn ready_follows_the_listeners_and_the_drain() {
    let site = Site::new().await;
    site.until_ready_is(StatusCode::SERVICE_UNAVAILABLE).await;
    site.config.publish(1, site.server, vec![chain("all", vec![])]);
    site.until_ready_is(StatusCode::OK).await;
    let mesh = site.mesh.clone();
    let _ = soon("the shutdown", mesh.shutdown(Duration::from_secs(60))).await;
    assert_eq!(site.ask("/ready").await, (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned()));
}

#[tokio::test]
async fn metrics_show_what_was_served() {
    let site = Site::new().await;
    site.config.publish(1, site.server, vec![chain("all", vec![])]);
    let response = http2(site.server).await.send_request(get("/hello")).await.unwrap();
    assert_eq!(text(response).await, "hello");
    soon("the count", async {
        loop {
            let (status, text) = site.ask("/metrics").await;
            assert_eq!(status, StatusCode::OK);
            let counted = |line: &str| {
                line.starts_with("istio_requests_total{")
                    && line.contains(r#"reporter="destination""#)
                    && line.ends_with(" 1")
            };
            if text.lines().any(counted) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn another_address_than_loopback_must_be_allowed() {
    let config = World::new();
    let mesh = Mesh::builder(config.source()).build().unwrap();
    let tcp = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = Admin::new(mesh).serve(tcp).await.unwrap_err();
    assert!(refused.to_string().contains("loopback"));
}
