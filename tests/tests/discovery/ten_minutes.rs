//! The control plane is gone for ten minutes of virtual time, and then every client comes back: no call fails, and nobody
//! knocks more often than the back-off has it (gRFC A27: 1 s, growing by 1.6 up to 120 s, give or take 20 %).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use envoy_types::pb::google::protobuf::Any;
use http::{Request, Response};
use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource as _, Subscription};
use mesh_tests::fleet::bootstrap_at;
use mesh_tests::wait::until_snapshot;
use mesh_tests::wire::{WireConnection, WireResponse};
use mesh_tower::{Body, Mesh, MeshChannel, Upstream, UpstreamFuture};
use mesh_xds::bootstrap::ServerAddress;
use mesh_xds::transport::{Connect, Connecting, Io};
use mesh_xds::{Kind, Protocol, XdsSource};
use tokio::io::DuplexStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::shared::Shared;
use crate::{ports, shop};

const MESHES: usize = 50;
const OUTAGE: Duration = Duration::from_secs(600);

/// The way to the control plane: pipes while it is up, and who knocked when while it is not.
#[derive(Debug, Clone, Default)]
struct Road {
    closed: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Instant>>>,
    /// The other ends, served by tasks of the test.
    served: Arc<Mutex<JoinSet<()>>>,
}

/// Answers every request, as an endpoint that is always there.
#[derive(Debug)]
struct Always;

impl Connect for Road {
    fn connect<'a>(&'a self, _address: &'a ServerAddress) -> Connecting<'a> {
        Box::pin(async move {
            if self.closed.load(Ordering::SeqCst) {
                self.attempts().push(Instant::now());
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            self.served.lock().unwrap_or_else(PoisonError::into_inner).spawn(control(theirs));
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

impl Upstream for Always {
    fn send(&self, _endpoint: &Address, _request: Request<Body>) -> UpstreamFuture {
        Box::pin(std::future::ready(Ok(Response::new(Body::full("yes")))))
    }
}

impl Road {
    fn attempts(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every connection, and lets nobody in.
    async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut served = std::mem::take(&mut *self.served.lock().unwrap_or_else(PoisonError::into_inner));
        served.shutdown().await;
    }
}

/// One client of the control plane.
async fn control(io: DuplexStream) {
    let Ok(connection) = WireConnection::over(io).await else { return };
    let Some(Ok(mut stream)) = connection.call().await.map(mesh_tests::wire::WireCall::answer) else {
        return;
    };
    let mut answered = Vec::new();
    loop {
        // The next request may be a long way off, which is no error here.
        let Some(request) = stream.next_ever().await else { return };
        let kind = request.kind().expect("a type of the mesh");
        if request.names.is_empty() || answered.contains(&kind) {
            continue;
        }
        answered.push(kind);
        stream.send(&response(kind));
    }
}

fn response(kind: Kind) -> WireResponse {
    let resources = shop(1).into_iter().filter(|resource| resource.kind() == kind).map(|resource| {
        let any = Any { type_url: kind.type_url().to_owned(), value: resource.bytes().to_vec() };
        (resource.name().to_string(), any)
    });
    WireResponse {
        type_url: kind.type_url().to_owned(),
        version: "1".to_owned(),
        nonce: "1".to_owned(),
        resources: resources.collect(),
        removed: Vec::new(),
    }
}

/// One mesh, and its way.
struct Client {
    road: Road,
    target: Subscription<ClientSnapshot>,
    channel: MeshChannel,
    _mesh: Mesh,
}

impl Client {
    async fn start(protocol: Protocol) -> Self {
        let road = Road::default();
        let bootstrap = bootstrap_at(([127, 0, 0, 1], 1).into(), "n").with_protocol(protocol);
        let source =
            Arc::new(XdsSource::builder(bootstrap).connector(road.clone()).start(&Handle::current()));
        let target = source.client("shop");
        let mesh = Mesh::builder(Shared(source)).upstream(Arc::new(Always)).build().expect("a mesh");
        let channel = mesh.channel("xds:///shop").expect("a target");
        until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
        Self { road, target, channel, _mesh: mesh }
    }

    async fn call(&self) {
        let request = Request::get("http://shop/").body(Body::empty()).expect("a request");
        let response = self.channel.clone().oneshot(request).await.expect("no call fails");
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_a_control_plane_cost_no_call_and_few_knocks() {
    let mut clients = Vec::new();
    for i in 0..MESHES {
        let protocol = if i % 2 == 0 { Protocol::StateOfTheWorld } else { Protocol::Incremental };
        clients.push(Client::start(protocol).await);
    }
    // Streams that have lived for a while: the first attempt of each is made at once.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let began = Instant::now();
    for client in &clients {
        client.road.close().await;
    }
    let handle = Handle::current();
    let parks = handle.metrics().worker_park_count(0);
    tokio::time::sleep_until(began + OUTAGE).await;
    let parks = handle.metrics().worker_park_count(0) - parks;
    let mut attempts = 0;
    for client in &clients {
        let times = client.road.attempts().clone();
        attempts += times.len() as u64;
        assert_backed_off(began, &times);
        client.call().await;
    }
    // That the driver is awake at each attempt and at no other time is tested beside it; here, that nothing else of a
    // mesh comes round without being asked: the wheel of tokio's timers has three levels for waits of this length and
    // wakes at each, and the end of a connection wakes something.
    let allowed = 3 * attempts + 2 * MESHES as u64 + 2;
    assert!(parks <= allowed, "{parks} times the runtime slept, for {attempts} attempts of {MESHES} meshes");
    eprintln!("{attempts} attempts of {MESHES} meshes, the runtime woke {parks} times");

    // Calls while it is gone, and time goes on.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        for client in &clients {
            client.call().await;
        }
    }
    for client in &clients {
        client.road.closed.store(false, Ordering::SeqCst);
    }
    // The longest wait, with its jitter.
    tokio::time::sleep(Duration::from_secs(121)).await;
    for client in &clients {
        client.call().await;
        assert_eq!(client.road.served.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
        until_snapshot(&client.target, |snapshot| ports(snapshot) == [1]).await;
    }
}

/// Each wait is what the back-off says, from the beginning of one attempt to that of the next.
fn assert_backed_off(began: Instant, attempts: &[Instant]) {
    let mut wait = 1.0_f64;
    let first = attempts.first().expect("it tries");
    assert!(*first - began < Duration::from_millis(1_300), "{:?}", *first - began);
    for pair in attempts.windows(2) {
        let [one, next] = pair else { unreachable!("two of them") };
        let waited = (*next - *one).as_secs_f64();
        // The first of the waits is over already where the stream had lived for longer.
        wait = (wait * 1.6).min(120.0);
        let fits = |wait: f64| (wait * 0.79..=(wait * 1.21).min(120.1)).contains(&waited);
        assert!(fits(wait), "{waited} s where {wait} s are due: {attempts:?}");
    }
    let last = *attempts.last().expect("it tries") - began;
    assert!(
        (12..=17).contains(&attempts.len()) && last > Duration::from_secs(450),
        "{} attempts",
        attempts.len()
    );
}
