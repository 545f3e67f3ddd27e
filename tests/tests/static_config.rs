//! A mesh without a control plane: one file.

use std::net::SocketAddr;

use mesh_tests::backend::Backend;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::wait::soon;
use mesh_tower::Mesh;

fn config(cluster_port_key: &str, at: SocketAddr) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: shop
    api_listener:
      api_listener:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: shop
        route_config:
          name: shop
          virtual_hosts:
          - name: all
            domains: ["*"]
            routes:
            - match: {{ prefix: "/" }}
              route: {{ cluster: main }}
        http_filters:
        - name: router
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: main
    type: STATIC
    load_assignment:
      cluster_name: main
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: {}, {cluster_port_key}: {} }}
"#,
        at.ip(),
        at.port()
    )
}

#[tokio::test]
async fn a_file_configures_a_mesh_and_is_read_again_when_it_changes() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, config("port_value", a.address())).unwrap();
    let mesh = Mesh::from_static_file(&file).await.unwrap();
    let mut client = EchoClient::new(mesh.channel("xds:///shop").unwrap());
    assert_eq!(client.unary(EchoRequest::say("x")).await.unwrap().into_inner().server, "a");

    std::fs::write(&file, config("port_valeu", b.address())).unwrap();
    assert_eq!(client.unary(EchoRequest::say("x")).await.unwrap().into_inner().server, "a");

    std::fs::write(&file, config("port_value", b.address())).unwrap();
    soon(async { while client.unary(EchoRequest::say("x")).await.unwrap().into_inner().server != "b" {} })
        .await;
}

#[tokio::test]
async fn grpc_skips_a_route_by_cluster_header_and_others_are_told_that_it_is_not_served() {
    let backend = Backend::start("a");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    let by_header =
        "- match: { prefix: \"/\" }\n              route: { cluster_header: x-cluster }\n            - match";
    let text = config("port_value", backend.address()).replace("- match", by_header);
    std::fs::write(&file, text).unwrap();
    let mesh = Mesh::from_static_file(&file).await.unwrap();
    let channel = mesh.channel("xds:///shop").unwrap();
    let mut client = EchoClient::new(channel.clone());
    assert_eq!(client.unary(EchoRequest::say("x")).await.unwrap().into_inner().server, "a");
    let request = http::Request::get("/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = tower::ServiceExt::oneshot(channel, request).await.unwrap();
    assert_eq!(response.status(), 503);
    let listed = mesh.unapplied();
    assert!(
        listed.iter().any(|l| l.fields.iter().any(|f| f.ends_with(".route.cluster_header"))),
        "{listed:?}"
    );
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_with_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, config("port_valeu", ([127, 0, 0, 1], 1).into())).unwrap();
    let error = Mesh::from_static_file(&file).await.unwrap_err().to_string();
    assert!(error.contains("mesh.yaml") && error.contains("port_valeu"), "{error}");
}
