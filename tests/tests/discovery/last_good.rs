//! A process that starts while its control plane is down serves from what the last run accepted.

use std::path::Path;
use std::time::Duration;

use mesh_core::snapshot::{ConfigSource as _, Resolution};
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at};
use mesh_tests::wait::{soon, until_resolved, until_snapshot};
use mesh_tower::MeshBuilder;
use mesh_xds::XdsSource;
use mesh_xds::server::{Cluster, Listener, RouteConfig};
use mesh_xds::testing::LastGoodFile;
use tokio::runtime::Handle;

use crate::{ports, shop};

fn source(fleet: &Fleet, node: &str, file: &Path) -> XdsSource {
    XdsSource::builder(fleet.bootstrap(node)).last_good_file(file).start(&Handle::current())
}

/// Waits until the file holds so many resources.
async fn holds(file: &Path, resources: usize) {
    let is_there = || {
        let bytes = std::fs::read(file).unwrap_or_default();
        LastGoodFile::decode(&bytes.into()).is_ok_and(|file| file.entries.len() == resources)
    };
    soon(async {
        while !is_there() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn calls_are_served_from_disk_until_the_control_plane_answers_and_none_fails() {
    let disk = tempfile::tempdir().unwrap();
    let file = disk.path().join("last-good");
    let mut fleet = Fleet::start();
    let (before, after) = (fleet.backend("before"), fleet.backend("after"));
    let to = |address| {
        (
            Listener::client("shop").rds("shop"),
            RouteConfig::to("shop", "main"),
            Cluster::eds("main").endpoints(at([address])),
        )
    };
    fleet.control.set(to(before.address()));
    let mesh = |fleet: &Fleet| {
        let builder =
            MeshBuilder::from_bootstrap_with(fleet.bootstrap("n"), |source| source.last_good_file(&file));
        builder.unwrap().build().unwrap()
    };
    {
        let first = mesh(&fleet);
        let mut client = EchoClient::new(first.channel("xds:///shop").unwrap());
        client.unary(EchoRequest::say("x")).await.unwrap();
        holds(&file, 4).await;
    }
    fleet.kill_control_plane().await;

    let second = mesh(&fleet);
    let mut client = EchoClient::new(second.channel("xds:///shop").unwrap());
    second.ready(Duration::from_secs(20)).await.unwrap();
    let reply = client.unary(EchoRequest::say("x")).await.unwrap().into_inner();
    assert_eq!((reply.server.as_str(), second.restored()), ("before", 4));

    fleet.control.set(to(after.address()));
    fleet.start_control_plane();
    let mut from = String::new();
    while from != "after" {
        from = client.unary(EchoRequest::say("x")).await.unwrap().into_inner().server;
    }
    soon(async {
        while second.restored() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_node_s_file_is_moved_aside_and_not_used() {
    let disk = tempfile::tempdir().unwrap();
    let file = disk.path().join("last-good");
    let mut fleet = Fleet::start();
    fleet.control.set(shop(1));
    {
        let source = source(&fleet, "one", &file);
        let target = source.client("shop");
        until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
        holds(&file, 4).await;
    }
    fleet.kill_control_plane().await;
    let source = source(&fleet, "two", &file);
    let target = source.client("shop");
    until_resolved(&target, |resolution| matches!(resolution, Resolution::Failed(_))).await;
    assert_eq!(source.restored(), 0);
    assert!(!file.exists() && disk.path().join("last-good.refused").exists());
}
