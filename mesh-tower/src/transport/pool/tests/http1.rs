//! Connections of HTTP/1.1, of which each serves one call at a time.

use super::*;

#[tokio::test]
async fn http1_connections_are_shared_out_one_per_request_and_reused() {
    let network = Network::echoing_http1();
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

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_beside_a_connection_leaves_no_failed_endpoint_when_that_one_ends() {
    let network = Network::echoing_http1();
    let pool = network.pool();
    let first = pool.acquire(&H1).await.unwrap();
    network.refuse(true);
    let second = pool.clone();
    let waiting = spawn(async move { second.acquire(&H1).await.map(drop) });
    while network.attempts() < 2 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(pool.state(), ConnectivityState::TransientFailure, "it takes no more than it has");
    network.refuse(false);
    drop(first);
    // Longer than an idle connection is kept.
    sleep(Duration::from_secs(120)).await;
    assert_eq!((pool.connections(), pool.state()), (0, ConnectivityState::Idle));
    assert_eq!(call(&pool, &H1).await, "hello");
}

/// A server that drains: the connections that it has are busy, and it takes no more. They become free no sooner than it
/// is gone, so calls go elsewhere at once.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_busy_http1_connections_of_a_peer_that_refuses_more() {
    let network = Network::echoing_http1();
    let pool = network.pool();
    let busy = pool.acquire(&H1).await.unwrap();
    network.refuse(true);
    let begin = Instant::now();
    for _ in 0..50 {
        assert_eq!(pool.acquire(&H1).await.unwrap_err().kind(), ConnectFailure::Io);
        assert!(matches!(pool.try_acquire(&H1), TryAcquire::Failed(_)));
    }
    assert_eq!((begin.elapsed(), network.attempts()), (Duration::ZERO, 2));
    // Once it is free, the connection serves: it is one more that cannot be had.
    drop(busy);
    assert_eq!(call(&pool, &H1).await, "hello");
    let busy = pool.acquire(&H1).await.unwrap();
    assert!(pool.acquire(&H1).await.is_err());
    network.refuse(false);
    sleep(Duration::from_secs(3)).await;
    let second = pool.acquire(&H1).await.unwrap();
    let begin = Instant::now();
    let third = pool.acquire(&H1).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO, "no back-off is left");
    drop((busy, second, third));
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_together_are_one_failure() {
    let network = Network::echoing_http1();
    network.refuse(true);
    let pool = network.pool();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let pool = pool.clone();
            spawn(async move { pool.acquire(&H1).await.map(drop) })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    assert!(network.attempts() > 5, "one for each call: {}", network.attempts());
    network.refuse(false);
    sleep(Duration::from_millis(1_300)).await;
    assert_eq!(pool.state(), ConnectivityState::Ready, "1 s ± 20 %");
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_of_connections_calls_wait_for_the_one_that_comes_free() {
    struct Nothing(AtomicBool);
    impl ConnectionPermits for Nothing {
        fn acquire(&self) -> Option<ConnectionPermit> {
            (!self.0.swap(true, Ordering::SeqCst)).then(|| Box::new(()) as ConnectionPermit)
        }
    }
    let network = Network::echoing_http1();
    let pool =
        network.pool_with(|settings| settings.permits = Some(Arc::new(Nothing(AtomicBool::new(false)))));
    let only = pool.acquire(&H1).await.unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let pool = pool.clone();
            spawn(async move { call(&pool, &H1).await })
        })
        .collect();
    sleep(Duration::from_secs(600)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    let begin = Instant::now();
    drop(only);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), "hello");
    }
    assert_eq!((begin.elapsed(), network.attempts()), (Duration::ZERO, 1));
}

/// So many waiting calls, and a turn for everything that they start.
async fn waiters(pool: &Arc<EndpointPool>, key: &'static ConnectionKey, count: usize) -> Vec<Waiter> {
    let waiters = (0..count).map(|_| {
        let pool = pool.clone();
        spawn(async move { call(&pool, key).await })
    });
    let waiters = waiters.collect();
    sleep(Duration::from_secs(600)).await;
    waiters
}

type Waiter = tokio::task::JoinHandle<Bytes>;

static H1_KEY: ConnectionKey = H1;
static H2_KEY: ConnectionKey = H2;

#[tokio::test(start_paused = true)]
async fn the_limit_of_an_endpoint_is_kept_whatever_the_protocol() {
    for (key, network) in [(&H1_KEY, Network::echoing_http1()), (&H2_KEY, Network::echoing(1))] {
        for limit in [1, 2, 20] {
            let before = network.attempts();
            let pool = network.pool_with(|settings| settings.limit = Some(limit));
            let mut held = Vec::new();
            for _ in 0..limit {
                held.push(pool.acquire(key).await.unwrap());
            }
            let waiting = waiters(&pool, key, 5).await;
            assert_eq!((network.attempts() - before, pool.connections()), (limit, limit), "{key:?}");
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            drop(held);
            for waiting in waiting {
                assert_eq!(waiting.await.unwrap(), "hello");
            }
            assert_eq!(network.attempts() - before, limit);
        }
    }
}

/// An application that sends gRPC and other requests to one cluster has two kinds of connections.
#[tokio::test(start_paused = true)]
async fn the_limit_of_an_endpoint_is_one_for_all_its_connections_but_nobody_starves() {
    let network = Network::new({
        let accepted = AtomicUsize::new(0);
        let (http1, http2) = (Network::echoing_http1(), Network::echoing(1));
        move |io| match accepted.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (http1.serve)(io),
            _ => (http2.serve)(io),
        }
    });
    let pool = network.pool_with(|settings| settings.limit = Some(2));
    let (first, second) = (pool.acquire(&H1).await.unwrap(), pool.acquire(&H1).await.unwrap());
    // Over the limit, because it would have none at all.
    let third = pool.acquire(&H2).await.unwrap();
    let waiting = waiters(&pool, &H2_KEY, 3).await;
    assert_eq!((network.attempts(), pool.connections()), (3, 3));
    drop(third);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), "hello");
    }
    assert_eq!(network.attempts(), 3);
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_or_could_not_be_had_counts_no_longer() {
    let network = Network::echoing_http1();
    let pool = network.pool_with(|settings| settings.limit = Some(1));
    for _ in 0..5 {
        network.refuse(true);
        assert!(pool.acquire(&H1).await.is_err());
        network.refuse(false);
        sleep(Duration::from_secs(300)).await;
        assert_eq!(call(&pool, &H1).await, "hello");
        // Longer than an idle connection is kept.
        sleep(Duration::from_secs(120)).await;
        assert_eq!(pool.connections(), 0);
    }
    assert_eq!(pool.open.count(), 0);
}

#[test]
fn a_clusters_limit_for_each_endpoint_is_the_limit_of_its_pool() {
    let mut cluster = mesh_core::testing::cluster("a", mesh_core::testing::endpoints([1]));
    let limit_of =
        |cluster: &ClusterConfig| PoolSettings::new(Network::echoing_http1()).with_cluster(cluster).limit;
    assert_eq!(limit_of(&cluster), None);
    cluster.limits.max_connections_per_endpoint = std::num::NonZeroU32::new(7);
    assert_eq!(limit_of(&cluster), Some(7));
}
