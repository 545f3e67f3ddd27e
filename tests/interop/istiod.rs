//! istiod feeds this mesh: a service that it reads from a file is called by the name that it gives it, and the call
//! arrives. Run by `.ci/judges`, which starts istiod: `istiod XDS_ADDRESS CONFIG_FOLDER`.

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh_tests::backend::Backend;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::wait::soon;
use mesh_tower::MeshBuilder;
use mesh_xds::Protocol;
use mesh_xds::bootstrap::{Bootstrap, ServerConfig};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let usage = "usage: istiod XDS_ADDRESS CONFIG_FOLDER";
    let istiod: SocketAddr = args.next().and_then(|text| text.parse().ok()).expect(usage);
    let folder = PathBuf::from(args.next().expect(usage));
    for protocol in [Protocol::StateOfTheWorld, Protocol::Incremental] {
        let backend = Backend::start("a");
        write(&folder, backend.address());
        let attempts = called(istiod, protocol, &backend).await;
        println!(
            "istiod feeds mesh, {protocol:?}: its service is called; attempts until it was there: {attempts}"
        );
    }
}

/// Calls until the backend has answered.
async fn called(istiod: SocketAddr, protocol: Protocol, backend: &Backend) -> u32 {
    let server = ServerConfig::insecure(&istiod.to_string()).expect("an address");
    // How istiod knows what kind of client this is, and where it is.
    let bootstrap = Bootstrap::builder("sidecar~127.0.0.1~web-1.shop~shop.svc.cluster.local")
        .metadata("GENERATOR", "grpc")
        .metadata("NAMESPACE", "shop")
        .metadata("CLUSTER_ID", "Kubernetes")
        .server(server)
        .build()
        .expect("a valid bootstrap")
        .with_protocol(protocol);
    let builder = MeshBuilder::from_bootstrap(bootstrap).expect("within a runtime");
    let mesh = builder.build().expect("a mesh");
    let mut attempts = 0;
    soon(async {
        // A name that istiod does not know yet is a target that does not exist; it may be asked for again.
        while backend.app.stats().requests == 0 {
            attempts += 1;
            let channel = mesh.channel("xds:///echo.shop.svc.cluster.local:7070").expect("a target");
            let mut client = EchoClient::new(channel);
            if let Ok(reply) = client.unary(EchoRequest::say("hello")).await {
                assert_eq!(reply.into_inner().server, "a");
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    attempts
}

/// The service, as istiod reads it: the address of the backend is its one endpoint.
fn write(folder: &Path, backend: SocketAddr) {
    let service = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: echo, namespace: shop}}
spec:
  hosts: [echo.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 7070, name: grpc, protocol: GRPC}}]
  endpoints: [{{address: {}, ports: {{grpc: {}}}}}]
",
        backend.ip(),
        backend.port()
    );
    // Whole or not at all: istiod may read at any time.
    let part = folder.join("echo.part");
    std::fs::write(&part, service).expect("a file");
    std::fs::rename(part, folder.join("echo.yaml")).expect("a name");
}
