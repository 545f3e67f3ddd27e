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
