//! One connection: which protocol, its codec with its limits, and its end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tower_service::Service;

use super::io::{Protocol, ServerIo, sniff};
use super::service::ConnectionService;
use super::signal::Signal;
use super::supervisor::{Command, Supervisor};
use crate::body::{Body, BoxError};
use crate::server::{ConnectionLimits, Peer, ServerRuntime};
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
    let peer = io.peer().clone();
    let limits = peer.connection().server.limits.of_connection(&peer.connection().chain.config().http);
    let mut supervisor = Supervisor::new(&peer, limits, serving);
    let first_bytes = limits.headers_timeout;
    let first = tokio::select! {
        first = timeout(first_bytes, sniff(&mut io)) => first,
        // Nothing has been asked yet, so there is nothing to finish.
        _ = poll_fn(|cx| supervisor.poll(cx)) => return,
    };
    let (protocol, read_ahead) = match first {
        Ok(Ok(Some(first))) => first,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "connection lost"),
        Err(_) => return tracing::debug!("nothing was asked within {first_bytes:?}; closed"),
    };
    let signal = Signal::raised();
    let heads = (protocol == Protocol::Http1).then(|| (peer.clone(), signal.clone()));
    let io = TokioIo::new(ServerIo::new(read_ahead, io, heads));
    let service = ConnectionService::new(app, peer.clone());
    let limits = Limits { peer, of_connection: limits };
    let Some(mut codec) = Codec::new(protocol, io, service, &limits) else {
        return tracing::debug!(?protocol, "this build does not serve the protocol; closed");
    };
    let watched = Waker::from(signal.clone());
    let ended = poll_fn(|cx| poll_connection(&mut codec, &mut supervisor, &signal, &watched, cx)).await;
    if let Err(error) = ended {
        tracing::debug!(error = &*error, "connection ended");
    }
}

fn poll_connection<S, B>(
    codec: &mut Codec<S>,
    supervisor: &mut Supervisor,
    signal: &Arc<Signal>,
    watched: &Waker,
    cx: &mut Context<'_>,
) -> Poll<Result<(), BoxError>>
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
            return Poll::Ready(ended);
        }
        if !signal.lower() {
            return Poll::Pending;
        }
        match ready!(supervisor.poll(&mut Context::from_waker(watched))) {
            Command::GoAway => codec.go_away(),
            Command::Close => return Poll::Ready(Ok(())),
        }
        // The codec has to be polled to say goodbye, and the supervisor for its next command.
        signal.raise();
    }
}

/// The codec of a connection.
enum Codec<S>
where
    ConnectionService<S>: HttpService<Incoming>,
{
    #[cfg(feature = "http1")]
    Http1(Box<Http1<S>>),
    #[cfg(feature = "http2")]
    Http2(Box<Http2<S>>),
}

#[cfg(feature = "http1")]
type Http1<S> = hyper::server::conn::http1::UpgradeableConnection<TokioIo<ServerIo>, ConnectionService<S>>;
#[cfg(feature = "http2")]
type Http2<S> = hyper::server::conn::http2::Connection<TokioIo<ServerIo>, ConnectionService<S>, Streams>;

// === impl Codec ===

impl<S, B> Codec<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn new(
        protocol: Protocol,
        io: TokioIo<ServerIo>,
        service: ConnectionService<S>,
        limits: &Limits,
    ) -> Option<Self> {
        match protocol {
            #[cfg(feature = "http1")]
            Protocol::Http1 => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                // Our own supervisor times heads: hyper's timer also runs on a connection that is merely kept alive.
                builder.header_read_timeout(None).max_header_size(limits.max_header_bytes());
                Some(Self::Http1(Box::new(builder.serve_connection(io, service).with_upgrades())))
            }
            #[cfg(feature = "http2")]
            Protocol::Http2 => {
                let server = limits.server();
                let mut builder = hyper::server::conn::http2::Builder::new(Streams(server.runtime.clone()));
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(limits.of_connection.max_concurrent_streams)
                    .max_header_list_size(limits.of_connection.max_header_bytes)
                    .keep_alive_interval(server.limits.keepalive_interval)
                    .keep_alive_timeout(server.limits.keepalive_timeout);
                Some(Self::Http2(Box::new(builder.serve_connection(io, service))))
            }
            #[cfg(not(all(feature = "http1", feature = "http2")))]
            _ => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            #[cfg(feature = "http1")]
            Self::Http1(codec) => Pin::new(&mut **codec).poll(cx).map_err(Into::into),
            #[cfg(feature = "http2")]
            Self::Http2(codec) => Pin::new(&mut **codec).poll(cx).map_err(Into::into),
        }
    }

    fn go_away(&mut self) {
        match self {
            #[cfg(feature = "http1")]
            Self::Http1(codec) => Pin::new(&mut **codec).graceful_shutdown(),
            #[cfg(feature = "http2")]
            Self::Http2(codec) => Pin::new(&mut **codec).graceful_shutdown(),
        }
    }
}

/// Runs HTTP/2 streams in tasks of their own. They end with their connection: a codec that is dropped resets each of
/// its streams, which wakes the task.
#[cfg(feature = "http2")]
#[derive(Debug, Clone)]
struct Streams(Handle);

#[cfg(feature = "http2")]
impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

/// The limits of a connection and of its server.
struct Limits {
    peer: Peer,
    of_connection: ConnectionLimits,
}

// === impl Limits ===

impl Limits {
    fn server(&self) -> &ServerRuntime {
        &self.peer.connection().server
    }

    fn max_header_bytes(&self) -> usize {
        usize::try_from(self.of_connection.max_header_bytes).unwrap_or(usize::MAX)
    }
}
