//! `envoy.extensions.transport_sockets.tls.v3`: TLS by certificate-provider instances (gRFC A29).
//!
//! Keys never travel by xDS: a context names instances, and each client's bootstrap says what they are.
//! SANs are written to `match_subject_alt_names`: Envoy calls it deprecated and heeds it, while gRPC's C core does not look
//! at `match_typed_subject_alt_names`, and would accept any server of the authority; Envoy refuses both together.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use pb::common_tls_context::ValidationContextType;

use super::{boolean, exactly, prefixed};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;

/// TLS towards the endpoints of a cluster.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    identity: Option<String>,
    roots: String,
    sans: Vec<StringMatcher>,
    sni: String,
    legacy: bool,
}

/// TLS of a listener's connections.
#[derive(Debug, Clone)]
pub struct DownstreamTls {
    identity: String,
    roots: Option<String>,
    require_client_certificate: bool,
    legacy: bool,
}

// === impl UpstreamTls ===

impl UpstreamTls {
    /// Mutual: own certificate and trusted roots from one provider instance.
    #[must_use]
    pub fn mutual(instance: impl Into<String>) -> Self {
        let instance = instance.into();
        Self { identity: Some(instance.clone()), ..Self::server_only(instance) }
    }

    /// The server shows a certificate, the client shows none.
    #[must_use]
    pub fn server_only(roots: impl Into<String>) -> Self {
        Self { identity: None, roots: roots.into(), sans: Vec::new(), sni: String::new(), legacy: false }
    }

    /// Accept a server with this URI or DNS name, such as `spiffe://cluster.local/ns/default/sa/reviews`.
    #[must_use]
    pub fn san(mut self, name: impl Into<String>) -> Self {
        self.sans.push(exactly(name));
        self
    }

    /// Accept a server whose name begins with this.
    #[must_use]
    pub fn san_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.sans.push(prefixed(prefix));
        self
    }

    /// The server name that the client indicates.
    #[must_use]
    pub fn sni(mut self, name: impl Into<String>) -> Self {
        self.sni = name.into();
        self
    }

    /// Names the provider instances in the fields that came first, which older control planes use.
    #[must_use]
    pub fn legacy_fields(mut self) -> Self {
        self.legacy = true;
        self
    }

    pub(super) fn into_message(self) -> pb::UpstreamTlsContext {
        let Self { identity, roots, sans, sni, legacy } = self;
        pb::UpstreamTlsContext {
            common_tls_context: Some(common(identity, Some(roots), sans, legacy)),
            sni,
            ..Default::default()
        }
    }
}

// === impl DownstreamTls ===

impl DownstreamTls {
    /// Mutual: a client without a certificate is refused.
    #[must_use]
    pub fn mutual(instance: impl Into<String>) -> Self {
        let instance = instance.into();
        Self {
            roots: Some(instance.clone()),
            require_client_certificate: true,
            ..Self::server_only(instance)
        }
    }

    /// A client may show a certificate; if it does, it has to be good.
    #[must_use]
    pub fn optional(instance: impl Into<String>) -> Self {
        Self { require_client_certificate: false, ..Self::mutual(instance) }
    }

    /// Clients are not asked for a certificate.
    #[must_use]
    pub fn server_only(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), roots: None, require_client_certificate: false, legacy: false }
    }

    /// Names the provider instances in the fields that came first, which older control planes use.
    #[must_use]
    pub fn legacy_fields(mut self) -> Self {
        self.legacy = true;
        self
    }

    pub(super) fn into_message(self) -> pb::DownstreamTlsContext {
        let Self { identity, roots, require_client_certificate, legacy } = self;
        pb::DownstreamTlsContext {
            common_tls_context: Some(common(Some(identity), roots, Vec::new(), legacy)),
            require_client_certificate: Some(boolean(require_client_certificate)),
            ..Default::default()
        }
    }
}

fn common(
    identity: Option<String>,
    roots: Option<String>,
    sans: Vec<StringMatcher>,
    legacy: bool,
) -> pb::CommonTlsContext {
    if legacy { legacy_fields(identity, roots, sans) } else { current_fields(identity, roots, sans) }
}

#[expect(deprecated, reason = "the field of the SANs that every client looks at, see above")]
fn current_fields(
    identity: Option<String>,
    roots: Option<String>,
    sans: Vec<StringMatcher>,
) -> pb::CommonTlsContext {
    let instance =
        |instance_name| pb::CertificateProviderPluginInstance { instance_name, ..Default::default() };
    pb::CommonTlsContext {
        tls_certificate_provider_instance: identity.map(instance),
        validation_context_type: roots.map(|roots| {
            ValidationContextType::ValidationContext(pb::CertificateValidationContext {
                ca_certificate_provider_instance: Some(instance(roots)),
                match_subject_alt_names: sans,
                ..Default::default()
            })
        }),
        ..Default::default()
    }
}

#[expect(deprecated, reason = "the point of this function: clients still have to understand these fields")]
fn legacy_fields(
    identity: Option<String>,
    roots: Option<String>,
    sans: Vec<StringMatcher>,
) -> pb::CommonTlsContext {
    use pb::common_tls_context::{CertificateProviderInstance, CombinedCertificateValidationContext};
    let instance = |instance_name| CertificateProviderInstance { instance_name, ..Default::default() };
    pb::CommonTlsContext {
        tls_certificate_certificate_provider_instance: identity.map(instance),
        validation_context_type: roots.map(|roots| {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(pb::CertificateValidationContext {
                    match_subject_alt_names: sans,
                    ..Default::default()
                }),
                validation_context_certificate_provider_instance: Some(instance(roots)),
                ..Default::default()
            })
        }),
        ..Default::default()
    }
}
