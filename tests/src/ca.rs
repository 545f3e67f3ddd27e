//! A certificate authority for one test: identities are files, as a mesh reads them, and can be rotated.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
};
use rcgen::{KeyPair, KeyUsagePurpose, SanType};
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// The authority. Clones are the same authority; its files live as long as the last clone.
#[derive(Debug, Clone)]
pub struct Ca {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    trust_domain: String,
}

/// A workload's certificate and key, in files.
#[derive(Debug, Clone)]
pub struct Identity {
    ca: Ca,
    dir: PathBuf,
    spiffe: String,
    /// The certificate that the files hold now.
    current: Arc<Mutex<Vec<u8>>>,
}

/// The names in a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// `uniformResourceIdentifier`.
    pub uris: &'static [&'static str],
    /// `dNSName`.
    pub dns: &'static [&'static str],
    /// The common name of the subject; none if it is empty.
    pub subject: &'static str,
}

// === impl Ca ===

impl Ca {
    /// A new authority for a trust domain.
    ///
    /// # Panics
    /// If keys or files cannot be made.
    #[must_use]
    pub fn new(trust_domain: impl Into<String>) -> Self {
        let trust_domain = trust_domain.into();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name(&format!("{trust_domain} CA"));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a CA certificate");
        fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("a CA file");
        let certificate = certificate.der().clone();
        let issuer = Issuer::new(params, key);
        Self { inner: Arc::new(Inner { dir, issuer, certificate, trust_domain }) }
    }

    /// The file with the authority's certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.inner.dir.path().join("ca.pem")
    }

    /// The SPIFFE id of a service account in the namespace `default`.
    #[must_use]
    pub fn spiffe(&self, account: &str) -> String {
        format!("spiffe://{}/ns/default/sa/{account}", self.inner.trust_domain)
    }

    /// Issues an identity to a service account.
    ///
    /// # Panics
    /// If keys or files cannot be made.
    #[must_use]
    pub fn identity(&self, account: &str) -> Identity {
        let dir = tempfile::Builder::new()
            .prefix(account)
            .disable_cleanup(true)
            .tempdir_in(self.inner.dir.path())
            .expect("a directory below the CA's, which removes it")
            .keep();
        let identity =
            Identity { ca: self.clone(), dir, spiffe: self.spiffe(account), current: Arc::default() };
        identity.rotate();
        identity
    }

    /// What a plain TLS server needs: its certificate, and whether it asks clients for theirs.
    ///
    /// # Panics
    /// If the files do not fit together.
    #[must_use]
    pub fn server_config(&self, identity: &Identity, require_client: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3");
        let builder = if require_client {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(self.roots()),
                Arc::new(aws_lc_rs::default_provider()),
            );
            builder.with_client_cert_verifier(verifier.build().expect("one root"))
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = identity.load();
        let mut config = builder.with_single_cert(chain, key).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// What a plain TLS client needs; without an identity it shows no certificate. It does not check the server's name,
    /// which is a SPIFFE id and not the address that it dials.
    ///
    /// # Panics
    /// If the files do not fit together.
    #[must_use]
    pub fn client_config(&self, identity: Option<&Identity>, alpn: &[&str]) -> Arc<ClientConfig> {
        let builder = self.client_builder();
        let mut config = match identity {
            Some(identity) => {
                let (chain, key) = identity.load();
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The same for a client whose certificate has these names.
    ///
    /// # Panics
    /// If keys cannot be made.
    #[must_use]
    pub fn client_config_of(&self, names: Names, alpn: &[&str]) -> Arc<ClientConfig> {
        let text = |text: &str| Ia5String::try_from(text).expect("an ASCII name");
        let mut params = CertificateParams::default();
        params.distinguished_name = match names.subject {
            "" => DistinguishedName::new(),
            name => common_name(name),
        };
        let uris = names.uris.iter().map(|uri| SanType::URI(text(uri)));
        params.subject_alt_names =
            uris.chain(names.dns.iter().map(|dns| SanType::DnsName(text(dns)))).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.inner.issuer).expect("a signed certificate");
        let builder = self.client_builder();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("a pair");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn client_builder(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusting::AnyName::new(self.roots(), provider)))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.inner.certificate.clone()).expect("a CA certificate");
        roots
    }
}

// === impl Identity ===

impl Identity {
    /// Replaces certificate and key by new ones, each file in one step, the certificate last. Returns the certificate.
    ///
    /// # Panics
    /// If keys or files cannot be made.
    pub fn rotate(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("workload");
        params.subject_alt_names =
            vec![SanType::URI(Ia5String::try_from(self.spiffe.as_str()).expect("an ASCII identity"))];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca.inner.issuer).expect("a signed certificate");
        replace(&self.key_file(), &key.serialize_pem());
        replace(&self.certificate_file(), &certificate.pem());
        let der = certificate.der().to_vec();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = der.clone();
        der
    }

    /// The SPIFFE id.
    #[must_use]
    pub fn spiffe(&self) -> &str {
        &self.spiffe
    }

    /// The certificate that the files hold.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file with the certificate chain.
    #[must_use]
    pub fn certificate_file(&self) -> PathBuf {
        self.dir.join("cert.pem")
    }

    /// The file with the private key.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.dir.join("key.pem")
    }

    /// The file with the roots that this identity trusts.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.ca.file()
    }

    /// The authority that issued it.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    fn load(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(self.certificate_file()).expect("a certificate file");
        let chain = chain.collect::<Result<_, _>>().expect("certificates");
        (chain, PrivateKeyDer::from_pem_file(self.key_file()).expect("a key file"))
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Writes beside and renames, so that no reader sees a half of it.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).expect("a file beside");
    fs::rename(&beside, file).expect("a rename");
}

mod trusting {
    //! A verifier that checks the chain, and leaves the name to the test.

    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct AnyName {
        inner: Arc<WebPkiServerVerifier>,
    }

    impl AnyName {
        pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            Self { inner: inner.expect("one root") }
        }
    }

    impl ServerCertVerifier for AnyName {
        fn verify_server_cert(
            &self,
            leaf: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            match self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                other => other,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    }
}
