//! TLS of the control plane: its own certificate, and optionally the CA whose certificates its clients must have.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a control plane shows to its clients, and asks of them.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

/// Files that make no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTls {
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no PEM of the right kind.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{}: holds no certificate", .0.display())]
    Empty(PathBuf),
    /// Certificate and key, or the CA, cannot be used.
    #[error(transparent)]
    Unusable(#[from] rustls::Error),
    /// Nothing could be verified by the CA of clients.
    #[error(transparent)]
    ClientCa(#[from] VerifierBuilderError),
}

// === impl Tls ===

impl Tls {
    /// Reads PEM files: the certificate chain, its key, and the CA of the clients. Without a CA any client may connect;
    /// with one, only those that show a certificate of it.
    ///
    /// # Errors
    /// If a file cannot be read, or what it holds cannot be used.
    pub fn from_files(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, InvalidTls> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file)? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let invalid = |source| InvalidTls::Pem { file: key.into(), source };
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(invalid)?;
        let mut config = builder.with_single_cert(certificates(certificate)?, private)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(socket).await
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let found = CertificateDer::pem_slice_iter(&read(file)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|source| InvalidTls::Pem { file: file.into(), source })?;
    if found.is_empty() { Err(InvalidTls::Empty(file.into())) } else { Ok(found) }
}

fn read(file: &Path) -> Result<Vec<u8>, InvalidTls> {
    fs::read(file).map_err(|source| InvalidTls::File { file: file.into(), source })
}
