//! Which cluster a request goes to.

use mesh_tests::echo::{EchoClient, EchoRequest, UNARY};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_xds::server::{Cluster, HeaderMatch, Listener, Route, RouteConfig, VirtualHost};
use tonic::Code;
use tower::ServiceExt as _;

use crate::{client, main_cluster, one_cluster, routed, say, spread, until_served_by};

fn split(v1: u32, v2: u32) -> RouteConfig {
    let route = Route::prefix("/").weighted([("v1", v1), ("v2", v2)]);
    RouteConfig::new("shop").host(VirtualHost::any().route(route))
}

#[tokio::test]
async fn a_weighted_split_holds_within_three_points() {
    let fleet = Fleet::start();
    let (v1, v2) = (fleet.backend("v1"), fleet.backend("v2"));
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        split(90, 10),
        Cluster::eds("v1").endpoints(at([v1.address()])),
        Cluster::eds("v2").endpoints(at([v2.address()])),
    ));
    let (_mesh, mut client) = client(&fleet);
    let servers = spread(&mut client, 2000).await;
    let canary = servers.get("v2").copied().unwrap_or(0);
    assert!((140..=260).contains(&canary), "{canary} of 2000, wanted 200");
}

#[tokio::test]
async fn a_canary_moves_from_one_version_to_the_other_without_an_error() {
    let fleet = Fleet::start();
    let (v1, v2) = (fleet.backend("v1"), fleet.backend("v2"));
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        split(100, 0),
        Cluster::eds("v1").endpoints(at([v1.address()])),
        Cluster::eds("v2").endpoints(at([v2.address()])),
    ));
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(spread(&mut client, 50).await.get("v1"), Some(&50));
    fleet.control.set(split(50, 50));
    until_served_by(&mut client, "v2").await;
    fleet.control.set(split(0, 100));
    fleet.settled(1).await;
    // The acknowledgement is not the publication: a few calls may still see the old table, then none.
    let mut in_a_row = 0;
    mesh_tests::wait::soon(async {
        while in_a_row < 100 {
            in_a_row =
                if say(&mut client, "x").await.expect("a reply").server == "v2" { in_a_row + 1 } else { 0 };
        }
    })
    .await;
}

#[tokio::test]
async fn header_path_and_fallback_choose_the_cluster() {
    let fleet = Fleet::start();
    let (a, b, c) = (fleet.backend("a"), fleet.backend("b"), fleet.backend("c"));
    let host = VirtualHost::any()
        .route(Route::prefix("/").header(HeaderMatch::exact("x-user", "jason")).cluster("a"))
        .route(Route::path(UNARY).header(HeaderMatch::present("x-beta", true)).cluster("b"))
        .route(Route::prefix("/").cluster("c"));
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(host),
        Cluster::eds("a").endpoints(at([a.address()])),
        Cluster::eds("b").endpoints(at([b.address()])),
        Cluster::eds("c").endpoints(at([c.address()])),
    ));
    let (_mesh, mut client) = client(&fleet);
    for (header, server) in [(Some(("x-user", "jason")), "a"), (Some(("x-beta", "1")), "b"), (None, "c")] {
        let mut request = tonic::Request::new(EchoRequest::say("hello"));
        if let Some((name, value)) = header {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(client.unary(request).await.unwrap().into_inner().server, server);
    }
}

#[tokio::test]
async fn the_host_of_a_request_chooses_the_virtual_host() {
    let fleet = Fleet::start();
    let (a, b) = (fleet.backend("a"), fleet.backend("b"));
    let config = RouteConfig::new("shop")
        .host(VirtualHost::new(["shop"]).route(Route::prefix("/").cluster("a")))
        .host(VirtualHost::new(["*.example"]).route(Route::prefix("/").cluster("b")));
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        config,
        Cluster::eds("a").endpoints(at([a.address()])),
        Cluster::eds("b").endpoints(at([b.address()])),
    ));
    let (_mesh, mut client) = client(&fleet);
    assert_eq!(say(&mut client, "x").await.unwrap().server, "a", "the target is the default authority");
}

#[tokio::test]
async fn a_request_that_matches_no_route_is_unavailable_and_says_which_node_asked() {
    let fleet = Fleet::start();
    let backend = fleet.backend("a");
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(VirtualHost::any().route(Route::prefix("/only/here").cluster("main"))),
        main_cluster(at([backend.address()])),
    ));
    let (_mesh, mut client) = client(&fleet);
    let status = say(&mut client, "x").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(backend.app.stats().requests, 0);
}

#[tokio::test]
async fn a_cluster_that_leaves_and_returns_a_hundred_times_never_shows_a_stale_endpoint() {
    let fleet = Fleet::start();
    let (a, b, other) = (fleet.backend("a"), fleet.backend("b"), fleet.backend("other"));
    fleet.control.set(one_cluster(main_cluster(at([a.address()]))));
    fleet.control.set(Cluster::eds("other").endpoints(at([other.address()])));
    let (_mesh, mut client) = client(&fleet);
    until_served_by(&mut client, "a").await;
    for round in 0..100 {
        fleet.control.set(RouteConfig::to("shop", "other"));
        until_served_by(&mut client, "other").await;
        let (now, id) = if round % 2 == 0 { (&b, "b") } else { (&a, "a") };
        fleet.control.set((RouteConfig::to("shop", "main"), at([now.address()]).named("main")));
        mesh_tests::wait::soon(async {
            loop {
                let server = say(&mut client, "x").await.expect("a reply").server;
                assert!(server == "other" || server == id, "round {round}: {server} is stale");
                if server == id {
                    break;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_route_that_cannot_be_served_says_which_action_it_has() {
    let fleet = Fleet::start();
    let a = fleet.backend("a");
    let cases = [
        (Route::prefix("/").redirect_to("elsewhere"), "the route's action is not implemented: redirect"),
        (
            Route::prefix("/").non_forwarding(),
            "the route's action is not for this side: non_forwarding_action",
        ),
    ];
    for (route, text) in cases {
        fleet.control.set(routed(route, main_cluster(at([a.address()]))));
        let mesh = fleet.mesh_builder("client").detailed_local_replies(true).build().unwrap();
        let status = say(&mut EchoClient::new(shop(&mesh)), "x").await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, text));
        let request = http::Request::get("/").body(mesh_tower::Body::empty()).unwrap();
        let response = shop(&mesh).oneshot(request).await.expect("never an error");
        assert_eq!(response.status(), http::StatusCode::SERVICE_UNAVAILABLE);
        let error = response.extensions().get::<mesh_tower::Error>().expect("a reply of the mesh");
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(a.app.stats().requests, 0);
}
