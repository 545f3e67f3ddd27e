//! The client side of TLS: one context per value of `UpstreamTlsContext`.
//!
//! The peer's names are checked inside the handshake, and once more when it is over, before the first byte of a
//! request is written: a resumed session brings the certificate of the session's first handshake, which TLS does
//! not verify again.

use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::config::cluster::UpstreamProtocol;
use mesh_core::config::endpoints::Address;
use mesh_core::config::security::UpstreamTls;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use rustls_pki_types::{ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use super::provider::{Identity, Roots};
use super::san::{check_sans, check_validity};
use super::verifier::ServerVerifier;
use super::{HandshakeFailure, TlsError, TlsRuntime};
use crate::transport::io::{BoxIo, Io};

const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// How to secure the connections of one cluster, with the session cache of those connections.
#[derive(Debug)]
pub(crate) struct ClientTls {
    runtime: Arc<TlsRuntime>,
    value: Arc<UpstreamTls>,
    /// The configuration of the identity and roots of the last handshake.
    current: Mutex<Option<Built>>,
}

/// A byte stream after its handshake.
pub(crate) struct Secured {
    pub(crate) io: BoxIo,
    /// The protocol that ALPN chose, if the peer takes part in ALPN.
    pub(crate) alpn: Option<UpstreamProtocol>,
}

#[derive(Debug, Clone)]
struct Built {
    identity: Option<Arc<Identity>>,
    roots: Arc<Roots>,
    config: Arc<ClientConfig>,
}

// === impl ClientTls ===

impl ClientTls {
    pub(super) const fn new(runtime: Arc<TlsRuntime>, value: Arc<UpstreamTls>) -> Self {
        Self { runtime, value, current: Mutex::new(None) }
    }

    /// The configuration that this context implements.
    pub(crate) const fn value(&self) -> &Arc<UpstreamTls> {
        &self.value
    }

    /// Whether two connections secured by these contexts may serve the same request.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (Arc::ptr_eq(&self.runtime, &other.runtime) && self.value == other.value)
    }

    /// Performs the handshake.
    ///
    /// Cancel safe: dropping the future closes `io`.
    pub(crate) async fn connect(
        &self,
        io: BoxIo,
        address: &Address,
        protocol: UpstreamProtocol,
    ) -> Result<Secured, TlsError> {
        let config = self.config()?;
        let name = self.server_name(address)?;
        let alpn: &[&[u8]] = match protocol {
            UpstreamProtocol::Http2 => &[ALPN_H2],
            UpstreamProtocol::Http1 => &[ALPN_HTTP1],
            UpstreamProtocol::Auto => &[ALPN_H2, ALPN_HTTP1],
        };
        let connector = TlsConnector::from(config);
        let connector = connector.with_alpn(alpn.iter().map(|name| name.to_vec()).collect());
        let stream = connector.connect(name, io).await.map_err(|e| handshake_error(&e))?;

        let session = stream.get_ref().1;
        let chain = session.peer_certificates().unwrap_or_default();
        check_sans(chain, &self.value.sans)?;
        if session.handshake_kind() == Some(HandshakeKind::Resumed) {
            check_validity(chain, UnixTime::now())?;
        }
        let alpn = match session.alpn_protocol() {
            Some(ALPN_H2) => Some(UpstreamProtocol::Http2),
            Some(ALPN_HTTP1) => Some(UpstreamProtocol::Http1),
            _ => None,
        };
        let io: Box<dyn Io> = Box::new(stream);
        Ok(Secured { io, alpn })
    }

    /// The configuration of the current identity and roots. It is built anew, with an empty session cache, when
    /// one of them has changed.
    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let identity = self.value.identity.as_ref().map(|i| self.runtime.identity(i)).transpose()?;
        let roots = self.runtime.roots(&self.value.roots)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = current.as_ref().filter(|b| b.is_of(identity.as_ref(), &roots)) {
            return Ok(built.config.clone());
        }
        let config = Arc::new(self.build(identity.as_deref(), &roots)?);
        *current = Some(Built { identity, roots, config: config.clone() });
        Ok(config)
    }

    fn build(&self, identity: Option<&Identity>, roots: &Arc<Roots>) -> Result<ClientConfig, TlsError> {
        let crypto = self.runtime.crypto().clone();
        let verifier = ServerVerifier::new(roots.clone(), self.value.sans.clone(), crypto.clone());
        let builder = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::InvalidMaterial(e.to_string().into()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(OneIdentity(identity.certified_key())))
            }
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.value.sni.is_some();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }

    /// The name to send, or the name under which sessions are kept where none is sent.
    fn server_name(&self, address: &Address) -> Result<ServerName<'static>, TlsError> {
        let invalid = |name: &str| TlsError::InvalidMaterial(format!("{name:?} is no server name").into());
        match (&self.value.sni, address) {
            (Some(sni), _) => ServerName::try_from(sni.to_string()).map_err(|_| invalid(sni)),
            (None, Address::Socket(socket)) => Ok(ServerName::IpAddress(socket.ip().into())),
            (None, Address::Unix(_)) => ServerName::try_from("localhost").map_err(|_| invalid("localhost")),
        }
    }
}

/// Sessions kept per context: a few for each of a cluster's endpoints.
const SESSIONS: usize = 256;

// === impl Built ===

impl Built {
    fn is_of(&self, identity: Option<&Arc<Identity>>, roots: &Arc<Roots>) -> bool {
        let same_identity = match (&self.identity, identity) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        same_identity && Arc::ptr_eq(&self.roots, roots)
    }
}

/// Shows the one certificate of its configuration, whatever hints the server gives about its roots.
#[derive(Debug)]
struct OneIdentity(Arc<CertifiedKey>);

impl ResolvesClientCert for OneIdentity {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The error of a handshake, with our own refusal in plain words.
pub(super) fn handshake_error(error: &std::io::Error) -> TlsError {
    let ours = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) = ours
        && let Some(mismatch) = other.0.downcast_ref::<TlsError>()
    {
        return mismatch.clone();
    }
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let failure = HandshakeFailure::new(error);
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof => {
            TlsError::Interrupted(failure)
        }
        _ => TlsError::Handshake(failure),
    }
}
