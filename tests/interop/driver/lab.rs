//! What every scenario needs: a fleet, bootstraps that configure grpcio and us alike, and proof that nothing was refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use mesh_tests::backend::App;
use mesh_tests::ca::Identity;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, Served, at};
use mesh_tests::wait::soon;
use mesh_tower::{Mesh, MeshChannel};
use mesh_xds::server::{ClientStatus, Cluster, Kind, Listener, Resource, Resources as _, RouteConfig};

/// Where grpcio is.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) python: PathBuf,
    pub(crate) scripts: PathBuf,
}

/// The text of a bootstrap. grpcio and the mesh are given the same.
pub(crate) fn bootstrap(fleet: &Fleet, node: &str, identity: Option<&Identity>) -> String {
    let providers = identity.map_or_else(
        || serde_json::json!({}),
        |identity| {
            serde_json::json!({ "default": { "plugin_name": "file_watcher", "config": {
                "certificate_file": identity.certificate_file(),
                "private_key_file": identity.key_file(),
                "ca_certificate_file": identity.ca_file(),
                "refresh_interval": "1s",
            }}})
        },
    );
    serde_json::json!({
        "xds_servers": [{
            "server_uri": fleet.control_address().to_string(),
            "channel_creds": [{ "type": "insecure" }],
            "server_features": ["xds_v3"],
        }],
        "node": { "id": node, "cluster": "interop", "locality": { "zone": "here" } },
        "certificate_providers": providers,
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    })
    .to_string()
}

/// A mesh from such a text.
pub(crate) async fn mesh(fleet: &Fleet, node: &str, identity: Option<&Identity>) -> Mesh {
    Mesh::from_bootstrap_json(&bootstrap(fleet, node, identity)).await.expect("a valid bootstrap")
}

/// Our Echo, served by a mesh of its own, in plaintext unless `listener` says otherwise.
pub(crate) async fn serve(
    fleet: &Fleet,
    name: &str,
    identity: Option<&Identity>,
    listener: impl FnOnce(Listener) -> Listener,
) -> Served {
    let mesh = mesh(fleet, name, identity).await;
    fleet.serve(&mesh, App::new(name), listener)
}

/// The target `shop` with one cluster at these addresses, which `complete` completes.
pub(crate) fn shop<const N: usize>(
    addresses: [SocketAddr; N],
    complete: impl FnOnce(Cluster) -> Cluster,
) -> Vec<Resource> {
    let cluster = Cluster::eds("main").endpoints(at(addresses));
    (Listener::client("shop"), RouteConfig::to("shop", "main"), complete(cluster)).into_resources()
}

/// A client of the target `shop`.
pub(crate) fn client(mesh: &Mesh) -> EchoClient<MeshChannel> {
    EchoClient::new(mesh.channel(SHOP).expect("a target"))
}

/// Calls until a server answers: the first calls may come before a server knows that it may serve. Returns its name.
pub(crate) async fn until_ok(client: &mut EchoClient<MeshChannel>) -> String {
    until(client, |_| true).await
}

/// Calls until a server answers whose name satisfies a condition.
pub(crate) async fn until(client: &mut EchoClient<MeshChannel>, condition: impl Fn(&str) -> bool) -> String {
    soon(async {
        loop {
            if let Ok(reply) = client.unary(EchoRequest::say("until")).await
                && condition(&reply.get_ref().server)
            {
                return reply.into_inner().server;
            }
            // A refusal at once must not starve those who would change it.
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Waits until a node has acknowledged these kinds and has nothing left to answer.
///
/// # Panics
/// If anybody refuses anything.
pub(crate) async fn accepted(fleet: &Fleet, node: &str, kinds: &[Kind]) {
    let mut refused = None;
    soon(fleet.control.wait_for(|clients| {
        refused = clients
            .iter()
            .flat_map(|client| client.nacks().map(move |nack| (client, nack)))
            .map(|(client, (kind, nack))| format!("{} refused {kind:?}: {}", client.node_id, nack.message))
            .next();
        let asked = |kind: &Kind, client: &ClientStatus| {
            client.kind(*kind).is_some_and(|status| status.acked.is_some())
        };
        let done = clients
            .iter()
            .filter(|client| client.node_id == node)
            .any(|client| client.is_settled() && kinds.iter().all(|kind| asked(kind, client)));
        refused.is_some() || done
    }))
    .await;
    assert_eq!(refused, None);
}

/// What the tests call.
pub(crate) const SHOP: &str = "xds:///shop";
/// Every kind that a client of `shop` asks for.
pub(crate) const CLIENT_KINDS: &[Kind] = &[Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints];
