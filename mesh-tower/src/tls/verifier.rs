//! Whom we believe: a chain to the configured roots with the right key usage, and a name that the configuration
//! accepts. The host name plays no part (gRFC A29).

use std::sync::Arc;

use mesh_core::matcher::san::SanMatcher;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::TlsError;
use super::provider::Roots;
use super::san::check_sans;

/// Verifies servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<Roots>,
    sans: Vec<SanMatcher>,
    crypto: Arc<CryptoProvider>,
}

/// Verifies clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// Chain and key usage.
    chain: Arc<dyn ClientCertVerifier>,
    sans: Vec<SanMatcher>,
    mandatory: bool,
}

// === impl ServerVerifier ===

impl ServerVerifier {
    pub(super) const fn new(roots: Arc<Roots>, sans: Vec<SanMatcher>, crypto: Arc<CryptoProvider>) -> Self {
        Self { roots, sans, crypto }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.crypto.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            self.roots.store(),
            intermediates,
            now,
            algorithms,
        )?;
        check_sans(std::slice::from_ref(end_entity), &self.sans).map_err(mismatch)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

// === impl ClientVerifier ===

impl ClientVerifier {
    pub(super) fn new(
        roots: &Roots,
        sans: Vec<SanMatcher>,
        mandatory: bool,
        crypto: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots.store().clone(), crypto)
            .build()
            .map_err(|e| TlsError::InvalidMaterial(format!("the client roots cannot be used: {e}").into()))?;
        Ok(Self { chain, sans, mandatory })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        check_sans(std::slice::from_ref(end_entity), &self.sans).map_err(mismatch)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn mismatch(error: TlsError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
