//! The same scenarios in both protocols, and what the incremental one saves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use mesh_core::snapshot::{ClientSnapshot, ConfigSource as _, Resolution};
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop as channel};
use mesh_tests::wait::{beside, soon, until_snapshot};
use mesh_tower::MeshBuilder;
use mesh_xds::bootstrap::ServerAddress;
use mesh_xds::server::{Cluster, Endpoints, Listener, RouteConfig};
use mesh_xds::transport::{Connect, Connecting, Io, SystemConnect};
use mesh_xds::{Protocol, XdsSource};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use crate::scale::many;
use crate::{ports, ports_of, shop};

const BOTH: [Protocol; 2] = [Protocol::StateOfTheWorld, Protocol::Incremental];

/// Connects as the system does, and counts what is received.
#[derive(Debug, Clone, Default)]
struct Counting {
    received: Arc<AtomicU64>,
}

struct Counted {
    io: Box<dyn Io>,
    received: Arc<AtomicU64>,
}

// === impl Counting ===

impl Counting {
    /// Bytes since the last time that this was asked.
    fn take(&self) -> u64 {
        self.received.swap(0, Ordering::SeqCst)
    }
}

impl Connect for Counting {
    fn connect<'a>(&'a self, address: &'a ServerAddress) -> Connecting<'a> {
        Box::pin(async move {
            let io = SystemConnect.connect(address).await?;
            Ok(Box::new(Counted { io, received: self.received.clone() }) as Box<dyn Io>)
        })
    }
}

// === impl Counted ===

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.io).poll_read(cx, buf))?;
        self.received.fetch_add((buf.filled().len() - before) as u64, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// The port of the first endpoint of each cluster, in any order.
fn all_ports(snapshot: &ClientSnapshot) -> Vec<u16> {
    let clusters = snapshot.clusters.iter().filter_map(|entry| entry.cluster.as_ref().ok());
    clusters.flat_map(ports_of).collect()
}

fn source(fleet: &Fleet, protocol: Protocol, counting: &Counting) -> XdsSource {
    let bootstrap = fleet.bootstrap("n").with_protocol(protocol);
    XdsSource::builder(bootstrap).connector(counting.clone()).start(&Handle::current())
}

#[tokio::test]
async fn routes_that_move_under_load_cost_no_call() {
    for protocol in BOTH {
        let fleet = Fleet::start();
        let (v1, v2) = (fleet.backend("v1"), fleet.backend("v2"));
        fleet.control.set((
            Listener::client("shop").rds("shop"),
            RouteConfig::to("shop", "v1"),
            Cluster::eds("v1").endpoints(at([v1.address()])),
            Cluster::eds("v2").endpoints(at([v2.address()])),
        ));
        let bootstrap = fleet.bootstrap("client").with_protocol(protocol);
        let mesh = MeshBuilder::from_bootstrap(bootstrap).and_then(MeshBuilder::build).unwrap();
        let mut client = EchoClient::new(channel(&mesh));
        let mut caller = client.clone();
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        let load = beside(async move {
            loop {
                caller.unary(EchoRequest::say("load")).await.expect("no call is lost");
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
        for round in 0..50 {
            let version = if round % 2 == 0 { "v2" } else { "v1" };
            fleet.control.set(RouteConfig::to("shop", version));
            let arrives = async {
                while client.unary(EchoRequest::say("x")).await.expect("a reply").into_inner().server
                    != version
                {
                    tokio::task::yield_now().await;
                }
            };
            soon(arrives).await;
        }
        assert!(!load.is_finished(), "{protocol:?}");
        load.abort();
        assert!(calls.load(Ordering::SeqCst) > 50, "{protocol:?}");
    }
}

#[tokio::test]
async fn one_endpoint_among_a_thousand_clusters_is_all_that_is_sent() {
    let fleet = Fleet::start();
    let counting = Counting::default();
    let source = source(&fleet, Protocol::Incremental, &counting);
    let target = source.client("shop");
    fleet.apply(many(1_000)).await;
    until_snapshot(&target, |snapshot| all_ports(snapshot).len() == 1_000).await;
    fleet.settled(1).await;
    counting.take();
    for port in [2_001, 2_002, 2_003] {
        let moved = Endpoints::of([([127, 0, 0, 1], port).into()]).named("cluster-7");
        fleet.control.set(moved);
        until_snapshot(&target, |snapshot| all_ports(snapshot).contains(&port)).await;
        fleet.settled(1).await;
        let received = counting.take();
        assert!(received < 1_000, "{received} bytes for one endpoint");
    }
}

#[tokio::test]
async fn a_cluster_that_changes_is_sent_alone_in_incremental_and_with_all_others_in_the_other() {
    let mut received = Vec::new();
    for protocol in BOTH {
        let fleet = Fleet::start();
        let counting = Counting::default();
        let source = source(&fleet, protocol, &counting);
        let target = source.client("shop");
        fleet.apply(many(1_000)).await;
        until_snapshot(&target, |snapshot| all_ports(snapshot).len() == 1_000).await;
        fleet.settled(1).await;
        counting.take();
        let moved = Endpoints::of([([127, 0, 0, 1], 3_000).into()]).named("elsewhere");
        fleet.control.set((Cluster::eds("cluster-7").service_name("elsewhere"), moved));
        until_snapshot(&target, |snapshot| all_ports(snapshot).contains(&3_000)).await;
        fleet.settled(1).await;
        received.push(counting.take());
    }
    assert!(received[1] < 2_000 && received[0] > 20 * received[1], "{received:?} bytes");
}

#[tokio::test]
async fn a_client_that_returns_receives_next_to_nothing_when_nothing_changed() {
    let mut fleet = Fleet::start();
    let counting = Counting::default();
    let source = source(&fleet, Protocol::Incremental, &counting);
    let target = source.client("shop");
    fleet.apply(many(2_000)).await;
    let before = until_snapshot(&target, |snapshot| all_ports(snapshot).len() == 2_000).await;
    fleet.settled(1).await;
    let first = counting.take();
    fleet.kill_control_plane().await;
    fleet.start_control_plane();
    fleet.settled(1).await;
    let again = counting.take();
    assert!(again < 10_000 && first > 50 * again, "{first} bytes at first, {again} again");
    let Resolution::Ready(after) = &*target.cell().load() else { panic!("it serves on") };
    assert!(Arc::ptr_eq(&before, after), "nothing was published");

    fleet.control.set(Endpoints::of([([127, 0, 0, 1], 3_000).into()]).named("cluster-7"));
    until_snapshot(&target, |snapshot| all_ports(snapshot).contains(&3_000)).await;
}

#[tokio::test]
async fn what_changed_while_the_control_plane_was_gone_arrives_when_it_is_back() {
    for protocol in BOTH {
        let mut fleet = Fleet::start();
        let source = source(&fleet, protocol, &Counting::default());
        let target = source.client("shop");
        fleet.apply(shop(1)).await;
        until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
        fleet.kill_control_plane().await;
        fleet.control.set(shop(2));
        assert!(matches!(&*target.cell().load(), Resolution::Ready(snapshot) if ports(snapshot) == [1]));
        fleet.start_control_plane();
        until_snapshot(&target, |snapshot| ports(snapshot) == [2]).await;
    }
}

#[tokio::test]
async fn a_refused_resource_is_seen_by_the_control_plane_and_its_correction_taken() {
    for protocol in BOTH {
        let fleet = Fleet::start();
        let source = source(&fleet, protocol, &Counting::default());
        let target = source.client("shop");
        fleet.apply(shop(1)).await;
        until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
        let mystery = "type.googleapis.com/example.Mystery";
        let bad = Listener::client("shop").rds("shop-routes").http_filter("mystery", mystery, Vec::new());
        fleet.control.set(bad);
        let refusal = fleet.nack().await;
        assert!(refusal.contains("shop") && refusal.contains("http_filters"), "{protocol:?}: {refusal}");
        assert!(matches!(&*target.cell().load(), Resolution::Ready(_)), "the last good listener stays");
        fleet.control.set(shop(2));
        until_snapshot(&target, |snapshot| ports(snapshot) == [2]).await;
        fleet.settled(1).await;
        assert!(fleet.control.status().iter().all(|client| client.nacks().next().is_none()));
    }
}
