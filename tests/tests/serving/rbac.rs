//! Who may call what.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use mesh_tests::echo::{EchoClient, UNARY};
use mesh_tests::fleet::shop;
use mesh_xds::server::{Permission, Policy, Principal, Rbac};
use tonic::Code;
use tower::ServiceExt as _;

use crate::{Pair, say, until_ok};

#[tokio::test]
async fn only_the_named_principal_is_allowed() {
    let mut pair = Pair::start(|fleet, listener| {
        let policy = Policy::new().principal(Principal::spiffe(fleet.ca.spiffe("productpage")));
        listener.rbac(Rbac::allow().policy("productpage", policy))
    });
    until_ok(&mut pair.client).await;
    let mesh = pair.fleet.mesh_with("other", &pair.fleet.ca.identity("ratings"));
    let mut other = EchoClient::new(shop(&mesh));
    let requests = pair.served.app.stats().requests;
    assert_eq!(say(&mut other, "x").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(pair.served.app.stats().requests, requests, "the application saw nothing");
}

#[tokio::test]
async fn deny_wins_and_other_paths_stay_open() {
    let mut pair = Pair::start(|_, listener| {
        let policy = Policy::new().principal(Principal::any()).permission(Permission::path(UNARY));
        listener.rbac(Rbac::deny().policy("no-unary", policy))
    });
    let channel = shop(&pair.mesh);
    let get = || Request::get("/open").body(Empty::<Bytes>::new()).unwrap();
    mesh_tests::wait::soon(async {
        while channel.clone().oneshot(get()).await.unwrap().status() != StatusCode::OK {}
    })
    .await;
    assert_eq!(say(&mut pair.client, "x").await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn every_route_of_the_application_is_authorized() {
    let pair = Pair::start(|_, listener| {
        let policy = Policy::new().permission(Permission::path("/open"));
        listener.rbac(Rbac::allow().policy("open", policy))
    });
    let channel = shop(&pair.mesh);
    let get = |path: &str| Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    mesh_tests::wait::soon(async {
        while channel.clone().oneshot(get("/open")).await.unwrap().status() != StatusCode::OK {}
    })
    .await;
    for path in ["/", "/open/", "/open?x", "/OPEN", "/%6fpen", "//open", "/admin"] {
        let status = channel.clone().oneshot(get(path)).await.unwrap().status();
        // RBAC sees the path without its query, byte for byte as the application does.
        let expected = if path == "/open?x" { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(status, expected, "{path}");
    }
}

#[tokio::test]
async fn a_policy_that_changes_applies_to_the_connections_that_are_open() {
    let mut pair = Pair::start(|_, listener| listener);
    until_ok(&mut pair.client).await;
    let denied = Rbac::deny().policy("all", Policy::new());
    let listener = mesh_xds::server::Listener::server(pair.served.address())
        .tls(mesh_xds::server::DownstreamTls::mutual("default"))
        .rbac(denied);
    pair.fleet.control.set(listener);
    mesh_tests::wait::soon(async {
        while say(&mut pair.client, "x").await.err().map(|status| status.code())
            != Some(Code::PermissionDenied)
        {}
    })
    .await;
    for _ in 0..20 {
        assert_eq!(say(&mut pair.client, "x").await.unwrap_err().code(), Code::PermissionDenied);
    }
}
