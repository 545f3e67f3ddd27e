//! Who this process is towards the control plane.

use serde_json::{Map, Value};

use super::error::Problem;
use super::json::Field;

/// The identity of this client, sent in the first request of each stream.
///
/// Metadata is an opaque JSON object to us: control planes such as Istio read it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    pub(super) id: String,
    pub(super) cluster: String,
    pub(super) metadata: Map<String, Value>,
    pub(super) locality: Option<Locality>,
}

/// Where this process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone within the region.
    pub zone: String,
    /// The part of the zone.
    pub sub_zone: String,
}

// === impl Node ===

impl Node {
    /// A node with this id and nothing else.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// What the control plane and the error messages call this process.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The service that this process is an instance of.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What the control plane is told beyond the known fields.
    #[must_use]
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Where this process runs.
    #[must_use]
    pub fn locality(&self) -> Option<&Locality> {
        self.locality.as_ref()
    }

    pub(super) fn parse(node: &Field<'_>) -> Result<Self, Problem> {
        let text = |field: Field<'_>| Ok::<_, Problem>(field.string()?.unwrap_or_default().to_owned());
        let locality = node.get("locality")?;
        let locality = match locality.is_present() {
            false => None,
            true => Some(Locality {
                region: text(locality.get("region")?)?,
                zone: text(locality.get("zone")?)?,
                sub_zone: text(locality.get_either("sub_zone", "subZone")?)?,
            }),
        };
        Ok(Self {
            id: text(node.get("id")?)?,
            cluster: text(node.get("cluster")?)?,
            metadata: node.get("metadata")?.object()?.cloned().unwrap_or_default(),
            locality,
        })
    }
}
