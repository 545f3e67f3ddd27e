//! The entry of the border, and what the tests of the resources share: resources written as YAML, verdicts as text.

mod applied;
mod fields;
mod fuzz;
mod istio;
mod samples;
mod seeds;
mod walk;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::Any;
use mesh_core::config::cluster::ClusterConfig;
use mesh_core::config::endpoints::EndpointsConfig;
use mesh_core::config::listener::{HttpConfig, ListenerConfig, ServerListener};
use mesh_core::config::route::RouteConfig;
use prost::Message;

use super::*;
use crate::invalid::FieldPath;
use crate::resource_json::{EncodedResource, Format, parse};

/// Rules of a bootstrap with the certificate provider `default`.
pub(crate) fn rules() -> Rules {
    Rules { certificate_providers: BTreeSet::from([Arc::from("default")]) }
}

/// A resource from the YAML of its fields.
pub(crate) fn encoded(kind: Kind, yaml: &str) -> EncodedResource {
    let text = format!("\"@type\": {}\n{yaml}", kind.type_url());
    parse(&text, Format::Yaml).unwrap_or_else(|e| panic!("{e}\n{text}")).remove(0)
}

/// The verdict on a resource.
pub(crate) fn verdict(kind: Kind, yaml: &str) -> Result<Accepted, Invalid> {
    let EncodedResource { type_url, value, .. } = encoded(kind, yaml);
    decode(kind, &type_url, &value, &rules()).verdict
}

/// A valid resource.
pub(crate) fn accepted(kind: Kind, yaml: &str) -> Accepted {
    verdict(kind, yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

/// Why a resource is refused.
pub(crate) fn refusal(kind: Kind, yaml: &str) -> String {
    match verdict(kind, yaml) {
        Err(invalid) => invalid.to_string(),
        Ok(value) => panic!("accepted: {value:?}\n{yaml}"),
    }
}

/// The fields of a valid resource that are not applied.
pub(crate) fn unapplied(kind: Kind, yaml: &str) -> Vec<String> {
    accepted(kind, yaml).unapplied.iter().map(FieldPath::to_string).collect()
}

/// Why servers do not use a valid route configuration, if they do not.
pub(crate) fn refused_by_servers(yaml: &str) -> Option<String> {
    accepted(Kind::Route, yaml).deferred.refused_by_servers().map(ToString::to_string)
}

pub(crate) fn cluster(yaml: &str) -> Arc<ClusterConfig> {
    match accepted(Kind::Cluster, yaml).resource {
        Checked::Cluster(value) => value,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn endpoints(yaml: &str) -> Arc<EndpointsConfig> {
    match accepted(Kind::Endpoints, yaml).resource {
        Checked::Endpoints(value) => value,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn routes(yaml: &str) -> Arc<RouteConfig> {
    match accepted(Kind::Route, yaml).resource {
        Checked::Route(value) => value,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn listener(yaml: &str) -> Arc<ListenerConfig> {
    match accepted(Kind::Listener, yaml).resource {
        Checked::Listener(value) => value,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn client(yaml: &str) -> HttpConfig {
    match &*listener(yaml) {
        ListenerConfig::Client(http) => http.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn server(yaml: &str) -> ServerListener {
    match &*listener(yaml) {
        ListenerConfig::Server(server) => server.clone(),
        other => panic!("{other:?}"),
    }
}

/// Pairs of a fragment of YAML and the refusal that it leads to, within a resource.
pub(crate) fn refusals(kind: Kind, within: impl Fn(&str) -> String, table: &[(&str, &str)]) {
    for (fragment, wanted) in table {
        assert_eq!(&refusal(kind, &within(fragment)), wanted, "{fragment}");
    }
}

/// Pairs of a fragment of YAML and the one field that is then listed as not applied.
pub(crate) fn not_applied(kind: Kind, within: impl Fn(&str) -> String, table: &[(&str, &str)]) {
    for (fragment, wanted) in table {
        assert_eq!(unapplied(kind, &within(fragment)), [*wanted], "{fragment}");
    }
}

const CLUSTER: &str = "name: c\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}}\n";

fn decoded(kind: Kind, type_url: &str, value: &[u8]) -> Decoded {
    decode(kind, type_url, value, &rules())
}

fn wrapped(name: &str, inner: Option<Any>) -> Vec<u8> {
    Resource { name: name.to_owned(), resource: inner, ..Resource::default() }.encode_to_vec()
}

fn text(decoded: Decoded) -> (Option<String>, String) {
    (decoded.name.map(|n| n.to_string()), decoded.verdict.map_or_else(|e| e.to_string(), |_| "ok".to_owned()))
}

#[test]
fn a_wrapper_is_looked_into_once() {
    let EncodedResource { type_url, value, .. } = encoded(Kind::Cluster, CLUSTER);
    let inner = Any { type_url: type_url.clone(), value };
    let outer = Resource::type_url();
    let verdict = |name, inner| text(decoded(Kind::Cluster, &outer, &wrapped(name, inner)));
    assert_eq!(verdict("c", Some(inner.clone())), (Some("c".into()), "ok".into()));
    assert_eq!(verdict("", Some(inner.clone())), (Some("c".into()), "ok".into()));
    assert_eq!(verdict("c", None), (Some("c".into()), "resource: is required".into()));
    let twice = Any { type_url: outer.clone(), value: wrapped("c", Some(inner.clone())) };
    assert_eq!(verdict("c", Some(twice)), (Some("c".into()), "resource: is required".into()));
    let other = "name: differs from the name of the resource within, which means the same";
    assert_eq!(verdict("d", Some(inner)), (Some("d".into()), other.into()));
    let broken = Any { type_url, value: vec![0xff] };
    let (name, why) = verdict("c", Some(broken));
    assert!(name.as_deref() == Some("c") && why.starts_with("cannot be decoded: "), "{why}");
}

#[test]
fn what_cannot_be_read_is_refused_without_a_name() {
    let (name, why) = text(decoded(Kind::Cluster, Kind::Cluster.type_url(), &[0xff]));
    assert!(name.is_none() && why.starts_with("cannot be decoded: "), "{why}");
    let (name, why) = text(decoded(Kind::Cluster, &Resource::type_url(), &[0xff]));
    assert!(name.is_none() && why.starts_with("cannot be decoded: "), "{why}");
    let (_, why) = text(decoded(Kind::Cluster, Kind::Listener.type_url(), &[]));
    assert_eq!(
        why,
        "type \"type.googleapis.com/envoy.config.listener.v3.Listener\" where \
         \"type.googleapis.com/envoy.config.cluster.v3.Cluster\" is expected"
    );
    let (_, why) = text(decoded(Kind::Cluster, Kind::Cluster.type_url(), &vec![0; MAX_RESOURCE_BYTES + 1]));
    assert_eq!(why, "33554433 bytes are more than the limit of 33554432");
}

#[test]
fn a_resource_without_a_name_is_refused() {
    for (kind, field) in [
        (Kind::Listener, "name"),
        (Kind::Route, "name"),
        (Kind::Cluster, "name"),
        (Kind::Endpoints, "cluster_name"),
    ] {
        let (name, why) = text(decoded(kind, kind.type_url(), &[]));
        assert_eq!((name, why), (None, format!("{field}: must not be empty")));
    }
}

#[test]
fn a_refused_resource_keeps_its_name() {
    let found = encoded(Kind::Cluster, "name: c\ntype: ORIGINAL_DST\n");
    let (name, why) = text(decoded(Kind::Cluster, &found.type_url, &found.value));
    assert_eq!((name.as_deref(), why.as_str()), (Some("c"), "type: \"ORIGINAL_DST\" is not supported"));
}

#[test]
fn each_kind_names_what_it_leads_to() {
    let leads = |kind, yaml: &str| {
        let checked = accepted(kind, yaml).resource;
        assert_eq!(checked.kind(), kind);
        checked.references().into_iter().map(|(kind, name)| format!("{kind} {name}")).collect::<Vec<_>>()
    };
    assert_eq!(leads(Kind::Cluster, CLUSTER), ["endpoints c"]);
    assert_eq!(leads(Kind::Endpoints, "cluster_name: c"), [""; 0]);
    let route = "
name: r
virtual_hosts:
- name: v
  domains: [a]
  routes:
  - {match: {prefix: /a}, route: {cluster: one}}
  - {match: {prefix: /b}, route: {weighted_clusters: {clusters: [{name: two, weight: 1}, {name: one, weight: 1}]}}}
  - {match: {prefix: /c}, direct_response: {status: 200}}
  - {match: {prefix: /d}, non_forwarding_action: {}}
";
    assert_eq!(leads(Kind::Route, route), ["cluster one", "cluster two"]);
    let hcm = |routes: &str| {
        format!(
            "name: l\napi_listener: {{api_listener: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, {routes}, http_filters: [{{name: router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}"
        )
    };
    assert_eq!(
        leads(Kind::Listener, &hcm("rds: {route_config_name: r, config_source: {ads: {}}}")),
        ["route r"]
    );
    let inline = "route_config: {virtual_hosts: [{name: v, domains: [a], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}";
    assert_eq!(leads(Kind::Listener, &hcm(inline)), ["cluster c"]);
}
