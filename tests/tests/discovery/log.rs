//! What a process says of its configuration: little, at once, and nothing when it ends.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use http::Request;
use mesh_core::snapshot::ConfigSource as _;
use mesh_tests::fleet::{Fleet, bootstrap_at};
use mesh_tests::wait::{soon, until_snapshot};
use mesh_tower::{Body, Error, MeshBuilder};
use mesh_xds::server::{Endpoints, Listener, Resource, RouteConfig};
use mesh_xds::{Kind, Protocol, XdsSource};
use prost::Message as _;
use tokio::runtime::{Builder, Handle};
use tower::ServiceExt as _;
use tracing::Dispatch;
use tracing::dispatcher::{DefaultGuard, set_default};
use tracing_subscriber::filter::LevelFilter;

use crate::shop;

/// What was logged, line by line.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn dispatch(&self, level: LevelFilter) -> Dispatch {
        let sink = self.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(level)
            .with_writer(move || sink.clone())
            .finish()
            .into()
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

/// A target whose route and cluster have fields without effect.
fn with_unapplied_fields(name: &str) -> Vec<Resource> {
    use mesh_xds::server::Resources as _;
    let cluster = cluster::Cluster {
        name: name.to_owned(),
        outlier_detection: Some(cluster::OutlierDetection::default()),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(envoy_types::pb::envoy::config::core::v3::ConfigSource {
                config_source_specifier: Some(
                    envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier::Ads(
                        envoy_types::pb::envoy::config::core::v3::AggregatedConfigSource::default(),
                    ),
                ),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let cluster = Resource::decode(Kind::Cluster.type_url(), &cluster.encode_to_vec()).unwrap();
    let endpoints = Endpoints::of([([127, 0, 0, 1], 1).into()]).named(name);
    (Listener::client(name).rds(name), RouteConfig::to(name, name), cluster, endpoints).into_resources()
}

#[tokio::test]
async fn fields_without_effect_are_one_line_for_each_kind_of_field() {
    for protocol in [Protocol::StateOfTheWorld, Protocol::Incremental] {
        let log = Log::default();
        let _guard = set_default(&log.dispatch(LevelFilter::WARN));
        let fleet = Fleet::start();
        let names: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
        fleet.control.set(names.iter().flat_map(|name| with_unapplied_fields(name)).collect::<Vec<_>>());
        let bootstrap = bootstrap_at(fleet.control_address(), "n").with_protocol(protocol);
        let source = XdsSource::builder(bootstrap).start(&Handle::current());
        let targets: Vec<_> = names.iter().map(|name| source.client(name)).collect();
        for target in &targets {
            until_snapshot(target, |_| true).await;
        }
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{protocol}: {lines:#?}");
        for part in ["kind=cluster", "field=\"outlier_detection\"", "count="] {
            assert!(lines[0].contains(part), "{lines:?}");
        }
        // The list has every one of them.
        assert_eq!(source.unapplied().len(), names.len());
    }
}

thread_local! {
    static GUARD: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// A runtime that ends drops its tasks in any order: that of a connection may be gone before the one that reads from it.
#[test]
fn a_process_that_ends_warns_of_nothing() {
    let fleet_runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fleet = {
        let _entered = fleet_runtime.enter();
        Fleet::start()
    };
    fleet.control.set(shop(1));
    let log = Log::default();
    let dispatch = log.dispatch(LevelFilter::WARN);
    for round in 0..60 {
        let dispatch = dispatch.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || GUARD.set(Some(set_default(&dispatch))))
            .on_thread_stop(|| drop(GUARD.take()))
            .build()
            .unwrap();
        let protocol = [Protocol::StateOfTheWorld, Protocol::Incremental][round % 2];
        runtime.block_on(async {
            let bootstrap = bootstrap_at(fleet.control_address(), "n").with_protocol(protocol);
            let source = XdsSource::builder(bootstrap).start(&Handle::current());
            let target = source.client("shop");
            until_snapshot(&target, |_| true).await;
            // As by an application whose tasks hold the mesh to the end.
            #[expect(clippy::disallowed_methods, reason = "a task of an application")]
            tokio::spawn(async move {
                let _held = (source, target);
                std::future::pending::<()>().await;
            });
        });
        drop(runtime);
        assert_eq!(log.lines(), Vec::<String>::new(), "round {round}");
    }
}

#[tokio::test]
async fn an_unknown_name_is_said_to_be_waited_for_at_once_and_its_reply_is_told_apart() {
    for protocol in [Protocol::StateOfTheWorld, Protocol::Incremental] {
        let log = Log::default();
        let _guard = set_default(&log.dispatch(LevelFilter::INFO));
        let waiting = |what: &str| log.lines().iter().filter(|line| line.contains(what)).count();
        let fleet = Fleet::start();
        fleet.control.set(shop(1));
        let bootstrap = bootstrap_at(fleet.control_address(), "n").with_protocol(protocol);
        let mesh = MeshBuilder::from_bootstrap(bootstrap).unwrap().build().unwrap();
        let channel = mesh.channel("xds:///shpo").unwrap();
        assert_eq!(waiting(r#"waiting for listener "shpo""#), 1, "before any call: {:#?}", log.lines());
        let again = mesh.channel("xds:///shpo").unwrap();
        if protocol == Protocol::Incremental {
            // In the other protocol only a timer tells.
            let request = Request::get("http://shpo/").body(Body::empty()).unwrap();
            let response = soon(channel.oneshot(request)).await.unwrap();
            assert_eq!(response.status(), 404);
            assert_eq!(
                response.headers()["proxy-status"],
                r#"mesh; error=destination_not_found; details="target_not_found""#
            );
            let error = response.extensions().get::<Error>().unwrap();
            assert!(error.is_no_route() && error.is_local(), "{error}");
        }
        assert_eq!(waiting(r#"waiting for listener "shpo""#), 1, "once: {:#?}", log.lines());
        drop(again);
    }
}

#[tokio::test]
async fn a_server_says_what_it_waits_for_and_a_client_what_is_still_missing() {
    let log = Log::default();
    let _guard = set_default(&log.dispatch(LevelFilter::INFO));
    let waits = |what: &str| log.lines().iter().any(|line| line.contains(what));
    let fleet = Fleet::start();
    fleet.control.set(Listener::client("shop").rds("misspelt"));
    let mesh = fleet.mesh("n");
    let channel = mesh.channel("xds:///shop").unwrap();
    let served = fleet.serve_with(&mesh, mesh_tests::backend::App::new("a"), |_| {});
    // Once it is a while that the listener has come, the routes are what is missing.
    soon(async {
        while !waits(r#"waiting for route "misspelt""#) || !waits("waiting for listener \"grpc/server?") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((channel, served));
}
