//! Resources of several authorities on real sockets (gRFC A47).

use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at};
use mesh_tests::wait::soon;
use mesh_tower::MeshBuilder;
use mesh_xds::bootstrap::Bootstrap;
use mesh_xds::server::{Cluster, Listener, Resources as _, Route, RouteConfig, VirtualHost};
use serde_json::json;

const LISTENER: &str = "xdstp://one/envoy.config.listener.v3.Listener/shop?a=1&b=2";
const ROUTES: &str = "xdstp://one/envoy.config.route.v3.RouteConfiguration/shop";
const ENDPOINTS: &str = "xdstp://two/envoy.config.endpoint.v3.ClusterLoadAssignment/shop";

fn cluster(authority: &str) -> String {
    format!("xdstp://{authority}/envoy.config.cluster.v3.Cluster/shop?region=eu&zone=1")
}

fn bootstrap(one: &Fleet, two: &Fleet, top: &Fleet) -> Bootstrap {
    let servers = |fleet: &Fleet| json!([{"server_uri": fleet.control_address().to_string(), "channel_creds": [{"type": "insecure"}]}]);
    let document = json!({
        "xds_servers": servers(top),
        "node": {"id": "node-7"},
        "authorities": {
            "one": {
                "xds_servers": servers(one),
                // not in the order of the keys
                "client_listener_resource_name_template":
                    "xdstp://one/envoy.config.listener.v3.Listener/%s?b=2&a=1",
            },
            "two": {"xds_servers": servers(two)},
        },
    });
    document.to_string().parse().unwrap()
}

#[tokio::test]
async fn a_target_that_spans_two_authorities_is_served_and_the_top_level_is_not_needed() {
    let (one, two, down) = (Fleet::start(), Fleet::start(), Fleet::start_without_control_plane());
    let backend = two.backend("a");
    // The route spells the name of the cluster otherwise than its authority does.
    let spelled = "xdstp://two/envoy.config.cluster.v3.Cluster/%73hop?zone=1&region=eu";
    let known = Route::prefix("/").cluster(spelled);
    let unknown = Route::path("/unknown").cluster(cluster("nobody"));
    one.control.set((
        Listener::client(LISTENER).rds(ROUTES),
        RouteConfig::new(ROUTES).host(VirtualHost::any().route(unknown).route(known)),
    ));
    let endpoints = at([backend.address()]);
    two.control
        .set(Cluster::eds(cluster("two")).service_name(ENDPOINTS).endpoints(endpoints).into_resources());
    let mesh =
        MeshBuilder::from_bootstrap(bootstrap(&one, &two, &down)).and_then(MeshBuilder::build).unwrap();
    let mut client = EchoClient::new(mesh.channel("xds://one/shop").unwrap());
    for _ in 0..10 {
        let reply = soon(client.unary(EchoRequest::say("x"))).await.unwrap().into_inner();
        assert_eq!(reply.server, "a");
    }
    one.settled(1).await;
    two.settled(1).await;
}

#[tokio::test]
async fn a_name_that_is_no_host_is_escaped_where_its_template_is_of_the_new_style() {
    let fleet = Fleet::start();
    let backend = fleet.backend("a");
    let escaped = "shop%20one%7Cl%C3%A4den%3Fx";
    let name = format!("xdstp://one/envoy.config.listener.v3.Listener/{escaped}?a=1&b=2");
    // Matched as gRPC escapes it.
    let own = VirtualHost::new([escaped]).route(Route::prefix("/").cluster(cluster("one")));
    let endpoints = at([backend.address()]);
    fleet.control.set((
        Listener::client(name).routes(RouteConfig::new("r").host(own)),
        Cluster::eds(cluster("one"))
            .service_name(ENDPOINTS.replace("two", "one"))
            .endpoints(endpoints)
            .into_resources(),
    ));
    let mesh =
        MeshBuilder::from_bootstrap(bootstrap(&fleet, &fleet, &fleet)).and_then(MeshBuilder::build).unwrap();
    for target in ["xds://one/shop one|läden?x", "xds://one/shop%20one%7Cl%C3%A4den%3Fx"] {
        let mut client = EchoClient::new(mesh.channel(target).unwrap());
        let reply = soon(client.unary(EchoRequest::say("x"))).await.unwrap().into_inner();
        assert_eq!(reply.server, "a", "{target}");
    }
}

#[tokio::test]
async fn an_authority_that_nobody_knows_is_named_in_the_error_of_the_call() {
    let top = Fleet::start();
    let mesh = MeshBuilder::from_bootstrap(bootstrap(&top, &top, &top))
        .unwrap()
        .detailed_local_replies(true)
        .build()
        .unwrap();
    let mut client = EchoClient::new(mesh.channel("xds://nobody/shop").unwrap());
    let status = soon(client.unary(EchoRequest::say("x"))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("nobody") && status.message().contains("authorities"), "{status:?}");
}
