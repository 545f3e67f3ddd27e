//! Who a client says it is: what a view may be chosen by.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as wkt;
use serde_json::{Map, Value};

use crate::bootstrap::Locality;

/// The identity that a client gave in the first request of its stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`: the service that it is an instance of.
    pub cluster: String,
    /// `node.metadata`.
    pub metadata: Map<String, Value>,
    /// Where it runs.
    pub locality: Locality,
    /// `node.user_agent_name` and version.
    pub user_agent: String,
    /// `node.client_features`.
    pub features: Vec<String>,
}

// === impl Node ===

impl Node {
    /// Whether it announced a feature.
    #[must_use]
    pub fn has_feature(&self, feature: &str) -> bool {
        self.features.iter().any(|has| has == feature)
    }
}

impl From<core::Node> for Node {
    fn from(node: core::Node) -> Self {
        let version = match node.user_agent_version_type {
            Some(core::node::UserAgentVersionType::UserAgentVersion(version)) => version,
            _ => String::new(),
        };
        let core::Locality { region, zone, sub_zone } = node.locality.unwrap_or_default();
        Self {
            user_agent: format!("{} {version}", node.user_agent_name).trim().to_owned(),
            id: node.id,
            cluster: node.cluster,
            metadata: node.metadata.map(object).unwrap_or_default(),
            locality: Locality { region, zone, sub_zone },
            features: node.client_features,
        }
    }
}

fn object(object: wkt::Struct) -> Map<String, Value> {
    object.fields.into_iter().map(|(key, field)| (key, json(field))).collect()
}

/// As deep as the decoder lets a message nest (100 levels), so the recursion is bounded.
fn json(field: wkt::Value) -> Value {
    use wkt::value::Kind;
    match field.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => flag.into(),
        // JSON has no NaN: it becomes null.
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(Kind::StructValue(inner)) => object(inner).into(),
    }
}
