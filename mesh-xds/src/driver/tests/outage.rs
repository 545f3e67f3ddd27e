//! How often the driver wakes while its control plane is gone. Time is paused, so that each of its timers is seen.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::rng::Xoshiro;
use tokio::time::{Instant, sleep};

use super::super::{Driver, Reports, Targets};
use super::script::ControlPlane;
use super::stream::{ready, serve_until_quiet, service};
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::resolve::Resolver;
use crate::transport::connect::Connect;

/// Runs the driver until something else is over, and tells when it was awake.
async fn awake_until<T>(
    mut driver: Pin<&mut impl Future<Output = ()>>,
    over: impl Future<Output = T>,
) -> (BTreeSet<Instant>, T) {
    let mut awake = BTreeSet::new();
    let watched = poll_fn(|cx| {
        awake.insert(Instant::now());
        driver.as_mut().poll(cx)
    });
    let value = tokio::select! {
        biased;
        value = over => value,
        () = watched => unreachable!("a driver runs for ever"),
    };
    (awake, value)
}

#[tokio::test(start_paused = true)]
async fn without_its_control_plane_the_driver_wakes_to_knock_and_for_nothing_else() {
    let mut control = ControlPlane::new();
    let connector: Arc<dyn Connect> = Arc::new(control.pipes.clone());
    let server = ServerConfig::insecure("xds.test:18000").unwrap();
    let bootstrap = Arc::new(Bootstrap::builder("node-1").server(server).build().unwrap());
    let targets = Targets::new(Resolver::new(bootstrap.clone(), "node-1".into()));
    let target = targets.client("shop");
    let mut driver = pin!(
        Driver::new(&bootstrap, &connector, targets.clone(), Reports::default(), Xoshiro::seeded(7)).run()
    );
    let (_, stream) = awake_until(driver.as_mut(), async {
        let mut stream = control.stream().await;
        serve_until_quiet(&mut stream, "1", &service("shop", &["a"], 1)).await;
        ready(&target).await;
        // A stream that was good for a while: the first attempt after it is made at once.
        sleep(Duration::from_secs(60)).await;
        stream
    })
    .await;
    control.refuse(true);
    let before = control.attempts().len();
    drop(stream);
    let (awake, ()) = awake_until(driver.as_mut(), sleep(Duration::from_secs(600))).await;
    let attempts: BTreeSet<Instant> = control.attempts().into_iter().skip(before).collect();
    assert!((12..=17).contains(&attempts.len()), "{attempts:?}");
    assert_eq!(awake, attempts, "it is awake when it knocks, and at no other time");
}
