//! Envoy beside the mesh, both fed by our control plane: it calls our servers for a client that knows no mesh, and our
//! clients call it where it stands before a server that knows none. In both protocols of its discovery.

use std::net::SocketAddr;

use mesh_tests::backend::{App, Backend};
use mesh_tests::echo::{EchoClient, EchoRequest, UNARY};
use mesh_tests::fleet::{Fleet, Served, at};
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_xds::Protocol;
use mesh_xds::server::{
    ClientStatus, Cluster, DownstreamTls, Endpoints, Listener, Permission, Policy, Principal, Rbac, Resource,
    Resources as _, Route, RouteConfig, UpstreamTls, VirtualHost,
};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::envoy::{self, Envoy};
use crate::lab::{self, CLIENT_KINDS, Lab};
use crate::load::Load;

pub(crate) async fn calls_us(lab: Lab, protocol: Protocol) -> String {
    let fleet = Fleet::start();
    let (server, proxy) = (fleet.ca.identity("ours"), fleet.ca.identity("envoy"));
    let friend =
        Policy::new().principal(Principal::spiffe(proxy.spiffe())).permission(Permission::path(UNARY));
    let rules = Rbac::allow().policy("friend", friend);
    let serve = |name| {
        let (fleet, server, rules) = (&fleet, &server, rules.clone());
        async move {
            let mesh = lab::mesh_in(protocol, fleet, name, Some(server)).await;
            fleet.serve_with(&mesh, App::new(name), |address| {
                let listener = Listener::server(address).tls(DownstreamTls::mutual("default")).rbac(rules);
                fleet.control.edit(|edit| edit.view(lab::VIEW).set(listener));
            })
        }
    };
    let (a, b) = (serve("a").await, serve("b").await);
    let cluster = |name: &str, served: &Served| {
        let cluster = Cluster::eds(name).http2().endpoints(at([served.address()]));
        envoy::with_upstream_tls(cluster, &proxy, server.spiffe())
    };
    let port = Port::reserve();
    envoy::set(
        &fleet,
        (
            Listener::server(port.address()).named("outbound").rds("shop"),
            RouteConfig::to("shop", "main"),
            cluster("main", &a),
            cluster("other", &b),
        ),
    );
    let envoy = Envoy::start(&lab, &fleet, protocol).await;
    let mut caller = proxied_by(&port);
    lab::until(&mut caller, |server| server == "a").await;
    assert_eq!(lab::answers(&mut caller, "a").await.peer, proxy.spiffe());
    let words = tokio_stream::iter([EchoRequest::say("must not")]);
    let denied = match soon(caller.chat(words)).await {
        Err(status) => status,
        Ok(replies) => soon(replies.into_inner().message()).await.expect_err("denied"),
    };
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");

    let mut load = Load::start(&caller);
    for (name, cluster) in [("b", "other"), ("a", "main")].into_iter().cycle().take(ROUNDS) {
        envoy::set(&fleet, RouteConfig::to("shop", cluster));
        lab::answers(&mut caller, name).await;
        load.goes_on(20).await;
    }
    for (name, served) in [("b", &b), ("a", &a)].into_iter().cycle().take(ROUNDS) {
        envoy::set(&fleet, cluster("main", served));
        lab::answers(&mut caller, name).await;
        load.goes_on(20).await;
    }
    let calls = load.unharmed().await;
    lab::accepted(&fleet, envoy::VIEW, CLIENT_KINDS).await;
    let updates = envoy.unharmed().await;
    format!(
        "{calls} calls, 0 failed, {ROUNDS} moves of routes and of endpoints; {updates} updates, 0 rejected"
    )
}

pub(crate) async fn called_by_us(lab: Lab, protocol: Protocol) -> String {
    let fleet = Fleet::start();
    let (ours, proxy) = (fleet.ca.identity("mesh"), fleet.ca.identity("envoy"));
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    // One Envoy with a listener for each of two servers.
    let (front_a, front_b) = (Port::reserve(), Port::reserve());
    let inbound = |name: &str, port: &Port| {
        let listener = Listener::server(port.address()).named(format!("inbound-{name}")).rds(name);
        envoy::with_downstream_tls(listener, &proxy)
    };
    envoy::set(
        &fleet,
        (
            inbound("a", &front_a),
            inbound("b", &front_b),
            RouteConfig::to("a", "main"),
            RouteConfig::to("b", "other"),
            Cluster::eds("main").http2().endpoints(at([a.address()])),
            Cluster::eds("other").http2().endpoints(at([b.address()])),
        ),
    );
    let envoy = Envoy::start(&lab, &fleet, protocol).await;
    let cluster = |name: &str, port: &Port| {
        let tls = UpstreamTls::mutual("default").san(proxy.spiffe());
        Cluster::eds(name).tls(tls).endpoints(at([port.address()]))
    };
    let set = |resources: Vec<Resource>| fleet.control.edit(|edit| edit.view(lab::VIEW).set(resources));
    set((
        Listener::client("shop"),
        RouteConfig::to("shop", "front-a"),
        cluster("front-a", &front_a),
        cluster("front-b", &front_b),
    )
        .into_resources());
    let mesh = lab::mesh_in(protocol, &fleet, "mesh", Some(&ours)).await;
    let mut caller = lab::client(&mesh);
    lab::until(&mut caller, |server| server == "a").await;
    let reply = lab::answers(&mut caller, "a").await;
    let seen = reply.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default();
    assert!(seen.contains(&format!("URI={}", ours.spiffe())), "{seen}");

    let mut load = Load::start(&caller);
    for (name, front) in [("b", "front-b"), ("a", "front-a")].into_iter().cycle().take(ROUNDS) {
        set(RouteConfig::to("shop", front).into_resources());
        lab::answers(&mut caller, name).await;
        load.goes_on(20).await;
    }
    for (name, front) in [("b", &front_b), ("a", &front_a)].into_iter().cycle().take(ROUNDS) {
        set(cluster("front-a", front).into_resources());
        lab::answers(&mut caller, name).await;
        load.goes_on(20).await;
    }
    // The same behind Envoy.
    for (name, backend) in [("b", &b), ("a", &a)].into_iter().cycle().take(ROUNDS) {
        envoy::set(&fleet, Cluster::eds("main").http2().endpoints(at([backend.address()])));
        lab::answers(&mut caller, name).await;
        load.goes_on(20).await;
    }
    let calls = load.unharmed().await;
    lab::accepted(&fleet, "mesh", CLIENT_KINDS).await;
    lab::accepted(&fleet, envoy::VIEW, CLIENT_KINDS).await;
    let updates = envoy.unharmed().await;
    format!("{calls} calls, 0 failed, {ROUNDS} moves of each of three; {updates} updates, 0 rejected")
}

pub(crate) async fn refuses(lab: Lab, protocol: Protocol) -> String {
    let fleet = Fleet::start();
    let mut site = Outbound::start(&lab, &fleet, protocol).await;
    let bad = VirtualHost::any().route(Route::regex("(").cluster("main"));
    envoy::set(&fleet, RouteConfig::new("shop").host(bad));
    let refusal = fleet.nack().await;
    envoy::set(&fleet, one(site.b.address()));
    lab::answers(&mut site.caller, "b").await;
    let rejected = site.envoy.counters("rds.shop.update_rejected").await;
    assert!(rejected.iter().any(|(_, count)| *count == 1), "refused once, by its own count: {rejected:?}");

    envoy::set(&fleet, RouteConfig::to("shop", "main"));
    let corrected = |client: &ClientStatus| client.is_settled() && client.nacks().next().is_none();
    soon(fleet.control.wait_for(|clients| clients.iter().all(corrected))).await;
    site.load.goes_on(20).await;
    format!("{} calls, 0 failed; our status says: {refusal}", site.load.unharmed().await)
}

pub(crate) async fn resumes(lab: Lab, protocol: Protocol) -> String {
    let mut fleet = Fleet::start();
    let mut site = Outbound::start(&lab, &fleet, protocol).await;
    fleet.kill_control_plane().await;
    site.load.goes_on(200).await;
    fleet.start_control_plane();
    let resumed = |client: &ClientStatus| client.is_settled() && client.kinds.len() == CLIENT_KINDS.len();
    soon(fleet.control.wait_for(|clients| clients.iter().any(resumed))).await;
    let repeated: u64 = fleet.control.status().iter().map(|client| client.responses).sum();
    if protocol == Protocol::Incremental {
        assert_eq!(repeated, 2, "an empty answer to each wildcard, which Envoy waits for, and nothing else");
    }
    envoy::set(&fleet, one(site.b.address()));
    lab::answers(&mut site.caller, "b").await;
    let calls = site.load.unharmed().await;
    let updates = site.envoy.unharmed().await;
    format!("{calls} calls, 0 failed; {repeated} responses when it came back; {updates} updates, 0 rejected")
}

/// Envoy in front of `main`, called by a client that knows no mesh, under load; `b` is where `main` can move.
struct Outbound {
    envoy: Envoy,
    caller: EchoClient<Channel>,
    load: Load,
    b: Backend,
    _a: Backend,
    _port: Port,
}

impl Outbound {
    async fn start(lab: &Lab, fleet: &Fleet, protocol: Protocol) -> Self {
        let (a, b) = (fleet.backend("a"), fleet.backend("b"));
        let port = Port::reserve();
        let listener = Listener::server(port.address()).named("outbound").rds("shop");
        envoy::set(fleet, (listener, RouteConfig::to("shop", "main"), one(a.address())));
        let envoy = Envoy::start(lab, fleet, protocol).await;
        let mut caller = proxied_by(&port);
        lab::until(&mut caller, |server| server == "a").await;
        let load = Load::start(&caller);
        Self { envoy, caller, load, b, _a: a, _port: port }
    }
}

/// The cluster `main` with one endpoint.
fn one(at: SocketAddr) -> Cluster {
    Cluster::eds("main").http2().endpoints(Endpoints::of([at]))
}

/// A client that knows no mesh, and calls Envoy.
fn proxied_by(port: &Port) -> EchoClient<Channel> {
    let proxy = Endpoint::from_shared(format!("http://{}", port.address())).expect("an address");
    EchoClient::new(proxy.connect_lazy())
}

const ROUNDS: usize = 10;
