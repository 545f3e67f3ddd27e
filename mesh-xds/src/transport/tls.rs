//! TLS towards a control plane (gRFC A65).
//!
//! Files are read anew for each connection, so a rotated certificate is used by the next one; no session is kept.
//! `refresh_interval` therefore has nothing to do here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::connect::Io;
use crate::bootstrap::{ServerAddress, TlsCreds};

const HTTP2: &[u8] = b"h2";

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("certificate file {file:?} cannot be read")]
    File {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("certificate file {file:?} holds no usable PEM")]
    Pem {
        file: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("certificate file {0:?} holds no certificate")]
    Empty(PathBuf),
    #[error("the system has no root certificates; set ca_certificate_file")]
    NoSystemRoots,
    #[error("certificates cannot be used")]
    Certificates(#[source] rustls::Error),
    #[error("{host:?} is no name that a certificate could have")]
    Name {
        host: String,
        #[source]
        source: InvalidDnsNameError,
    },
    #[error("TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("the control plane does not speak HTTP/2 over TLS (ALPN h2)")]
    NotHttp2,
}

pub(super) async fn secure(
    io: Box<dyn Io>,
    address: &ServerAddress,
    creds: &TlsCreds,
) -> Result<Box<dyn Io>, TlsError> {
    let host = match address {
        ServerAddress::Tcp { host, .. } => host.as_str(),
        ServerAddress::Unix(_) => "localhost",
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|source| TlsError::Name { host: host.to_owned(), source })?;
    let config = Arc::new(client_config(creds).await?);
    let tls = TlsConnector::from(config).connect(name, io).await.map_err(TlsError::Handshake)?;
    match tls.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Ok(Box::new(tls)),
        Some(_) | None => Err(TlsError::NotHttp2),
    }
}

async fn client_config(creds: &TlsCreds) -> Result<ClientConfig, TlsError> {
    let roots = match creds.ca_certificate_file() {
        Some(file) => roots_of(certificates(file).await?)?,
        None => system_roots().await?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificates)?
        .with_root_certificates(roots);
    let mut config = match creds.identity() {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(identity.certificate()).await?;
            let key = private_key(identity.private_key()).await?;
            builder.with_client_auth_cert(chain, key).map_err(TlsError::Certificates)?
        }
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots_of(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(TlsError::Certificates)?;
    }
    Ok(roots)
}

/// The system's store may hold certificates that cannot be used; the rest are.
async fn system_roots() -> Result<RootCertStore, TlsError> {
    let load = tokio::task::spawn_blocking(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    // A load that panicked loaded nothing.
    let roots = load.await.unwrap_or_else(|_| RootCertStore::empty());
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

async fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file).await?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|source| TlsError::Pem { file: file.to_owned(), source })?;
    if certificates.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(certificates) }
}

async fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(file).await?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|source| TlsError::Pem { file: file.to_owned(), source })
}

async fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(file).await.map_err(|source| TlsError::File { file: file.to_owned(), source })
}
