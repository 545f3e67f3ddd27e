//! From the machine's requests to the messages of the wire.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::protobuf::{ListValue, NullValue, Struct, Value, value};
use envoy_types::pb::google::rpc;

use crate::ads::{Ask, Name, Request};
use crate::bootstrap::Node;

/// What the control plane is told that this client is.
const USER_AGENT: &str = "mesh";

/// Features of the client (gRFC A27; `resource-in-sotw`: resources may come in a `Resource` wrapper).
const CLIENT_FEATURES: [&str; 2] =
    ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"];

/// A request of a state-of-the-world stream; none where it is of the other protocol. The node is in the first of a stream
/// only.
pub(super) fn discovery_request(request: Request, node: &Node) -> Option<DiscoveryRequest> {
    let Request { kind, nonce, refusal, first, ask } = request;
    let Ask::All { version, names } = ask else { return None };
    Some(DiscoveryRequest {
        version_info: (*version).to_owned(),
        node: first.then(|| node_to_proto(node)),
        resource_names: owned(&names),
        resource_locators: Vec::new(),
        type_url: kind.type_url().to_owned(),
        response_nonce: (*nonce).to_owned(),
        error_detail: refusal.as_deref().map(error_detail),
    })
}

/// A request of an incremental stream; none where it is of the other protocol.
pub(super) fn delta_request(request: Request, node: &Node) -> Option<DeltaDiscoveryRequest> {
    let Request { kind, nonce, refusal, first, ask } = request;
    let Ask::Changes { subscribe, unsubscribe, held } = ask else { return None };
    let held = held.iter().map(|(name, version)| ((**name).to_owned(), (**version).to_owned()));
    Some(DeltaDiscoveryRequest {
        node: first.then(|| node_to_proto(node)),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: owned(&subscribe),
        resource_names_unsubscribe: owned(&unsubscribe),
        resource_locators_subscribe: Vec::new(),
        resource_locators_unsubscribe: Vec::new(),
        initial_resource_versions: held.collect(),
        response_nonce: (*nonce).to_owned(),
        error_detail: refusal.as_deref().map(error_detail),
    })
}

fn owned(names: &[Name]) -> Vec<String> {
    names.iter().map(|name| (**name).to_owned()).collect()
}

fn error_detail(text: &str) -> rpc::Status {
    rpc::Status { code: tonic::Code::InvalidArgument.into(), message: text.to_owned(), details: Vec::new() }
}

fn node_to_proto(node: &Node) -> core::Node {
    let locality = node.locality().map(|locality| core::Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    });
    core::Node {
        id: node.id().to_owned(),
        cluster: node.cluster().to_owned(),
        metadata: (!node.metadata().is_empty()).then(|| object_to_proto(node.metadata())),
        locality,
        user_agent_name: USER_AGENT.to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        )),
        client_features: CLIENT_FEATURES.map(str::to_owned).to_vec(),
        ..core::Node::default()
    }
}

fn object_to_proto(object: &serde_json::Map<String, serde_json::Value>) -> Struct {
    let fields: HashMap<String, Value> =
        object.iter().map(|(key, value)| (key.clone(), value_to_proto(value))).collect();
    Struct { fields }
}

fn value_to_proto(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => value::Kind::NullValue(NullValue::NullValue.into()),
        serde_json::Value::Bool(flag) => value::Kind::BoolValue(*flag),
        // Protobuf has doubles only; an integer above 2^53 loses its last digits, as in every implementation.
        serde_json::Value::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => value::Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            value::Kind::ListValue(ListValue { values: items.iter().map(value_to_proto).collect() })
        }
        serde_json::Value::Object(object) => value::Kind::StructValue(object_to_proto(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::ads::Kind;
    use crate::bootstrap::{Bootstrap, Locality, ServerConfig};

    fn bootstrap() -> Bootstrap {
        Bootstrap::builder("n")
            .server(ServerConfig::insecure("xds:1").unwrap())
            .cluster("reviews")
            .locality(Locality { region: "r".to_owned(), zone: "z".to_owned(), sub_zone: "s".to_owned() })
            .metadata("TEXT", "t")
            .metadata("DEEP", json!({"list": [1, true, null, 0.5]}))
            .build()
            .unwrap()
    }

    fn request(first: bool, refusal: Option<&str>) -> DiscoveryRequest {
        let request = Request {
            kind: Kind::Cluster,
            nonce: "n".into(),
            refusal: refusal.map(Arc::from),
            first,
            ask: Ask::All { version: "7".into(), names: vec!["a".into(), "b".into()] },
        };
        discovery_request(request, bootstrap().node()).unwrap()
    }

    #[test]
    fn the_node_tells_all_that_the_bootstrap_knows() {
        let core::Node { id, cluster, metadata, locality, user_agent_name, client_features, .. } =
            request(true, None).node.unwrap();
        assert_eq!((id.as_str(), cluster.as_str(), user_agent_name.as_str()), ("n", "reviews", "mesh"));
        let locality = locality.unwrap();
        assert_eq!(
            (locality.region.as_str(), locality.zone.as_str(), locality.sub_zone.as_str()),
            ("r", "z", "s")
        );
        assert_eq!(client_features, CLIENT_FEATURES);
        let metadata = metadata.unwrap();
        assert_eq!(metadata.fields["TEXT"].kind, Some(value::Kind::StringValue("t".to_owned())));
        let Some(value::Kind::StructValue(deep)) = &metadata.fields["DEEP"].kind else { panic!("an object") };
        let Some(value::Kind::ListValue(list)) = &deep.fields["list"].kind else { panic!("a list") };
        let expected = [
            value::Kind::NumberValue(1.0),
            value::Kind::BoolValue(true),
            value::Kind::NullValue(0),
            value::Kind::NumberValue(0.5),
        ];
        assert_eq!(list.values.iter().map(|v| v.kind.clone().unwrap()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_request_carries_what_the_machine_decided() {
        let DiscoveryRequest {
            version_info,
            node,
            resource_names,
            type_url,
            response_nonce,
            error_detail,
            ..
        } = request(false, Some("1 of 1"));
        assert_eq!((version_info.as_str(), response_nonce.as_str(), node), ("7", "n", None));
        assert_eq!(
            (resource_names, type_url.as_str()),
            (vec!["a".to_owned(), "b".to_owned()], Kind::Cluster.type_url())
        );
        let status = error_detail.unwrap();
        assert_eq!((status.code, status.message.as_str()), (3, "1 of 1"));
    }

    #[test]
    fn an_incremental_request_carries_what_changed_and_what_is_held() {
        let ask = Ask::Changes {
            subscribe: vec!["a".into()],
            unsubscribe: vec!["b".into()],
            held: vec![("c".into(), "7".into())],
        };
        let refusal = Some("1 of 1".into());
        let request = Request { kind: Kind::Cluster, nonce: "n".into(), refusal, first: true, ask };
        assert_eq!(discovery_request(request.clone(), bootstrap().node()), None, "the other protocol");
        let DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            initial_resource_versions,
            response_nonce,
            error_detail,
            ..
        } = delta_request(request, bootstrap().node()).unwrap();
        assert_eq!((node.unwrap().id.as_str(), type_url.as_str()), ("n", Kind::Cluster.type_url()));
        assert_eq!(
            (resource_names_subscribe, resource_names_unsubscribe),
            (vec!["a".to_owned()], vec!["b".to_owned()])
        );
        assert_eq!(initial_resource_versions, HashMap::from([("c".to_owned(), "7".to_owned())]));
        assert_eq!((response_nonce.as_str(), error_detail.unwrap().message.as_str()), ("n", "1 of 1"));
    }
}
