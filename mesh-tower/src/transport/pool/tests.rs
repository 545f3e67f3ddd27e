use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use mesh_core::config::cluster::UpstreamProtocol;
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep};

use super::*;
use crate::body::Body;
use crate::tls::provider::static_::StaticProvider;
use crate::tls::testing::{Ca, downstream, runtime, upstream};
use crate::transport::connect::ConnectFuture;
use crate::transport::error::ConnectFailure;
use crate::transport::testing::{RawServer, echo, pipe, post, serve_h2, spawn};

/// Hands out memory streams, whose other ends a test serves.
struct Network {
    serve: Box<dyn Fn(DuplexStream) + Send + Sync>,
    refusing: AtomicBool,
    attempts: AtomicUsize,
}

impl Network {
    fn new(serve: impl Fn(DuplexStream) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            serve: Box::new(serve),
            refusing: AtomicBool::new(false),
            attempts: AtomicUsize::new(0),
        })
    }

    /// HTTP/2 servers that echo and allow this many streams per connection.
    fn echoing(max_streams: u32) -> Arc<Self> {
        Self::new(move |io| {
            let mut builder = ::h2::server::Builder::new();
            builder.max_concurrent_streams(max_streams);
            spawn(serve_h2(io, builder, echo));
        })
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::SeqCst);
    }

    fn pool(self: &Arc<Self>) -> Arc<EndpointPool> {
        self.pool_with(|_| {})
    }

    fn pool_with(self: &Arc<Self>, change: impl FnOnce(&mut PoolSettings)) -> Arc<EndpointPool> {
        let mut settings = PoolSettings::new(self.clone());
        change(&mut settings);
        let address = Address::Socket("10.0.0.1:80".parse().unwrap());
        Arc::new(EndpointPool::new(address, settings, Handle::current()))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Connector for Network {
    fn connect<'a>(&'a self, _address: &'a Address) -> ConnectFuture<'a> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if self.refusing.load(Ordering::SeqCst) {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            let (client, server) = pipe();
            (self.serve)(server);
            Ok(client)
        })
    }
}

const H2: ConnectionKey = ConnectionKey { tls: None, protocol: UpstreamProtocol::Http2 };
const H1: ConnectionKey = ConnectionKey { tls: None, protocol: UpstreamProtocol::Http1 };

async fn acquire(pool: Arc<EndpointPool>) -> Result<Lease, ConnectError> {
    pool.acquire(&H2).await
}

async fn call(pool: &EndpointPool, key: &ConnectionKey) -> Bytes {
    let response = pool.acquire(key).await.unwrap().send(post(Body::full("hello"))).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn nothing_is_opened_before_it_is_needed() {
    let network = Network::echoing(100);
    let pool = network.pool();
    tokio::task::yield_now().await;
    assert_eq!((network.attempts(), pool.state()), (0, ConnectivityState::Idle));
    assert!(matches!(pool.try_acquire(&H2), TryAcquire::WouldWait));
    assert_eq!(pool.state(), ConnectivityState::Connecting);
    assert_eq!(call(&pool, &H2).await, "hello");
    assert_eq!((network.attempts(), pool.state()), (1, ConnectivityState::Ready));
}

#[tokio::test]
async fn ten_calls_over_one_stream_all_succeed_one_at_a_time() {
    let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, most) = (now.clone(), peak.clone());
    let network = Network::new(move |io| {
        let mut builder = ::h2::server::Builder::new();
        builder.max_concurrent_streams(1);
        let (running, most) = (running.clone(), most.clone());
        spawn(serve_h2(io, builder, move |request, respond| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                echo(request, respond).await;
            }
        }));
    });
    let pool = network.pool_with(|settings| settings.max_connections = 1);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            spawn(async move { call(&pool, &H2).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "hello");
    }
    assert_eq!((network.attempts(), peak.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn more_connections_open_at_the_stream_limit_up_to_the_cap() {
    let network = Network::echoing(2);
    let pool = network.pool_with(|settings| settings.max_connections = 3);
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(pool.acquire(&H2).await.unwrap());
    }
    assert_eq!((network.attempts(), pool.connections()), (3, 3));
    assert!(matches!(pool.try_acquire(&H2), TryAcquire::WouldWait));
    assert_eq!(network.attempts(), 3, "the cap holds");
    let waiter = spawn({
        let pool = pool.clone();
        async move { pool.acquire(&H2).await.is_ok() }
    });
    tokio::task::yield_now().await;
    leases.pop();
    assert!(waiter.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn once_a_connect_failed_no_request_waits_for_the_next_one() {
    let network = Network::echoing(100);
    network.refuse(true);
    let pool = network.pool();
    let error = pool.acquire(&H2).await.unwrap_err();
    assert_eq!(error.kind(), ConnectFailure::Io);
    assert!(error.to_string().contains("10.0.0.1:80"), "{error}");
    assert_eq!(pool.state(), ConnectivityState::TransientFailure);

    let begin = Instant::now();
    for _ in 0..100 {
        assert!(matches!(pool.try_acquire(&H2), TryAcquire::Failed(_)));
        assert!(pool.acquire(&H2).await.is_err());
    }
    assert_eq!((begin.elapsed(), network.attempts()), (Duration::ZERO, 1));
    assert!(pool.last_error().unwrap().to_string().contains("refused"));
}

#[tokio::test(start_paused = true)]
async fn attempts_back_off_and_success_ends_the_failure() {
    let network = Network::echoing(100);
    network.refuse(true);
    let changes = Arc::new(AtomicUsize::new(0));
    let seen = changes.clone();
    let pool = network.pool_with(|settings| {
        settings.on_change = Some(Arc::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
    });
    pool.connect_soon(&H2);
    sleep(Duration::from_millis(750)).await;
    assert_eq!(network.attempts(), 1);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(network.attempts(), 2, "1 s ± 20 %");
    sleep(Duration::from_millis(2000)).await;
    assert_eq!(network.attempts(), 3, "1.6 s ± 20 %");
    assert_eq!(pool.state(), ConnectivityState::TransientFailure);
    assert_eq!(
        changes.load(Ordering::SeqCst),
        2,
        "Connecting, TransientFailure: further failures change nothing"
    );

    network.refuse(false);
    sleep(Duration::from_secs(4)).await;
    assert_eq!((pool.state(), network.attempts()), (ConnectivityState::Ready, 4));
    assert_eq!((changes.load(Ordering::SeqCst), pool.last_error().is_none()), (3, true));
    assert_eq!(call(&pool, &H2).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_ends_after_the_connect_timeout() {
    let (held, _keep) = std::sync::mpsc::channel();
    let held = Mutex::new(held);
    let network = Network::new(move |io| held.lock().unwrap().send(io).unwrap());
    let pool = network.pool_with(|settings| settings.connect_timeout = Duration::from_secs(3));
    let begin = Instant::now();
    let error = pool.acquire(&H2).await.unwrap_err();
    assert_eq!((error.kind(), begin.elapsed()), (ConnectFailure::Timeout, Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_hangs_up_is_not_dialled_in_a_loop() {
    for goaway in [false, true] {
        let network = Network::new(move |io| {
            spawn(async move {
                let mut server = RawServer::accept(io).await;
                if goaway {
                    sleep(Duration::from_millis(10)).await;
                    server.goaway(0).await;
                    while server.frame().await.is_some() {}
                }
            });
        });
        let pool = network.pool();
        pool.connect_soon(&H2);
        sleep(Duration::from_secs(60)).await;
        let attempts = network.attempts();
        assert!((2..=15).contains(&attempts), "{attempts} attempts in a minute");
    }
}

#[tokio::test]
async fn after_goaway_calls_go_to_a_new_connection() {
    let (tell, mut servers) = tokio::sync::mpsc::channel(4);
    let network = Network::new(move |io| {
        let tell = tell.clone();
        spawn(async move { tell.send(RawServer::accept(io).await).await.ok() });
    });
    let pool = network.pool();
    let first = pool.acquire(&H2).await.unwrap();
    let mut old = servers.recv().await.unwrap();
    let first = spawn(first.send(post(Body::empty())));
    old.frame().await.unwrap();
    old.goaway(1).await;
    let mut new = servers.recv().await.unwrap();
    let second = pool.acquire(&H2).await.unwrap();
    let second = spawn(second.send(post(Body::empty())));
    new.frame().await.unwrap();
    new.ok(1).await;
    assert!(second.await.unwrap().is_ok());
    old.ok(1).await;
    assert!(first.await.unwrap().is_ok());
    assert_eq!((network.attempts(), pool.connections()), (2, 1));
}

#[tokio::test]
async fn too_many_waiters_are_refused_and_a_dropped_one_leaves_its_place() {
    let network = Network::echoing(1);
    let pool = network.pool_with(|settings| (settings.max_connections, settings.max_waiting) = (1, 1));
    let only = pool.acquire(&H2).await.unwrap();
    let mut waiter = tokio_test::task::spawn(acquire(pool.clone()));
    assert!(waiter.poll().is_pending());
    let error = pool.acquire(&H2).await.unwrap_err();
    assert_eq!(error.kind(), ConnectFailure::Limit);
    drop(waiter);
    let mut waiter = tokio_test::task::spawn(acquire(pool.clone()));
    assert!(waiter.poll().is_pending());
    drop(only);
    assert!(waiter.is_woken());
    assert!(matches!(waiter.poll(), std::task::Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn the_clusters_connection_budget_is_kept_and_given_back() {
    struct Budget(Arc<()>);
    impl ConnectionPermits for Budget {
        fn acquire(&self) -> Option<ConnectionPermit> {
            (Arc::strong_count(&self.0) == 1).then(|| Box::new(self.0.clone()) as ConnectionPermit)
        }
    }
    let used = Arc::new(());
    let network = Network::echoing(1);
    let budget = Arc::new(Budget(used));
    let permits = budget.clone();
    let pool = network.pool_with(|settings| settings.permits = Some(permits));
    let first = pool.acquire(&H2).await.unwrap();
    let mut second = tokio_test::task::spawn(acquire(pool.clone()));
    assert!(second.poll().is_pending());
    tokio::task::yield_now().await;
    assert_eq!((network.attempts(), pool.state()), (1, ConnectivityState::Ready));
    drop(second);
    drop(first);
    drop(pool);
    while Arc::strong_count(&budget.0) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_pool_lets_its_calls_finish_and_closes() {
    let (tell, mut servers) = tokio::sync::mpsc::channel(1);
    let network = Network::new(move |io| {
        let tell = tell.clone();
        spawn(async move { tell.send(RawServer::accept(io).await).await.ok() });
    });
    let pool = network.pool();
    let lease = pool.acquire(&H2).await.unwrap();
    let mut server = servers.recv().await.unwrap();
    let call = spawn(lease.send(post(Body::empty())));
    server.frame().await.unwrap();
    drop(pool);
    server.ok(1).await;
    assert!(call.await.unwrap().is_ok());
    assert_eq!(server.frame().await.unwrap().0, 7, "GOAWAY");
    assert!(server.frame().await.is_none());
}

#[tokio::test]
async fn http1_connections_are_shared_out_one_per_request_and_reused() {
    let network = Network::new(|io| {
        let service =
            hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                Ok::<_, std::convert::Infallible>(Response::new(Body::new(request.into_body())))
            });
        let io = hyper_util::rt::TokioIo::new(io);
        spawn(
            async move { hyper::server::conn::http1::Builder::new().serve_connection(io, service).await.ok() },
        );
    });
    let pool = network.pool();
    let (first, second) = (pool.acquire(&H1).await.unwrap(), pool.acquire(&H1).await.unwrap());
    assert_eq!(network.attempts(), 2);
    for lease in [first, second] {
        let response = lease.send(post(Body::full("hello"))).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
    for _ in 0..5 {
        assert_eq!(call(&pool, &H1).await, "hello");
    }
    assert_eq!(network.attempts(), 2);
}

/// Serves plaintext first and TLS later, on the same address.
struct Changing {
    network: Arc<Network>,
    secure: Arc<AtomicBool>,
    plaintext_requests: Arc<AtomicUsize>,
    tls: Arc<ClientTls>,
}

fn changing() -> Changing {
    let ca = Ca::new();
    let provider = StaticProvider::new(Some(ca.spiffe("spiffe://td/peer")), Some(ca.roots()));
    let tls = runtime(&provider);
    let (client, server) = (tls.client(&upstream(Some("spiffe://td/peer"))), tls.server(downstream()));
    let (secure, plaintext_requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_secure, seen) = (secure.clone(), plaintext_requests.clone());
    let network = Network::new(move |io| {
        let (is_secure, seen, server) = (is_secure.load(Ordering::SeqCst), seen.clone(), server.clone());
        spawn(async move {
            if is_secure {
                let Ok((io, _)) = server.accept(io).await else { return };
                serve_h2(io, ::h2::server::Builder::new(), echo).await;
            } else {
                serve_h2(io, ::h2::server::Builder::new(), move |request, respond| {
                    seen.fetch_add(1, Ordering::SeqCst);
                    echo(request, respond)
                })
                .await;
            }
        });
    });
    Changing { network, secure, plaintext_requests, tls: client }
}

#[tokio::test]
async fn a_changed_tls_context_leaves_no_request_on_an_old_connection() {
    let Changing { network, secure, plaintext_requests, tls } = changing();
    let pool = network.pool();
    assert_eq!(call(&pool, &H2).await, "hello");
    let in_flight = pool.acquire(&H2).await.unwrap();

    secure.store(true, Ordering::SeqCst);
    pool.set_tls(Some(tls.clone()));
    let key = ConnectionKey { tls: Some(tls), protocol: UpstreamProtocol::Http2 };
    for _ in 0..3 {
        assert_eq!(call(&pool, &key).await, "hello");
    }
    assert_eq!((network.attempts(), plaintext_requests.load(Ordering::SeqCst)), (2, 1));
    let mut error = in_flight.send(post(Body::full("x"))).await.unwrap_err();
    assert!(error.take_request().is_some(), "leased before the change, not sent, handed back");
    assert_eq!(plaintext_requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_pinned_before_the_change_gets_a_connection_of_its_own_context() {
    let Changing { network, plaintext_requests, tls, .. } = changing();
    let pool = network.pool();
    assert_eq!(call(&pool, &H2).await, "hello");
    pool.set_tls(Some(tls));
    assert_eq!(call(&pool, &H2).await, "hello");
    assert_eq!((network.attempts(), plaintext_requests.load(Ordering::SeqCst)), (2, 2));
    assert_eq!(pool.state(), ConnectivityState::Idle, "it does not count for the endpoint");
    assert_eq!(pool.connections(), 0, "and closes when it is unused");
}

#[tokio::test]
async fn plaintext_is_never_spoken_where_tls_is_configured() {
    let Changing { network, plaintext_requests, tls, .. } = changing();
    let pool = network.pool();
    let key = ConnectionKey { tls: Some(tls), protocol: UpstreamProtocol::Http2 };
    let error = pool.acquire(&key).await.unwrap_err();
    assert_eq!(error.kind(), ConnectFailure::Tls);
    assert_eq!(
        (pool.state(), plaintext_requests.load(Ordering::SeqCst)),
        (ConnectivityState::TransientFailure, 0)
    );
}
