//! Who is not let in is told of: with address, principal and policy, and counted.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_tests::ca::Ca;
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::log::Log;
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::telemetry::Metrics;
use mesh_tower::{Admin, MeshBuilder};
use mesh_xds::server::{
    Cluster, DownstreamTls, Listener, Permission, Policy, Principal, Rbac, RouteConfig, UpstreamTls,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use crate::{Pair, admin_page, until_ok};

/// Until the log has a line with all of these words.
async fn until_told(log: &Log, words: &[&str]) {
    soon(async {
        while log.with(words).is_empty() {
            tokio::task::yield_now().await
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_handshake_is_a_line_with_its_address_and_a_count() {
    let fleet = Fleet::start();
    let identity = fleet.ca.identity("reviews");
    let metrics = Metrics::new(Arc::new(WorkloadLabels::unknown()));
    let builder = MeshBuilder::from_bootstrap(fleet.bootstrap_with("server", &identity)).unwrap();
    let mesh = builder.event_sink(metrics.clone()).build().unwrap();
    let port = Port::reserve();
    fleet.control.set(Listener::server(port.address()).tls(DownstreamTls::mutual("default")));
    let (serving, tcp, admin) = (mesh.clone(), port.listen(), Port::reserve());
    let _server = beside(async move { serving.serve(tcp, axum::Router::new()).await });
    let pages = Admin::new(mesh).metrics(metrics).serve(admin.listen());
    let _pages = beside(pages);
    soon(async { while !admin_page(&admin, "/ready").await.starts_with("HTTP/1.1 200") {} }).await;
    let log = Log::start();

    let stranger = Ca::new("elsewhere").identity("stranger");
    let configs = [
        Some(fleet.ca.client_config(None, &["h2"])),
        Some(fleet.ca.client_config(Some(&stranger), &["http/1.1"])),
        Some(stranger.ca().client_config(Some(&stranger), &["h2"])),
        None,
    ];
    let refused = configs.len();
    for config in configs {
        let mut tcp = TcpStream::connect(port.address()).await.unwrap();
        let ours = tcp.local_addr().unwrap().to_string();
        let attempt = async {
            let Some(config) = config else {
                tcp.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await?;
                return tcp.read_to_end(&mut Vec::new()).await;
            };
            let name = ServerName::try_from("reviews").unwrap();
            TlsConnector::from(config).connect(name, tcp).await?.read_to_end(&mut Vec::new()).await
        };
        let _ = soon(attempt).await;
        until_told(&log, &[" INFO ", "connection refused", "reason=\"tls\"", &ours]).await;
    }
    assert_eq!(log.with(&["connection refused"]).len(), refused, "{:?}", log.with(&[]));
    let text = admin_page(&admin, "/metrics").await;
    let line = format!("mesh_connections_refused_total{{reason=\"tls\"}} {refused}");
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[tokio::test]
async fn a_denied_request_is_a_line_with_its_principal_and_the_policy() {
    type Rules = fn(Policy) -> Rbac;
    let rules: [(Rules, &str); 2] = [
        (|policy| Rbac::deny().policy("no-secrets", policy), "no-secrets"),
        (
            |_| Rbac::allow().policy("nobody", Policy::new().principal(Principal::spiffe("spiffe://x/y"))),
            "no policy",
        ),
    ];
    for (rbac, policy) in rules {
        for http2 in [false, true] {
            let fleet = Fleet::start();
            let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
            let serving = fleet.mesh_with("server", &server);
            let port = Port::reserve();
            let matching = Policy::new().principal(Principal::any()).permission(Permission::path("/secret"));
            let cluster = Cluster::eds("main").tls(UpstreamTls::mutual("default").san(server.spiffe()));
            let cluster = if http2 { cluster.http2() } else { cluster.http1() };
            fleet.control.set((
                Listener::server(port.address()).tls(DownstreamTls::mutual("default")).rbac(rbac(matching)),
                Listener::client("shop").rds("shop"),
                RouteConfig::to("shop", "main"),
                cluster.endpoints(at([port.address()])),
            ));
            let tcp = port.listen();
            let _server = beside(async move { serving.serve(tcp, axum::Router::new()).await });
            let mesh = fleet.mesh_with("client", &caller);
            let log = Log::start();
            let body = soon(async {
                loop {
                    let request = Request::get("/secret").body(Empty::<Bytes>::new()).unwrap();
                    let response = shop(&mesh).oneshot(request).await.unwrap();
                    if response.status() == StatusCode::FORBIDDEN {
                        return response.into_body().collect().await.unwrap().to_bytes();
                    }
                }
            })
            .await;
            assert_eq!(body, "UAEX: denied by policy");
            let words = [" INFO ", "request denied", policy, caller.spiffe(), "127.0.0.1:", "/secret"];
            assert_eq!(log.with(&words).len(), 1, "{:?}", log.with(&["denied"]));
        }
    }
}

#[tokio::test]
async fn who_is_let_in_leaves_no_line() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let log = Log::start();
    for _ in 0..10 {
        until_ok(&mut pair.client).await;
    }
    assert_eq!(log.with(&[]), Vec::<String>::new());
}
