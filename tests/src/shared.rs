//! A source of configuration that a mesh and a test share: the test sees when something has arrived.

use std::sync::Arc;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource, ServerSnapshot, Subscription};
use mesh_core::status::ResourceStatus;
use mesh_xds::XdsSource;

/// The source, for the mesh.
#[derive(Clone)]
pub struct Shared(pub Arc<XdsSource>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl ConfigSource for Shared {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        self.0.client(target)
    }

    fn server(&self, address: &Address) -> Subscription<ServerSnapshot> {
        self.0.server(address)
    }

    fn status(&self) -> Vec<ResourceStatus> {
        self.0.status()
    }
}
