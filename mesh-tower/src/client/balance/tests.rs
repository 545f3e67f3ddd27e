//! Only endpoints that are READY are picked, and what cannot be reached disturbs nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::config::endpoints::{Address, DropOverload, EndpointsConfig};
use mesh_core::config::units::PerMillion;
use mesh_core::error::Reason;
use mesh_core::testing::endpoints;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

use crate::client::testing::{Unreachable, World, get, read};
use crate::transport::connect::{ConnectFuture, Connector};
use crate::transport::io::BoxIo;
use crate::transport::pool::ConnectivityState;

/// Connects port 1 to a server in memory after a while; refuses every other.
#[derive(Debug, Default)]
struct OneGood {
    refused: AtomicUsize,
}

/// Servers in memory that can be stopped.
#[derive(Debug, Default)]
struct Replicas {
    running: Mutex<HashMap<u16, JoinSet<()>>>,
}

impl Replicas {
    fn start(&self, port: u16) {
        self.running.lock().unwrap().insert(port, JoinSet::new());
    }

    fn stop(&self, port: u16) {
        self.running.lock().unwrap().remove(&port);
    }
}

impl Connector for Replicas {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        Box::pin(async move {
            let Address::Socket(address) = address else { unreachable!("no other") };
            let mut running = self.running.lock().unwrap();
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            let running = running.get_mut(&address.port()).ok_or(refused)?;
            let (near, far) = duplex(64 * 1024);
            running.spawn(async move { drop(serve(far).await) });
            Ok(Box::new(near) as BoxIo)
        })
    }
}

async fn serve(io: DuplexStream) -> hyper::Result<()> {
    let service = hyper::service::service_fn(|_| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(crate::Body::full("good")))
    });
    let http = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    http.serve_connection(hyper_util::rt::TokioIo::new(io), service).await
}

impl Connector for OneGood {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        let good = matches!(address, Address::Socket(socket) if socket.port() == 1);
        Box::pin(async move {
            if !good {
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            }
            sleep(Duration::from_millis(20)).await;
            let (near, far) = duplex(64 * 1024);
            crate::spawn(serve(far));
            Ok(Box::new(near) as BoxIo)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_endpoints_that_refuses_costs_no_call() {
    let connector = Arc::new(OneGood::default());
    let world = World::with(|builder| builder.connector(connector.clone()));
    world.publish_endpoints(endpoints([1, 2]));
    let channel = world.channel().strict();
    let began = Instant::now();
    for _ in 0..400 {
        let response = channel.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(read(response).await.0, "good");
        sleep(Duration::from_millis(50)).await;
    }
    let refused = connector.refused.load(Ordering::SeqCst);
    assert!(
        began.elapsed() > Duration::from_secs(20) && refused >= 4,
        "{refused} attempts in the background"
    );
}

#[tokio::test(start_paused = true)]
async fn replicas_that_restart_one_right_after_the_other_cost_no_call() {
    let replicas = Arc::new(Replicas::default());
    let world = World::with(|builder| builder.connector(replicas.clone()));
    let ports = [1, 2, 3];
    ports.iter().for_each(|port| replicas.start(*port));
    world.publish_endpoints(endpoints(ports));
    let channel = world.channel().strict();
    for n in 0..60 {
        // The first two have only just come back, and are backing off, when the third one goes.
        let gone = ports[n % 3];
        replicas.stop(gone);
        for _ in 0..30 {
            sleep(Duration::from_millis(10)).await;
            let response = channel.clone().oneshot(get("/")).await.unwrap();
            assert_eq!(read(response).await.0, "good");
        }
        replicas.start(gone);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_nothing_reaches_fails_at_once_and_says_why() {
    let world = World::with(|builder| builder.connector(Arc::new(OneGood::default())));
    world.publish_endpoints(endpoints([2, 3]));
    let error = world.channel().strict().oneshot(get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn drops_and_empty_clusters_are_refused_with_their_flags() {
    let world = World::over(Unreachable(ConnectivityState::Ready));
    let all = DropOverload { category: "lb".into(), share: PerMillion::ALL };
    let rows = [
        (EndpointsConfig { drops: vec![all], ..endpoints([1]) }, Reason::Dropped, "DO"),
        (EndpointsConfig::empty("none"), Reason::NoHealthyUpstream, "UH"),
    ];
    for (config, reason, flag) in rows {
        world.publish_endpoints(config);
        let error = world.channel().strict().oneshot(get("/")).await.unwrap_err();
        assert_eq!((error.reason(), error.flags().to_string()), (Some(reason), flag.to_owned()));
        world.events.take();
    }
}
