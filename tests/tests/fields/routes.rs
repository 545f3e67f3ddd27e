//! What a route does, and where its configuration comes from.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use mesh_tests::backend::Backend;
use mesh_tests::fault::{FramePeer, Verdict};
use mesh_tests::wait::soon;
use tower::ServiceExt as _;

use crate::{ask, channel, cluster, count, locality, mesh, one, request, routed, servers, shop};

#[tokio::test]
async fn a_route_goes_to_its_cluster() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let routes = "{match: {path: /a}, route: {cluster: a}}, {match: {prefix: /}, route: {cluster: b}}";
    let mesh = mesh(&[routed(routes), one("a", &a), one("b", &b)]);
    let channel = channel(&mesh);
    assert_eq!(ask(&channel, "GET /a").await.1["server"], "a");
    assert_eq!(ask(&channel, "GET /b").await.1["server"], "b");
}

#[tokio::test]
async fn weights_share_out() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for (weights, least, most) in [((1, 1), 50, 150), ((9, 1), 160, 199), ((0, 5), 0, 0)] {
        let routes = format!(
            "{{match: {{prefix: /}}, route: {{weighted_clusters: {{clusters: [{{name: a, weight: {}}}, {{name: b, weight: {}}}]}}}}}}",
            weights.0, weights.1
        );
        let mesh = mesh(&[routed(&routes), one("a", &a), one("b", &b)]);
        let of_a = count(&servers(&channel(&mesh), 200).await, "a");
        assert!((least..=most).contains(&of_a), "{weights:?}: {of_a} of 200");
    }
}

#[tokio::test]
async fn rewrites() {
    let a = Backend::start("a");
    let routes = "{match: {prefix: /old}, route: {cluster: a, prefix_rewrite: /new}}, {match: {prefix: /}, route: {cluster: a, host_rewrite_literal: other.example}}";
    let mesh = mesh(&[routed(routes), one("a", &a)]);
    let channel = channel(&mesh);
    assert_eq!(ask(&channel, "GET /old/x").await.1["path"], "/new/x");
    let (_, body) = ask(&channel, "GET /other").await;
    assert_eq!((&body["path"], &body["headers"]["host"]), (&"/other".into(), &"other.example".into()));
}

#[tokio::test]
async fn direct_responses() {
    let long = "x".repeat(5000);
    let routes = format!(
        "{{match: {{path: /text}}, direct_response: {{status: 418, body: {{inline_string: tea}}}}}}, {{match: {{path: /bytes}}, direct_response: {{status: 200, body: {{inline_bytes: dGVh}}}}}}, {{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {long}}}}}}}"
    );
    let config = format!(
        "route_config: {{max_direct_response_body_size_bytes: 5000, virtual_hosts: [{{name: all, domains: ['*'], routes: [{routes}]}}]}}"
    );
    let mesh = mesh(&[shop(&config)]);
    let channel = channel(&mesh);
    for (path, status, body) in [("/text", 418, "tea"), ("/bytes", 200, "tea"), ("/long", 200, &*long)] {
        let response =
            soon(channel.clone().oneshot(request(&format!("GET {path}")))).await.expect("a response");
        assert_eq!(response.status(), status, "{path}");
        let found = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(found, Bytes::copy_from_slice(body.as_bytes()), "{path}");
    }
}

/// What is never answered ends by whichever limit is set: of the route, of a call that brings its own, of the listener.
#[tokio::test]
async fn time_limits() {
    let peer = FramePeer::start(|_| Verdict::Ignore);
    let http2 = ", http2_protocol_options: {}";
    let grpc = "POST /a.B/C content-type:application/grpc te:trailers";
    let hour = format!("{grpc} grpc-timeout:1H");
    let rows = [
        ("timeout: 0.1s", "", grpc),
        ("max_stream_duration: {max_stream_duration: 0.1s}", "", grpc),
        ("max_stream_duration: {grpc_timeout_header_max: 0.1s}", "", &*hour),
        ("timeout: 0s", "common_http_protocol_options: {max_stream_duration: 0.1s}, ", grpc),
    ];
    for (limit, listener, call) in rows {
        let routes = format!("{{match: {{prefix: /}}, route: {{cluster: a, {limit}}}}}");
        let config = format!(
            "{listener}route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [{routes}]}}]}}"
        );
        let mesh = mesh(&[shop(&config), cluster("a", &locality(&[peer.address()]), http2)]);
        assert_eq!(ask(&channel(&mesh), call).await.0, 504, "{listener}{limit}");
    }
}

#[tokio::test]
async fn routes_by_name() {
    let config = |name: &str, status: u16| {
        format!(
            "@envoy.config.route.v3.RouteConfiguration, name: {name}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: {status}}}}}]}}]"
        )
    };
    for source in ["ads", "self"] {
        let rds = shop(&format!("rds: {{route_config_name: second, config_source: {{{source}: {{}}}}}}"));
        let mesh = mesh(&[rds, config("first", 403), config("second", 410)]);
        assert_eq!(ask(&channel(&mesh), "GET /").await.0, 410, "{source}");
    }
}
