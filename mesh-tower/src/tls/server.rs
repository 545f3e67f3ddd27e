//! The server side of TLS: one context per value of `DownstreamTlsContext`.

use std::sync::{Arc, Mutex, PoisonError};

use mesh_core::config::security::DownstreamTls;
use mesh_core::identity::TlsPeer;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::handshake_error;
use super::provider::{Identity, Roots};
use super::san::{check_sans, check_validity, peer_identity};
use super::verifier::ClientVerifier;
use super::{TlsError, TlsRuntime};

/// How to secure the connections of one filter chain, with the session cache of those connections.
#[derive(Debug)]
pub struct ServerTls {
    runtime: Arc<TlsRuntime>,
    value: Arc<DownstreamTls>,
    /// The configuration of the identity and roots of the last handshake.
    current: Mutex<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    identity: Arc<Identity>,
    roots: Option<Arc<Roots>>,
    config: Arc<ServerConfig>,
}

// === impl ServerTls ===

impl ServerTls {
    pub(super) const fn new(runtime: Arc<TlsRuntime>, value: Arc<DownstreamTls>) -> Self {
        Self { runtime, value, current: Mutex::new(None) }
    }

    /// The configuration that this context implements.
    pub const fn value(&self) -> &Arc<DownstreamTls> {
        &self.value
    }

    /// Performs the handshake. There is no timeout in here: the listener has one for all that comes before the
    /// first request.
    ///
    /// Cancel safe: dropping the future closes `io`.
    ///
    /// # Errors
    /// When our certificate or roots are missing, or the peer is not whom the configuration wants.
    pub async fn accept<T>(&self, io: T) -> Result<(TlsStream<T>, TlsPeer), TlsError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config()?);
        let stream = acceptor.accept(io).await.map_err(|e| handshake_error(&e))?;
        let session = stream.get_ref().1;
        let mut peer = TlsPeer { server_name: session.server_name().map(Into::into), certificate: None };
        if let Some(chain) = session.peer_certificates() {
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                check_sans(chain, &self.value.client_sans)?;
                check_validity(chain, UnixTime::now())?;
            }
            peer.certificate = Some(peer_identity(chain)?);
        } else if self.value.require_client_certificate {
            return Err(TlsError::PeerMismatch("the client showed no certificate".into()));
        }
        Ok((stream, peer))
    }

    /// The configuration of the current identity and roots. It is built anew, with an empty session cache, when
    /// one of them has changed.
    ///
    /// # Errors
    /// When our certificate or roots are missing.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let identity = self.runtime.identity(&self.value.identity)?;
        let roots = self.value.client_roots.as_ref().map(|r| self.runtime.roots(r)).transpose()?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = current.as_ref().filter(|b| b.is_of(&identity, roots.as_ref())) {
            return Ok(built.config.clone());
        }
        let config = Arc::new(self.build(&identity, roots.as_deref())?);
        *current = Some(Built { identity, roots, config: config.clone() });
        Ok(config)
    }

    fn build(&self, identity: &Identity, roots: Option<&Roots>) -> Result<ServerConfig, TlsError> {
        let DownstreamTls { identity: _, client_roots: _, require_client_certificate, client_sans } =
            &*self.value;
        let crypto = self.runtime.crypto().clone();
        let builder = ServerConfig::builder_with_provider(crypto.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::InvalidMaterial(e.to_string().into()))?;
        let builder = match roots {
            Some(roots) => {
                let verifier =
                    ClientVerifier::new(roots, client_sans.clone(), *require_client_certificate, crypto)?;
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            None if *require_client_certificate => {
                let text = "client certificates are required but there are no roots to verify them with";
                return Err(TlsError::InvalidMaterial(text.into()));
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(OneIdentity(identity.certified_key())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        Ok(config)
    }
}

/// Sessions kept per context. They live in memory, and die with the configuration.
const SESSIONS: usize = 1024;

// === impl Built ===

impl Built {
    fn is_of(&self, identity: &Arc<Identity>, roots: Option<&Arc<Roots>>) -> bool {
        let same_roots = match (&self.roots, roots) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        same_roots && Arc::ptr_eq(&self.identity, identity)
    }
}

/// Shows the one certificate of its configuration, whatever name the client asks for.
#[derive(Debug)]
struct OneIdentity(Arc<CertifiedKey>);

impl ResolvesServerCert for OneIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
