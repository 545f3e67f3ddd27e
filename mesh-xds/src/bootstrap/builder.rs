//! A bootstrap in code, for programs that know their control plane.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::{BootstrapError, Origin, Reason};
use super::{Bootstrap, CertificateProvider, ListenerTemplate, Locality, Node, ServerConfig};

/// Builds a [`Bootstrap`].
///
/// ```
/// use mesh_xds::bootstrap::{Bootstrap, ServerConfig};
///
/// let bootstrap = Bootstrap::builder("reviews-1").server(ServerConfig::insecure("127.0.0.1:18000")?).build()?;
/// assert_eq!(bootstrap.node().id(), "reviews-1");
/// # Ok::<(), mesh_xds::bootstrap::BootstrapError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct BootstrapBuilder {
    servers: Vec<ServerConfig>,
    node: Node,
    certificate_providers: BTreeMap<String, CertificateProvider>,
    server_listener_template: Option<ListenerTemplate>,
    client_listener_template: ListenerTemplate,
}

// === impl BootstrapBuilder ===

impl BootstrapBuilder {
    pub(super) fn new(node_id: String) -> Self {
        Self {
            servers: Vec::new(),
            node: Node::new(node_id),
            certificate_providers: BTreeMap::new(),
            server_listener_template: None,
            client_listener_template: ListenerTemplate::identity(),
        }
    }

    /// Adds a control plane; the first is the best.
    pub fn server(mut self, server: ServerConfig) -> Self {
        self.servers.push(server);
        self
    }

    /// Sets the service that this process is an instance of.
    pub fn cluster(mut self, cluster: impl Into<String>) -> Self {
        self.node.cluster = cluster.into();
        self
    }

    /// Adds one entry of metadata.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.node.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets where this process runs.
    pub fn locality(mut self, locality: Locality) -> Self {
        self.node.locality = Some(locality);
        self
    }

    /// Adds a named source of certificates.
    pub fn certificate_provider(mut self, name: impl Into<String>, provider: CertificateProvider) -> Self {
        self.certificate_providers.insert(name.into(), provider);
        self
    }

    /// Sets how a server's address becomes the name of its listener, such as `servers/%s`.
    pub fn server_listener_template(mut self, template: impl Into<String>) -> Self {
        self.server_listener_template = Some(ListenerTemplate::new(template));
        self
    }

    /// Sets how a client's target becomes the name of its listener; the target itself where not set.
    pub fn client_listener_template(mut self, template: impl Into<String>) -> Self {
        self.client_listener_template = ListenerTemplate::new(template);
        self
    }

    /// The bootstrap.
    ///
    /// # Errors
    /// Where no control plane was added.
    pub fn build(self) -> Result<Bootstrap, BootstrapError> {
        let Self { servers, node, certificate_providers, server_listener_template, client_listener_template } =
            self;
        let mut servers = servers.into_iter();
        let Some(server) = servers.next() else {
            let reason = Reason::Missing { next: "add a control plane with server()" };
            return Err(BootstrapError::new(Origin::Code, reason.at("xds_servers")));
        };
        Ok(Bootstrap {
            server,
            fallbacks: servers.collect(),
            node,
            certificate_providers,
            server_listener_template,
            client_listener_template,
            authorities: BTreeMap::new(),
        })
    }
}
