//! What the mesh says in the place of an application: flags and a few words to whoever asks, the rest to those who run it.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::{Body, Error, Mesh, MeshChannel};
use mesh_xds::server::{Cluster, Listener, Resource, Route, RouteConfig, UpstreamTls, VirtualHost};
use tower::ServiceExt as _;

use crate::{one_cluster, routed};

const GRPC: &str = "application/grpc";

async fn ask(channel: &MeshChannel, kind: &str) -> Response<Body> {
    let request =
        Request::post("/a/b").header(CONTENT_TYPE, kind).body(Full::<Bytes>::default()).expect("a request");
    soon(channel.clone().oneshot(request)).await.expect("the mesh answers")
}

/// The text of an answer, in the body or in `grpc-message`.
async fn text(response: Response<Body>) -> String {
    let (head, body) = response.into_parts();
    let message = head.headers.get("grpc-message").map(|message| message.to_str().expect("ASCII").to_owned());
    let body = body.collect().await.expect("a body").to_bytes();
    message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned())
}

/// What a client can meet, and a word of its detail that is nobody else's business.
fn of_clients(nowhere: &Port) -> Vec<(&'static str, Vec<Resource>, String)> {
    let main = || Cluster::eds("secret-cluster");
    let to_main = Route::prefix("/").cluster("secret-cluster");
    let endpoints = at([nowhere.address()]);
    vec![
        (
            "UF: no connection",
            routed(to_main.clone(), main().endpoints(endpoints)),
            nowhere.address().to_string(),
        ),
        ("UH: no healthy", routed(to_main.clone(), main().endpoints(at([]))), "secret-cluster".to_owned()),
        (
            "NC: no such cluster",
            // There is no such provider in the bootstrap of a mesh without identity.
            routed(
                to_main.clone(),
                main().tls(UpstreamTls::mutual("default")).endpoints(at([nowhere.address()])),
            ),
            "secret-cluster".to_owned(),
        ),
        (
            "NR: no route",
            routed(Route::path("/else").cluster("main"), Cluster::eds("main").endpoints(at([]))),
            "/a/b".to_owned(),
        ),
        (
            "UO: circuit",
            routed(to_main, main().max_requests(0).endpoints(at([nowhere.address()]))),
            "secret".to_owned(),
        ),
    ]
}

#[tokio::test]
async fn a_client_is_told_what_and_only_its_own_code_learns_with_whom() {
    let nowhere = Port::reserve();
    for (words, resources, secret) in of_clients(&nowhere) {
        for kind in ["text/plain", GRPC] {
            for detailed in [false, true] {
                let fleet = Fleet::start();
                fleet.control.set(resources.clone());
                let mesh = fleet.mesh_builder("client").detailed_local_replies(detailed).build().unwrap();
                let response = ask(&shop(&mesh), kind).await;
                let error = response.extensions().get::<Error>().cloned().expect("the error of the mesh");
                let text = text(response).await;
                if detailed {
                    assert!(text.contains(&secret), "{kind}: {text}");
                } else {
                    assert!(text.starts_with(words) && !text.contains(&secret), "{kind}: {text}");
                }
                assert!(error.to_string().contains(&secret), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_configuration_names_neither_node_nor_control_plane() {
    let fleet = Fleet::start_without_control_plane();
    let mesh = fleet.mesh("node-of-ours");
    for kind in ["text/plain", GRPC] {
        let response = ask(&shop(&mesh), kind).await;
        let error = response.extensions().get::<Error>().cloned().expect("the error of the mesh");
        assert_eq!(text(response).await, "NR: no configuration", "{kind}");
        assert!(error.to_string().contains("node-of-ours"), "{error}");
    }
}

/// The mesh of a server of `resources` at its address, whom a mesh of its own asks.
async fn served(
    fleet: &Fleet,
    serving: Mesh,
    listener: impl FnOnce(Listener) -> Listener,
    kind: &str,
) -> String {
    let port = Port::reserve();
    let tcp = port.listen();
    let app = axum::Router::new();
    let _server = beside(async move { serving.serve(tcp, app).await });
    fleet.control.set(listener(Listener::server(port.address())));
    fleet.control.set(one_cluster(Cluster::eds("main").http2().endpoints(at([port.address()]))));
    let mesh = fleet.mesh("client");
    soon(async {
        loop {
            let response = ask(&shop(&mesh), kind).await;
            // What the client's own mesh says is not meant here.
            if response.extensions().get::<Error>().is_none() {
                return text(response).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_tells_strangers_neither_its_routes_nor_its_resources() {
    type Case = (&'static str, fn(Listener) -> Listener, &'static str);
    let cases: [Case; 2] = [
        (
            "NR: no route",
            |listener| {
                let host = VirtualHost::new(["internal.example"]).route(Route::prefix("/").non_forwarding());
                listener.routes(RouteConfig::new("inbound").host(host))
            },
            "internal.example",
        ),
        (
            "NR: the route's action",
            |listener| {
                let route = Route::prefix("/").cluster("secret-cluster");
                listener.routes(RouteConfig::new("inbound").host(VirtualHost::any().route(route)))
            },
            "secret-cluster",
        ),
    ];
    for (words, listener, secret) in cases {
        for kind in ["text/plain", GRPC] {
            let fleet = Fleet::start();
            let said = served(&fleet, fleet.mesh("server"), listener, kind).await;
            assert!(said.starts_with(words) && !said.contains(secret), "{kind}: {said}");
            let serving = fleet.mesh_builder("server").detailed_local_replies(true).build().unwrap();
            let said = served(&fleet, serving, listener, kind).await;
            assert!(!said.starts_with(words), "{kind}: {said}");
        }
    }
}
