//! The accept loop: connections are owned here, so that ending the server ends every one of them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::codegen::{Body, Bytes, StdError};
use tower_service::Service as TowerService;
use tracing::Instrument as _;

use super::control::ControlPlane;
use super::service::Service;
use super::tls::Tls;

/// Where a connection comes from; in the extensions of each of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddr(pub(super) SocketAddr);

/// Adds [`PeerAddr`] to each request of one connection.
#[derive(Debug, Clone)]
struct WithPeer<S> {
    inner: S,
    peer: PeerAddr,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Serves ADS on a listener until `shutdown` completes: then streams end with UNAVAILABLE, and connections that are
    /// still open after five seconds are cut.
    ///
    /// Dropping the future cuts everything at once, which is what a client sees when a control plane is killed.
    ///
    /// # Errors
    /// If the listener fails for good. A connection that fails concerns nobody else.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.accept(listener, None, shutdown).await
    }

    /// The same over TLS. A client that does not finish its handshake in ten seconds is cut off.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: Tls,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        self.accept(listener, Some(tls), shutdown).await
    }

    async fn accept(
        &self,
        listener: TcpListener,
        tls: Option<Tls>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let (close, closing) = watch::channel(false);
        let service = Service { shared: Arc::clone(&self.shared), closing: closing.clone() };
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        let result = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((socket, peer)) => {
                        let service = WithPeer { inner: service.clone(), peer: PeerAddr(peer) };
                        let span = tracing::debug_span!("xds_client", %peer);
                        let connection = secure_and_serve(socket, tls.clone(), service, closing.clone());
                        connections.spawn(connection.instrument(span));
                    }
                    Err(error) if is_transient(&error) => {
                        tracing::warn!(%error, "accept failed");
                        // Out of descriptors: accepting again at once would only spin.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    Err(error) => break Err(error),
                },
            }
        };
        drop(listener);
        close.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("clients did not leave in time; their connections are cut");
        }
        result
    }
}

async fn secure_and_serve(
    socket: TcpStream,
    tls: Option<Tls>,
    service: WithPeer<Service>,
    closing: watch::Receiver<bool>,
) {
    // Responses are small and latency matters more than packing.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Some(tls) = tls else { return serve_connection(socket, service, closing).await };
    match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
        Ok(Ok(socket)) => serve_connection(socket, service, closing).await,
        Ok(Err(error)) => tracing::warn!(peer = %service.peer.0, %error, "TLS handshake failed"),
        Err(_) => tracing::warn!(peer = %service.peer.0, "TLS handshake took too long"),
    }
}

async fn serve_connection<IO>(socket: IO, service: WithPeer<Service>, mut closing: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS);
    let connection = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "connection of an xDS client ended");
    }
}

/// Completes when the server is closing, or gone.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

/// Whether accepting can succeed later (the process or the peer is in trouble, not the listener).
fn is_transient(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected | io::ErrorKind::Unsupported
    )
}

// === impl WithPeer ===

impl<S, B> TowerService<http::Request<B>> for WithPeer<S>
where
    S: TowerService<http::Request<tonic::body::Body>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}

/// How long clients may take to leave after a shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// A client that is gone without a word is noticed within `KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT`.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const MAX_CONNECTIONS: usize = 8192;
/// ADS needs one stream per connection; a few more for clients that open one per channel.
const MAX_STREAMS: u32 = 128;
