//! One mesh, the control plane that it believes, and the calls that must not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::pb::google::protobuf::Any;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource as _, Resolution, ServerSnapshot, Subscription};
use mesh_tests::backend::App;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::net::Port;
use mesh_tests::shared::Shared;
use mesh_tests::wait::{soon, until_snapshot};
use mesh_tests::wire::{WireControlPlane, WireRequest, WireResponse, WireStream};
use mesh_tower::Mesh;
use mesh_xds::bootstrap::{Bootstrap, CertificateProvider, FileWatcher, IdentityFiles, ServerConfig};
use mesh_xds::{Kind, Protocol, XdsSource};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::docs::{Doc, Shape};

/// Targets whose resources are broken in turn.
pub(crate) const VICTIMS: usize = 3;

/// A mesh under test.
pub(crate) struct Lane {
    pub(crate) protocol: Protocol,
    pub(crate) control: WireControlPlane,
    /// The good resources.
    pub(crate) world: Vec<Good>,
    /// What is good beside the bad: it has to be used.
    pub(crate) canary: Subscription<ClientSnapshot>,
    victims: Vec<Subscription<ClientSnapshot>>,
    _victim_server: Subscription<ServerSnapshot>,
    traffic: Option<Traffic>,
    mesh: Mesh,
    _serving: JoinSet<()>,
    sent: u64,
}

/// A good resource, and what it is there for.
#[derive(Debug, Clone)]
pub(crate) struct Good {
    pub(crate) role: Role,
    pub(crate) doc: Doc,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Calls go by it.
    Traffic,
    /// It is broken in every way.
    Victim,
    /// It changes, and is never broken.
    Canary,
}

/// Calls without end, and those of them that failed.
struct Traffic {
    calls: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    _callers: JoinSet<()>,
}

// === impl Lane ===

impl Lane {
    /// A mesh that serves and calls itself by the good resources, with so many callers.
    pub(crate) async fn start(protocol: Protocol, callers: usize) -> (Self, WireStream) {
        let control = WireControlPlane::start();
        let source = Arc::new(XdsSource::new(bootstrap(control.address(), protocol), &Handle::current()));
        let mesh = Mesh::builder(Shared(Arc::clone(&source))).build().expect("a mesh");
        let port = Port::reserve();
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut serving = JoinSet::new();
        let (served, app, tcp) = (mesh.clone(), App::new("good"), port.listen());
        serving.spawn(async move { served.serve(tcp, app.router()).await.expect("it serves") });
        let channel = mesh.channel("xds:///shop").expect("a target");
        let mut lane = Self {
            protocol,
            control,
            world: world(port.address(), elsewhere),
            canary: source.client("canary"),
            victims: (0..VICTIMS).map(|i| source.client(&victim(i))).collect(),
            _victim_server: source.server(&elsewhere.into()),
            traffic: None,
            mesh,
            _serving: serving,
            sent: 0,
        };
        let mut stream = lane.control.open().await.expect("a stream");
        lane.settle(&mut stream).await;
        lane.mesh.ready(mesh_tests::wait::LIMIT).await.expect("a configuration");
        lane.traffic = Some(Traffic::start(EchoClient::new(channel), callers).await);
        (lane, stream)
    }

    /// Says all that is good until the client has asked for all of it and accepted it.
    pub(crate) async fn settle(&mut self, stream: &mut WireStream) {
        // In state of the world the latest response alone is sure to be answered.
        let mut open: BTreeMap<Kind, String> = BTreeMap::new();
        let mut asked: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
        let wanted: BTreeSet<(Kind, String)> =
            self.world.iter().map(|good| (good.doc.kind(), good.doc.name.clone())).collect();
        loop {
            let complete =
                wanted.iter().all(|(kind, name)| asked.get(kind).is_some_and(|n| n.contains(name)));
            if complete && open.is_empty() {
                return;
            }
            let Some(request) = stream.next().await else {
                panic!("the client hung up; asked: {asked:?}; open: {open:?}")
            };
            let kind = request.kind().expect("a type of the mesh");
            if open.get(&kind) == Some(&request.nonce) {
                assert_eq!(request.refusal, None, "a good {kind}");
                open.remove(&kind);
            }
            let before = asked.get(&kind).cloned().unwrap_or_default();
            let names: BTreeSet<String> = request.names.into_iter().collect();
            let now = match self.protocol {
                Protocol::StateOfTheWorld => names,
                Protocol::Incremental => before.union(&names).cloned().collect(),
            };
            if !now.is_subset(&before) {
                open.insert(kind, self.send_good(stream, kind));
            }
            asked.insert(kind, now);
        }
    }

    /// Sends all that is good of a kind; returns the nonce.
    pub(crate) fn send_good(&mut self, stream: &mut WireStream, kind: Kind) -> String {
        let good = self.world.iter().filter(|good| good.doc.kind() == kind);
        let resources = good.map(|good| (good.doc.name.clone(), any(kind, good.bytes.clone()))).collect();
        self.send(stream, kind, resources, Vec::new())
    }

    /// Sends a response; returns its nonce.
    pub(crate) fn send(
        &mut self,
        stream: &mut WireStream,
        kind: Kind,
        resources: Vec<(String, Any)>,
        removed: Vec<String>,
    ) -> String {
        let nonce = self.nonce();
        let type_url = kind.type_url().to_owned();
        stream.send(&WireResponse {
            type_url,
            version: format!("v{nonce}"),
            nonce: nonce.clone(),
            resources,
            removed,
        });
        nonce
    }

    pub(crate) fn nonce(&mut self) -> String {
        self.sent += 1;
        format!("n{}", self.sent)
    }

    /// The answer to a response. What is asked for in between is heard and not answered.
    pub(crate) async fn answer(&self, stream: &mut WireStream, nonce: &str) -> WireRequest {
        loop {
            let Some(request) = stream.next().await else {
                panic!("the client hung up before it answered {nonce}")
            };
            if request.nonce == nonce {
                return request;
            }
        }
    }

    /// Everything is good again, and everything is used again.
    pub(crate) async fn repair(&mut self, stream: &mut WireStream) {
        for kind in Kind::ALL {
            let nonce = self.send_good(stream, kind);
            assert_eq!(self.answer(stream, &nonce).await.refusal, None, "a good {kind}");
        }
        // What the bad ones led to is asked for again in between, and was answered by the second round at the latest.
        for kind in Kind::ALL {
            let nonce = self.send_good(stream, kind);
            assert_eq!(self.answer(stream, &nonce).await.refusal, None, "a good {kind}");
        }
        for victim in &self.victims {
            until_snapshot(victim, |snapshot| {
                snapshot.clusters.iter().any(|entry| {
                    entry.name.starts_with("victim")
                        && entry.cluster.as_ref().is_ok_and(|cluster| cluster.endpoints.iter().count() == 1)
                })
            })
            .await;
        }
    }

    /// Replaces a good resource of the canary; it differs from what was there.
    pub(crate) fn renew_canary(&mut self, shape: Shape, tag: u32) {
        let doc = canary(shape, tag);
        let bytes = doc.bytes();
        let is_it = |good: &&mut Good| good.role == Role::Canary && good.doc.shape == shape;
        *self.world.iter_mut().find(is_it).expect("the canary has all shapes of a client") =
            Good { role: Role::Canary, doc, bytes };
    }

    /// The version of the canary's snapshot.
    pub(crate) fn canary_version(&self) -> u64 {
        match &*self.canary.cell().load() {
            Resolution::Ready(snapshot) => snapshot.version,
            other => panic!("the canary has {other:?}"),
        }
    }

    /// No call has failed so far. Returns how many there were.
    pub(crate) fn assert_no_call_failed(&self) -> u64 {
        let traffic = self.traffic.as_ref().expect("traffic runs");
        let failed = traffic.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = traffic.calls.load(Ordering::SeqCst);
        assert!(failed.is_empty(), "{} of {calls} calls: {:?}", failed.len(), failed.first());
        calls
    }

    /// Waits for so many calls more.
    pub(crate) async fn more_calls(&self, more: u64) {
        let traffic = self.traffic.as_ref().expect("traffic runs");
        let wanted = traffic.calls.load(Ordering::SeqCst) + more;
        soon(async {
            while traffic.calls.load(Ordering::SeqCst) < wanted {
                self.assert_no_call_failed();
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

// === impl Traffic ===

impl Traffic {
    async fn start(client: EchoClient<mesh_tower::MeshChannel>, callers: usize) -> Self {
        let (calls, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        client.clone().unary(EchoRequest::say("first")).await.expect("the configuration is good");
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let (mut client, calls, failed) = (client.clone(), Arc::clone(&calls), Arc::clone(&failed));
            running.spawn(async move {
                loop {
                    match client.unary(EchoRequest::say("traffic")).await {
                        Ok(_) => drop(calls.fetch_add(1, Ordering::SeqCst)),
                        Err(status) => {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(status.to_string());
                        }
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        Self { calls, failed, _callers: running }
    }
}

/// A message of a kind.
pub(crate) fn any(kind: Kind, value: Vec<u8>) -> Any {
    Any { type_url: kind.type_url().to_owned(), value }
}

fn bootstrap(control: SocketAddr, protocol: Protocol) -> Bootstrap {
    // Nobody uses the files: what names the provider is never served.
    let files = IdentityFiles::new("/nowhere/cert.pem", "/nowhere/key.pem");
    let provider = FileWatcher::identity_only(files).with_ca_file("/nowhere/ca.pem");
    Bootstrap::builder("hostile")
        .server(ServerConfig::insecure(&control.to_string()).expect("an address"))
        .server_listener_template(SERVER.to_owned() + "%s")
        .certificate_provider("default", CertificateProvider::FileWatcher(provider))
        .build()
        .expect("a valid bootstrap")
        .with_protocol(protocol)
}

const SERVER: &str = "grpc/server?xds.resource.listening_address=";

fn victim(i: usize) -> String {
    format!("victim-{i}")
}

fn canary(shape: Shape, tag: u32) -> Doc {
    let port = u16::try_from(1 + tag % 60_000).expect("a port");
    match shape {
        Shape::Client => Doc::client("canary", "canary", 1 + tag),
        Shape::Server => unreachable!("the canary is a client"),
        Shape::Route => Doc::route("canary", "canary", tag),
        Shape::Cluster => Doc::cluster("canary", false, 1 + tag),
        Shape::Endpoints => Doc::endpoints("canary", ([10, 0, 0, 1], port).into()),
    }
}

fn world(serving: SocketAddr, elsewhere: SocketAddr) -> Vec<Good> {
    let traffic = [
        Doc::client("shop", "shop", 60),
        Doc::server(&format!("{SERVER}{serving}"), serving, false),
        Doc::route("shop", "shop", 0),
        Doc::cluster("shop", false, 5),
        Doc::endpoints("shop", serving),
    ];
    let clients = [Shape::Client, Shape::Route, Shape::Cluster, Shape::Endpoints];
    let mut victims: Vec<Doc> =
        (0..VICTIMS).flat_map(|i| clients.map(|shape| Doc::rich(shape, &victim(i)))).collect();
    victims.push(Doc::server(&format!("{SERVER}{elsewhere}"), elsewhere, true));
    let canaries = clients.map(|shape| canary(shape, 0));
    let good = |role| move |doc: Doc| Good { role, bytes: doc.bytes(), doc };
    let traffic = traffic.into_iter().map(good(Role::Traffic));
    let victims = victims.into_iter().map(good(Role::Victim));
    traffic.chain(victims).chain(canaries.into_iter().map(good(Role::Canary))).collect()
}
