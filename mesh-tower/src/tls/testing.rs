//! A small certificate authority for tests.

use std::sync::Arc;

use mesh_core::config::security::{DownstreamTls, ProviderInstance, TrustAnchors, UpstreamTls};
use mesh_core::identity::TlsPeer;
use mesh_core::matcher::san::{SanKind, SanMatcher};
use mesh_core::matcher::string::StringMatcher;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::provider::static_::StaticProvider;
use super::provider::{CertificateProviders, Identity, Roots};
use super::server::{ServerTls, read_hello};
use super::{CryptoBackend, TlsError, TlsRuntime};

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// PEM chain and PEM key.
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test root");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A leaf for both sides of TLS.
    pub(crate) fn leaf(&self, sans: &[SanType]) -> Leaf {
        self.leaf_with(sans, |params| {
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    pub(crate) fn leaf_with(&self, sans: &[SanType], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { chain, key: key.serialize_pem() }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.pem.as_bytes()).unwrap()
    }

    pub(crate) fn spiffe(&self, id: &str) -> Identity {
        self.leaf(&[uri(id)]).identity()
    }
}

impl Leaf {
    pub(crate) fn identity(&self) -> Identity {
        let crypto = CryptoBackend::Auto.provider().unwrap();
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes(), &crypto).unwrap()
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// The server's side of a whole handshake.
pub(crate) async fn accept<T>(server: &ServerTls, io: T) -> Result<(TlsStream<T>, TlsPeer), TlsError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Without material nobody need wait for a ClientHello.
    server.config()?;
    let answered = server.answer(read_hello(io).await?)?;
    server.identify(answered.await)
}

/// A runtime whose provider `default` is this one.
pub(crate) fn runtime(provider: &Arc<StaticProvider>) -> Arc<TlsRuntime> {
    let providers = CertificateProviders::new().with("default", provider.clone());
    TlsRuntime::new(CryptoBackend::Auto.provider().unwrap(), providers)
}

pub(crate) fn default_instance() -> ProviderInstance {
    ProviderInstance { instance: "default".into(), certificate: "".into() }
}

/// Mutual TLS with a server of exactly this URI name; none accepts any.
pub(crate) fn upstream(san: Option<&str>) -> Arc<UpstreamTls> {
    let sans = san.map(|san| SanMatcher { kind: Some(SanKind::Uri), matcher: StringMatcher::exact(san) });
    Arc::new(UpstreamTls {
        identity: Some(default_instance()),
        roots: TrustAnchors::Provider(default_instance()),
        sans: sans.into_iter().collect(),
        sni: None,
    })
}

/// Mutual TLS that insists on a client certificate.
pub(crate) fn downstream() -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        identity: default_instance(),
        client_roots: Some(TrustAnchors::Provider(default_instance())),
        require_client_certificate: true,
        client_sans: Vec::new(),
    })
}
