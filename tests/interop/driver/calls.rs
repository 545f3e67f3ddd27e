//! grpcio is the client, the mesh the server.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_tests::backend::Backend;
use mesh_tests::ca::Identity;
use mesh_tests::echo::{CHAT, EchoRequest};
use mesh_tests::fleet::{Fleet, Served, at};
use mesh_tests::wait::{beside, soon};
use mesh_tower::drain::Drained;
use mesh_xds::server::{
    Cluster, DownstreamTls, HeaderMatch, Listener, Permission, Policy, Principal, Rbac, Route, RouteConfig,
    UpstreamTls, VirtualHost,
};
use tokio::time::Instant;

use crate::lab::{self, CLIENT_KINDS, Lab};
use crate::python::{Call, Client};

pub(crate) async fn unary(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (_served, mut grpcio) = plaintext(&lab, &fleet, |listener| listener).await;
    let reply =
        grpcio.call(Call::unary(EchoRequest::say("hello")).header("x-probe", "42")).await.ok().remove(0);
    assert_eq!((reply.text.as_str(), reply.server.as_str(), reply.peer.as_str()), ("hello", "ours", ""));
    assert_eq!(reply.headers.get("x-probe").map(String::as_str), Some("42"));
    let missing = Call::unary(EchoRequest::say("é").failing(tonic::Code::NotFound, 0));
    // The message is percent-encoded on the wire.
    assert_eq!(grpcio.call(missing).await.failed("NOT_FOUND"), "asked to fail by \"é\"");
    "OK, NOT_FOUND with its message; 4 kinds acknowledged".into()
}

pub(crate) async fn streams(lab: Lab) -> String {
    const COUNT: usize = 200;
    let fleet = Fleet::start();
    let (_served, mut grpcio) = plaintext(&lab, &fleet, |listener| listener).await;
    let large = EchoRequest { payload: vec![7; LARGE].into(), ..EchoRequest::say("large") };
    let reply = grpcio.call(Call::unary(large.clone())).await.ok().remove(0);
    assert_eq!(reply.payload, large.payload);

    let many = EchoRequest { replies: 200, ..EchoRequest::say("many") };
    assert_eq!(grpcio.call(Call::download(many)).await.ok().len(), COUNT);
    let words: Vec<_> = (0..COUNT).map(|n| EchoRequest::say(n.to_string())).collect();
    let replies = grpcio.call(Call::chat(words)).await.ok();
    let texts: Vec<usize> = replies.iter().map(|reply| reply.text.parse().expect("a number")).collect();
    assert_eq!(texts, (0..COUNT).collect::<Vec<_>>());
    let chunk = EchoRequest { payload: vec![1; LARGE / 16].into(), ..EchoRequest::default() };
    let uploaded = grpcio.call(Call::upload(vec![chunk; 32])).await.ok().remove(0);
    assert_eq!(uploaded.received, 2 * LARGE as u64);
    format!("{LARGE} bytes there and back, {} up; {COUNT} messages down, {COUNT} both ways", 2 * LARGE)
}

pub(crate) async fn routing(lab: Lab) -> String {
    const CALLS: u32 = 200;
    let fleet = Fleet::start();
    let stable = lab::serve(&fleet, "stable", None, |listener| listener).await;
    let canary = lab::serve(&fleet, "canary", None, |listener| listener).await;
    let host = VirtualHost::any()
        .route(Route::prefix("/").header(HeaderMatch::exact("x-canary", "yes")).cluster("canary"))
        .route(Route::prefix("/").weighted([("stable", 75), ("canary", 25)]));
    fleet.control.set((
        Listener::client("shop"),
        RouteConfig::new("shop").host(host),
        Cluster::eds("stable").endpoints(at([stable.address()])),
        Cluster::eds("canary").endpoints(at([canary.address()])),
    ));
    let mut grpcio = Client::start(&lab, &fleet, "grpcio", None).await;
    for _ in 0..20 {
        let call = Call::unary(EchoRequest::say("beta")).header("x-canary", "yes");
        assert_eq!(grpcio.call(call).await.ok().remove(0).server, "canary");
    }
    let mut hits = BTreeMap::<String, u32>::new();
    for _ in 0..CALLS {
        *hits.entry(grpcio.say("anybody").await.server).or_default() += 1;
    }
    let canary = hits.get("canary").copied().unwrap_or(0);
    // Five standard deviations around a quarter: fails by chance once in two million runs.
    assert!((20..=80).contains(&canary), "25 % of {CALLS} calls: {hits:?}");
    format!("20 of 20 by header, {canary} of {CALLS} by a weight of 25 %")
}

pub(crate) async fn deadline(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (served, mut grpcio) = plaintext(&lab, &fleet, |listener| listener).await;
    grpcio.say("the connection is there").await;
    let held = Call::unary(EchoRequest::say("held").held()).timeout(2.0);
    let (answer, _) = tokio::join!(
        grpcio.call(held),
        served.app.until(|stats| stats.requests == 2 && stats.in_flight == 1)
    );
    answer.failed("DEADLINE_EXCEEDED");
    served.app.until(|stats| stats.in_flight == 0).await;
    "DEADLINE_EXCEEDED, and our handler ended".into()
}

pub(crate) async fn denied(lab: Lab) -> String {
    let rules = Rbac::deny().policy("no-chat", Policy::new().permission(Permission::path(CHAT))).policy(
        "no-robots",
        Policy::new().permission(Permission::header(HeaderMatch::exact("x-robot", "yes"))),
    );
    let fleet = Fleet::start();
    let (served, mut grpcio) = plaintext(&lab, &fleet, |listener| listener.rbac(rules)).await;
    grpcio.say("may").await;
    let chat = grpcio.call(Call::chat(vec![EchoRequest::say("must not")])).await;
    let message = chat.failed("PERMISSION_DENIED");
    let robot = Call::unary(EchoRequest::say("must not")).header("x-robot", "yes");
    grpcio.call(robot).await.failed("PERMISSION_DENIED");
    grpcio.say("still may").await;
    assert_eq!(served.app.stats().requests, 2, "the application saw a request that was denied");
    format!("PERMISSION_DENIED: {message}")
}

pub(crate) async fn moved(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (_old, mut grpcio) = plaintext(&lab, &fleet, |listener| listener).await;
    let new = lab::serve(&fleet, "new", None, |listener| listener).await;
    assert_eq!(grpcio.say("before").await.server, "ours");
    fleet.control.set((
        Cluster::eds("elsewhere").endpoints(at([new.address()])),
        RouteConfig::to("shop", "elsewhere"),
    ));
    let calls = soon(async {
        let mut calls = 1;
        while grpcio.say("after").await.server != "new" {
            calls += 1;
        }
        calls
    })
    .await;
    lab::accepted(&fleet, "grpcio", CLIENT_KINDS).await;
    format!("the new route after {calls} calls")
}

pub(crate) async fn many(lab: Lab) -> String {
    const CLUSTERS: usize = 500;
    let fleet = Fleet::start();
    let backends = ["0", "1", "2", "3"].map(|name| fleet.backend(name));
    fleet.control.set(lab::many(CLUSTERS, &backends.each_ref().map(Backend::address)));
    let start = Instant::now();
    let mut grpcio = Client::start(&lab, &fleet, "grpcio", None).await;
    let accepted = start.elapsed().as_millis();
    for number in 0..CLUSTERS {
        let (header, cluster) = lab::to_cluster(number);
        let call = Call::unary(EchoRequest::say(cluster.clone())).header(header, &cluster);
        let server = grpcio.call(call).await.ok().remove(0).server;
        assert_eq!(server, (number % backends.len()).to_string());
    }
    let called = start.elapsed().as_millis();
    lab::accepted(&fleet, "grpcio", CLIENT_KINDS).await;
    format!("{CLUSTERS} clusters acknowledged {accepted} ms after its start, each called after {called} ms")
}

pub(crate) async fn drained(lab: Lab) -> String {
    const CALLS: u32 = 100;
    let fleet = Fleet::start();
    let (leaving, mut caller) = plaintext(&lab, &fleet, |listener| listener).await;
    let mut holder = Client::start(&lab, &fleet, "holder", None).await;
    let held = beside(async move { holder.call(Call::unary(EchoRequest::say("held").held())).await });
    leaving.app.until(|stats| stats.in_flight == 1).await;
    let staying = lab::serve(&fleet, "staying", None, |listener| listener).await;
    fleet.control.set(lab::shop([leaving.address(), staying.address()], |cluster| cluster));
    // Both endpoints have a connection.
    for name in ["staying", "ours"] {
        soon(async { while caller.say("until").await.server != name {} }).await;
    }
    let mesh = leaving.mesh.clone();
    let shutdown = beside(async move { mesh.shutdown(Duration::from_secs(20)).await });
    for _ in 0..CALLS {
        caller.say("during").await;
    }
    soon(async { while caller.say("after").await.server != "staying" {} }).await;
    leaving.app.open_gate();
    assert_eq!(soon(held).await.expect("no panic").ok().remove(0).server, "ours");
    assert_eq!(soon(shutdown).await.expect("no panic"), Drained::Complete);
    format!("{CALLS} calls while it drained, and the one in flight finished")
}

pub(crate) async fn identified(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("ours"), fleet.ca.identity("grpcio"));
    let served = secured(&fleet, &server, server.spiffe(), |listener| listener).await;
    identified_with(&lab, &fleet, &served, &caller).await
}

pub(crate) async fn identified_by_legacy_fields(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("ours"), fleet.ca.identity("grpcio"));
    let tls = DownstreamTls::mutual("default").legacy_fields();
    let served = lab::serve(&fleet, "ours", Some(&server), |listener| listener.tls(tls)).await;
    let tls = UpstreamTls::mutual("default").san(server.spiffe()).legacy_fields();
    fleet.control.set(lab::shop([served.address()], |cluster| cluster.tls(tls)));
    identified_with(&lab, &fleet, &served, &caller).await
}

async fn identified_with(lab: &Lab, fleet: &Fleet, served: &Served, caller: &Identity) -> String {
    let mut grpcio = Client::start(lab, fleet, "grpcio", Some(caller)).await;
    let reply = grpcio.say("who am I?").await;
    assert_eq!(reply.peer, caller.spiffe());
    let large = EchoRequest { payload: vec![7; LARGE].into(), ..EchoRequest::say("large") };
    assert_eq!(grpcio.call(Call::unary(large)).await.ok().remove(0).payload.len(), LARGE);
    assert_eq!(served.app.stats().requests, 2);
    reply.peer
}

pub(crate) async fn wrong_principal(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, friend, stranger) =
        (fleet.ca.identity("ours"), fleet.ca.identity("friend"), fleet.ca.identity("stranger"));
    let friends = Policy::new().principal(Principal::spiffe(friend.spiffe()));
    let rules = Rbac::allow().policy("friends", friends);
    let served = secured(&fleet, &server, server.spiffe(), |listener| listener.rbac(rules)).await;
    let mut allowed = Client::start(&lab, &fleet, "friend", Some(&friend)).await;
    let mut refused = Client::start(&lab, &fleet, "stranger", Some(&stranger)).await;
    let message = refused.call(Call::unary(EchoRequest::say("may I?"))).await.failed("PERMISSION_DENIED");
    allowed.say("I may").await;
    assert_eq!(served.app.stats().requests, 1, "the application saw the stranger's request");
    format!("PERMISSION_DENIED: {message}")
}

pub(crate) async fn wrong_san(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("ours"), fleet.ca.identity("grpcio"));
    let served = secured(&fleet, &server, &fleet.ca.spiffe("somebody-else"), |listener| listener).await;
    let mut grpcio = Client::start(&lab, &fleet, "grpcio", Some(&caller)).await;
    grpcio.call(Call::unary(EchoRequest::say("secret"))).await.failed("UNAVAILABLE");
    assert_eq!(served.app.stats().requests, 0);
    "UNAVAILABLE".into()
}

pub(crate) async fn plaintext_refused(lab: Lab) -> String {
    let fleet = Fleet::start();
    let server = fleet.ca.identity("ours");
    let tls = DownstreamTls::mutual("default");
    let served = lab::serve(&fleet, "ours", Some(&server), |listener| listener.tls(tls)).await;
    fleet.control.set(lab::shop([served.address()], |cluster| cluster));
    let mut grpcio = Client::start(&lab, &fleet, "grpcio", None).await;
    grpcio.call(Call::unary(EchoRequest::say("hello"))).await.failed("UNAVAILABLE");
    assert_eq!(served.app.stats().requests, 0);
    "UNAVAILABLE".into()
}

/// Our server `ours` in plaintext, and grpcio as its client.
async fn plaintext(
    lab: &Lab,
    fleet: &Fleet,
    listener: impl FnOnce(Listener) -> Listener,
) -> (Served, Client) {
    let served = lab::serve(fleet, "ours", None, listener).await;
    fleet.control.set(lab::shop([served.address()], |cluster| cluster));
    let grpcio = Client::start(lab, fleet, "grpcio", None).await;
    (served, grpcio)
}

/// Our server with mTLS; its clients are told to expect `san`.
async fn secured(
    fleet: &Fleet,
    server: &Identity,
    san: &str,
    listener: impl FnOnce(Listener) -> Listener,
) -> Served {
    let tls = DownstreamTls::mutual("default");
    let served = lab::serve(fleet, "ours", Some(server), |l| listener(l.tls(tls))).await;
    let tls = UpstreamTls::mutual("default").san(san);
    fleet.control.set(lab::shop([served.address()], |cluster| cluster.tls(tls)));
    served
}

/// More than any flow-control window that either side begins with.
const LARGE: usize = 1 << 20;
