//! Every endpoint of the mesh behind one socket: a gRPC server that echoes on any path, at any address of loopback, and
//! remembers when the first request came to the addresses that are watched.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::Result;

/// The endpoints.
#[derive(Debug, Clone)]
pub(super) struct Backend {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Watched addresses, with the time of the first request.
    first: Mutex<HashMap<IpAddr, Option<Instant>>>,
    news: Notify,
}

impl Backend {
    /// Serves until the process ends.
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let backend = Self { port: listener.local_addr()?.port(), seen: Arc::default() };
        let seen = Arc::clone(&backend.seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&seen)));
            }
        });
        Ok(backend)
    }

    /// One of 16 million addresses.
    pub(super) fn address(&self, n: u32) -> SocketAddr {
        let [_, a, b, c] = n.to_be_bytes();
        // 127.0.0.0 to 127.0.255.255 are left to others.
        SocketAddr::from((Ipv4Addr::new(127, a.saturating_add(1), b, c), self.port))
    }

    /// Begins to watch addresses, and no others.
    pub(super) fn watch(&self, addresses: impl Iterator<Item = SocketAddr>) {
        let mut first = self.seen.first.lock().unwrap_or_else(PoisonError::into_inner);
        *first = addresses.map(|address| (address.ip(), None)).collect();
    }

    /// When the last of the watched addresses had its first request; none if that takes too long.
    pub(super) async fn all_seen(&self, patience: Duration) -> Option<Instant> {
        let all = async {
            loop {
                let news = self.seen.news.notified();
                {
                    let first = self.seen.first.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(all) = first.values().copied().collect::<Option<Vec<_>>>() {
                        return all.into_iter().max();
                    }
                }
                news.await;
            }
        };
        tokio::time::timeout(patience, all).await.ok().flatten()
    }
}

impl Seen {
    fn note(&self, at: IpAddr) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place @ None) = first.get_mut(&at) {
            *place = Some(Instant::now());
            self.news.notify_one();
        }
    }
}

async fn serve(socket: TcpStream, seen: Arc<Seen>) {
    let Ok(local) = socket.local_addr() else { return };
    socket.set_nodelay(true).ok();
    let answer = |request: Request<Incoming>| {
        seen.note(local.ip());
        echo(request)
    };
    let service = hyper::service::service_fn(answer);
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service);
    // A client that goes away is what happens to a replaced endpoint.
    connection.await.ok();
}

async fn echo(
    request: Request<Incoming>,
) -> std::result::Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let mut response = Response::new(Full::new(body).with_trailers(trailers));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
