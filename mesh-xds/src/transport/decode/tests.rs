//! What comes of the messages of both protocols, and what is not judged twice.

use envoy_types::pb::envoy::config::core::v3::Locality;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::google::protobuf::UInt32Value;

use mesh_core::config::endpoints::EndpointsConfig;

use super::*;
use crate::bootstrap::{FileWatcher, ServerConfig};
use crate::resource::Checked;

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

fn named(name: &str, version: &str, resource: Option<Any>) -> Resource {
    let (name, version) = (name.to_owned(), version.to_owned());
    Resource { name, version, resource, ..Resource::default() }
}

fn ttl(seconds: i64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds, nanos: 0 })
}

async fn changes(decoder: &mut Decoder, resources: Vec<Resource>) -> Response<Accepted> {
    let type_url = Kind::Endpoints.type_url().to_owned();
    let response = DeltaDiscoveryResponse {
        system_version_info: "9".to_owned(),
        nonce: "n".to_owned(),
        type_url,
        resources,
        removed_resources: vec!["gone".to_owned()],
        ..DeltaDiscoveryResponse::default()
    };
    decoder.decode(Message::Incremental(response)).await.unwrap()
}

/// Name, version, time to live in seconds, verdict.
type Row<'a> = (&'a str, &'a str, Option<u64>, Result<(), &'a str>);

#[tokio::test]
async fn an_incremental_response_has_versions_removals_and_heartbeats() {
    let mut decoder = Decoder::new(&bootstrap());
    let resources = vec![
        Resource { ttl: ttl(3), ..named("a", "a1", Some(assignment("a"))) },
        Resource { ttl: ttl(7), ..named("b", "b1", None) },
        named("c", "c1", None),
        named("d", "d1", Some(assignment("other"))),
        Resource { ttl: ttl(-1), ..named("e", "e1", Some(assignment("e"))) },
        named("", "f1", Some(assignment("f"))),
    ];
    let response = changes(&mut decoder, resources).await;
    assert_eq!((&*response.version, &*response.nonce), ("9", "n"));
    assert_eq!(response.removed, [Name::from("gone")]);
    assert_eq!(response.heartbeats, [Heartbeat { name: "b".into(), ttl: Duration::from_secs(7) }]);
    let received: Vec<Row<'_>> = response
        .resources
        .iter()
        .map(|one| {
            let verdict = one.verdict.as_ref().map(|_| ()).map_err(|reason| &**reason);
            let ttl = one.ttl.map(|ttl| ttl.as_secs());
            (one.name.as_deref().unwrap(), one.version.as_deref().unwrap(), ttl, verdict)
        })
        .collect();
    let contradiction = received[2].3;
    assert!(contradiction.is_err_and(|reason| reason.starts_with("name: ")), "{received:?}");
    assert_eq!(
        received,
        [
            ("a", "a1", Some(3), Ok(())),
            ("c", "c1", None, Err("resource: is required")),
            ("d", "d1", None, contradiction),
            ("e", "e1", None, Err("ttl: is no length of time")),
            ("f", "f1", None, Ok(())),
        ]
    );
}

#[tokio::test]
async fn errors_of_resources_are_read_in_both_protocols() {
    let error = |name: &str, code: Code| discovery::ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned(), ..ResourceName::default() }),
        error_detail: Some(Status {
            code: code.into(),
            message: "no such thing".to_owned(),
            details: Vec::new(),
        }),
    };
    let resource_errors = vec![
        error("a", Code::NotFound),
        error("b", Code::PermissionDenied),
        error("c", Code::Unavailable),
        discovery::ResourceError::default(),
    ];
    let type_url = Kind::Cluster.type_url().to_owned();
    let (errors, url) = (resource_errors.clone(), type_url.clone());
    let all = DiscoveryResponse { type_url: url, resource_errors: errors, ..DiscoveryResponse::default() };
    let changes = DeltaDiscoveryResponse { type_url, resource_errors, ..DeltaDiscoveryResponse::default() };
    let mut decoder = Decoder::new(&bootstrap());
    for message in [Message::StateOfTheWorld(all), Message::Incremental(changes)] {
        let response = decoder.decode(message).await.unwrap();
        let seen: Vec<_> =
            response.errors.iter().map(|error| (&*error.name, error.is_data_error, &*error.reason)).collect();
        assert_eq!(
            seen,
            [
                ("a", true, "NotFound: no such thing"),
                ("b", true, "PermissionDenied: no such thing"),
                ("c", false, "Unavailable: no such thing"),
            ]
        );
    }
}

#[tokio::test]
async fn a_wrapper_of_state_of_the_world_may_be_a_heartbeat() {
    let wrapper = Resource { ttl: ttl(7), ..named("b", "b1", None) };
    let resources = vec![Any { type_url: Resource::type_url(), value: wrapper.encode_to_vec() }];
    let type_url = Kind::Endpoints.type_url().to_owned();
    let response = DiscoveryResponse { type_url, resources, ..DiscoveryResponse::default() };
    let mut decoder = Decoder::new(&bootstrap());
    let response = decoder.decode(Message::StateOfTheWorld(response)).await.unwrap();
    assert_eq!(response.heartbeats, [Heartbeat { name: "b".into(), ttl: Duration::from_secs(7) }]);
    assert_eq!(response.resources.len(), 0);
}

/// The value itself: what was not judged again is the same allocation.
fn value(response: &Response<Accepted>) -> &Arc<EndpointsConfig> {
    match &response.resources[0].verdict {
        Ok(Accepted { resource: Checked::Endpoints(endpoints), .. }) => endpoints,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_same_bytes_are_not_judged_again_whatever_their_version() {
    let mut decoder = Decoder::new(&bootstrap());
    let first = changes(&mut decoder, vec![named("a", "1", Some(assignment("a")))]).await;
    let again = changes(&mut decoder, vec![named("a", "2", Some(assignment("a")))]).await;
    assert!(Arc::ptr_eq(value(&first), value(&again)));
    assert_eq!(again.resources[0].version.as_deref(), Some("2"));
    let other = Any { value: [assignment("a").value, vec![0x22, 0]].concat(), ..assignment("a") };
    let changed = changes(&mut decoder, vec![named("a", "3", Some(other))]).await;
    assert!(!Arc::ptr_eq(value(&first), value(&changed)));
    let back = changes(&mut decoder, vec![named("a", "4", Some(assignment("a")))]).await;
    assert!(!Arc::ptr_eq(value(&first), value(&back)), "the last verdict alone is kept");
}

#[tokio::test]
async fn the_same_bytes_in_a_wrapper_of_another_name_are_judged_again() {
    let mut decoder = Decoder::new(&bootstrap());
    let first = changes(&mut decoder, vec![named("a", "1", Some(assignment("a")))]).await;
    assert!(first.resources[0].verdict.is_ok());
    let other = changes(&mut decoder, vec![named("b", "1", Some(assignment("a")))]).await;
    assert!(other.resources[0].verdict.is_err());
}

#[tokio::test]
async fn a_refusal_is_recognised_as_well() {
    let mut decoder = Decoder::new(&bootstrap());
    let bad = || vec![named("b", "1", Some(assignment("a")))];
    let first = changes(&mut decoder, bad()).await.resources.remove(0).verdict.unwrap_err();
    let again = changes(&mut decoder, bad()).await.resources.remove(0).verdict.unwrap_err();
    assert!(Arc::ptr_eq(&first, &again));
}

#[tokio::test]
async fn what_is_not_watched_is_not_kept() {
    let mut decoder = Decoder::new(&bootstrap());
    let all = || (0..100).map(|i| named("", "1", Some(assignment(&i.to_string())))).collect();
    let first = changes(&mut decoder, all()).await;
    assert_eq!(decoder.verdicts.len(Kind::Endpoints), 100);
    decoder.shrink(Kind::Endpoints, 100, |_| panic!("there is room"));
    decoder.shrink(Kind::Endpoints, 1, |name| name == "0");
    assert_eq!(decoder.verdicts.len(Kind::Endpoints), 1);
    let again = changes(&mut decoder, all()).await;
    assert!(Arc::ptr_eq(value(&first), value(&again)));
}

/// A control plane must not be able to have one resource taken for another.
#[test]
fn the_keys_of_digests_differ_from_source_to_source() {
    let digest = |verdicts: &Verdicts| verdicts.digest(None, &assignment("a"));
    let (one, other) = (Verdicts::default(), Verdicts::default());
    assert_eq!(digest(&one), digest(&one));
    assert_ne!(digest(&one), digest(&other));
}

fn in_a_locality(name: &str) -> Any {
    let locality = Locality { region: "r".to_owned(), zone: "z".to_owned(), sub_zone: "s".to_owned() };
    let locality = LocalityLbEndpoints {
        locality: Some(locality),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        ..LocalityLbEndpoints::default()
    };
    let pb = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    };
    Any { type_url: Kind::Endpoints.type_url().to_owned(), value: pb.encode_to_vec() }
}

#[tokio::test]
async fn a_locality_and_a_name_are_held_once_and_forgotten_with_the_last_that_has_them() {
    let mut decoder = Decoder::new(&bootstrap());
    let all = ["a", "b"].map(|name| named(name, "1", Some(in_a_locality(name))));
    let response = changes(&mut decoder, all.into()).await;
    let endpoints = |received: &Received<Accepted>| match &received.verdict.as_ref().unwrap().resource {
        Checked::Endpoints(endpoints) => endpoints.clone(),
        other => panic!("{other:?}"),
    };
    let [a, b] = response.resources.as_slice() else { panic!("{response:?}") };
    assert!(Arc::ptr_eq(a.name.as_ref().unwrap(), &endpoints(a).name));
    let id = |received| endpoints(received).priorities[0].localities[0].id.clone();
    assert!(Arc::ptr_eq(&id(a), &id(b)));
    drop(response);
    decoder.shrink(Kind::Endpoints, 1, |name| name == "a");
    assert_eq!(decoder.localities.len(), 1);
    decoder.shrink(Kind::Endpoints, 0, |_| false);
    assert_eq!(decoder.localities.len(), 0);
}
