//! Between the machine's values and the messages of the wire. Protobuf begins and ends here.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::{Any, ListValue, NullValue, Struct, Value, value};
use envoy_types::pb::google::rpc;

use crate::ads::{Kind, Received, Request, Response};
use crate::bootstrap::{Bootstrap, CertificateProvider, Node};
use crate::resource::{Accepted, Decoded, Rules, decode};

/// What the control plane is told that this client is.
const USER_AGENT: &str = "mesh";

/// Features of the client (gRFC A27; `resource-in-sotw`: resources may come in a `Resource` wrapper).
const CLIENT_FEATURES: [&str; 2] =
    ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"];

/// How many resources are validated before other tasks of the runtime have their turn.
const RESOURCES_PER_TURN: usize = 32;

/// Decodes and validates responses.
#[derive(Debug)]
pub(crate) struct Decoder {
    rules: Rules,
}

// === impl Decoder ===

impl Decoder {
    pub(crate) fn new(bootstrap: &Bootstrap) -> Self {
        // An instance of an unknown plugin is as good as none (gRFC A29): a resource that names it is refused.
        let known = |(name, provider): (&String, &CertificateProvider)| match provider {
            CertificateProvider::FileWatcher(_) => Some(Arc::from(name.as_str())),
            CertificateProvider::Unknown { .. } => None,
        };
        let certificate_providers = bootstrap.certificate_providers().iter().filter_map(known).collect();
        Self { rules: Rules { certificate_providers } }
    }

    /// The response, each resource judged alone; none for a type that is never asked for, which gets no answer.
    ///
    /// A large response is worked off in turns with other tasks.
    pub(crate) async fn decode(&self, response: DiscoveryResponse) -> Option<Response<Accepted>> {
        let DiscoveryResponse {
            version_info,
            resources,
            canary: _,
            type_url,
            nonce,
            control_plane: _,
            // xDS TP3, which no control plane that is known to us sends
            resource_errors: _,
        } = response;
        let kind = Kind::from_type_url(&type_url)?;
        let mut received = Vec::with_capacity(resources.len());
        for (position, Any { type_url, value }) in resources.into_iter().enumerate() {
            if position % RESOURCES_PER_TURN == RESOURCES_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let Decoded { name, verdict } = decode(kind, &type_url, &value, &self.rules);
            received.push(Received { name, verdict: verdict.map_err(|invalid| invalid.to_string().into()) });
        }
        Some(Response {
            kind,
            version: version_info.into(),
            nonce: nonce.into(),
            resources: received,
            removed: Vec::new(),
        })
    }
}

/// A request as it goes over the wire; the node is in the first of a stream only.
pub(crate) fn request_to_proto(request: Request, node: &Node) -> DiscoveryRequest {
    let Request { kind, version, nonce, names, refusal, first } = request;
    DiscoveryRequest {
        version_info: (*version).to_owned(),
        node: first.then(|| node_to_proto(node)),
        resource_names: names.iter().map(|name| (**name).to_owned()).collect(),
        resource_locators: Vec::new(),
        type_url: kind.type_url().to_owned(),
        response_nonce: (*nonce).to_owned(),
        error_detail: refusal.map(|text| rpc::Status {
            code: tonic::Code::InvalidArgument.into(),
            message: (*text).to_owned(),
            details: Vec::new(),
        }),
    }
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
    use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use envoy_types::pb::envoy::service::discovery::v3::Resource;
    use prost::{Message as _, Name as _};
    use serde_json::json;

    use super::*;
    use crate::bootstrap::{FileWatcher, Locality, ServerConfig};

    fn bootstrap() -> Bootstrap {
        let watcher = FileWatcher::roots_only("ca.pem");
        Bootstrap::builder("n")
            .server(ServerConfig::insecure("xds:1").unwrap())
            .cluster("reviews")
            .locality(Locality { region: "r".to_owned(), zone: "z".to_owned(), sub_zone: "s".to_owned() })
            .metadata("TEXT", "t")
            .metadata("DEEP", json!({"list": [1, true, null, 0.5]}))
            .certificate_provider("known", CertificateProvider::FileWatcher(watcher))
            .certificate_provider("odd", CertificateProvider::Unknown { plugin_name: "x".to_owned() })
            .build()
            .unwrap()
    }

    fn request(first: bool, refusal: Option<&str>) -> DiscoveryRequest {
        let request = Request {
            kind: Kind::Cluster,
            version: "7".into(),
            nonce: "n".into(),
            names: vec!["a".into(), "b".into()],
            refusal: refusal.map(Arc::from),
            first,
        };
        request_to_proto(request, bootstrap().node())
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

    fn assignment(name: &str) -> Any {
        let pb = ClusterLoadAssignment { cluster_name: name.to_owned(), ..ClusterLoadAssignment::default() };
        Any { type_url: Kind::Endpoints.type_url().to_owned(), value: pb.encode_to_vec() }
    }

    async fn decode_all(resources: Vec<Any>) -> Vec<(Option<String>, Result<(), String>)> {
        let type_url = Kind::Endpoints.type_url().to_owned();
        let response = DiscoveryResponse { type_url, resources, ..DiscoveryResponse::default() };
        let response = Decoder::new(&bootstrap()).decode(response).await.unwrap();
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
        assert!(Decoder::new(&bootstrap()).decode(response).await.is_none());
    }

    #[test]
    fn only_providers_of_a_known_plugin_exist_for_resources() {
        let names = Decoder::new(&bootstrap()).rules.certificate_providers;
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [Arc::from("known")]);
    }
}
