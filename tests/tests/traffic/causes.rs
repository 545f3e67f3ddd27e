//! Why a call failed, as code sees it: the cause is among the sources of the error, the status is the right one, whatever
//! the application does with the error.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt as _;
use mesh_core::snapshot::ConfigError;
use mesh_tests::backend::Backend;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fault::{BadPeer, Manner};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::transport::ConnectError;
use mesh_tower::{Body, Error, Mesh};
use mesh_xds::server::{Cluster, Listener, UpstreamTls};
use rustls::AlertDescription;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use crate::one_cluster;

type Source = dyn std::error::Error + 'static;

/// The first of its sources, itself included, that is of this type.
fn find<'e, T: std::error::Error + 'static>(error: &'e Source) -> Option<&'e T> {
    let mut next: Option<&'e Source> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn io_kind(error: &Source) -> Option<io::ErrorKind> {
    find::<io::Error>(error).map(io::Error::kind)
}

/// Both HTTP versions to one cluster.
fn protocols() -> [fn(Cluster) -> Cluster; 2] {
    [Cluster::http1, Cluster::http2]
}

/// The error of an HTTP call that fails, once the configuration is there.
async fn http_error(mesh: &Mesh) -> Error {
    let request = Request::get("/").body(Body::empty()).expect("a request");
    soon(shop(mesh).strict().oneshot(request)).await.expect_err("nobody answers")
}

/// The status of a gRPC call over a strict channel.
async fn status(mesh: &Mesh) -> Status {
    let mut client = EchoClient::new(shop(mesh).strict());
    soon(client.unary(EchoRequest::say("x"))).await.expect_err("nobody answers")
}

#[tokio::test]
async fn a_connection_that_fails_tells_how_the_system_failed_it() {
    for (manner, kinds) in [
        (Manner::Refuse, &[io::ErrorKind::ConnectionRefused][..]),
        (
            Manner::Reset,
            &[io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof],
        ),
    ] {
        let peer = BadPeer::start(manner);
        for protocol in protocols() {
            let fleet = Fleet::start();
            fleet.control.set(one_cluster(protocol(Cluster::eds("main").endpoints(at([peer.address()])))));
            let mesh = fleet.mesh("client");
            let error = http_error(&mesh).await;
            let kind =
                io_kind(&error).unwrap_or_else(|| panic!("{manner:?}: no io::Error behind {error:#?}"));
            assert!(kinds.contains(&kind), "{manner:?}: {kind:?} of {error}");
            assert!(
                format!("{error:?}").starts_with("no connection") || manner == Manner::Reset,
                "{error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_that_takes_too_long_is_one_that_timed_out() {
    let peer = BadPeer::start(Manner::Silence);
    let fleet = Fleet::start();
    let cluster = Cluster::eds("main").http2().connect_timeout(Duration::from_millis(50));
    fleet.control.set(one_cluster(cluster.endpoints(at([peer.address()]))));
    let error = http_error(&fleet.mesh("client")).await;
    assert_eq!(io_kind(&error), Some(io::ErrorKind::TimedOut), "{error:#?}");
    assert!(find::<ConnectError>(&error).is_some());
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_heard_by_its_alert() {
    for protocol in protocols() {
        let fleet = Fleet::start();
        let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
        let backend = fleet.tls_backend("mutual", &server, true);
        // Its roots are known, a certificate of ours is not configured.
        let cluster =
            protocol(Cluster::eds("main").tls(UpstreamTls::server_only("default").san(server.spiffe())));
        fleet.control.set(one_cluster(cluster.endpoints(at([backend.address()]))));
        let error = http_error(&fleet.mesh_with("client", &caller)).await;
        let alert = find::<rustls::Error>(&error).unwrap_or_else(|| panic!("no alert behind {error:#?}"));
        assert_eq!(*alert, rustls::Error::AlertReceived(AlertDescription::CertificateRequired), "{error}");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_we_refuse_is_told_by_what_is_wrong_with_it() {
    for protocol in protocols() {
        let fleet = Fleet::start();
        let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("productpage"));
        let stranger = mesh_tests::ca::Ca::new("elsewhere").identity("reviews");
        let backend = Backend::start_tls("elsewhere", stranger.ca().server_config(&stranger, false));
        let cluster = protocol(Cluster::eds("main").tls(UpstreamTls::mutual("default").san(server.spiffe())));
        fleet.control.set(one_cluster(cluster.endpoints(at([backend.address()]))));
        let error = http_error(&fleet.mesh_with("client", &caller)).await;
        let refusal = find::<rustls::Error>(&error).unwrap_or_else(|| panic!("no TLS behind {error:#?}"));
        assert!(matches!(refusal, rustls::Error::InvalidCertificate(_)), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_strict_channel_gives_tonic_the_status_and_the_cause() {
    let fleet = Fleet::start();
    let (mesh, nowhere) = (fleet.mesh("client"), Port::reserve());
    fleet.control.set(one_cluster(Cluster::eds("main").endpoints(at([nowhere.address()]))));
    let refused = status(&mesh).await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(io_kind(&refused), Some(io::ErrorKind::ConnectionRefused), "{refused:?}");
    let error = find::<Error>(&refused).expect("the error of the mesh");
    assert!(error.to_string().contains(&nowhere.address().to_string()), "{error}");

    let silent = BadPeer::start(Manner::Silence);
    fleet.control.set(Cluster::eds("main").endpoints(at([silent.address()])));
    let mut client = EchoClient::new(shop(&mesh).strict());
    let code = soon(async {
        loop {
            let mut request = tonic::Request::new(EchoRequest::say("x"));
            request.set_timeout(Duration::from_millis(50));
            match client.unary(request).await.expect_err("nobody answers").code() {
                // The endpoints of before.
                Code::Unavailable => tokio::task::yield_now().await,
                code => return code,
            }
        }
    });
    assert_eq!(code.await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_target_without_configuration_tells_which_resource_is_missing() {
    let fleet = Fleet::start_without_control_plane();
    let mesh = fleet.mesh("client");
    let refused = status(&mesh).await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(find::<ConfigError>(&refused).map(|error| &*error.name), Some("shop"), "{refused:?}");
    assert_eq!(find::<ConfigError>(&http_error(&mesh).await).map(|error| error.kind), Some("listener"));
}

#[tokio::test]
async fn a_mesh_that_cannot_be_built_tells_which_file_is_missing() {
    for error in [
        Mesh::from_bootstrap_file("/nowhere/bootstrap.json").await.unwrap_err(),
        Mesh::from_static_file("/nowhere/mesh.yaml").await.unwrap_err(),
    ] {
        assert_eq!(io_kind(&error), Some(io::ErrorKind::NotFound), "{error:#?}");
        // What a `main` that returns it prints.
        assert!(format!("{error:?}").contains("/nowhere/"), "{error:?}");
    }
    let error = Mesh::from_bootstrap_json("{").await.unwrap_err();
    assert!(error.source().is_some() && format!("{error:?}").contains("JSON"), "{error:?}");
}

#[tokio::test]
async fn a_handler_may_return_the_error_of_its_call() {
    let fleet = Fleet::start();
    let (mesh, nowhere, port) = (fleet.mesh("client"), Port::reserve(), Port::reserve());
    fleet.control.set(one_cluster(Cluster::eds("main").endpoints(at([nowhere.address()]))));
    fleet.control.set(Listener::server(port.address()));
    fleet.control.set(front(port.address()));
    let strict = shop(&mesh).strict();
    let app = Router::new()
        .route(
            "/call",
            get(move || async move { strict.oneshot(Request::get("/").body(Body::empty())?).await }),
        )
        .route(
            "/built",
            get(|| async { Ok::<_, Error>(Request::get("no uri").body(())?.method().to_string()) }),
        );
    let (serving, tcp) = (fleet.mesh("server"), port.listen());
    let _server = beside(async move { serving.serve(tcp, app).await });
    for (path, status, text) in
        [("/call", 503, "UF: no connection to the upstream"), ("/built", 500, "a request could not be built")]
    {
        let response = soon(async {
            loop {
                let request = Request::get(path).body(Body::empty()).unwrap();
                let response = mesh.channel("xds:///front").unwrap().oneshot(request).await.unwrap();
                // Until the front is there, the answer is the caller's own mesh's.
                if response.extensions().get::<Error>().is_none() {
                    return response;
                }
            }
        })
        .await;
        assert_eq!(response.status(), status, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), text, "{path}");
    }
}

/// A target of this name, at an address.
fn front(address: std::net::SocketAddr) -> Vec<mesh_xds::server::Resource> {
    use mesh_xds::server::{Resources as _, RouteConfig};
    let cluster = Cluster::eds("front").endpoints(at([address]));
    (Listener::client("front").rds("front"), RouteConfig::to("front", "front"), cluster).into_resources()
}
