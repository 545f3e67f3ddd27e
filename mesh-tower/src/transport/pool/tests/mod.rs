mod http1;

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
use crate::tls::testing::{Ca, accept, downstream, runtime, upstream};
use crate::transport::connect::ConnectFuture;
use crate::transport::error::{ConnectFailure, Progress};
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

    /// HTTP/1.1 servers that echo.
    fn echoing_http1() -> Arc<Self> {
        Self::new(|io| {
            let service =
                hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(Response::new(Body::new(request.into_body())))
                });
            let io = hyper_util::rt::TokioIo::new(io);
            let http1 = hyper::server::conn::http1::Builder::new();
            spawn(async move { http1.serve_connection(io, service).await.ok() });
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
async fn a_call_that_has_nowhere_else_to_go_brings_the_next_attempt_forward() {
    for key in [H1, H2] {
        let network = if key.is_same(&H1) { Network::echoing_http1() } else { Network::echoing(100) };
        let pool = network.pool();
        assert!(!pool.may_be_back(&key), "nothing is known of it");
        network.refuse(true);
        assert!(pool.acquire(&key).await.is_err());
        assert!(!pool.may_be_back(&key), "it was tried just now");
        sleep(Duration::from_millis(200)).await;
        assert!(pool.may_be_back(&key) && pool.may_be_back(&key));
        assert_eq!(pool.state(), ConnectivityState::TransientFailure);
        // Both wait for the same attempt, which fails.
        let (first, second) = tokio::join!(pool.acquire(&key), pool.acquire(&key));
        assert!(first.is_err() && second.is_err());
        assert_eq!(network.attempts(), 2);
        assert!(!pool.may_be_back(&key), "it was tried just now");
        network.refuse(false);
        sleep(Duration::from_millis(200)).await;
        assert!(pool.may_be_back(&key));
        assert_eq!(call(&pool, &key).await, "hello");
        assert_eq!((network.attempts(), pool.state()), (3, ConnectivityState::Ready));
        sleep(Duration::from_secs(10)).await;
        assert_eq!((network.attempts(), pool.connections()), (3, 1), "nobody tries on");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_brought_forward_become_rarer_with_the_back_off() {
    let network = Network::echoing(100);
    network.refuse(true);
    let pool = network.pool();
    assert!(pool.acquire(&H2).await.is_err());
    let mut in_each_minute = Vec::new();
    for _ in 0..5 {
        let before = network.attempts();
        for _ in 0..6_000 {
            if pool.may_be_back(&H2) {
                assert!(pool.acquire(&H2).await.is_err());
            }
            sleep(Duration::from_millis(10)).await;
        }
        in_each_minute.push(network.attempts() - before);
    }
    assert!(in_each_minute[0] < 80 && in_each_minute[4] <= 8, "{in_each_minute:?}");
}

#[tokio::test(start_paused = true)]
async fn one_more_connection_of_a_peer_that_serves_ends_the_back_off() {
    let network = Network::echoing(1);
    let pool = network.pool();
    assert_eq!(call(&pool, &H2).await, "hello");
    let mut held = vec![pool.acquire(&H2).await.unwrap()];
    for _ in 0..3 {
        // There is one connection less than calls, and no other one for a while.
        network.refuse(true);
        let waiting = spawn(acquire(pool.clone()));
        sleep(Duration::from_millis(100)).await;
        network.refuse(false);
        sleep(Duration::from_millis(1_200)).await;
        assert!(waiting.is_finished(), "1 s ± 20 % after each first failure");
        held.push(waiting.await.unwrap().unwrap());
    }
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

/// What a peer does that is of no use.
#[derive(Debug, Clone, Copy)]
enum Useless {
    HangsUp,
    HangsUpOnACall,
    GoesAwayAtOnce,
    GoesAwayLater,
    GoesAwayOnACall,
}

impl Useless {
    async fn serve(self, io: DuplexStream) {
        let mut server = RawServer::accept(io).await;
        match self {
            Self::HangsUp => return,
            Self::GoesAwayAtOnce => server.goaway(0).await,
            Self::GoesAwayLater => {
                sleep(Duration::from_millis(10)).await;
                server.goaway(0).await;
            }
            Self::HangsUpOnACall => {
                server.frame().await;
                return;
            }
            Self::GoesAwayOnACall => {
                server.frame().await;
                server.goaway(0).await;
            }
        }
        while server.frame().await.is_some() {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_hangs_up_is_not_dialled_in_a_loop() {
    use Useless::{GoesAwayAtOnce, GoesAwayLater, GoesAwayOnACall, HangsUp, HangsUpOnACall};
    for peer in [HangsUp, HangsUpOnACall, GoesAwayAtOnce, GoesAwayLater, GoesAwayOnACall] {
        let network = Network::new(move |io| {
            spawn(peer.serve(io));
        });
        let pool = network.pool();
        pool.connect_soon(&H2);
        let callers = spawn({
            let pool = pool.clone();
            async move {
                loop {
                    if let Ok(lease) = pool.acquire(&H2).await {
                        let _ = lease.send(post(Body::empty())).await;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
        sleep(Duration::from_secs(60)).await;
        callers.abort();
        let attempts = network.attempts();
        assert!((2..=15).contains(&attempts), "{peer:?}: {attempts} attempts in a minute");
        assert_eq!(pool.state(), ConnectivityState::TransientFailure, "{peer:?}");
    }
}

/// Sends until a peer answers, as the retry layer does; a call that was processed, or for which there is no connection,
/// is lost.
async fn until_answered(pool: &EndpointPool) {
    loop {
        let lease = pool.acquire(&H2).await.expect("no failure to connect");
        match lease.send(post(Body::empty())).await {
            Ok(_) => return,
            Err(error) => assert_ne!(error.progress(), Progress::Sent, "{error}"),
        }
    }
}

/// How a peer drains a connection that is young.
#[derive(Debug, Clone, Copy)]
enum Drains {
    WithItsSettings,
    BelowTheFirstCall,
    BehindTheFirstAnswer,
    InTwoSteps,
    AndHangsUp,
}

impl Drains {
    async fn serve(self, io: DuplexStream, fresh: bool) {
        let mut server = RawServer::accept(io).await;
        if matches!(self, Self::WithItsSettings) && !fresh {
            server.goaway(0).await;
        }
        while let Some((kind, _, stream, _)) = server.frame().await {
            match self {
                _ if kind != 1 => {}
                Self::BehindTheFirstAnswer => {
                    server.ok(stream).await;
                    server.goaway(stream).await;
                }
                _ if fresh => server.ok(stream).await,
                Self::WithItsSettings => {}
                Self::BelowTheFirstCall => server.goaway(0).await,
                Self::AndHangsUp => return server.goaway(0).await,
                Self::InTwoSteps => {
                    server.goaway(0x7fff_ffff).await;
                    server.write(6, 0, 0, &[0; 8]).await;
                    while server.frame().await.is_some_and(|(kind, ..)| kind != 6) {}
                    server.goaway(0).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drains_gets_the_next_connection_at_once() {
    use Drains::{AndHangsUp, BehindTheFirstAnswer, BelowTheFirstCall, InTwoSteps, WithItsSettings};
    for drains in [WithItsSettings, BelowTheFirstCall, BehindTheFirstAnswer, InTwoSteps, AndHangsUp] {
        let accepted = AtomicUsize::new(0);
        let network = Network::new(move |io| {
            let fresh = accepted.fetch_add(1, Ordering::SeqCst) % 4 == 3;
            spawn(drains.serve(io, fresh));
        });
        let pool = network.pool();
        let begin = Instant::now();
        for _ in 0..20 {
            until_answered(&pool).await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "{drains:?}");
        assert!(network.attempts() >= 4, "{drains:?}");
        assert!(pool.last_error().is_none(), "{drains:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_are_no_evidence_against_the_peer() {
    let network = Network::new(|io| {
        spawn(async move {
            let mut server = RawServer::accept(io).await;
            let (mut resets, mut last) = (0, 0);
            while let Some((kind, _, stream, _)) = server.frame().await {
                last = last.max(stream);
                resets += usize::from(kind == 3);
                if resets > 20 {
                    return server.goaway(last).await;
                }
            }
        });
    });
    let pool = network.pool();
    let begin = Instant::now();
    for _ in 0..40 {
        let mut calls = Vec::new();
        let before = network.attempts();
        for _ in 0..64 {
            let lease = pool.acquire(&H2).await.expect("no failure to connect");
            let mut call = tokio_test::task::spawn(lease.send(post(Body::empty())));
            assert!(!matches!(call.poll(), std::task::Poll::Ready(Ok(_))));
            calls.push(call);
        }
        tokio::task::yield_now().await;
        drop(calls);
        while network.attempts() == before {
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_peer_that_goes_away_several_times_in_a_row() {
    let accepted = AtomicUsize::new(0);
    let network = Network::new(move |io| {
        let fresh = accepted.fetch_add(1, Ordering::SeqCst) == 6;
        spawn(Drains::BelowTheFirstCall.serve(io, fresh));
    });
    let pool = network.pool();
    let begin = Instant::now();
    until_answered(&pool).await;
    // Four at once, then 1 s ± 20 % and 1.6 s ± 20 %.
    let waited = begin.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
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
                let Ok((io, _)) = accept(&server, io).await else { return };
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
