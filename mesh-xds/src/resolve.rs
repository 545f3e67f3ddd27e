//! From a target to the resource that it starts from: the one place that knows the *shape* of the configuration.
//!
//! Today the shape of gRPC (gRFC A27, A36, A47): a client target is a listener of its name, or what its template makes of
//! it; a server is the listener that the server template makes of its address. The shape of sidecars (all listeners,
//! one per port, hosts matched by authority) would be another answer to the same question.
//!
//! Deviation: an authority (A47) whose resources come from control planes of its own is an error, because one control
//! plane is spoken to.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::snapshot::{ConfigError, ConfigProblem};

use crate::ads::{Kind, Name};
use crate::bootstrap::{Authority, Bootstrap};

/// Where a target starts: the name of a listener, or why there is none.
pub(crate) type Root = Result<Name, ConfigError>;

/// Resolves the targets of one source.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    bootstrap: Arc<Bootstrap>,
    node: Arc<str>,
}

// === impl Resolver ===

impl Resolver {
    pub(crate) fn new(bootstrap: Arc<Bootstrap>, node: Arc<str>) -> Self {
        Self { bootstrap, node }
    }

    pub(crate) fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The listener of a client target: `xds:///name`, `xds://authority/name`, `xds:name`, or the bare name.
    pub(crate) fn client(&self, target: &str) -> Root {
        let Some(rest) = target.strip_prefix("xds:") else { return Ok(self.by_default_template(target)) };
        let Some(rest) = rest.strip_prefix("//") else { return Ok(self.by_default_template(rest)) };
        match rest.split_once('/') {
            Some(("", name)) => Ok(self.by_default_template(name)),
            Some((authority, name)) => self.by_authority(target, authority, name),
            None => Err(self.error(target, "an xds: target with an authority needs a name after it")),
        }
    }

    /// The listener of a server that listens on `address`.
    pub(crate) fn server(&self, address: SocketAddr) -> Root {
        match self.bootstrap.server_listener_template() {
            Some(template) => Ok(template.for_address(address).into()),
            None => {
                let why = "the bootstrap has no server_listener_resource_name_template; set one to serve";
                Err(self.error(&address.to_string(), why))
            }
        }
    }

    fn by_default_template(&self, name: &str) -> Name {
        self.bootstrap.client_listener_template().for_target(name).into()
    }

    fn by_authority(&self, target: &str, authority: &str, name: &str) -> Root {
        match self.bootstrap.authority(authority) {
            None => Err(self.error(target, "its authority is not in the bootstrap; add it to authorities")),
            Some(known) if self.is_elsewhere(known) => {
                Err(self.error(target, "its authority has control planes of its own, which is not supported"))
            }
            Some(known) => Ok(known.client_listener_template().for_target(name).into()),
        }
    }

    fn is_elsewhere(&self, authority: &Authority) -> bool {
        authority.servers().first().is_some_and(|first| first != self.bootstrap.first_server())
    }

    fn error(&self, name: &str, why: &str) -> ConfigError {
        ConfigError {
            kind: Kind::Listener.noun(),
            name: name.into(),
            problem: ConfigProblem::Invalid(why.into()),
            node: self.node.clone(),
        }
    }
}
