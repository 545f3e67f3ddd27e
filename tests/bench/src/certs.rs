//! A certificate authority for one run: P-256 leaves with SPIFFE URI SANs, TLS 1.3 on every peer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Result;

/// The identity of the echo server.
pub(crate) const SERVER_ID: &str = "spiffe://bench.test/ns/default/sa/echo";
/// The identity of every client.
pub(crate) const CLIENT_ID: &str = "spiffe://bench.test/ns/default/sa/client";
/// The DNS SAN of the server, for peers that verify host names.
pub(crate) const SERVER_NAME: &str = "localhost";

/// PEM files of one identity.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Leaf certificate.
    pub(crate) cert: PathBuf,
    /// PKCS#8 private key.
    pub(crate) key: PathBuf,
    /// The authority's certificate.
    pub(crate) ca: PathBuf,
}

impl Files {
    /// The server's files under `dir`.
    pub(crate) fn server(dir: &Path) -> Self {
        Self::named(dir, "server")
    }

    /// The client's files under `dir`.
    pub(crate) fn client(dir: &Path) -> Self {
        Self::named(dir, "client")
    }

    fn named(dir: &Path, name: &str) -> Self {
        Self {
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
            ca: dir.join("ca.pem"),
        }
    }
}

/// Writes an authority, a server leaf and a client leaf as PEM files into `dir`.
pub(crate) fn issue(dir: &Path) -> Result<()> {
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("bench authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_cert = params.self_signed(&ca_key)?;
    fs::write(dir.join("ca.pem"), ca_cert.pem())?;
    let issuer = Issuer::new(params, ca_key);
    leaf(&issuer, &Files::server(dir), SERVER_ID, Some(SERVER_NAME))?;
    leaf(&issuer, &Files::client(dir), CLIENT_ID, None)
}

/// The rustls configuration of the bare peers: TLS 1.3 only, ALPN `h2`, our client certificate.
pub(crate) fn client_config(files: &Files) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca)?)?;
    let chain = vec![CertificateDer::from_pem_file(&files.cert)?];
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn leaf(issuer: &Issuer<'_, KeyPair>, files: &Files, spiffe: &str, dns: Option<&str>) -> Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("bench workload");
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(spiffe)?)];
    if let Some(dns) = dns {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(dns)?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let cert = params.signed_by(&key, issuer)?;
    fs::write(&files.cert, cert.pem())?;
    fs::write(&files.key, key.serialize_pem())?;
    Ok(())
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

#[cfg(test)]
mod tests {
    use super::{Files, client_config, issue};

    #[test]
    fn issued_files_load_as_a_client_identity() {
        let dir = tempfile::tempdir().unwrap();
        issue(dir.path()).unwrap();
        let config = client_config(&Files::client(dir.path())).unwrap();
        assert_eq!(config.alpn_protocols, vec![b"h2".to_vec()]);
    }
}
