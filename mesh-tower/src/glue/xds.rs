//! A mesh that is configured over xDS, or by a file of xDS resources.
//!
//! ```no_run
//! # async fn run() -> Result<(), mesh_tower::Error> {
//! use mesh_tower::Mesh;
//!
//! let mesh = Mesh::from_bootstrap_env().await?;
//! # Ok(())
//! # }
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_xds::bootstrap::{Bootstrap, CertificateProvider};
use mesh_xds::{Rules, StaticSource, XdsSource, XdsSourceBuilder};
use rustls::crypto::CryptoProvider;
use tokio::runtime::Handle;

use crate::builder::MeshBuilder;
use crate::error::Error;
use crate::mesh::Mesh;
use crate::tls::CryptoBackend;
use crate::tls::provider::CertificateProviders;
use crate::tls::provider::file_watcher::{FileWatcher, FileWatcherConfig, IdentityFiles};

/// How often a file of resources is looked at for changes.
const RELOAD: Duration = Duration::from_secs(1);

// === impl Mesh ===

impl Mesh {
    /// A mesh configured by the control plane that the environment names (`GRPC_XDS_BOOTSTRAP`,
    /// `GRPC_XDS_BOOTSTRAP_CONFIG`; gRFC A27). Fails only on a bad bootstrap; never waits for a control plane.
    ///
    /// # Errors
    /// Where the environment names no valid bootstrap, and outside a Tokio runtime.
    pub async fn from_bootstrap_env() -> Result<Self, Error> {
        MeshBuilder::from_bootstrap(Bootstrap::from_env().map_err(Error::setup_failed)?)?.build()
    }

    /// A mesh configured by the control plane that a bootstrap file names.
    ///
    /// # Errors
    /// As [`Mesh::from_bootstrap_env`].
    pub async fn from_bootstrap_file(path: impl Into<PathBuf>) -> Result<Self, Error> {
        MeshBuilder::from_bootstrap(Bootstrap::from_file(path).map_err(Error::setup_failed)?)?.build()
    }

    /// A mesh configured by the control plane that a bootstrap text names.
    ///
    /// # Errors
    /// As [`Mesh::from_bootstrap_env`].
    pub async fn from_bootstrap_json(json: &str) -> Result<Self, Error> {
        MeshBuilder::from_bootstrap(json.parse::<Bootstrap>().map_err(Error::setup_failed)?)?.build()
    }

    /// A mesh configured by a YAML or JSON file of xDS resources, which is read again when it changes.
    ///
    /// # Errors
    /// When the file is not valid, and outside a Tokio runtime.
    pub async fn from_static_file(path: impl Into<PathBuf>) -> Result<Self, Error> {
        MeshBuilder::from_static_file(path, CertificateProviders::new())?.build()
    }
}

// === impl MeshBuilder ===

impl MeshBuilder {
    /// Begins a mesh that is configured over xDS, with the certificate providers of the bootstrap. Incremental xDS is
    /// chosen there, by the server feature `xds.delta` or by [`Bootstrap::with_protocol`].
    ///
    /// # Errors
    /// Outside a Tokio runtime, and where no cryptography is compiled in.
    pub fn from_bootstrap(bootstrap: Bootstrap) -> Result<Self, Error> {
        Self::from_bootstrap_with(bootstrap, |source| source)
    }

    /// As [`MeshBuilder::from_bootstrap`], with more to say about the source: for one, where it keeps the last good
    /// configuration.
    ///
    /// ```no_run
    /// # fn build(bootstrap: mesh_xds::bootstrap::Bootstrap) -> Result<mesh_tower::Mesh, mesh_tower::Error> {
    /// use mesh_tower::MeshBuilder;
    ///
    /// MeshBuilder::from_bootstrap_with(bootstrap, |source| source.last_good_file("/var/lib/shop/mesh"))?.build()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`MeshBuilder::from_bootstrap`].
    pub fn from_bootstrap_with(
        bootstrap: Bootstrap,
        source: impl FnOnce(XdsSourceBuilder) -> XdsSourceBuilder,
    ) -> Result<Self, Error> {
        let runtime = current()?;
        let crypto = CryptoBackend::Auto.provider().map_err(Error::setup_failed)?;
        let mut providers = CertificateProviders::new();
        for (name, provider) in bootstrap.certificate_providers() {
            providers = add(providers, name, provider, &crypto, &runtime);
        }
        let source = source(XdsSource::builder(bootstrap)).start(&runtime);
        Ok(Self::new(Arc::new(source)).certificate_providers(providers))
    }

    /// Begins a mesh that is configured by a file of xDS resources, which may name these certificate providers.
    ///
    /// # Errors
    /// When the file is not valid, and outside a Tokio runtime.
    pub fn from_static_file(
        path: impl Into<PathBuf>,
        providers: CertificateProviders,
    ) -> Result<Self, Error> {
        let runtime = current()?;
        let rules = Rules::with_providers(providers.names().cloned());
        let mut source = StaticSource::from_file(path, rules).map_err(Error::setup_failed)?;
        source.watch(RELOAD, &runtime);
        Ok(Self::new(Arc::new(source)).certificate_providers(providers))
    }
}

fn add(
    providers: CertificateProviders,
    name: &str,
    provider: &CertificateProvider,
    crypto: &Arc<CryptoProvider>,
    runtime: &Handle,
) -> CertificateProviders {
    let CertificateProvider::FileWatcher(files) = provider else {
        // Unknown plugins are an error only where a resource names them, which finds no such provider.
        return providers;
    };
    let config = FileWatcherConfig {
        identity: files.identity().map(|identity| IdentityFiles {
            certificate_file: identity.certificate().to_owned(),
            private_key_file: identity.private_key().to_owned(),
        }),
        ca_certificate_file: files.ca_certificate_file().map(ToOwned::to_owned),
        refresh_interval: files.refresh_interval(),
    };
    providers.with(name, FileWatcher::start(config, crypto.clone(), runtime))
}

fn current() -> Result<Handle, Error> {
    Handle::try_current()
        .map_err(|_| Error::setup("a mesh is built within a Tokio runtime: call this from async code"))
}
