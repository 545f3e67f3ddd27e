//! From a target to the resource that it starts from: the one place that knows the *shape* of the configuration.
//!
//! Today the shape of gRPC (gRFC A27, A36, A47): a client target is a listener of its name, or what its template makes of
//! it; a server is the listener that the server template makes of its address. The shape of sidecars (all listeners,
//! one per port, hosts matched by authority) would be another answer to the same question.
//! Which control planes are asked for it is the business of its authority.

use std::sync::Arc;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{ConfigError, ConfigProblem};

use crate::ads::{Kind, Name};
use crate::bootstrap::Bootstrap;
use crate::xdstp::canonical;

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
    pub(crate) fn server(&self, address: &Address) -> Root {
        match self.bootstrap.server_listener_template() {
            Some(template) => Ok(canonical(&template.for_address(address))),
            None => {
                let why = "the bootstrap has no server_listener_resource_name_template; set one to serve";
                Err(self.error(&address.to_string(), why))
            }
        }
    }

    fn by_default_template(&self, name: &str) -> Name {
        canonical(&self.bootstrap.client_listener_template().for_target(name))
    }

    fn by_authority(&self, target: &str, authority: &str, name: &str) -> Root {
        match self.bootstrap.authority(authority) {
            None => Err(self.error(target, "its authority is not in the bootstrap; add it to `authorities`")),
            Some(known) => Ok(canonical(&known.client_listener_template().for_target(name))),
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use serde_json::json;

    fn resolver(more: serde_json::Value) -> Resolver {
        let mut document =
            json!({"xds_servers": [{"server_uri": "xds:1", "channel_creds": [{"type": "insecure"}]}]});
        if let (Some(document), serde_json::Value::Object(more)) = (document.as_object_mut(), more) {
            document.extend(more);
        }
        Resolver::new(Arc::new(document.to_string().parse().unwrap()), "node-1".into())
    }

    fn why(root: Root) -> String {
        root.unwrap_err().to_string()
    }

    #[test]
    fn a_target_of_any_spelling_is_the_listener_of_its_name() {
        let resolver = resolver(json!({}));
        for target in ["shop:80", "xds:///shop:80", "xds:shop:80"] {
            assert_eq!(resolver.client(target), Ok("shop:80".into()), "{target}");
        }
    }

    #[test]
    fn the_default_template_names_the_listener() {
        let resolver = resolver(json!({"client_default_listener_resource_name_template": "clients/%s"}));
        assert_eq!(resolver.client("xds:///shop"), Ok("clients/shop".into()));
    }

    #[test]
    fn an_authority_names_the_listener_within_itself() {
        let elsewhere = json!([{"server_uri": "other:1", "channel_creds": [{"type": "insecure"}]}]);
        let here = json!([{"server_uri": "xds:1", "channel_creds": [{"type": "insecure"}]}]);
        let authorities = json!({"a": {}, "b": {"xds_servers": elsewhere}, "c": {"xds_servers": here}});
        let resolver = resolver(json!({"authorities": authorities}));
        assert_eq!(
            resolver.client("xds://a/s p"),
            Ok("xdstp://a/envoy.config.listener.v3.Listener/s%20p".into())
        );
        assert_eq!(resolver.client("xds://c/s"), Ok("xdstp://c/envoy.config.listener.v3.Listener/s".into()));
        assert_eq!(resolver.client("xds://b/s"), Ok("xdstp://b/envoy.config.listener.v3.Listener/s".into()));
        assert!(why(resolver.client("xds://d/s")).contains("add it to `authorities`"));
        assert!(why(resolver.client("xds://a")).contains("needs a name"));
    }

    #[test]
    fn a_listener_is_named_in_its_canonical_spelling() {
        let template = "xdstp://a/envoy.config.listener.v3.Listener/%s?zone=1&app=shop";
        let authorities = json!({"a": {"client_listener_resource_name_template": template}});
        let resolver = resolver(json!({
            "authorities": authorities,
            "server_listener_resource_name_template": template,
        }));
        let name = |id: &str| format!("xdstp://a/envoy.config.listener.v3.Listener/{id}?app=shop&zone=1");
        assert_eq!(resolver.client("xds://a/x").unwrap(), name("x").into());
        assert_eq!(resolver.client("xds://a/x#y?z").unwrap(), name("x%23y%3Fz").into());
        assert_eq!(
            resolver.server(&Address::Socket("[::1]:80".parse().unwrap())).unwrap(),
            name("%5B::1%5D:80").into()
        );
        let unix = Address::from(Path::new("/run/a shop.sock"));
        assert_eq!(resolver.server(&unix).unwrap(), name("unix:/run/a%20shop.sock").into());
    }

    #[test]
    fn a_server_needs_a_template() {
        let address = Address::Socket("[::1]:80".parse().unwrap());
        let text = why(resolver(json!({})).server(&address));
        assert!(
            text.contains("[::1]:80") && text.contains("server_listener_resource_name_template"),
            "{text}"
        );
        let resolver = resolver(json!({"server_listener_resource_name_template": "s/%s"}));
        assert_eq!(resolver.server(&address), Ok("s/[::1]:80".into()));
        for (path, name) in [("/run/shop.sock", "s/unix:/run/shop.sock"), ("@shop", "s/unix:@shop")] {
            assert_eq!(resolver.server(&Address::from(Path::new(path))), Ok(name.into()));
        }
    }
}
