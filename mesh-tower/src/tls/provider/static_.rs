//! Certificates given in code, and replaced in code.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{CertificateProvider, Identity, NoMaterial, Roots};

/// A provider whose material is set by the application. It has one certificate, whatever name is asked for.
#[derive(Debug, Default)]
pub struct StaticProvider {
    identity: ArcSwapOption<Identity>,
    roots: ArcSwapOption<Roots>,
}

// === impl StaticProvider ===

impl StaticProvider {
    /// A provider of this material; what is absent is refused when it is needed.
    pub fn new(identity: Option<Identity>, roots: Option<Roots>) -> Arc<Self> {
        Arc::new(Self {
            identity: ArcSwapOption::new(identity.map(Arc::new)),
            roots: ArcSwapOption::new(roots.map(Arc::new)),
        })
    }

    /// Rotates the certificate: the next handshake shows the new one.
    pub fn set_identity(&self, identity: Identity) {
        self.identity.store(Some(Arc::new(identity)));
    }

    /// Replaces the roots: the next handshake trusts the new ones.
    pub fn set_roots(&self, roots: Roots) {
        self.roots.store(Some(Arc::new(roots)));
    }
}

impl CertificateProvider for StaticProvider {
    fn identity(&self, _certificate: &str) -> Result<Arc<Identity>, NoMaterial> {
        self.identity.load_full().ok_or_else(|| NoMaterial::new("it was given no certificate"))
    }

    fn roots(&self, _certificate: &str) -> Result<Arc<Roots>, NoMaterial> {
        self.roots.load_full().ok_or_else(|| NoMaterial::new("it was given no roots"))
    }
}
