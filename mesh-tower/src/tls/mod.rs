//! TLS for connections in both directions: rustls, with the mesh's own rules about whom to trust.
//!
//! gRFC A29: certificates come from named provider instances ([`CertificateProvider`]), chains lead to the provider's current
//! roots, and a peer is accepted by its subject alternative names (`san`) instead of its host name. The crypto
//! provider is always passed explicitly, never installed for the process.
//!
//! A rustls configuration belongs to one pair of (identity, roots), and so do its session and ticket caches: when
//! either rotates, the next handshake gets a new configuration with empty caches. So every new handshake shows the
//! current certificate, established connections are not touched, and no resumed session outlives the trust that it
//! was made under. A missing certificate or root refuses the handshake: never plaintext, never "no certificate".

pub(crate) mod client;
pub(crate) mod provider;
pub(crate) mod san;
pub(crate) mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verifier;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use mesh_core::config::security::{DownstreamTls, ProviderInstance, TrustAnchors, UpstreamTls};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;

use self::client::ClientTls;
pub use self::provider::file_watcher::{FileWatcher, FileWatcherConfig, IdentityFiles};
pub use self::provider::static_::StaticProvider;
pub use self::provider::{CertificateProvider, CertificateProviders, Identity, NoMaterial, Roots};
use self::server::ServerTls;
use crate::cause::{self, Cause};

/// TLS cannot be used, or a handshake failed.
///
/// The source of a failed handshake is `rustls::Error`, with the alert that came or went, or an
/// [`io::Error`](std::io::Error).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The build has no such crypto backend.
    #[error(
        "mesh-tower was built without the crypto backend {0}; enable the cargo feature `aws-lc-rs` or `ring`"
    )]
    NoCrypto(&'static str),
    /// The configuration names a provider instance that the bootstrap does not have.
    #[error("there is no certificate provider {0:?}; add it to `certificate_providers` of the bootstrap")]
    NoProvider(Arc<str>),
    /// The provider has no certificate or no roots yet, or never will.
    #[error("certificate provider {instance:?}: {reason}")]
    NoMaterial {
        /// The instance.
        instance: Arc<str>,
        /// What is missing and why.
        reason: Arc<str>,
    },
    /// Key, certificate or roots cannot be used.
    #[error("{0}")]
    InvalidMaterial(Arc<str>),
    /// The handshake failed; the text names the side that refused.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] HandshakeFailure),
    /// The connection ended before the handshake did, without a word from either side.
    #[error("the connection ended within the TLS handshake: {0}")]
    Interrupted(#[source] HandshakeFailure),
    /// The peer's certificate is good but not of whom we want to talk to.
    #[error("the peer's certificate does not match: {0}")]
    PeerMismatch(Arc<str>),
}

/// How a handshake failed.
#[derive(Debug, Clone)]
pub struct HandshakeFailure {
    text: Arc<str>,
    source: Cause,
}

/// Which implementation of the primitives to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CryptoBackend {
    /// The backend of the enabled cargo feature; AWS-LC where both are.
    #[default]
    Auto,
    /// AWS-LC, with hybrid post-quantum key exchange first.
    AwsLcRs,
    /// *ring*; it has no post-quantum key exchange.
    Ring,
}

/// Everything that TLS needs of one `Mesh`: crypto, certificate providers, and the contexts in use.
#[derive(Debug)]
pub(crate) struct TlsRuntime {
    crypto: Arc<CryptoProvider>,
    providers: CertificateProviders,
    system_roots: OnceLock<Result<Arc<Roots>, TlsError>>,
    /// Contexts by value, so that equal configurations share their session caches. Bounded by what is alive.
    clients: Mutex<Vec<Weak<ClientTls>>>,
}

// === impl HandshakeFailure ===

impl HandshakeFailure {
    pub(crate) fn new(error: &std::io::Error) -> Self {
        Self { text: error.to_string().into(), source: cause::of_io(error) }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for HandshakeFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

// === impl CryptoBackend ===

impl CryptoBackend {
    /// The crypto provider of this backend.
    ///
    /// # Errors
    /// When the build does not contain it.
    pub fn provider(self) -> Result<Arc<CryptoProvider>, TlsError> {
        match self {
            Self::Auto => aws_lc_rs().or_else(ring).ok_or(TlsError::NoCrypto("(none at all)")),
            Self::AwsLcRs => aws_lc_rs().ok_or(TlsError::NoCrypto("aws-lc-rs")),
            Self::Ring => ring().ok_or(TlsError::NoCrypto("ring")),
        }
    }
}

#[cfg(feature = "aws-lc-rs")]
fn aws_lc_rs() -> Option<Arc<CryptoProvider>> {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    Some(Arc::new(CryptoProvider {
        // The first group's share is what the client offers: hybrid, with X25519 beside it for older peers.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    }))
}

#[cfg(not(feature = "aws-lc-rs"))]
fn aws_lc_rs() -> Option<Arc<CryptoProvider>> {
    None
}

#[cfg(feature = "ring")]
fn ring() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(feature = "ring"))]
fn ring() -> Option<Arc<CryptoProvider>> {
    None
}

// === impl TlsRuntime ===

impl TlsRuntime {
    /// TLS with these providers.
    pub(crate) fn new(crypto: Arc<CryptoProvider>, providers: CertificateProviders) -> Arc<Self> {
        Arc::new(Self { crypto, providers, system_roots: OnceLock::new(), clients: Mutex::default() })
    }

    /// The context of this value. Equal values get the same context while it is in use.
    pub(crate) fn client(self: &Arc<Self>, value: &Arc<UpstreamTls>) -> Arc<ClientTls> {
        // A plain list: a process has as many contexts as clusters with TLS, and looks them up when configuration
        // changes, not per request.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|weak| weak.strong_count() > 0);
        let known = clients.iter().filter_map(Weak::upgrade).find(|client| client.value() == value);
        known.unwrap_or_else(|| {
            let client = Arc::new(ClientTls::new(self.clone(), value.clone()));
            clients.push(Arc::downgrade(&client));
            client
        })
    }

    /// A server context of this value, with session caches of its own.
    pub(crate) fn server(self: &Arc<Self>, value: Arc<DownstreamTls>) -> Arc<ServerTls> {
        Arc::new(ServerTls::new(self.clone(), value))
    }

    /// The crypto provider.
    pub(crate) fn crypto(&self) -> &Arc<CryptoProvider> {
        &self.crypto
    }

    /// The certificate that this instance serves now.
    fn identity(&self, instance: &ProviderInstance) -> Result<Arc<Identity>, TlsError> {
        self.providers.find(&instance.instance)?.identity(&instance.certificate).map_err(|reason| {
            TlsError::NoMaterial { instance: instance.instance.clone(), reason: reason.to_string().into() }
        })
    }

    /// The roots that are trusted now.
    fn roots(&self, anchors: &TrustAnchors) -> Result<Arc<Roots>, TlsError> {
        match anchors {
            TrustAnchors::Provider(instance) => {
                self.providers.find(&instance.instance)?.roots(&instance.certificate).map_err(|reason| {
                    TlsError::NoMaterial {
                        instance: instance.instance.clone(),
                        reason: reason.to_string().into(),
                    }
                })
            }
            TrustAnchors::System => self.system_roots.get_or_init(load_system_roots).clone(),
        }
    }
}

/// Reads the operating system's roots, once per `Mesh`.
fn load_system_roots() -> Result<Arc<Roots>, TlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (used, _) = store.add_parsable_certificates(loaded.certs);
    if used == 0 {
        let reasons: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        let text = format!("the operating system has no usable root certificates: {}", reasons.join("; "));
        return Err(TlsError::InvalidMaterial(text.into()));
    }
    Ok(Arc::new(Roots::new(store)))
}
