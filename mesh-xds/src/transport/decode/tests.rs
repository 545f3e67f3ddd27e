//! What comes of the messages of both protocols, and what is not judged twice.

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::*;
use crate::bootstrap::{FileWatcher, ServerConfig};

fn bootstrap() -> Bootstrap {
    let watcher = FileWatcher::roots_only("ca.pem");
    Bootstrap::builder("n")
        .server(ServerConfig::insecure("xds:1").unwrap())
        .certificate_provider("known", CertificateProvider::FileWatcher(watcher))
        .certificate_provider("odd", CertificateProvider::Unknown { plugin_name: "x".to_owned() })
        .build()
        .unwrap()
}

fn assignment(name: &str) -> Any {
    let pb = ClusterLoadAssignment { cluster_name: name.to_owned(), ..ClusterLoadAssignment::default() };
    Any { type_url: Kind::Endpoints.type_url().to_owned(), value: pb.encode_to_vec() }
}

async fn decode_all(resources: Vec<Any>) -> Vec<(Option<String>, Result<(), String>)> {
    let type_url = Kind::Endpoints.type_url().to_owned();
    let response = DiscoveryResponse { type_url, resources, ..DiscoveryResponse::default() };
    let response = Decoder::new(&bootstrap()).decode(Message::StateOfTheWorld(response)).await.unwrap();
    let received = response.resources.into_iter();
    let plain = |r: Received<Accepted>| {
        (r.name.map(|n| n.to_string()), r.verdict.map(|_| ()).map_err(|reason| reason.to_string()))
    };
    received.map(plain).collect()
}

#[tokio::test]
async fn each_resource_is_judged_alone_and_unwrapped_first() {
    let wrapped = Resource { resource: Some(assignment("b")), ..Resource::default() };
    let wrapped = Any { type_url: Resource::type_url(), value: wrapped.encode_to_vec() };
    let other = Any { type_url: Kind::Cluster.type_url().to_owned(), value: Vec::new() };
    let all = decode_all(vec![assignment("a"), wrapped, other]).await;
    let [a, b, other] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((a, b), (&(Some("a".to_owned()), Ok(())), &(Some("b".to_owned()), Ok(()))));
    assert!(other.1.as_ref().is_err_and(|reason| reason.contains("is expected")), "{other:?}");
}

#[tokio::test]
async fn a_large_response_keeps_its_order() {
    let all = decode_all((0..200).map(|i| assignment(&i.to_string())).collect()).await;
    let names: Vec<_> = all.into_iter().filter_map(|(name, _)| name).collect();
    assert_eq!(names, (0..200).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_type_that_is_never_asked_for_gets_no_answer() {
    let response = DiscoveryResponse { type_url: "x/y".to_owned(), ..DiscoveryResponse::default() };
    assert!(Decoder::new(&bootstrap()).decode(Message::StateOfTheWorld(response)).await.is_none());
}

#[test]
fn only_providers_of_a_known_plugin_exist_for_resources() {
    let names = Decoder::new(&bootstrap()).rules.certificate_providers;
    assert_eq!(names.into_iter().collect::<Vec<_>>(), [Arc::from("known")]);
}
