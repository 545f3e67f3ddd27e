//! What is refused of a configuration while its last good value serves is seen by whoever looks: pages, gauge, readiness.
//! And what a client can do without costs it nothing.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::Any;
use mesh_tests::backend::Backend;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::soon;
use mesh_tower::{Mesh, MeshBuilder, MeshChannel};
use mesh_xds::server::{Cluster, Listener, Resource, RouteConfig, VirtualHost};
use mesh_xds::{Kind, Protocol};
use prost::Message as _;

use crate::pages::Pages;
use crate::until_ok;

impl Pages {
    /// Everything says that this is refused, and that something serves meanwhile.
    async fn say(&self, parts: &[&str]) {
        soon(async { while self.page("/refused").await.1.is_empty() {} }).await;
        let refused = self.page("/refused").await.1;
        let (status, ready) = self.page("/ready").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(ready.starts_with("ready\n"), "{ready}");
        let readiness = self.mesh.ready(Duration::ZERO).await.expect("it serves");
        let [one] = readiness.refused.as_slice() else { panic!("{readiness:?}") };
        assert!(one.is_serving, "{one:?}");
        for text in [&refused, &ready, &one.to_string()] {
            for part in parts.iter().chain(&["its last good value serves"]) {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(self.page("/metrics").await.1.contains("\nmesh_config_refused_resources 1\n"));
    }

    /// Nothing is refused any more.
    async fn fall_silent(&self) {
        soon(async { while !self.page("/refused").await.1.is_empty() {} }).await;
        assert_eq!(self.page("/ready").await, ("HTTP/1.1 200 OK".to_owned(), "ready".to_owned()));
        assert!(self.page("/metrics").await.1.contains("\nmesh_config_refused_resources 0\n"));
        assert_eq!(self.mesh.refused(), []);
    }
}

async fn who(client: &mut EchoClient<MeshChannel>) -> String {
    soon(client.unary(EchoRequest::say("x"))).await.expect("it serves").into_inner().server
}

/// Clusters `a` and `b` of a backend each, and everything to `a`.
fn two(backends: &[Backend; 2]) -> (Listener, RouteConfig, Cluster, Cluster) {
    let [a, b] = backends;
    (
        Listener::client("shop").rds("routes"),
        RouteConfig::to("routes", "a"),
        Cluster::eds("a").endpoints(at([a.address()])),
        Cluster::eds("b").endpoints(at([b.address()])),
    )
}

/// A client that is served by `a`.
async fn client_of_two(protocol: Protocol) -> (Fleet, [Backend; 2], Pages, EchoClient<MeshChannel>) {
    let fleet = Fleet::start();
    let backends = [Backend::start("a"), Backend::start("b")];
    fleet.control.set(two(&backends));
    let bootstrap = fleet.bootstrap("client").with_protocol(protocol);
    let mesh = MeshBuilder::from_bootstrap(bootstrap).and_then(MeshBuilder::build).expect("a mesh");
    let mut client = EchoClient::new(shop(&mesh));
    until_ok(&mut client).await;
    (fleet, backends, Pages::of(&mesh), client)
}

#[tokio::test]
async fn a_refused_resource_is_seen_while_its_last_good_value_serves() {
    for protocol in [Protocol::StateOfTheWorld, Protocol::Incremental] {
        let (fleet, backends, pages, mut client) = client_of_two(protocol).await;
        pages.fall_silent().await;

        // The host of everything, twice.
        fleet.control.set(RouteConfig::to("routes", "b").host(VirtualHost::any()));
        pages.say(&["route \"routes\"", "virtual_hosts[1].domains[0]: \"*\" is given twice"]).await;
        assert_eq!(who(&mut client).await, "a", "{protocol}: the last good routes");
        fleet.control.set(RouteConfig::to("routes", "b"));
        pages.fall_silent().await;
        soon(async { while who(&mut client).await != "b" {} }).await;

        fleet.control.set(Resource::decode(Kind::Cluster.type_url(), &ring_hash("b")).expect("a cluster"));
        pages.say(&["cluster \"b\"", "lb_policy"]).await;
        assert_eq!(who(&mut client).await, "b", "{protocol}");
        let good = Cluster::eds("b").endpoints(at([backends[1].address()]));
        fleet.control.set(good);
        pages.fall_silent().await;
    }
}

/// A policy that is not built.
fn ring_hash(name: &str) -> Vec<u8> {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::cluster::v3::cluster::LbPolicy;
    Cluster { name: name.to_owned(), lb_policy: LbPolicy::RingHash.into(), ..Default::default() }
        .encode_to_vec()
}

/// As istiod writes `corsPolicy`: an override of a filter that a client has none of.
fn with_cors(cluster: &str) -> Resource {
    let policy = Any {
        type_url: "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy".to_owned(),
        ..Any::default()
    };
    let everything = route::RouteMatch {
        path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    let forward = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    let one = route::Route {
        r#match: Some(everything),
        action: Some(route::route::Action::Route(forward)),
        typed_per_filter_config: [("envoy.filters.http.cors".to_owned(), policy)].into(),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![one],
        ..Default::default()
    };
    let routes = route::RouteConfiguration {
        name: "routes".to_owned(),
        virtual_hosts: vec![host],
        ..Default::default()
    };
    Resource::decode(Kind::Route.type_url(), &routes.encode_to_vec()).expect("routes")
}

#[tokio::test]
async fn a_client_follows_a_route_that_overrides_a_filter_which_it_does_not_have() {
    for protocol in [Protocol::StateOfTheWorld, Protocol::Incremental] {
        let (fleet, _backends, pages, mut client) = client_of_two(protocol).await;
        for cluster in ["b", "a", "b"] {
            fleet.control.set(with_cors(cluster));
            soon(async { while who(&mut client).await != cluster {} }).await;
        }
        let listed = pages.page("/unapplied").await.1;
        let field = "virtual_hosts[0].routes[0].typed_per_filter_config[\"envoy.filters.http.cors\"]";
        assert_eq!(listed, format!("route \"routes\": {field}\n"), "{protocol}");
        pages.fall_silent().await;
    }
}

#[tokio::test]
async fn a_file_that_is_refused_is_seen_until_it_is_mended() {
    let backend = Backend::start("a");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mesh.yaml");
    let text = |cluster: &str| {
        format!(
            r#"
static_resources:
  listeners:
  - name: shop
    api_listener:
      api_listener:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: a}}}}]}}]}}
        http_filters: [{{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
  clusters:
  - name: a
    {cluster}
    load_assignment: {{endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}
"#,
            backend.address().port()
        )
    };
    std::fs::write(&file, text("type: STATIC")).expect("written");
    let mesh = Mesh::from_static_file(&file).await.expect("a mesh");
    let pages = Pages::of(&mesh);
    let mut client = EchoClient::new(mesh.channel("xds:///shop").expect("a target"));
    assert_eq!(who(&mut client).await, "a");
    pages.fall_silent().await;
    std::fs::write(&file, text("lb_policy: RING_HASH")).expect("written");
    pages.say(&["file ", "mesh.yaml", "lb_policy"]).await;
    assert_eq!(who(&mut client).await, "a");
    std::fs::write(&file, text("lb_policy: LEAST_REQUEST")).expect("written");
    pages.fall_silent().await;
}
