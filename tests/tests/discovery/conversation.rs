//! The conversation as the xDS specification has it, line by line.

use mesh_core::snapshot::{ClientSnapshot, ConfigSource as _, Resolution, Subscription};
use mesh_tests::fleet::bootstrap_at;
use mesh_tests::script::{AdsScript, Conversation};
use mesh_tests::wait::{soon, until_snapshot};
use mesh_xds::Kind;
use mesh_xds::XdsSource;
use mesh_xds::server::{Endpoints, Resource, RouteConfig};
use tokio::runtime::Handle;

use crate::{ports, shop};

#[tokio::test]
async fn a_target_is_asked_for_step_by_step_and_each_answer_is_acknowledged() {
    let mut script = AdsScript::start();
    let source = XdsSource::new(bootstrap_at(script.address(), "node-1"), &Handle::current());
    let target = source.client("shop");
    let mut ads = script.accept().await;

    let first = ads.expect(Kind::Listener, &["shop"]).await;
    assert_eq!((first.version.as_str(), first.nonce.as_str()), ("", ""));
    assert_eq!(first.node.as_deref(), Some("node-1"), "the first request of a stream says who asks");

    let nonce = ads.send(Kind::Listener, "l1", shop(1)).await;
    let mut acked = false;
    for (kind, name) in
        [(Kind::Route, "shop-routes"), (Kind::Cluster, "shop-v1"), (Kind::Endpoints, "shop-v1")]
    {
        // The acknowledgement and the next subscription are independent: either may come first.
        loop {
            let asked = ads.next().await.unwrap().unwrap();
            assert_eq!(asked.refusal, None);
            if asked.kind == kind {
                assert_eq!(asked.names, [name]);
                assert_eq!(asked.nonce, "");
                break;
            }
            acked |= asked.kind == Kind::Listener && asked.version == "l1" && asked.nonce == nonce;
        }
        ads.send(kind, "1", shop(1)).await;
    }
    assert!(acked);
    let snapshot = until_snapshot(&target, |_| true).await;
    assert_eq!(ports(&snapshot), [1]);
}

/// A target that has been served `version` of everything.
async fn served(version: &str) -> (AdsScript, XdsSource, Subscription<ClientSnapshot>, Conversation) {
    let mut script = AdsScript::start();
    let source = XdsSource::new(bootstrap_at(script.address(), "node-1"), &Handle::current());
    let target = source.client("shop");
    let mut ads = script.accept().await;
    ads.expect(Kind::Listener, &["shop"]).await;
    for kind in Kind::ALL {
        ads.send(kind, version, shop(1)).await;
    }
    until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
    (script, source, target, ads)
}

#[tokio::test]
async fn a_bad_update_is_refused_by_field_and_the_last_good_one_stays() {
    let (_script, _source, target, mut ads) = served("1").await;

    let nonce = ads.send(Kind::Route, "2", Resource::opaque(Kind::Route, "shop-routes", vec![0xff])).await;
    let refusal = loop {
        let asked = ads.next().await.unwrap().unwrap();
        if asked.kind == Kind::Route && asked.nonce == nonce {
            assert_eq!(asked.version, "1", "a refusal repeats the version that is in force");
            break asked.refusal.expect("a refusal");
        }
    };
    assert!(!refusal.is_empty());
    assert!(matches!(&*target.cell().load(), Resolution::Ready(snapshot) if ports(snapshot) == [1]));

    ads.send(Kind::Endpoints, "2", Endpoints::of([([127, 0, 0, 1], 2).into()]).named("shop-v1")).await;
    until_snapshot(&target, |snapshot| ports(snapshot) == [2]).await;
}

#[tokio::test]
async fn a_new_stream_keeps_the_versions_and_forgets_the_nonces() {
    let (mut script, _source, target, ads) = served("7").await;
    ads.fail(tonic::Status::unavailable("maintenance")).await;

    let mut ads = script.accept().await;
    for _ in Kind::ALL {
        let asked = ads.next().await.unwrap().unwrap();
        assert_eq!((asked.version.as_str(), asked.nonce.as_str()), ("7", ""), "{asked:?}");
    }
    assert!(matches!(&*target.cell().load(), Resolution::Ready(_)), "an outage takes nothing away");
}

#[tokio::test]
async fn a_route_that_moves_on_is_unsubscribed() {
    let (_script, _source, target, mut ads) = served("1").await;
    ads.send(Kind::Route, "2", RouteConfig::to("shop-routes", "shop-v2")).await;
    soon(async {
        let mut wanted = std::collections::BTreeSet::from([Kind::Cluster, Kind::Endpoints]);
        while !wanted.is_empty() {
            let asked = ads.next().await.unwrap().unwrap();
            if !asked.names.iter().any(|name| name == "shop-v1") {
                wanted.remove(&asked.kind);
            }
            if asked.kind == Kind::Cluster && asked.names.iter().any(|name| name == "shop-v2") {
                let cluster = mesh_xds::server::Cluster::eds("shop-v2");
                ads.send(Kind::Cluster, "2", cluster).await;
                ads.send(Kind::Endpoints, "2", Endpoints::of([([127, 0, 0, 1], 2).into()]).named("shop-v2"))
                    .await;
            }
        }
    })
    .await;
    until_snapshot(&target, |snapshot| ports(snapshot) == [2]).await;
}
