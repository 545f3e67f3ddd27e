//! Ports and accept loops.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

/// A loopback port that nobody else can get while this lives, listening or not.
///
/// A socket that is bound and does not listen holds it: connects are refused until [`Port::listen`], and again when that
/// listener is gone.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _reservation: TcpSocket,
}

/// Who is at the other end of a connection; in the extensions of its requests.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Its address.
    pub address: SocketAddr,
    /// Its certificate (DER), if it showed one.
    pub certificate: Option<Arc<[u8]>>,
}

/// What happens on a listener, for those who count.
pub trait Observer: Send + Sync + 'static {
    /// A connection was accepted and its handshake is done.
    fn opened(&self, _remote: &Remote) {}
    /// It ended.
    fn closed(&self) {}
    /// A handshake failed.
    fn refused(&self, _error: &io::Error) {}
}

/// Counts nothing.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Observer for Nobody {}

// === impl Port ===

impl Port {
    /// Reserves a port.
    ///
    /// # Panics
    /// If the system has none.
    #[must_use]
    pub fn reserve() -> Self {
        let reservation = Self::socket((Ipv4Addr::LOCALHOST, 0).into());
        let address = reservation.local_addr().expect("a bound socket has an address");
        Self { address, _reservation: reservation }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on it, until the listener is dropped.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn listen(&self) -> TcpListener {
        Self::socket(self.address).listen(1024).expect("a reserved port can be listened on")
    }

    fn socket(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("SO_REUSEADDR");
        socket.set_reuseport(true).expect("SO_REUSEPORT");
        socket.bind(address).expect("a loopback port");
        socket
    }
}

/// Serves HTTP/1.1 and HTTP/2 on a listener, until the future is dropped: then every connection is cut.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    app: S,
    observer: Arc<dyn Observer>,
) where
    S: Service<http::Request<hyper::body::Incoming>, Response = http::Response<axum::body::Body>>
        + Clone
        + Send
        + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    S::Future: Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((socket, peer)) = accepted else { continue };
                connections.spawn(serve_connection(socket, peer, tls.clone(), app.clone(), Arc::clone(&observer)));
            }
        }
    }
}

async fn serve_connection<S>(
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    app: S,
    observer: Arc<dyn Observer>,
) where
    S: Service<http::Request<hyper::body::Incoming>, Response = http::Response<axum::body::Body>>
        + Clone
        + Send
        + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    S::Future: Send + 'static,
{
    socket.set_nodelay(true).expect("TCP_NODELAY");
    let Some(tls) = tls else {
        return exchange(TokioIo::new(socket), Remote { address, certificate: None }, app, observer).await;
    };
    match TlsAcceptor::from(tls).accept(socket).await {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates();
            let certificate = chain.and_then(|chain| chain.first()).map(|leaf| Arc::from(leaf.as_ref()));
            exchange(TokioIo::new(stream), Remote { address, certificate }, app, observer).await;
        }
        Err(error) => observer.refused(&error),
    }
}

async fn exchange<I, S>(io: I, remote: Remote, app: S, observer: Arc<dyn Observer>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: Service<http::Request<hyper::body::Incoming>, Response = http::Response<axum::body::Body>>
        + Clone
        + Send
        + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    S::Future: Send + 'static,
{
    /// Reports the end of a connection however it comes.
    struct Open(Arc<dyn Observer>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.closed();
        }
    }
    observer.opened(&remote);
    let _open = Open(observer);
    let app = tower::util::MapRequest::new(app, move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(remote.clone());
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    // How a connection ends is the business of the test, which sees it from the other side.
    drop(builder.serve_connection(io, TowerToHyperService::new(app)).await);
}
