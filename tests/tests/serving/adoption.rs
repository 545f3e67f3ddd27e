//! tonic's and axum's own servers over the mesh's connections.

use std::future::IntoFuture as _;

use mesh_tests::backend::App;
use mesh_tests::echo::EchoClient;
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::server::Peer;
use mesh_xds::server::{Cluster, DownstreamTls, Listener, Policy, Principal, Rbac, RouteConfig, UpstreamTls};
use tonic::Code;

use crate::{say, until_ok};

#[tokio::test]
async fn axums_own_server_sees_the_peer_and_enforces_policy() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let serving = fleet.mesh_with("server", &server);
    let port = Port::reserve();
    let policy = Policy::new().principal(Principal::spiffe(caller.spiffe()));
    fleet.control.set((
        Listener::server(port.address())
            .tls(DownstreamTls::mutual("default"))
            .rbac(Rbac::allow().policy("productpage", policy)),
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main")
            .tls(UpstreamTls::mutual("default").san(server.spiffe()))
            .endpoints(at([port.address()])),
    ));
    let app = App::new("axum").router().layer(serving.server_layer());
    let served =
        axum::serve(serving.listen(port.listen()), app.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(serving.draining());
    let server = beside(served.into_future());

    let mesh = fleet.mesh_with("client", &caller);
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    let stranger = fleet.mesh_with("other", &fleet.ca.identity("ratings"));
    let mut other = EchoClient::new(shop(&stranger));
    assert_eq!(say(&mut other, "x").await.unwrap_err().code(), Code::PermissionDenied);
    drop((client, other, mesh, stranger));
    soon(serving.shutdown(std::time::Duration::from_secs(10))).await;
    soon(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn tonics_own_server_serves_over_our_connections() {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
    let serving = fleet.mesh_with("server", &server);
    let port = Port::reserve();
    fleet.control.set((
        Listener::server(port.address()).tls(DownstreamTls::mutual("default")),
        Listener::client("shop").rds("shop"),
        RouteConfig::to("shop", "main"),
        Cluster::eds("main")
            .tls(UpstreamTls::mutual("default").san(server.spiffe()))
            .endpoints(at([port.address()])),
    ));
    let routes = tonic::service::Routes::from(App::new("tonic").router());
    let served = tonic::transport::Server::builder()
        .layer(serving.server_layer())
        .add_routes(routes)
        .serve_with_incoming_shutdown(serving.listen(port.listen()), serving.draining());
    let server = beside(served);
    let mesh = fleet.mesh_with("client", &caller);
    let mut client = EchoClient::new(shop(&mesh));
    assert_eq!(until_ok(&mut client).await.server, "tonic");
    drop((client, mesh));
    soon(serving.shutdown(std::time::Duration::from_secs(10))).await;
    soon(server).await.unwrap().unwrap();
}
