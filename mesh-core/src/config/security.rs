//! Transport security: Envoy's `UpstreamTlsContext` and `DownstreamTlsContext`, as gRFC A29 reads them.
//!
//! Key material is never here: a context names certificate-provider instances of the bootstrap. Equal values mean
//! equal trust, so a connection may be shared exactly when the values are equal.

use std::sync::Arc;

use crate::matcher::san::SanMatcher;

/// A named certificate of a named provider instance (`CertificateProviderPluginInstance`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProviderInstance {
    /// Key of the bootstrap's `certificate_providers`.
    pub instance: Arc<str>,
    /// Which certificate of that instance; empty is the default one.
    pub certificate: Arc<str>,
}

/// Whom a certificate chain must lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TrustAnchors {
    /// The roots of a provider instance.
    Provider(ProviderInstance),
    /// The roots of the operating system (gRFC A82; clients only).
    System,
}

/// How a client secures its connections to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Our certificate; none for server-authenticated TLS.
    pub identity: Option<ProviderInstance>,
    /// Whom we trust.
    pub roots: TrustAnchors,
    /// The peer's certificate must match one of these; empty accepts any certificate of the roots.
    pub sans: Vec<SanMatcher>,
    /// Server name to send; none sends none.
    pub sni: Option<Arc<str>>,
}

/// How a server secures the connections of one filter chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DownstreamTls {
    /// Our certificate.
    pub identity: ProviderInstance,
    /// Whom client certificates must lead to; none asks for no certificate.
    pub client_roots: Option<TrustAnchors>,
    /// A client without a certificate is refused.
    pub require_client_certificate: bool,
    /// A client certificate must match one of these; empty accepts any certificate of the roots.
    pub client_sans: Vec<SanMatcher>,
}
