//! A request of either variant, as the subscriber takes it.

use std::collections::HashMap;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::server::node::Node;

/// A request.
#[derive(Debug)]
pub(in crate::server) struct Ask {
    pub(in crate::server) node: Option<Node>,
    pub(in crate::server) type_url: String,
    pub(in crate::server) nonce: String,
    /// The reason of a refusal.
    pub(in crate::server) refusal: Option<String>,
    pub(in crate::server) names: Names,
}

/// What a request says about names.
#[derive(Debug)]
pub(in crate::server) enum Names {
    /// All that are wanted (state of the world).
    All(Vec<String>),
    /// What changes (incremental).
    Changes {
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        /// The versions that a client brings from an earlier stream.
        has: HashMap<String, String>,
    },
}

// === impl Ask ===

impl From<DiscoveryRequest> for Ask {
    fn from(request: DiscoveryRequest) -> Self {
        let DiscoveryRequest {
            // Which version a client has matters within a stream only, and there the nonce says it.
            version_info: _,
            node,
            resource_names,
            resource_locators: _,
            type_url,
            response_nonce,
            error_detail,
        } = request;
        Self {
            node: node.map(Node::from),
            type_url,
            nonce: response_nonce,
            refusal: error_detail.map(|error| error.message),
            names: Names::All(resource_names),
        }
    }
}

impl From<DeltaDiscoveryRequest> for Ask {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        let DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            resource_locators_subscribe: _,
            resource_locators_unsubscribe: _,
            initial_resource_versions,
            response_nonce,
            error_detail,
        } = request;
        Self {
            node: node.map(Node::from),
            type_url,
            nonce: response_nonce,
            refusal: error_detail.map(|error| error.message),
            names: Names::Changes {
                subscribe: resource_names_subscribe,
                unsubscribe: resource_names_unsubscribe,
                has: initial_resource_versions,
            },
        }
    }
}
