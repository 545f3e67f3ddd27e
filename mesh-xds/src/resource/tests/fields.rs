//! Every field of every message that matters is decided: setting it changes the value, refuses the resource, lists the
//! field as not applied, or is on the list of [`super::super::ignored`].
//!
//! The compiler asks for a decision on each field (destructuring without `..`); this asks whether the decision is real.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, ReflectMessage, Value};

use super::seeds::seeds;
use super::*;
use crate::resource::ignored::IGNORED;
use crate::resource_json::pool;

/// Fields that have a meaning, which the sample or the rest of the probe hides; each has a test of its own.
const HIDDEN: &[(&str, &[&str])] = &[
    (
        "envoy.config.cluster.v3.Cluster",
        &[
            "common_http_protocol_options", // what is in it is listed
            "http2_protocol_options",       // the probe has the message that replaces it
            "least_request_lb_config",      // of another policy
            "load_assignment",              // of another type
            "metadata",                     // by its content
            "round_robin_lb_config",
            "upstream_http_protocol_options",
        ],
    ),
    ("envoy.config.cluster.v3.Cluster.CommonLbConfig", &["locality_weighted_lb_config"]), // on by default there
    ("envoy.config.core.v3.ConfigSource", &["self"]),                                     // as `ads`
    ("envoy.config.endpoint.v3.LbEndpoint", &["metadata"]),                               // by its content
    ("envoy.config.listener.v3.Filter", &["name"]), // must be there, and once
    ("envoy.config.listener.v3.Listener", &["address", "name"]), // of servers; the key of the store
    ("envoy.config.route.v3.RetryPolicy", &["retry_on"]), // the sample is no condition
    ("envoy.config.route.v3.RouteConfiguration", &["max_direct_response_body_size_bytes"]),
    ("envoy.config.route.v3.RouteMatch", &["case_sensitive"]), // the sample is the default
    ("envoy.config.route.v3.VirtualHost", &["retry_policy"]),  // the probe's route has its own
    ("envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter", &["is_optional"]),
    ("envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext", &["system_root_certs"]),
];

/// A valid resource, and the paths to the messages in it whose fields are set one by one.
struct Probe {
    kind: Kind,
    yaml: String,
    paths: &'static [&'static str],
}

/// The paths of each seed, in their order.
const PATHS: [&[&str]; 5] = [
    &[
        "",
        "api_listener",
        "api_listener.api_listener",
        "api_listener.api_listener.rds",
        "api_listener.api_listener.rds.config_source",
        "api_listener.api_listener.common_http_protocol_options",
        "api_listener.api_listener.http2_protocol_options",
        "api_listener.api_listener.http_filters",
        "api_listener.api_listener.http_filters.typed_config",
    ],
    &[
        "",
        "address",
        "address.socket_address",
        "filter_chains",
        "filter_chains.filter_chain_match",
        "filter_chains.transport_socket",
        "filter_chains.transport_socket.typed_config",
        "filter_chains.transport_socket.typed_config.common_tls_context",
        "filter_chains.transport_socket.typed_config.common_tls_context.tls_certificate_provider_instance",
        "filter_chains.transport_socket.typed_config.common_tls_context.combined_validation_context",
        "filter_chains.transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context",
        "filter_chains.filters#1",
        "filter_chains.filters#1.typed_config",
        "filter_chains.filters#1.typed_config.common_http_protocol_options",
        "filter_chains.filters#1.typed_config.http_filters",
        "filter_chains.filters#1.typed_config.http_filters.typed_config",
        "filter_chains.filters.typed_config",
        "filter_chains.filters.typed_config.rules",
        "filter_chains.filters.typed_config.rules.audit_logging_options",
        "filter_chains.filters.typed_config.rules.policies",
        "filter_chains.filters.typed_config.rules.policies.permissions",
        "filter_chains.filters.typed_config.rules.policies.principals",
        "filter_chains.filters.typed_config.rules.policies.principals.authenticated",
        "filter_chains.filters.typed_config.rules.policies.principals.authenticated.principal_name",
    ],
    &[
        "",
        "eds_cluster_config",
        "eds_cluster_config.eds_config",
        "common_lb_config",
        "transport_socket",
        "transport_socket.typed_config",
        "transport_socket.typed_config.common_tls_context",
        "transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context",
        "circuit_breakers",
        "circuit_breakers.thresholds",
        "circuit_breakers.thresholds.retry_budget",
        "circuit_breakers.per_host_thresholds",
        "typed_extension_protocol_options",
        "typed_extension_protocol_options.common_http_protocol_options",
        "typed_extension_protocol_options.upstream_http_protocol_options",
        "typed_extension_protocol_options.explicit_http_config",
        "typed_extension_protocol_options.explicit_http_config.http2_protocol_options",
        "typed_extension_protocol_options.explicit_http_config.http2_protocol_options.connection_keepalive",
    ],
    &[
        "",
        "virtual_hosts",
        "virtual_hosts.routes",
        "virtual_hosts.routes.match",
        "virtual_hosts.routes.match.headers",
        "virtual_hosts.routes.match.query_parameters",
        "virtual_hosts.routes.match.query_parameters.string_match",
        "virtual_hosts.routes.match.runtime_fraction",
        "virtual_hosts.routes.match.runtime_fraction.default_value",
        "virtual_hosts.routes.route",
        "virtual_hosts.routes.route.max_stream_duration",
        "virtual_hosts.routes.route.weighted_clusters",
        "virtual_hosts.routes.route.weighted_clusters.clusters",
        "virtual_hosts.routes.route.retry_policy",
        "virtual_hosts.routes.route.retry_policy.retry_back_off",
        "virtual_hosts.routes#1.direct_response",
        "virtual_hosts.routes#1.direct_response.body",
    ],
    &[
        "",
        "policy",
        "policy.drop_overloads",
        "policy.drop_overloads.drop_percentage",
        "endpoints",
        "endpoints.locality",
        "endpoints.lb_endpoints",
        "endpoints.lb_endpoints.endpoint",
        "endpoints.lb_endpoints.endpoint.address.socket_address",
    ],
];

fn probes() -> impl Iterator<Item = Probe> {
    seeds().into_iter().zip(PATHS).map(|((kind, yaml), paths)| Probe { kind, yaml, paths })
}

#[test]
fn every_field_is_decided() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for probe in probes() {
        let base = accepted(probe.kind, &probe.yaml);
        for path in probe.paths {
            let (message, ignored) = ignored_fields(&probe, path, &base);
            found.entry(message).or_default().extend(ignored);
        }
    }
    for (message, fields) in HIDDEN {
        let ignored = found.get_mut(*message).expect("a message that is probed");
        for field in *fields {
            assert!(ignored.remove(*field), "{message}.{field} is not hidden");
        }
    }
    found.retain(|_, fields| !fields.is_empty());
    let listed = IGNORED.iter().map(|(message, fields)| {
        ((*message).to_owned(), fields.iter().map(|f| (*f).to_owned()).collect::<BTreeSet<_>>())
    });
    let listed: BTreeMap<_, _> = listed.collect();
    for message in found.keys().chain(listed.keys()).collect::<BTreeSet<_>>() {
        assert_eq!(found.get(message), listed.get(message), "{message}");
    }
}

/// The message at the path, and those of its fields that make no difference when they are set.
fn ignored_fields(probe: &Probe, path: &str, base: &Accepted) -> (String, BTreeSet<String>) {
    let EncodedResource { type_url, value, .. } = encoded(probe.kind, &probe.yaml);
    let root = pool().get_message_by_name(type_url.rsplit('/').next().unwrap()).unwrap();
    let steps: Vec<&str> = path.split('.').filter(|step| !step.is_empty()).collect();
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    let mut message = DynamicMessage::decode(root, value.as_slice()).unwrap();
    edit(&mut message, &steps, &mut |m| fields = m.descriptor().fields().collect());
    let name = fields[0].parent_message().full_name().to_owned();
    let mut ignored = BTreeSet::new();
    for field in fields {
        let mut changed = message.clone();
        edit(&mut changed, &steps, &mut |m| m.set_field(&field, sample(&field)));
        let verdict = decode(probe.kind, &type_url, &changed.encode_to_vec(), &rules()).verdict;
        if verdict.as_ref() == Ok(base) && changed != message {
            ignored.insert(field.name().to_owned());
        }
    }
    (name, ignored)
}

/// Runs `change` on the message at the end of the path, through lists (`#index`, else the first), maps and `Any`.
fn edit(message: &mut DynamicMessage, steps: &[&str], change: &mut dyn FnMut(&mut DynamicMessage)) {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        let any: prost_types::Any = message.transcode_to().unwrap();
        let name = any.type_url.rsplit('/').next().unwrap();
        let mut inner =
            DynamicMessage::decode(pool().get_message_by_name(name).unwrap(), any.value.as_slice()).unwrap();
        edit(&mut inner, steps, change);
        let packed = prost_types::Any { type_url: any.type_url, value: inner.encode_to_vec() };
        return message.transcode_from(&packed).unwrap();
    }
    let Some((step, rest)) = steps.split_first() else { return change(message) };
    let (field, index) = step.split_once('#').map_or((*step, 0), |(f, i)| (f, i.parse().unwrap()));
    let inner = match message.get_field_by_name_mut(field).unwrap_or_else(|| panic!("no field {field}")) {
        Value::List(list) => &mut list[index],
        Value::Map(map) => map.values_mut().next().unwrap(),
        other => other,
    };
    edit(inner.as_message_mut().unwrap(), rest, change);
}

/// A value that differs from the default.
fn sample(field: &FieldDescriptor) -> Value {
    match field.kind() {
        FieldKind::Message(entry) if field.is_map() => {
            let value = sample(&entry.map_entry_value_field());
            Value::Map([(MapKey::String("x".to_owned()), value)].into())
        }
        kind if field.is_list() => Value::List(vec![one(&kind)]),
        kind => one(&kind),
    }
}

fn one(kind: &FieldKind) -> Value {
    match kind {
        FieldKind::Double => Value::F64(7.0),
        FieldKind::Float => Value::F32(7.0),
        FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => Value::I32(7),
        FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => Value::I64(7),
        FieldKind::Uint32 | FieldKind::Fixed32 => Value::U32(7),
        FieldKind::Uint64 | FieldKind::Fixed64 => Value::U64(7),
        FieldKind::Bool => Value::Bool(true),
        FieldKind::String => Value::String("x".to_owned()),
        FieldKind::Bytes => Value::Bytes(vec![7].into()),
        FieldKind::Enum(values) => Value::EnumNumber(values.values().last().unwrap().number()),
        FieldKind::Message(descriptor) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            match descriptor.full_name() {
                "google.protobuf.BoolValue" => message.set_field_by_name("value", Value::Bool(true)),
                "google.protobuf.UInt32Value" => message.set_field_by_name("value", Value::U32(7)),
                "google.protobuf.UInt64Value" => message.set_field_by_name("value", Value::U64(7)),
                "google.protobuf.Duration" => message.set_field_by_name("seconds", Value::I64(7)),
                _ => {}
            }
            Value::Message(message)
        }
    }
}
