//! Names of listener resources, made from a target or a listening address (gRFC A27, A36, A47).

use mesh_core::config::endpoints::Address;

use super::error::Reason;
use crate::xdstp::encode_path;

const PLACE: &str = "%s";

/// A listener name with `%s` in the place of the target, or of the listening address of a server.
///
/// Where the template begins with `xdstp:`, what is filled in is percent-encoded (RFC 3986 path characters and `/`
/// are kept); elsewhere it is filled in as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTemplate {
    text: String,
}

// === impl ListenerTemplate ===

impl ListenerTemplate {
    /// A template as the bootstrap writes it. One without `%s` names the same listener for everybody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The listener of a client's target.
    #[must_use]
    pub fn for_target(&self, target: &str) -> String {
        if self.text.starts_with("xdstp:") {
            self.text.replace(PLACE, &encode_path(target))
        } else {
            self.text.replace(PLACE, target)
        }
    }

    /// The listener of a server's address: `10.0.0.1:80`, `[::1]:80` or, as gRPC names a unix-domain socket,
    /// `unix:/run/shop.sock`.
    #[must_use]
    pub fn for_address(&self, address: &Address) -> String {
        self.for_target(&address.to_string())
    }

    /// A name that is the target itself.
    pub(super) fn identity() -> Self {
        Self::new(PLACE)
    }

    /// The template of an authority must stay within it.
    pub(super) fn of_authority(authority: &str, text: Option<&str>) -> Result<Self, Reason> {
        let prefix = format!("xdstp://{authority}/");
        match text.filter(|text| !text.is_empty()) {
            None => Ok(Self::new(format!("{prefix}envoy.config.listener.v3.Listener/{PLACE}"))),
            Some(text) if text.starts_with(&prefix) => Ok(Self::new(text)),
            Some(_) => Err(Reason::TemplatePrefix { prefix }),
        }
    }
}
