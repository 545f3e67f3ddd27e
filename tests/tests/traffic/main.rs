//! Requests on real sockets: where they go, what happens when that fails, and how long it may take.

mod balancing;
mod breaker;
mod causes;
mod deadline;
mod events;
mod failover;
mod goaway;
mod http;
mod http1;
mod replies;
mod resets;
mod retry;
mod routing;

use std::collections::BTreeMap;

use mesh_tests::echo::{EchoClient, EchoReply, EchoRequest};
use mesh_tests::fleet::{Fleet, shop};
use mesh_tower::MeshChannel;
use mesh_xds::server::{
    Cluster, Endpoints, Listener, Resource, Resources as _, Route, RouteConfig, VirtualHost,
};
use tonic::Status;

type Client = EchoClient<MeshChannel>;

/// `shop` with one route for everything, to one cluster.
fn one_cluster(cluster: Cluster) -> Vec<Resource> {
    routed(Route::prefix("/").cluster("main"), cluster)
}

/// `shop` with one route, and one cluster.
fn routed(route: Route, cluster: Cluster) -> Vec<Resource> {
    (
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(VirtualHost::any().route(route)),
        cluster,
    )
        .into_resources()
}

/// The cluster `main` with these endpoints.
fn main_cluster(endpoints: Endpoints) -> Cluster {
    Cluster::eds("main").endpoints(endpoints)
}

/// A mesh in the fleet, and a client of `shop` on it.
fn client(fleet: &Fleet) -> (mesh_tower::Mesh, Client) {
    let mesh = fleet.mesh("client");
    let client = EchoClient::new(shop(&mesh));
    (mesh, client)
}

/// The same, with details in the answers of the mesh.
fn detailed_client(fleet: &Fleet) -> (mesh_tower::Mesh, Client) {
    let mesh = fleet.mesh_builder("client").detailed_local_replies(true).build().expect("a mesh");
    let client = EchoClient::new(shop(&mesh));
    (mesh, client)
}

async fn say(client: &mut Client, text: &str) -> Result<EchoReply, Status> {
    // A call that fails at once never waits: a loop of such calls would keep everybody else from running.
    tokio::task::yield_now().await;
    client.unary(EchoRequest::say(text)).await.map(tonic::Response::into_inner)
}

/// Calls so many times, one after the other; how many each server answered.
async fn spread(client: &mut Client, calls: usize) -> BTreeMap<String, usize> {
    let mut servers = BTreeMap::new();
    for i in 0..calls {
        let reply = say(client, &format!("call {i}")).await.expect("a reply");
        *servers.entry(reply.server).or_default() += 1;
    }
    servers
}

/// Calls until a server answers, which it has to do soon: how a test waits for a change to reach the data path.
async fn until_served_by(client: &mut Client, server: &str) {
    mesh_tests::wait::soon(async { while say(client, "until").await.expect("a reply").server != server {} })
        .await;
}
