//! The bootstrap: which control plane to ask, as whom, and with which certificates.
//!
//! Reference: gRFC A27 (document and sources), A29 (certificate providers), A47 (authorities and templates), A53
//! and A88 (server features), A65 (TLS channel credentials), A71 (several control planes), A97 (call credentials). Unknown fields are ignored
//! everywhere, as A27 asks.
//!
//! Deviations: `allowed_grpc_services` (A102) is not read. A scheme in `server_uri` that contradicts the credentials is
//! refused instead of being decided in silence, and so are call credentials over a connection without TLS, which gRPC
//! finds out when it calls. A97's environment variable is not asked for.

mod builder;
mod creds;
mod env;
mod error;
mod json;
mod node;
mod template;
#[cfg(test)]
mod tests;
mod uri;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;

pub use self::builder::BootstrapBuilder;
pub use self::creds::{
    CallCreds, CertificateProvider, ChannelCreds, DEFAULT_REFRESH_INTERVAL, FileWatcher, IdentityFiles,
    TlsCreds,
};
pub use self::error::{BootstrapError, Origin};
pub use self::node::{Locality, Node};
pub use self::template::ListenerTemplate;
pub use self::uri::{ServerAddress, ServerUri};

use self::env::{Found, Strings};
use self::error::{Problem, Reason};
use self::json::Field;
use self::uri::Scheme;

use crate::ads::Protocol;

/// A complete, valid bootstrap.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    server: ServerConfig,
    fallbacks: Vec<ServerConfig>,
    node: Node,
    certificate_providers: BTreeMap<String, CertificateProvider>,
    server_listener_template: Option<ListenerTemplate>,
    client_listener_template: ListenerTemplate,
    authorities: BTreeMap<String, Authority>,
}

/// One control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    uri: ServerUri,
    creds: ChannelCreds,
    call_creds: Vec<CallCreds>,
    features: ServerFeatures,
}

/// What a bootstrap says about one control plane's behaviour (`server_features`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerFeatures {
    /// A53: a deletion never removes a cached resource. With A88 this is the default, so it changes nothing here.
    pub ignore_resource_deletion: bool,
    /// A88: a rejected or deleted resource is dropped instead of being used further.
    pub fail_on_data_errors: bool,
    /// A88: a resource that does not come is a transient error, after 30 s instead of 15 s.
    pub resource_timer_is_transient_error: bool,
    /// A81: the control plane may rewrite the authority of requests.
    pub trusted_xds_server: bool,
    /// `xds.delta`: the control plane speaks incremental xDS, and is spoken to so. No gRFC has a name for this.
    pub incremental: bool,
}

/// An authority of `xdstp://` names (gRFC A47).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    servers: Vec<ServerConfig>,
    client_listener_template: ListenerTemplate,
}

// === impl Bootstrap ===

impl Bootstrap {
    /// Reads the bootstrap that the environment of the process names.
    ///
    /// # Errors
    /// Where the environment names none, or what it names is no valid bootstrap.
    pub fn from_env() -> Result<Self, BootstrapError> {
        Self::from_strings(&env::ProcessEnv)
    }

    /// Reads the bootstrap that `env` names: [`Bootstrap::from_env`] with the environment passed in.
    ///
    /// # Errors
    /// As [`Bootstrap::from_env`].
    fn from_strings(env: &impl Strings) -> Result<Self, BootstrapError> {
        Self::from_found(env::find(env)?)
    }

    /// Reads a bootstrap file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no valid bootstrap.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, BootstrapError> {
        Self::from_found(env::read(path.into())?)
    }

    /// Begins a bootstrap in code. `node_id` is what the control plane and error messages call this process.
    pub fn builder(node_id: impl Into<String>) -> BootstrapBuilder {
        BootstrapBuilder::new(node_id.into())
    }

    /// The control planes, best first. There is at least one.
    pub fn servers(&self) -> impl Iterator<Item = &ServerConfig> {
        std::iter::once(&self.server).chain(&self.fallbacks)
    }

    /// The best control plane.
    #[must_use]
    pub fn first_server(&self) -> &ServerConfig {
        &self.server
    }

    /// Sets the protocol that is spoken with every control plane, whatever the bootstrap says of them.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        let of_authorities = self.authorities.values_mut().flat_map(|authority| &mut authority.servers);
        let all = std::iter::once(&mut self.server).chain(&mut self.fallbacks).chain(of_authorities);
        for server in all {
            server.features.incremental = protocol == Protocol::Incremental;
        }
        self
    }

    /// Who this process is.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The named sources of certificates.
    #[must_use]
    pub fn certificate_providers(&self) -> &BTreeMap<String, CertificateProvider> {
        &self.certificate_providers
    }

    /// How a server's listening address becomes the name of its listener; servers need it.
    #[must_use]
    pub fn server_listener_template(&self) -> Option<&ListenerTemplate> {
        self.server_listener_template.as_ref()
    }

    /// How a client's target becomes the name of its listener.
    #[must_use]
    pub fn client_listener_template(&self) -> &ListenerTemplate {
        &self.client_listener_template
    }

    /// An authority of `xdstp://` names.
    #[must_use]
    pub fn authority(&self, name: &str) -> Option<&Authority> {
        self.authorities.get(name)
    }

    /// Every authority, with its name.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = (&str, &Authority)> {
        self.authorities.iter().map(|(name, authority)| (name.as_str(), authority))
    }

    fn from_found(found: Found) -> Result<Self, BootstrapError> {
        let Found { origin, text } = found;
        parse(&text).map_err(|problem| BootstrapError::new(origin, problem))
    }
}

impl FromStr for Bootstrap {
    type Err = BootstrapError;

    /// Reads a bootstrap from JSON text.
    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        parse(text).map_err(|problem| BootstrapError::new(Origin::Text, problem))
    }
}

// === impl ServerConfig ===

impl ServerConfig {
    /// A control plane at `uri`: `host:port`, `dns:///host:port`, `unix:///path`, `http://…` or `https://…`.
    ///
    /// # Errors
    /// Where `uri` is none of these, or contradicts the credentials.
    pub fn new(uri: &str, creds: ChannelCreds) -> Result<Self, BootstrapError> {
        let server =
            ServerUri::parse(uri).and_then(|uri| Self::checked(uri, creds, ServerFeatures::default()));
        server.map_err(|reason| BootstrapError::new(Origin::Code, reason.at("server_uri")))
    }

    /// A control plane that is reached without TLS.
    ///
    /// # Errors
    /// As [`ServerConfig::new`].
    pub fn insecure(uri: &str) -> Result<Self, BootstrapError> {
        Self::new(uri, ChannelCreds::Insecure)
    }

    /// Replaces the features.
    #[must_use]
    pub fn with_features(mut self, features: ServerFeatures) -> Self {
        self.features = features;
        self
    }

    /// Sets the protocol that is spoken with this control plane.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.features.incremental = protocol == Protocol::Incremental;
        self
    }

    /// The protocol that is spoken with this control plane.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.features.incremental { Protocol::Incremental } else { Protocol::StateOfTheWorld }
    }

    /// Adds credentials that are sent with every call.
    ///
    /// # Errors
    /// Where the connection is not secured.
    pub fn with_call_creds(mut self, creds: CallCreds) -> Result<Self, BootstrapError> {
        self.call_creds.push(creds);
        let checked = self.secured();
        checked.map_err(|reason| BootstrapError::new(Origin::Code, reason.at("call_creds")))
    }

    /// What is sent with every call.
    #[must_use]
    pub fn call_creds(&self) -> &[CallCreds] {
        &self.call_creds
    }

    /// Where the control plane listens.
    #[must_use]
    pub fn uri(&self) -> &ServerUri {
        &self.uri
    }

    /// How the connection is secured.
    #[must_use]
    pub fn creds(&self) -> &ChannelCreds {
        &self.creds
    }

    /// What the bootstrap says about this control plane's behaviour.
    #[must_use]
    pub fn features(&self) -> ServerFeatures {
        self.features
    }

    /// Refuses a scheme that promises another security than the credentials give.
    fn checked(uri: ServerUri, creds: ChannelCreds, features: ServerFeatures) -> Result<Self, Reason> {
        let clash = |scheme| Err(Reason::SchemeAgainstCreds { scheme, creds: creds.name() });
        match (uri.scheme(), &creds) {
            (Scheme::Http, ChannelCreds::Tls(_)) => clash("http"),
            (Scheme::Https, ChannelCreds::Insecure) => clash("https"),
            (Scheme::Neutral | Scheme::Http | Scheme::Https, _) => {
                Ok(Self { uri, creds, call_creds: Vec::new(), features })
            }
        }
    }

    /// Refuses to send credentials in the clear (gRFC A97).
    fn secured(self) -> Result<Self, Reason> {
        match (&self.creds, self.call_creds.first()) {
            (ChannelCreds::Insecure, Some(call_creds)) => Err(Reason::UnsecuredCallCreds {
                call_creds: call_creds.name(),
                channel_creds: self.creds.name(),
            }),
            (ChannelCreds::Insecure | ChannelCreds::Tls(_), _) => Ok(self),
        }
    }

    fn parse(server: &Field<'_>) -> Result<Self, Problem> {
        let uri = server.get("server_uri")?;
        let text =
            uri.required("set it to the address of the control plane, such as \"xds.example.com:443\"")?;
        let parsed = ServerUri::parse(text).map_err(|reason| uri.fail(reason))?;
        let creds = ChannelCreds::parse(&server.get("channel_creds")?)?;
        let features = ServerFeatures::parse(&server.get("server_features")?)?;
        let mut checked = Self::checked(parsed, creds, features).map_err(|reason| uri.fail(reason))?;
        let call_creds = server.get("call_creds")?;
        checked.call_creds = CallCreds::parse(&call_creds)?;
        checked.secured().map_err(|reason| call_creds.fail(reason))
    }

    fn parse_list(list: &Field<'_>) -> Result<Vec<Self>, Problem> {
        list.items()?.iter().map(Self::parse).collect()
    }
}

// === impl ServerFeatures ===

impl ServerFeatures {
    /// Unknown features are ignored, and so are entries that are no strings.
    fn parse(list: &Field<'_>) -> Result<Self, Problem> {
        let mut features = Self::default();
        for item in list.items()? {
            match item.string() {
                Ok(Some("ignore_resource_deletion")) => features.ignore_resource_deletion = true,
                Ok(Some("fail_on_data_errors")) => features.fail_on_data_errors = true,
                Ok(Some("resource_timer_is_transient_error")) => {
                    features.resource_timer_is_transient_error = true
                }
                Ok(Some("trusted_xds_server")) => features.trusted_xds_server = true,
                Ok(Some("xds.delta")) => features.incremental = true,
                Ok(_) | Err(_) => {}
            }
        }
        Ok(features)
    }
}

// === impl Authority ===

impl Authority {
    /// The control planes of this authority; where there are none, the top-level ones serve it.
    #[must_use]
    pub fn servers(&self) -> &[ServerConfig] {
        &self.servers
    }

    /// How a target of this authority becomes the name of its listener.
    #[must_use]
    pub fn client_listener_template(&self) -> &ListenerTemplate {
        &self.client_listener_template
    }

    fn parse(name: &str, authority: &Field<'_>) -> Result<Self, Problem> {
        let template = authority.get("client_listener_resource_name_template")?;
        let client_listener_template = ListenerTemplate::of_authority(name, template.string()?)
            .map_err(|reason| template.fail(reason))?;
        let servers = ServerConfig::parse_list(&authority.get("xds_servers")?)?;
        Ok(Self { servers, client_listener_template })
    }
}

fn parse(text: &str) -> Result<Bootstrap, Problem> {
    let document: Value = serde_json::from_str(text).map_err(Problem::Syntax)?;
    let root = Field::root(&document);
    let list = root.get("xds_servers")?;
    let mut servers = ServerConfig::parse_list(&list)?.into_iter();
    let Some(server) = servers.next() else {
        return Err(list.fail(Reason::Missing { next: "list at least one control plane" }));
    };
    let template = |name| {
        Ok::<_, Problem>(root.get(name)?.string()?.filter(|t| !t.is_empty()).map(ListenerTemplate::new))
    };
    let mut certificate_providers = BTreeMap::new();
    for (name, instance) in root.get("certificate_providers")?.members()? {
        certificate_providers.insert(name.to_owned(), CertificateProvider::parse(&instance)?);
    }
    let mut authorities = BTreeMap::new();
    for (name, authority) in root.get("authorities")?.members()? {
        authorities.insert(name.to_owned(), Authority::parse(name, &authority)?);
    }
    Ok(Bootstrap {
        server,
        fallbacks: servers.collect(),
        node: Node::parse(&root.get("node")?)?,
        certificate_providers,
        server_listener_template: template("server_listener_resource_name_template")?,
        client_listener_template: template("client_default_listener_resource_name_template")?
            .unwrap_or_else(ListenerTemplate::identity),
        authorities,
    })
}
