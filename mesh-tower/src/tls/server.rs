//! The server side of TLS: one context per value of `DownstreamTlsContext`.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use mesh_core::config::security::DownstreamTls;
use mesh_core::identity::TlsPeer;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, LazyConfigAcceptor, StartHandshake};

use super::client::handshake_error;
use super::provider::{Identity, Roots};
use super::san::{check_sans, check_validity, peer_identity};
use super::verifier::ClientVerifier;
use super::{TlsError, TlsRuntime};

/// How to secure the connections of one filter chain, with the session cache of those connections.
#[derive(Debug)]
pub(crate) struct ServerTls {
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

    /// Answers a ClientHello. That is the most expensive part of a handshake, and none of it waits.
    ///
    /// # Errors
    /// When our certificate or roots are missing.
    pub(crate) fn answer<T>(&self, hello: StartHandshake<T>) -> Result<Accept<T>, TlsError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        Ok(hello.into_stream(self.config()?))
    }

    /// Identifies the peer of a handshake that has ended.
    ///
    /// # Errors
    /// When it failed, or the peer is not whom the configuration wants.
    pub(crate) fn identify<T>(
        &self,
        ended: io::Result<TlsStream<T>>,
    ) -> Result<(TlsStream<T>, TlsPeer), TlsError> {
        let stream = ended.map_err(|e| handshake_error(&e))?;
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
    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
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

/// Reads a whole ClientHello of at most [`HELLO`] bytes. Needs no key and does no cryptography.
///
/// Cancel safe: dropping the future closes `io`.
///
/// # Errors
/// When the connection ends before, or what comes is no ClientHello.
pub(crate) async fn read_hello<T>(io: T) -> Result<StartHandshake<T>, TlsError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let io = AtMost { io, left: HELLO };
    let read = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(|e| handshake_error(&e))?;
    let StartHandshake { accepted, io, .. } = read;
    Ok(StartHandshake::from_parts(accepted, io.io))
}

/// Larger than the ClientHello of any client, with a post-quantum key share and a ticket that holds a chain of
/// certificates; a quarter of what rustls would keep of one that never ends.
const HELLO: usize = 16 * 1024;

/// A stream of which so many bytes may be read.
struct AtMost<T> {
    io: T,
    left: usize,
}

// === impl AtMost ===

impl<T: AsyncRead + Unpin> AsyncRead for AtMost<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the ClientHello is too large")));
        }
        let room = buf.remaining().min(self.left);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        self.left -= read;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AtMost<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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
