//! Several control planes on real sockets (gRFC A71): whichever can be reached configures the traffic, and no call fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at};
use mesh_tests::script::AdsScript;
use mesh_tests::wait::{beside, soon};
use mesh_tower::{Mesh, MeshBuilder, MeshChannel};
use mesh_xds::bootstrap::{Bootstrap, ServerConfig};
use mesh_xds::server::{Cluster, Listener, Resource, Resources as _, RouteConfig};
use tonic::{Code, Status};

/// Target `name`, whose one cluster is at this address.
fn target(name: &str, address: std::net::SocketAddr) -> Vec<Resource> {
    let cluster = Cluster::eds(name).endpoints(at([address]));
    (Listener::client(name).rds(name), RouteConfig::to(name, name), cluster).into_resources()
}

/// A mesh that asks the first of these control planes, and the second when it has to.
fn mesh(first: &Fleet, second: &Fleet) -> Mesh {
    let server =
        |fleet: &Fleet| ServerConfig::insecure(&fleet.control_address().to_string()).expect("an address");
    let bootstrap = Bootstrap::builder("node-7").server(server(first)).server(server(second)).build();
    MeshBuilder::from_bootstrap(bootstrap.unwrap()).and_then(MeshBuilder::build).unwrap()
}

fn client(mesh: &Mesh, target: &str) -> EchoClient<MeshChannel> {
    EchoClient::new(mesh.channel(&format!("xds:///{target}")).unwrap())
}

async fn who(client: &mut EchoClient<MeshChannel>) -> Result<String, Status> {
    tokio::task::yield_now().await;
    client.unary(EchoRequest::say("who")).await.map(|reply| reply.into_inner().server)
}

async fn until_served_by(client: &mut EchoClient<MeshChannel>, server: &str) {
    soon(async { while who(client).await.ok().as_deref() != Some(server) {} }).await;
}

/// Calls without a pause until it is told to stop; counts the calls, and those that failed.
#[derive(Clone, Default)]
struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Load {
    async fn run(self, mut client: EchoClient<MeshChannel>) {
        while !self.over.load(Ordering::SeqCst) {
            let failed = who(&mut client).await.is_err();
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.failed.fetch_add(usize::from(failed), Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_primary_that_dies_under_load_and_returns_costs_no_call() {
    let (mut primary, spare) = (Fleet::start(), Fleet::start());
    let (a, b) = (primary.backend("a"), spare.backend("b"));
    for (fleet, backend) in [(&primary, &a), (&spare, &b)] {
        fleet.control.set(target("shop", backend.address()));
        fleet.control.set(target("cart", backend.address()));
    }
    let mesh = mesh(&primary, &spare);
    let mut shop = client(&mesh, "shop");
    until_served_by(&mut shop, "a").await;
    let load = Load::default();
    let running = beside(load.clone().run(shop.clone()));

    primary.kill_control_plane().await;
    assert_eq!(who(&mut shop).await.unwrap(), "a", "all is cached");
    assert_eq!(spare.control.status().len(), 0, "and nobody else is asked");

    let mut cart = client(&mesh, "cart");
    until_served_by(&mut cart, "b").await;
    until_served_by(&mut shop, "b").await;

    primary.start_control_plane();
    until_served_by(&mut shop, "a").await;
    until_served_by(&mut cart, "a").await;
    soon(spare.control.wait_for(<[_]>::is_empty)).await;

    load.over.store(true, Ordering::SeqCst);
    soon(running).await.unwrap();
    let (calls, failed) = (load.calls.load(Ordering::SeqCst), load.failed.load(Ordering::SeqCst));
    assert!(failed == 0 && calls > 100, "{failed} of {calls} calls failed");
}

/// The order of gRPC's own interoperability test: nobody, the second, the first, nobody.
#[tokio::test]
async fn whoever_can_be_reached_configures_and_in_the_end_the_cache_does() {
    let (mut primary, mut spare) =
        (Fleet::start_without_control_plane(), Fleet::start_without_control_plane());
    let (a, b) = (primary.backend("a"), spare.backend("b"));
    primary.control.set(target("shop", a.address()));
    spare.control.set(target("shop", b.address()));
    let mesh = mesh(&primary, &spare);
    let mut shop = client(&mesh, "shop");
    for _ in 0..5 {
        let status = soon(who(&mut shop)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    spare.start_control_plane();
    until_served_by(&mut shop, "b").await;
    primary.start_control_plane();
    until_served_by(&mut shop, "a").await;
    soon(spare.control.wait_for(<[_]>::is_empty)).await;
    spare.kill_control_plane().await;
    primary.kill_control_plane().await;
    for _ in 0..100 {
        assert_eq!(who(&mut shop).await.unwrap(), "a");
    }
}

/// gRFC A54: the status of a control plane is not the answer of the application.
#[tokio::test]
async fn the_status_of_a_control_plane_never_becomes_that_of_a_call() {
    for code in [
        Code::Ok,
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::DataLoss,
        Code::PermissionDenied,
    ] {
        let mut script = AdsScript::start();
        let server = ServerConfig::insecure(&script.address().to_string()).unwrap();
        let bootstrap = Bootstrap::builder("node-7").server(server).build().unwrap();
        let mesh =
            MeshBuilder::from_bootstrap(bootstrap).unwrap().detailed_local_replies(true).build().unwrap();
        let mut shop = client(&mesh, "shop");
        let refuse = async { script.accept().await.fail(Status::new(code, "no such tenant")).await };
        let (status, ()) = tokio::join!(soon(who(&mut shop)), refuse);
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{code:?} became {status:?}");
        let text = status.message();
        assert!(text.contains("\"shop\"") && text.contains("\"node-7\""), "{code:?}: {text}");
        if code != Code::Ok {
            assert!(text.contains("no such tenant"), "{code:?}: {text}");
        }
    }
}
