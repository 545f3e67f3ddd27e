//! go-control-plane is the control plane, the mesh its client and its server, in both protocols.

use std::time::Duration;

use mesh_tests::backend::{App, Backend};
use mesh_tests::echo::{CHAT, EchoClient, EchoRequest, UNARY};
use mesh_tests::fleet::{Fleet, at};
use mesh_tests::wait::soon;
use mesh_tower::{Mesh, MeshChannel};
use mesh_xds::server::{
    Cluster, DownstreamTls, Listener, Permission, Policy, Principal, Rbac, Route, RouteConfig, UpstreamTls,
    VirtualHost,
};
use mesh_xds::{Kind, Protocol};
use tokio::time::Instant;
use tonic::Code;

use crate::gocp::{Event, Gocp, What};
use crate::lab::{self, CLIENT_KINDS, Lab};
use crate::load::Load;

pub(crate) async fn configured(lab: Lab, protocol: Protocol) -> String {
    let fleet = Fleet::start_without_control_plane();
    let mut gocp = Gocp::start(&lab, &fleet).await;
    let (server, ours) = (fleet.ca.identity("ours"), fleet.ca.identity("mesh"));
    let mesh = lab::mesh_in(protocol, &fleet, "mesh", Some(&ours)).await;
    let mut caller = lab::client(&mesh);
    let allowing = |listener: Listener, path: &str| {
        let friend = Policy::new().principal(Principal::spiffe(ours.spiffe()));
        let friend = friend.permission(Permission::path(path));
        listener.tls(DownstreamTls::mutual("default")).rbac(Rbac::allow().policy("friend", friend))
    };
    let serving = lab::mesh_in(protocol, &fleet, "ours", Some(&server)).await;
    let served = fleet.serve(&serving, App::new("ours"), |listener| allowing(listener, UNARY));
    let tls = UpstreamTls::mutual("default").san(server.spiffe());
    fleet.control.set(lab::shop([served.address()], |cluster| cluster.tls(tls)));
    gocp.publish(&fleet).await;

    lab::until_ok(&mut caller).await;
    let reply = soon(caller.unary(EchoRequest::say("who am I?"))).await.expect("a reply").into_inner();
    assert_eq!((reply.server.as_str(), reply.peer.as_str()), ("ours", ours.spiffe()));
    let words = tokio_stream::iter([EchoRequest::say("must not")]);
    let denied = match soon(caller.chat(words)).await {
        Err(status) => status,
        Ok(replies) => soon(replies.into_inner().message()).await.expect_err("denied"),
    };
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    // The server's rules change while its connections are in use.
    fleet.control.set(allowing(Listener::server(served.address()), CHAT));
    gocp.publish(&fleet).await;
    let denied = soon(async {
        loop {
            if let Err(status) = caller.unary(EchoRequest::say("still?")).await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    gocp.accepted("mesh", CLIENT_KINDS).await;
    gocp.accepted("ours", &[Kind::Listener]).await;
    let log = gocp.log();
    let streams = || log.iter().filter(|event| event.stream != 0);
    assert!(streams().all(|event| event.incremental == (protocol == Protocol::Incremental)), "{log:?}");
    let asked = streams().filter(|event| event.what == What::Request).count();
    format!(
        "mTLS as {}, PERMISSION_DENIED by RBAC, and by its change; {asked} requests of client and server",
        reply.peer
    )
}

pub(crate) async fn routes_move(lab: Lab, protocol: Protocol) -> String {
    let mut shop = Shop::start(&lab, protocol).await;
    let mut load = Load::start(&shop.caller);
    for name in ["b", "a"].into_iter().cycle().take(ROUNDS) {
        shop.fleet.control.set(RouteConfig::to("shop", name));
        shop.moves_to(name).await;
        load.goes_on(20).await;
    }
    shop.gocp.accepted("mesh", CLIENT_KINDS).await;
    format!("{ROUNDS} moves, {} calls, 0 failed", load.unharmed().await)
}

pub(crate) async fn endpoints_move(lab: Lab, protocol: Protocol) -> String {
    let mut shop = Shop::start(&lab, protocol).await;
    let mut load = Load::start(&shop.caller);
    for name in ["b", "a"].into_iter().cycle().take(ROUNDS) {
        let address = if name == "a" { shop.a.address() } else { shop.b.address() };
        shop.fleet.control.set(Cluster::eds("a").endpoints(at([address])));
        shop.moves_to(name).await;
        load.goes_on(20).await;
    }
    shop.gocp.accepted("mesh", CLIENT_KINDS).await;
    format!("{ROUNDS} moves, {} calls, 0 failed", load.unharmed().await)
}

pub(crate) async fn cluster_removed(lab: Lab, protocol: Protocol) -> String {
    let mut shop = Shop::start(&lab, protocol).await;
    let mut load = Load::start(&shop.caller);
    for (name, other) in [("b", "a"), ("a", "b")].into_iter().cycle().take(ROUNDS) {
        let address = if name == "a" { shop.a.address() } else { shop.b.address() };
        // One snapshot has the route's move, the new cluster and the end of the old one; its types leave in any order.
        shop.fleet.control.edit(|edit| {
            edit.set((RouteConfig::to("shop", name), Cluster::eds(name).endpoints(at([address]))));
            edit.remove(Kind::Cluster, other);
            edit.remove(Kind::Endpoints, other);
        });
        shop.moves_to(name).await;
        load.goes_on(20).await;
    }
    format!("{ROUNDS} replaced, {} calls, 0 failed", load.unharmed().await)
}

/// The route moves from its only cluster to one that comes later, in one snapshot with its endpoints and without the old
/// one; the types of a snapshot leave in any order.
pub(crate) async fn cluster_comes_later(lab: Lab, protocol: Protocol) -> String {
    const SWITCHES: u64 = 60;
    let mut shop = Shop::start(&lab, protocol).await;
    let mut load = Load::start(&shop.caller);
    let mut old = "a".to_owned();
    for switch in 0..SWITCHES {
        let (to, name) = if switch % 2 == 0 { (shop.b.address(), "b") } else { (shop.a.address(), "a") };
        let new = format!("cluster-{}", switch % 7);
        shop.fleet.control.set(RouteConfig::to("shop", &new));
        shop.gocp.publish(&shop.fleet).await;
        load.goes_on(20 * (switch % 4)).await;
        shop.fleet.control.edit(|edit| {
            edit.set(Cluster::eds(&new).endpoints(at([to])));
            edit.remove(Kind::Cluster, &old);
            edit.remove(Kind::Endpoints, &old);
        });
        shop.moves_to(name).await;
        load.goes_on(20).await;
        old = new;
    }
    shop.gocp.accepted("mesh", CLIENT_KINDS).await;
    format!("{SWITCHES} switches, {} calls, 0 failed", load.unharmed().await)
}

pub(crate) async fn refused(lab: Lab, protocol: Protocol) -> String {
    let mut shop = Shop::start(&lab, protocol).await;
    let mut load = Load::start(&shop.caller);
    let bad = VirtualHost::any().route(Route::regex("(").cluster("b"));
    shop.fleet.control.set((
        RouteConfig::new("shop").host(bad),
        // Valid, and of the same snapshot: it applies.
        Cluster::eds("a").endpoints(at([shop.b.address()])),
    ));
    let start = Instant::now();
    shop.gocp.publish(&shop.fleet).await;
    let refusals = |log: &[Event]| log.iter().filter(|event| !event.error.is_empty()).count();
    // In the state of the world it answers a refusal with the same resource at once; how often is up to us.
    let expected = if protocol == Protocol::Incremental { 1 } else { 3 };
    shop.gocp.until(|log| refusals(log) >= expected).await;
    let elapsed = start.elapsed();
    assert!(expected == 1 || elapsed > Duration::from_secs(1), "{expected} refusals within {elapsed:?}");
    let log = shop.gocp.log();
    let refusal = log.iter().find(|event| !event.error.is_empty()).expect("one");
    assert_eq!(refusal.kind, Some(Kind::Route));
    assert!(refusal.error.contains("virtual_hosts[0].routes[0].match.safe_regex"), "{}", refusal.error);
    _ = lab::answers(&mut shop.caller, "b").await;
    load.goes_on(200).await;

    shop.fleet
        .control
        .set((RouteConfig::to("shop", "b"), Cluster::eds("b").endpoints(at([shop.a.address()]))));
    shop.moves_to("a").await;
    let calls = load.unharmed().await;
    format!("{calls} calls on the last good, 0 failed; {expected} refusals: {}", refusal.error)
}

pub(crate) async fn restarted(lab: Lab, protocol: Protocol) -> String {
    let mut shop = Shop::start(&lab, protocol).await;
    let mut load = Load::start(&shop.caller);
    shop.gocp.accepted("mesh", CLIENT_KINDS).await;
    load.goes_on(50).await;
    shop.gocp.kill().await;
    load.goes_on(500).await;

    shop.gocp = Gocp::start(&lab, &shop.fleet).await;
    shop.gocp.publish(&shop.fleet).await;
    let asked = |log: &[Event], kind: Kind| {
        log.iter().any(|event| event.what == What::Request && event.kind == Some(kind))
    };
    shop.gocp.until(|log| CLIENT_KINDS.iter().all(|kind| asked(log, *kind))).await;
    load.goes_on(200).await;
    shop.fleet.control.set(Cluster::eds("a").endpoints(at([shop.b.address()])));
    shop.moves_to("b").await;
    let calls = load.unharmed().await;

    let log = shop.gocp.log();
    let claimed: u64 = log.iter().map(|event| event.claimed).sum();
    let sent: Vec<_> = log
        .iter()
        .filter(|event| event.what == What::Response)
        .flat_map(|event| event.names.iter().map(move |name| (event.kind, name.as_str())))
        .collect();
    assert!(log.iter().all(|event| event.what != What::Response || event.removed.is_empty()), "{log:?}");
    if protocol == Protocol::Incremental {
        assert_eq!(claimed, 4, "a listener, its route table, the cluster in use and its endpoints: {log:?}");
        assert_eq!(sent, [(Some(Kind::Endpoints), "a")], "the one that changed");
    }
    format!("{calls} calls, 0 failed; the new stream claimed {claimed} and was sent {} resources", sent.len())
}

pub(crate) async fn many(lab: Lab, protocol: Protocol) -> String {
    const CLUSTERS: usize = 200;
    let fleet = Fleet::start_without_control_plane();
    let mut gocp = Gocp::start(&lab, &fleet).await;
    let backends = ["0", "1", "2", "3"].map(|name| fleet.backend(name));
    fleet.control.set(lab::many(CLUSTERS, &backends.each_ref().map(Backend::address)));
    gocp.publish(&fleet).await;
    let start = Instant::now();
    let mesh = lab::mesh_in(protocol, &fleet, "mesh", None).await;
    let mut caller = lab::client(&mesh);
    for number in 0..CLUSTERS {
        let server = lab::call_cluster(&mut caller, number).await;
        assert_eq!(server, (number % backends.len()).to_string());
    }
    let elapsed = start.elapsed().as_millis();
    gocp.accepted("mesh", CLIENT_KINDS).await;
    let asked = gocp.log().iter().filter(|event| event.what == What::Request).count();
    format!("all called after {elapsed} ms, with {asked} requests")
}

/// The target `shop`, which goes to the cluster `a`; beside it there is a cluster `b`.
struct Shop {
    fleet: Fleet,
    gocp: Gocp,
    a: Backend,
    b: Backend,
    _mesh: Mesh,
    caller: EchoClient<MeshChannel>,
}

// === impl Shop ===

impl Shop {
    /// Configured, and called once.
    async fn start(lab: &Lab, protocol: Protocol) -> Self {
        let fleet = Fleet::start_without_control_plane();
        let mut gocp = Gocp::start(lab, &fleet).await;
        let (a, b) = (fleet.backend("a"), fleet.backend("b"));
        fleet.control.set((
            Listener::client("shop"),
            RouteConfig::to("shop", "a"),
            Cluster::eds("a").endpoints(at([a.address()])),
            Cluster::eds("b").endpoints(at([b.address()])),
        ));
        gocp.publish(&fleet).await;
        let mesh = lab::mesh_in(protocol, &fleet, "mesh", None).await;
        let mut caller = lab::client(&mesh);
        assert_eq!(lab::until_ok(&mut caller).await, "a");
        Self { fleet, gocp, a, b, _mesh: mesh, caller }
    }

    /// Makes what the fleet has the snapshot, and calls until a backend answers. No call may fail.
    async fn moves_to(&mut self, name: &str) {
        self.gocp.publish(&self.fleet).await;
        lab::answers(&mut self.caller, name).await;
    }
}

const ROUNDS: usize = 20;
