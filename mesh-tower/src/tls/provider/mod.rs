//! Certificate providers (gRFC A29): where certificates, keys and roots come from.
//!
//! Providers never fail over to something weaker.

pub(crate) mod file_watcher;
pub(crate) mod static_;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::parse_x509_certificate;

use super::TlsError;

/// A source of certificates and roots. It hands out `Arc`s of immutable values. A new `Arc` means "rotated": whoever
/// caches something made from the old one compares pointers. It never blocks; what is not loaded is an error, which
/// refuses the handshake. `certificate` is the `certificate_name` of the configuration; empty is the
/// provider's default one.
pub trait CertificateProvider: fmt::Debug + Send + Sync {
    /// Our certificate chain and key as they are now.
    ///
    /// # Errors
    /// When there is none, or it could never be loaded.
    fn identity(&self, certificate: &str) -> Result<Arc<Identity>, NoMaterial>;

    /// The trusted roots as they are now.
    ///
    /// # Errors
    /// When there are none, or they could never be loaded.
    fn roots(&self, certificate: &str) -> Result<Arc<Roots>, NoMaterial>;
}

/// A provider has nothing to hand out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoMaterial(Arc<str>);

/// A certificate chain with its key. `Debug` shows neither.
pub struct Identity {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
}

/// Trusted roots.
pub struct Roots {
    store: Arc<RootCertStore>,
}

/// The provider instances of the bootstrap, by name.
#[derive(Debug, Clone, Default)]
pub struct CertificateProviders {
    instances: BTreeMap<Arc<str>, Arc<dyn CertificateProvider>>,
}

// === impl NoMaterial ===

impl NoMaterial {
    /// Nothing, for this reason.
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self(reason.into())
    }
}

// === impl Identity ===

impl Identity {
    /// Reads a PEM chain, leaf first, and its PEM key.
    ///
    /// # Errors
    /// When either cannot be read or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8], crypto: &CryptoProvider) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|e| invalid(format!("the certificate chain is not PEM: {e}")))?;
        let leaf = chain.first().ok_or_else(|| invalid("the certificate chain is empty"))?;
        let not_after = not_after(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|e| invalid(format!("the private key is not PEM: {e}")))?;
        let key = CertifiedKey::from_der(chain, key, crypto)
            .map_err(|e| invalid(format!("certificate and private key do not fit: {e}")))?;
        Ok(Self { key: Arc::new(key), not_after })
    }

    /// When the leaf certificate expires.
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The certificate chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

// === impl Roots ===

impl Roots {
    pub(super) fn new(store: RootCertStore) -> Self {
        Self { store: Arc::new(store) }
    }

    /// Reads PEM certificates.
    ///
    /// # Errors
    /// When one of them cannot be read, or there is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| invalid(format!("the roots are not PEM: {e}")))?;
            store.add(certificate).map_err(|e| invalid(format!("a root cannot be used: {e}")))?;
        }
        if store.is_empty() {
            return Err(invalid("there is no root certificate"));
        }
        Ok(Self::new(store))
    }

    pub(super) const fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("count", &self.store.len()).finish()
    }
}

// === impl CertificateProviders ===

impl CertificateProviders {
    /// No instance yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an instance; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, provider: Arc<dyn CertificateProvider>) -> Self {
        self.instances.insert(name.into(), provider);
        self
    }

    /// The names of the instances, sorted.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.instances.keys()
    }

    pub(super) fn find(&self, name: &Arc<str>) -> Result<&dyn CertificateProvider, TlsError> {
        self.instances.get(name).map(|p| &**p).ok_or_else(|| TlsError::NoProvider(name.clone()))
    }
}

fn not_after(leaf: &CertificateDer<'_>) -> Result<SystemTime, TlsError> {
    let (_, certificate) = parse_x509_certificate(leaf)
        .map_err(|e| invalid(format!("the leaf certificate cannot be read: {e}")))?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn invalid(reason: impl Into<Arc<str>>) -> TlsError {
    TlsError::InvalidMaterial(reason.into())
}
