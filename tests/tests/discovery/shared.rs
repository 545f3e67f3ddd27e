//! A source that a mesh and a test share.

use std::sync::Arc;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource, ServerSnapshot, Subscription};
use mesh_xds::XdsSource;

pub(crate) struct Shared(pub(crate) Arc<XdsSource>);

impl ConfigSource for Shared {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        self.0.client(target)
    }

    fn server(&self, address: &Address) -> Subscription<ServerSnapshot> {
        self.0.server(address)
    }
}
