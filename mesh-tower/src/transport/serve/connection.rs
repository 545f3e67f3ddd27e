//! One connection: which protocol, its codec with its limits, and its end.

#[cfg(feature = "http1")]
use std::future::Future as _;
use std::future::poll_fn;
#[cfg(feature = "http1")]
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::HttpService;
#[cfg(feature = "http1")]
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

use super::http1::{Http1Service, Link};
#[cfg(feature = "http2")]
use super::http2::Http2;
use super::io::{Protocol, ServerIo, sniff};
#[cfg(feature = "http1")]
use super::leave;
use super::service::ConnectionService;
use super::signal::Signal;
use super::supervisor::{Command, Supervisor};
use crate::body::{Body, BoxError};
use crate::server::{AcceptedPeer, ConnectionLimits};
use crate::transport::h2::guard::PREFACE;
use crate::transport::listen::{MeshIo, Serving};

/// Serves one connection to its end.
pub(super) async fn drive<S, B>(mut io: MeshIo, app: S, serving: watch::Receiver<Serving>)
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let peer = io.accepted().clone();
    let limits = peer.connection().server.limits.of_connection(&peer.connection().chain.config().http);
    let mut supervisor = Supervisor::new(&peer, limits, serving);
    let first_bytes = limits.headers_timeout;
    let (until, mut seen) = (Instant::now() + first_bytes, Vec::with_capacity(PREFACE.len()));
    let mut going_away = false;
    let first = loop {
        tokio::select! {
            first = timeout_at(until, sniff(&mut io, &mut seen)) => break first,
            command = poll_fn(|cx| supervisor.poll(cx)) => match command {
                // What the client has said crosses with our leaving.
                Command::GoAway => going_away = true,
                Command::CloseIdle if io.has_unread() => {}
                Command::CloseIdle | Command::Close => return,
            }
        }
    };
    let protocol = match first {
        Ok(Ok(Some(protocol))) => protocol,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "connection lost"),
        Err(_) => return tracing::debug!("nothing was asked within {first_bytes:?}; closed"),
    };
    let read_ahead = Bytes::from(seen);
    let signal = Signal::raised();
    let link = (protocol == Protocol::Http1).then(|| Link::new(signal.clone()));
    match &link {
        Some(link) => supervisor.watch_http1(Arc::clone(link)),
        None => supervisor.watch_http2(),
    }
    let io = ServerIo::new(read_ahead, io, link.clone());
    let served = Served { app, peer: peer.clone(), limits };
    let Some(mut codec) = Codec::new(protocol, io, served, link) else {
        return tracing::debug!(?protocol, "this build does not serve the protocol; closed");
    };
    if going_away {
        codec.go_away();
    }
    let watched = Waker::from(signal.clone());
    let ended = poll_fn(|cx| poll_connection(&mut codec, &mut supervisor, &signal, &watched, cx)).await;
    match ended {
        Ended::Closed => return,
        Ended::Codec(Ok(())) => {}
        Ended::Codec(Err(error)) => tracing::debug!(error = &*error, "connection ended"),
    }
    #[cfg(feature = "http1")]
    if let Codec::Http1(codec, link) = codec {
        match (codec.into_parts(), link.upgrade()) {
            (Some(parts), _) => leave::linger(parts.io.into_inner()).await,
            (None, Some(upgrade)) => leave::watch_upgraded(upgrade.clone(), &peer, supervisor).await,
            (None, None) => {}
        }
    }
}

/// What is served on a connection, to which peer, within which limits.
struct Served<S> {
    app: S,
    peer: AcceptedPeer,
    limits: ConnectionLimits,
}

/// How the codec of a connection ended.
enum Ended {
    Codec(Result<(), BoxError>),
    /// By our command.
    Closed,
}

fn poll_connection<S, B>(
    codec: &mut Codec<S>,
    supervisor: &mut Supervisor,
    signal: &Arc<Signal>,
    watched: &Waker,
    cx: &mut Context<'_>,
) -> Poll<Ended>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    signal.register(cx.waker());
    loop {
        if let Poll::Ready(ended) = codec.poll(cx) {
            return Poll::Ready(Ended::Codec(ended));
        }
        if !signal.lower() {
            return Poll::Pending;
        }
        match ready!(supervisor.poll(&mut Context::from_waker(watched))) {
            Command::GoAway => codec.go_away(),
            Command::CloseIdle => codec.close_idle(),
            Command::Close => return Poll::Ready(Ended::Closed),
        }
        // The codec has to be polled to say goodbye, and the supervisor for its next command.
        signal.raise();
    }
}

/// The codec of a connection.
enum Codec<S>
where
    Http1Service<ConnectionService<S>>: HttpService<Incoming>,
{
    #[cfg(feature = "http1")]
    Http1(Box<Http1<S>>, Arc<Link>),
    #[cfg(feature = "http2")]
    Http2(Box<Http2<S>>),
}

#[cfg(feature = "http1")]
type Http1<S> =
    hyper::server::conn::http1::UpgradeableConnection<TokioIo<ServerIo>, Http1Service<ConnectionService<S>>>;

// === impl Codec ===

impl<S, B> Codec<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn new(protocol: Protocol, io: ServerIo, served: Served<S>, link: Option<Arc<Link>>) -> Option<Self> {
        let Served { app, peer, limits } = served;
        match protocol {
            #[cfg(feature = "http1")]
            Protocol::Http1 => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                let max_header_bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
                // Our own supervisor times heads: hyper's timer also runs on a connection that is merely kept alive.
                builder.header_read_timeout(None).max_header_size(max_header_bytes);
                if let Some(most) = limits.max_headers {
                    builder.max_headers(most);
                }
                let link = link?;
                let service = ConnectionService::new(app, peer.clone());
                let service = Http1Service::new(service, peer, link.clone());
                let codec = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
                Some(Self::Http1(Box::new(codec), link))
            }
            #[cfg(feature = "http2")]
            Protocol::Http2 => Some(Self::Http2(Box::new(Http2::new(io, app, peer, &limits)))),
            #[cfg(not(all(feature = "http1", feature = "http2")))]
            _ => {
                let _ = link;
                None
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            #[cfg(feature = "http1")]
            Self::Http1(codec, _) => Pin::new(&mut **codec).poll(cx).map_err(Into::into),
            #[cfg(feature = "http2")]
            Self::Http2(codec) => codec.poll(cx),
        }
    }

    fn go_away(&mut self) {
        match self {
            #[cfg(feature = "http1")]
            Self::Http1(_, link) => link.go_away(),
            #[cfg(feature = "http2")]
            Self::Http2(codec) => codec.go_away(),
        }
    }

    /// Ends a connection on which nothing is under way.
    fn close_idle(&mut self) {
        match self {
            #[cfg(feature = "http1")]
            Self::Http1(_, link) => link.close_idle(),
            #[cfg(feature = "http2")]
            Self::Http2(codec) => codec.close_unanswered(),
        }
    }
}
