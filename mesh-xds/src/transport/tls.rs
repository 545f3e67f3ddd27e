//! TLS towards a control plane (gRFC A65).
//!
//! Files are read anew for each connection, so a rotated certificate is used by the next one; no session is kept.
//! `refresh_interval` therefore has nothing to do here. Files that cannot be used any more leave in use what was read
//! from them last, with a warning that names the file and the reason: half a rotation must not cost the control plane.
//! An identity that has expired is left out, with a warning: a control plane that knows its clients by their tokens would
//! refuse the handshake for it, and one that wants a certificate says that it got none.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::connect::Io;
use super::render;
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
    #[error("certificate file {file:?} holds a certificate that cannot be used as a root")]
    Root {
        file: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("certificate file {certificate:?} and key file {key:?} cannot be used together")]
    Identity {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
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

/// What was last read from the files of one control plane.
#[derive(Debug, Default)]
pub(crate) struct LastConfig {
    /// Protects the pointer alone; held for a copy, never across an await.
    config: Mutex<Option<Arc<ClientConfig>>>,
}

pub(super) async fn secure(
    io: Box<dyn Io>,
    address: &ServerAddress,
    creds: &TlsCreds,
    last_good: &LastConfig,
    now: SystemTime,
) -> Result<Box<dyn Io>, TlsError> {
    let host = match address {
        ServerAddress::Tcp { host, .. } => host.as_str(),
        ServerAddress::Unix(_) => "localhost",
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|source| TlsError::Name { host: host.to_owned(), source })?;
    let config = last_good.reload(creds, now).await?;
    let tls = TlsConnector::from(config).connect(name, io).await.map_err(TlsError::Handshake)?;
    match tls.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Ok(Box::new(tls)),
        Some(_) | None => Err(TlsError::NotHttp2),
    }
}

// === impl LastConfig ===

impl LastConfig {
    /// What the files hold now, or held when they could be used.
    async fn reload(&self, creds: &TlsCreds, now: SystemTime) -> Result<Arc<ClientConfig>, TlsError> {
        let read = client_config(creds, now).await;
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, config.as_ref()) {
            (Ok(fresh), _) => Ok(config.insert(Arc::new(fresh)).clone()),
            (Err(error), Some(last)) => {
                let error = render(&error);
                tracing::warn!(
                    error,
                    "certificates for the control plane cannot be read; the last good ones stay in use"
                );
                Ok(last.clone())
            }
            (Err(error), None) => Err(error),
        }
    }
}

async fn client_config(creds: &TlsCreds, now: SystemTime) -> Result<ClientConfig, TlsError> {
    let roots = match creds.ca_certificate_file() {
        Some(file) => roots_of(file, certificates(file).await?)?,
        None => system_roots().await?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    let mut config = match creds.identity() {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(identity.certificate()).await?;
            let key = private_key(identity.private_key()).await?;
            let expired = chain.first().is_some_and(|leaf| has_expired(leaf, now));
            // Put together in any case: files that do not fit are an error whatever their age.
            let known = builder.clone().with_client_auth_cert(chain, key);
            let known = known.map_err(|source| TlsError::Identity {
                certificate: identity.certificate().to_owned(),
                key: identity.private_key().to_owned(),
                source,
            })?;
            if expired {
                let file = identity.certificate();
                tracing::warn!(
                    ?file,
                    "the client certificate has expired; it is not shown to the control plane"
                );
                builder.with_no_client_auth()
            } else {
                known
            }
        }
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What cannot be read is the peer's to judge.
fn has_expired(leaf: &CertificateDer<'_>, now: SystemTime) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(ends) < now
}

fn roots_of(file: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|source| TlsError::Root { file: file.to_owned(), source })?;
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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::bootstrap::IdentityFiles;
    use crate::transport::render;

    /// A CA with files of its own, which signs what a test needs.
    struct Ca {
        issuer: CertifiedIssuer<'static, KeyPair>,
        directory: TempDir,
    }

    impl Ca {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
            Self { issuer, directory }
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("ca.pem")
        }

        fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> IdentityFiles {
            self.sign_until(name, usage, 2100)
        }

        fn sign_until(&self, name: &str, usage: ExtendedKeyUsagePurpose, year: i32) -> IdentityFiles {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            let [cert, private] =
                ["pem", "key"].map(|end| self.directory.path().join(format!("{name}.{end}")));
            std::fs::write(&cert, certificate.pem()).unwrap();
            std::fs::write(&private, key.serialize_pem()).unwrap();
            IdentityFiles::new(cert, private)
        }

        /// A control plane at `xds.test` that demands a certificate of this CA where `mutual` is set.
        async fn server(&self, mutual: bool, alpn: &[&[u8]]) -> TlsAcceptor {
            let files = self.sign("xds.test", ExtendedKeyUsagePurpose::ServerAuth);
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ServerConfig::builder_with_provider(provider.clone());
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            let builder = if mutual {
                let file = self.file();
                let roots = Arc::new(roots_of(&file, certificates(&file).await.unwrap()).unwrap());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            } else {
                builder.with_no_client_auth()
            };
            let chain = certificates(files.certificate()).await.unwrap();
            let key = private_key(files.private_key()).await.unwrap();
            let mut config = builder.with_single_cert(chain, key).unwrap();
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            TlsAcceptor::from(Arc::new(config))
        }
    }

    /// Connects with `creds`, and carries one byte in each direction.
    async fn converse(server: TlsAcceptor, creds: &TlsCreds) -> Result<(), String> {
        converse_again(server, creds, &LastConfig::default()).await
    }

    async fn converse_again(
        server: TlsAcceptor,
        creds: &TlsCreds,
        last_good: &LastConfig,
    ) -> Result<(), String> {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let serve = async {
            if let Ok(mut tls) = server.accept(theirs).await {
                _ = tls.write_all(b"!").await;
                _ = tls.flush().await;
                _ = tls.read(&mut [0]).await;
            }
        };
        let address = ServerAddress::Tcp { host: "xds.test".to_owned(), port: 443 };
        let connect = async {
            let mut tls =
                secure(Box::new(ours), &address, creds, last_good, now()).await.map_err(|e| render(&e))?;
            // With TLS 1.3 a refused client certificate is known at the first read.
            tls.read_u8().await.map_err(|e| e.to_string())?;
            tls.write_all(b"!").await.map_err(|e| e.to_string())
        };
        tokio::join!(serve, connect).1
    }

    const H2: &[&[u8]] = &[HTTP2];

    /// 2030, so that a test can have certificates of any age.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000)
    }

    #[tokio::test]
    async fn a_control_plane_of_the_configured_roots_is_trusted_and_another_is_not() {
        let (ca, other) = (Ca::new(), Ca::new());
        let trusting = TlsCreds::system_roots().with_ca_file(ca.file());
        assert_eq!(converse(ca.server(false, H2).await, &trusting).await, Ok(()));
        let error = converse(other.server(false, H2).await, &trusting).await.unwrap_err();
        assert!(
            error.contains("TLS handshake failed") && error.contains("invalid peer certificate"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_identity_is_presented_and_its_absence_refused_by_the_peer() {
        let ca = Ca::new();
        let identity = ca.sign("client", ExtendedKeyUsagePurpose::ClientAuth);
        let anonymous = TlsCreds::system_roots().with_ca_file(ca.file());
        assert!(converse(ca.server(true, H2).await, &anonymous).await.is_err());
        let known = anonymous.with_identity(identity);
        assert_eq!(converse(ca.server(true, H2).await, &known).await, Ok(()));
    }

    #[tokio::test]
    async fn an_identity_that_has_expired_is_left_out_until_it_is_renewed() {
        let ca = Ca::new();
        let usage = || ExtendedKeyUsagePurpose::ClientAuth;
        let identity = ca.sign_until("client", usage(), 2029);
        let creds = TlsCreds::system_roots().with_ca_file(ca.file()).with_identity(identity);
        let last_good = LastConfig::default();
        let shown = async || {
            let config = last_good.reload(&creds, now()).await.unwrap();
            config.client_auth_cert_resolver.has_certs()
        };
        assert!(!shown().await);
        let error = converse(ca.server(true, H2).await, &creds).await.unwrap_err();
        assert!(error.contains("CertificateRequired"), "{error}");
        assert_eq!(converse(ca.server(false, H2).await, &creds).await, Ok(()));
        ca.sign_until("client", usage(), 2031);
        assert!(shown().await);
        assert_eq!(converse(ca.server(true, H2).await, &creds).await, Ok(()));
        // A year before its end it was good.
        ca.sign_until("client", usage(), 2029);
        let year_before = now() - Duration::from_secs(2 * 365 * 24 * 3_600);
        let config = client_config(&creds, year_before).await.unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
    }

    #[tokio::test]
    async fn a_rotated_file_is_used_by_the_next_connection() {
        let (old, new) = (Ca::new(), Ca::new());
        let creds = TlsCreds::system_roots().with_ca_file(old.file());
        assert_eq!(converse(old.server(false, H2).await, &creds).await, Ok(()));
        std::fs::copy(new.file(), old.file()).unwrap();
        assert_eq!(converse(new.server(false, H2).await, &creds).await, Ok(()));
    }

    /// Half of a rotation: the certificate is new, and the key is old.
    #[tokio::test]
    async fn files_that_cannot_be_used_any_more_leave_the_last_good_ones_in_use() {
        let ca = Ca::new();
        let (identity, other) = (
            ca.sign("client", ExtendedKeyUsagePurpose::ClientAuth),
            ca.sign("other", ExtendedKeyUsagePurpose::ClientAuth),
        );
        let creds = TlsCreds::system_roots().with_ca_file(ca.file()).with_identity(identity.clone());
        let last_good = LastConfig::default();
        assert_eq!(converse_again(ca.server(true, H2).await, &creds, &last_good).await, Ok(()));
        std::fs::copy(other.certificate(), identity.certificate()).unwrap();
        assert_eq!(converse_again(ca.server(true, H2).await, &creds, &last_good).await, Ok(()));
        std::fs::remove_file(identity.private_key()).unwrap();
        assert_eq!(converse_again(ca.server(true, H2).await, &creds, &last_good).await, Ok(()));
        let error = converse(ca.server(true, H2).await, &creds).await.unwrap_err();
        assert!(error.contains("client.key"), "without a last good one the file is named: {error}");
        std::fs::copy(other.private_key(), identity.private_key()).unwrap();
        std::fs::remove_file(ca.file()).unwrap();
        std::fs::write(ca.file(), ca.issuer.pem()).unwrap();
        assert_eq!(converse_again(ca.server(true, H2).await, &creds, &last_good).await, Ok(()));
    }

    #[tokio::test]
    async fn a_key_of_another_certificate_is_refused_with_both_files() {
        let ca = Ca::new();
        let [one, two] = ["one", "two"].map(|name| ca.sign(name, ExtendedKeyUsagePurpose::ClientAuth));
        let mixed = IdentityFiles::new(one.certificate(), two.private_key());
        let creds = TlsCreds::system_roots().with_ca_file(ca.file()).with_identity(mixed);
        let error = converse(ca.server(false, H2).await, &creds).await.unwrap_err();
        assert!(error.contains("one.pem") && error.contains("two.key"), "{error}");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_agree_on_http2_is_refused() {
        let ca = Ca::new();
        let creds = TlsCreds::system_roots().with_ca_file(ca.file());
        let error = converse(ca.server(false, &[]).await, &creds).await.unwrap_err();
        assert!(error.contains("ALPN h2"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named_and_never_replaced_by_plaintext() {
        let ca = Ca::new();
        let empty = ca.directory.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let cases =
            [(ca.directory.path().join("absent.pem"), "cannot be read"), (empty, "holds no certificate")];
        for (file, expected) in cases {
            let creds = TlsCreds::system_roots().with_ca_file(&file);
            let error = converse(ca.server(false, H2).await, &creds).await.unwrap_err();
            assert!(error.contains(expected) && error.contains(file.to_str().unwrap()), "{error}");
        }
    }
}
