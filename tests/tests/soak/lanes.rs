//! Replicas that come and go, and the ways to them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_core::rng::{Rng as _, Xoshiro};
use mesh_core::snapshot::ConfigSource as _;
use mesh_tests::ca::Identity;
use mesh_tests::fleet::Fleet;
use mesh_tests::net::Port;
use mesh_tests::shared::Shared;
use mesh_tests::wait::until_snapshot;
use mesh_tower::Mesh;
use mesh_tower::drain::Drained;
use mesh_tower::tls::{CertificateProviders, FileWatcher, FileWatcherConfig, IdentityFiles};
use mesh_xds::XdsSource;
use mesh_xds::server::{
    Cluster, DownstreamTls, Endpoints, Listener, Route, RouteConfig, UpstreamTls, VirtualHost,
};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::app::{App, Site};
use crate::record::lock;
use crate::shapes::{Caller, Shape};

/// One protocol, with or without TLS, to replicas of its own.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    pub(crate) is_http2: bool,
    tls: bool,
    /// Whether its replicas come and go.
    pub(crate) restless: bool,
    ports: Vec<Arc<Port>>,
    replicas: Vec<Replica>,
}

struct Replica {
    port: usize,
    id: u64,
    mesh: Mesh,
    serving: JoinSet<Result<(), mesh_tower::Error>>,
}

/// Who makes replicas.
pub(crate) struct Yard {
    pub(crate) fleet: Fleet,
    pub(crate) site: Arc<Site>,
    identity: Identity,
    next: AtomicU64,
    /// Replicas that went away: drained, and killed.
    pub(crate) gone: [AtomicU64; 2],
}

// === impl Yard ===

impl Yard {
    pub(crate) fn new() -> Self {
        let fleet = Fleet::start();
        let identity = fleet.ca.identity("reviews");
        Self {
            fleet,
            site: Arc::new(Site::new()),
            identity,
            next: AtomicU64::new(1),
            gone: Default::default(),
        }
    }

    /// Starts a replica, and returns when it listens, which it does as soon as it has its configuration: before that nobody
    /// may be sent to it.
    async fn start(&self, lane: &Lane, port: usize) -> Replica {
        let address = lane.ports[port].address();
        let listener = Listener::server(address);
        self.fleet.control.set(if lane.tls {
            listener.tls(DownstreamTls::mutual("default"))
        } else {
            listener
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let node = format!("replica-{address}");
        let bootstrap = self.fleet.bootstrap_with(&node, &self.identity);
        let source = Arc::new(XdsSource::new(bootstrap, &Handle::current()));
        let providers = CertificateProviders::new().with("default", self.certificates());
        let mesh = Mesh::builder(Shared(source.clone())).certificate_providers(providers);
        let mesh = mesh.build().expect("a mesh");
        let app = App { site: self.site.clone(), replica: id };
        let service = tower::service_fn(move |request| app.clone().answer(request));
        let (served, port_of) = (mesh.clone(), lane.ports[port].clone());
        let mut serving = JoinSet::new();
        let (listens, listening) = oneshot::channel();
        serving.spawn(async move {
            let listener = source.server(&address.into());
            until_snapshot(&listener, |_| true).await;
            let socket = port_of.listen();
            drop(listens.send(()));
            served.serve(socket, service).await
        });
        listening.await.expect("the replica listens");
        Replica { port, id, mesh, serving }
    }

    fn certificates(&self) -> Arc<FileWatcher> {
        let identity = &self.identity;
        let files = IdentityFiles::new(identity.certificate_file(), identity.key_file());
        let config = FileWatcherConfig::new(Some(files), Some(identity.ca_file()));
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        FileWatcher::start(config, crypto, &Handle::current())
    }

    /// Drains a replica: everything that it has accepted has to end well.
    async fn drain(&self, lane: &'static str, mut replica: Replica) {
        if replica.mesh.shutdown(DRAIN).await != Drained::Complete {
            self.site
                .record
                .fail(format!("replica {} of {lane} had not drained after {DRAIN:?}", replica.id));
        }
        match tokio::time::timeout(DRAIN, replica.serving.join_next()).await {
            Ok(Some(Ok(Ok(())))) => {}
            other => self.site.record.fail(format!("serving on {lane} ended with {other:?}")),
        }
        self.gone[0].fetch_add(1, Ordering::Relaxed);
    }

    async fn kill(&self, lane: &'static str, mut replica: Replica) {
        self.site.record.kill(lane, replica.id);
        replica.serving.shutdown().await;
        drop(replica);
        self.gone[1].fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Lane ===

impl Lane {
    pub(crate) fn all() -> Vec<Self> {
        // name, HTTP/2, TLS, replicas come and go
        let lanes = [
            ("h1", false, false, true),
            ("h1-mtls", false, true, true),
            ("h2", true, false, true),
            ("h2-mtls", true, true, true),
            ("h2-one", true, false, false),
            ("h2-one-mtls", true, true, false),
            ("h2-early", true, false, false),
            ("h2-early-mtls", true, true, false),
        ];
        lanes
            .into_iter()
            .map(|(name, is_http2, tls, restless)| Self {
                name,
                is_http2,
                tls,
                restless,
                // One more than there are replicas, for one that moves.
                ports: (0..if restless { REPLICAS + 1 } else { 1 })
                    .map(|_| Arc::new(Port::reserve()))
                    .collect(),
                replicas: Vec::new(),
            })
            .collect()
    }

    /// Starts all of its replicas, and tells callers about them.
    pub(crate) async fn open(&mut self, yard: &Yard) {
        for port in 0..if self.restless { REPLICAS } else { 1 } {
            let replica = yard.start(self, port).await;
            self.replicas.push(replica);
        }
        yard.fleet.control.set((
            Listener::client(self.name).rds(self.name),
            RouteConfig::new(self.name).host(
                VirtualHost::any().route(Route::prefix("/").cluster(self.name).timeout(Duration::ZERO)),
            ),
        ));
        self.announce(yard, MANY);
    }

    /// Tells callers where the replicas are, and how many requests may be made at once.
    pub(crate) fn announce(&self, yard: &Yard, requests: u32) {
        let addresses: Vec<SocketAddr> =
            self.replicas.iter().map(|replica| self.ports[replica.port].address()).collect();
        let cluster = Cluster::eds(self.name)
            .max_requests(requests)
            .max_pending_requests(MANY)
            .max_connections(MANY)
            .endpoints(Endpoints::of(addresses));
        let cluster = if self.is_http2 { cluster.http2() } else { cluster.http1() };
        yard.fleet.control.set(if self.tls {
            cluster.tls(UpstreamTls::mutual("default").san(yard.identity.spiffe()))
        } else {
            cluster
        });
    }

    /// Drains all replicas, and takes them from the callers.
    pub(crate) async fn close(&mut self, yard: &Yard) {
        for replica in std::mem::take(&mut self.replicas) {
            yard.drain(self.name, replica).await;
        }
        self.announce(yard, MANY);
    }

    /// Sends one replica after the other away and brings it back, until `ended`.
    pub(crate) async fn churn(&mut self, yard: &Yard, mut rng: Xoshiro, mut ended: watch::Receiver<bool>) {
        loop {
            let pause = Duration::from_millis(500 + rng.below(1_500));
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(pause) => {}
            }
            let replica = self.replicas.remove(rng.below(self.replicas.len() as u64) as usize);
            let mut port = replica.port;
            match rng.below(5) {
                0 => yard.kill(self.name, replica).await,
                1 => {
                    // It leaves by way of the control plane, and another one comes at another address.
                    let used =
                        |port| self.replicas.iter().any(|other| other.port == port) || replica.port == port;
                    port = (0..self.ports.len()).find(|port| !used(*port)).expect("one port is spare");
                    let successor = yard.start(self, port).await;
                    self.replicas.push(successor);
                    self.announce(yard, MANY);
                    yard.drain(self.name, replica).await;
                    continue;
                }
                _ => yard.drain(self.name, replica).await,
            }
            let successor = yard.start(self, port).await;
            self.replicas.push(successor);
        }
    }

    /// How many of the requests that may be made at once cannot be made, while none is: permits that were not given back.
    pub(crate) async fn missing_permits(&self, yard: &Yard, caller: &Caller) -> usize {
        self.announce(yard, FEW);
        let site = &yard.site;
        loop {
            site.gate.send_replace(false);
            let mut calls = JoinSet::new();
            for _ in 0..=FEW {
                let (caller, site) = (caller.clone(), site.clone());
                calls.spawn(async move {
                    let call = site.record.begin(Shape::Unary, caller.lane);
                    let request = caller.request(call, http::Method::GET, "/hold?down=0", Default::default());
                    let outcome = caller.send(request).await.map(drop);
                    // Not a call of the soak: one of them has to be refused.
                    site.record.forget(call);
                    outcome
                });
            }
            let mut refused = Vec::new();
            let mut held = site.held.subscribe();
            let settled = tokio::time::timeout(DRAIN, async {
                loop {
                    let now = *held.borrow_and_update();
                    if now + refused.len() > FEW as usize {
                        return;
                    }
                    tokio::select! {
                        changed = held.changed() => changed.expect("the site is there"),
                        Some(ended) = calls.join_next() => refused.extend(ended.expect("no panic").err()),
                    }
                }
            });
            let settled = settled.await.is_ok();
            site.gate.send_replace(true);
            while calls.join_next().await.is_some() {}
            if !settled {
                return usize::MAX;
            }
            // None is refused as long as the callers have not heard of the limit.
            if let Some(missing) = refused.len().checked_sub(1) {
                if missing > 0 {
                    site.record.fail(format!("refused on {}: {}", self.name, refused[0]));
                }
                return missing;
            }
        }
    }
}

/// The most early answers that one connection gave.
pub(crate) fn most_early_on_one_connection(site: &Site) -> u64 {
    let early = std::mem::take::<HashMap<_, _>>(&mut lock(&site.early));
    early.into_values().max().unwrap_or(0)
}

const REPLICAS: usize = 3;
/// More than are ever made at once.
const MANY: u32 = 20_000;
/// As many as can be held to count permits.
const FEW: u32 = 40;
/// How long a drain may take; no call is longer.
const DRAIN: Duration = Duration::from_secs(30);
