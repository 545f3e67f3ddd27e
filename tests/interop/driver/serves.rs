//! grpcio is the server, the mesh the client.

use std::time::Duration;

use mesh_tests::ca::Identity;
use mesh_tests::echo::{CHAT, EchoClient, EchoReply, EchoRequest};
use mesh_tests::fleet::Fleet;
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::MeshChannel;
use mesh_xds::server::{DownstreamTls, Listener, Permission, Policy, Rbac, RouteConfig, UpstreamTls};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use crate::lab::{self, CLIENT_KINDS, Lab};
use crate::python::Server;

/// The mesh as a client. Its channel alone keeps alive what it needs.
struct Caller {
    client: EchoClient<MeshChannel>,
}

// === impl Caller ===

impl Caller {
    /// Knows the configuration of `shop`, and has not called yet.
    async fn start(fleet: &Fleet, identity: Option<&Identity>) -> Self {
        let mesh = lab::mesh(fleet, "mesh", identity).await;
        let client = lab::client(&mesh);
        lab::accepted(fleet, "mesh", CLIENT_KINDS).await;
        Self { client }
    }

    async fn say(&mut self, text: &str) -> Result<EchoReply, Status> {
        soon(self.client.unary(EchoRequest::say(text))).await.map(tonic::Response::into_inner)
    }
}

pub(crate) async fn unary(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (_grpcio, mut caller) = plaintext(&lab, &fleet, |listener| listener).await;
    let mut request = Request::new(EchoRequest::say("hello"));
    request.metadata_mut().insert("x-probe", "42".parse().expect("ASCII"));
    request.set_timeout(Duration::from_secs(15));
    let reply = soon(caller.client.unary(request)).await.expect("a reply").into_inner();
    assert_eq!((reply.text.as_str(), reply.server.as_str(), reply.peer.as_str()), ("hello", "theirs", ""));
    assert_eq!(reply.headers.get("x-probe").map(String::as_str), Some("42"));
    let remaining: f64 = reply.headers["seconds-remaining"].parse().expect("a number");
    assert!((0.0..=15.0).contains(&remaining), "{remaining} s of 15 are left");
    let missing = EchoRequest::say("é").failing(Code::NotFound, 0);
    let status = soon(caller.client.unary(missing)).await.expect_err("asked to fail");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "asked to fail by 'é'"));
    format!("OK, NOT_FOUND with its message; it saw {remaining} s of our 15")
}

pub(crate) async fn streams(lab: Lab) -> String {
    const COUNT: u32 = 200;
    let fleet = Fleet::start();
    let (_grpcio, mut caller) = plaintext(&lab, &fleet, |listener| listener).await;
    let client = &mut caller.client;
    let large = EchoRequest { payload: vec![7; LARGE].into(), ..EchoRequest::say("large") };
    let reply = soon(client.unary(large.clone())).await.expect("a reply").into_inner();
    assert_eq!(reply.payload, large.payload);

    let many = EchoRequest { replies: COUNT, ..EchoRequest::say("many") };
    let mut replies = soon(client.download(many)).await.expect("a stream").into_inner();
    let mut received = 0;
    while let Some(reply) = soon(replies.message()).await.expect("a message") {
        assert_eq!(reply.text, "many");
        received += 1;
    }
    assert_eq!(received, COUNT);
    let words = tokio_stream::iter((0..COUNT).map(|n| EchoRequest::say(n.to_string())));
    let mut replies = soon(client.chat(words)).await.expect("a stream").into_inner();
    for n in 0..COUNT {
        let reply = soon(replies.message()).await.expect("a message").expect("not the end");
        assert_eq!(reply.text, n.to_string());
    }
    assert_eq!(soon(replies.message()).await.expect("no error"), None);
    let chunk = EchoRequest { payload: vec![1; LARGE / 16].into(), ..EchoRequest::default() };
    let chunks = tokio_stream::iter(vec![chunk; 32]);
    let uploaded = soon(client.upload(chunks)).await.expect("a reply").into_inner();
    assert_eq!(uploaded.received, 2 * LARGE as u64);
    format!("{LARGE} bytes there and back, {} up; {COUNT} messages down, {COUNT} both ways", 2 * LARGE)
}

pub(crate) async fn deadline(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (mut grpcio, mut caller) = plaintext(&lab, &fleet, |listener| listener).await;
    let mut request = Request::new(EchoRequest::say("held").held());
    request.set_timeout(Duration::from_millis(500));
    let status = soon(caller.client.unary(request)).await.expect_err("held");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    grpcio.event("held").await;
    grpcio.event("cancelled").await;
    "DEADLINE_EXCEEDED, and its handler ended".into()
}

pub(crate) async fn concurrent(lab: Lab) -> String {
    const CALLS: usize = 100;
    let fleet = Fleet::start();
    let (_grpcio, caller) = plaintext(&lab, &fleet, |listener| listener).await;
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let mut client = caller.client.clone();
        let request = EchoRequest { payload: vec![7; 10_000].into(), ..EchoRequest::say(n.to_string()) };
        calls.spawn(async move { client.unary(request).await });
    }
    let mut texts: Vec<usize> = soon(calls.join_all())
        .await
        .into_iter()
        .map(|reply| reply.expect("a reply").into_inner().text.parse().expect("a number"))
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..CALLS).collect::<Vec<_>>());
    format!("{CALLS} calls, {CALLS} replies")
}

pub(crate) async fn denied(lab: Lab) -> String {
    let rules = Rbac::deny().policy("no-chat", Policy::new().permission(Permission::path(CHAT)));
    let fleet = Fleet::start();
    let (_grpcio, mut caller) = plaintext(&lab, &fleet, |listener| listener.rbac(rules)).await;
    let words = tokio_stream::iter([EchoRequest::say("must not")]);
    let status = match soon(caller.client.chat(words)).await {
        Err(status) => status,
        Ok(replies) => soon(replies.into_inner().message()).await.expect_err("denied"),
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    caller.say("still may").await.expect("allowed");
    format!("PERMISSION_DENIED: {}", status.message())
}

pub(crate) async fn drained(lab: Lab) -> String {
    const CALLS: u32 = 200;
    let fleet = Fleet::start();
    let (mut leaving, mut caller) = plaintext(&lab, &fleet, |listener| listener).await;
    let mut holder = caller.client.clone();
    let held = beside(async move { holder.unary(EchoRequest::say("held").held()).await });
    leaving.event("held").await;
    let _staying = {
        let port = Port::reserve();
        fleet.control.set(listener(&port));
        let staying = Server::start(&lab, &fleet, ("staying", port), None).await;
        fleet.control.set(lab::shop([leaving.address(), staying.address()], |cluster| cluster));
        staying
    };
    for name in ["staying", "theirs"] {
        lab::until(&mut caller.client, |server| server == name).await;
    }
    leaving.stop().await;
    // C-core answers CANCELLED to a call that reaches it between its stop and our reading of its GOAWAY. Calls here
    // follow each other, so that can be one of them; a call that we lose would be UNAVAILABLE.
    let mut cancelled = 0;
    for call in 0..CALLS {
        match caller.say("during").await {
            Ok(_) => {}
            Err(status) if status.code() == Code::Cancelled => cancelled += 1,
            Err(status) => panic!("call {call} of {CALLS}: {status}"),
        }
    }
    assert!(cancelled <= 1, "{cancelled} of {CALLS} calls were answered with CANCELLED");
    soon(async { while caller.say("after").await.expect("a reply").server != "staying" {} }).await;
    leaving.release().await;
    let reply = soon(held).await.expect("no panic").expect("a reply");
    assert_eq!(reply.into_inner().server, "theirs");
    leaving.event("stopped").await;
    format!("{CALLS} calls while it drained, {cancelled} cancelled by it; the one in flight finished")
}

pub(crate) async fn identified(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, ours) = (fleet.ca.identity("theirs"), fleet.ca.identity("mesh"));
    let tls = UpstreamTls::mutual("default").san(server.spiffe());
    let (_grpcio, mut caller) = secured(&lab, &fleet, &server, tls, Some(&ours)).await;
    lab::until_ok(&mut caller.client).await;
    let seen = caller.say("who am I?").await.expect("a reply");
    assert_eq!(seen.peer, ours.spiffe());
    let large = EchoRequest { payload: vec![7; LARGE].into(), ..EchoRequest::say("large") };
    let reply = soon(caller.client.unary(large)).await.expect("a reply").into_inner();
    assert_eq!(reply.payload.len(), LARGE);
    assert_eq!(seen.peer_certificate, ours.certificate());
    ours.rotate();
    server.rotate();
    let mut later = Caller::start(&fleet, Some(&ours)).await;
    let reply = later.say("and now?").await.expect("a reply");
    assert_eq!(reply.peer_certificate, ours.certificate());
    seen.peer
}

pub(crate) async fn wrong_san(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, ours) = (fleet.ca.identity("theirs"), fleet.ca.identity("mesh"));
    let right = UpstreamTls::mutual("default").san(server.spiffe());
    let wrong = UpstreamTls::mutual("default").san(fleet.ca.spiffe("somebody-else"));
    let (grpcio, mut caller) = secured(&lab, &fleet, &server, right, Some(&ours)).await;
    lab::until_ok(&mut caller.client).await;
    fleet.control.set(lab::shop([grpcio.address()], |cluster| cluster.tls(wrong)));
    let status = soon(async {
        loop {
            if let Err(status) = caller.say("secret").await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    for _ in 0..10 {
        let refused = caller.say("secret").await.expect_err("nothing goes to a server with another SAN");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    format!("UNAVAILABLE: {}", status.message())
}

pub(crate) async fn no_certificate(lab: Lab) -> String {
    let fleet = Fleet::start();
    let (server, ours) = (fleet.ca.identity("theirs"), fleet.ca.identity("mesh"));
    let tls = UpstreamTls::mutual("default").san(server.spiffe());
    let (grpcio, mut caller) = secured(&lab, &fleet, &server, tls, Some(&ours)).await;
    lab::until_ok(&mut caller.client).await;
    let tls = UpstreamTls::server_only("default").san(server.spiffe());
    fleet.control.set(lab::shop([grpcio.address()], |cluster| cluster.tls(tls)));
    let status = soon(async {
        loop {
            if let Err(status) = caller.say("anonymous").await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    format!("UNAVAILABLE: {}", status.message())
}

/// grpcio as the server `theirs` in plaintext, and us as its client, who has had a first answer.
async fn plaintext(
    lab: &Lab,
    fleet: &Fleet,
    complete: impl FnOnce(Listener) -> Listener,
) -> (Server, Caller) {
    let port = Port::reserve();
    let listener = complete(listener(&port).0);
    fleet.control.set((listener, RouteConfig::non_forwarding("inbound")));
    let grpcio = Server::start(lab, fleet, ("theirs", port), None).await;
    fleet.control.set(lab::shop([grpcio.address()], |cluster| cluster));
    let mut caller = Caller::start(fleet, None).await;
    lab::until_ok(&mut caller.client).await;
    (grpcio, caller)
}

/// The same with mTLS; nothing has been called yet.
async fn secured(
    lab: &Lab,
    fleet: &Fleet,
    server: &Identity,
    tls: UpstreamTls,
    ours: Option<&Identity>,
) -> (Server, Caller) {
    let port = Port::reserve();
    let (listener, routes) = listener(&port);
    fleet.control.set((listener.tls(DownstreamTls::mutual("default")), routes));
    let grpcio = Server::start(lab, fleet, ("theirs", port), Some(server)).await;
    fleet.control.set(lab::shop([grpcio.address()], |cluster| cluster.tls(tls)));
    let caller = Caller::start(fleet, ours).await;
    (grpcio, caller)
}

/// The listener of a server, which gets its routes by RDS.
fn listener(port: &Port) -> (Listener, RouteConfig) {
    (Listener::server(port.address()).rds("inbound"), RouteConfig::non_forwarding("inbound"))
}

/// More than any flow-control window that either side begins with.
const LARGE: usize = 1 << 20;
