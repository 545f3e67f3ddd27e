//! A server that tells who called, counts, holds requests, and fails on demand.
//!
//! The application ([`App`]) is an axum router with the gRPC service in it, so the same one runs on a plain socket
//! ([`Backend`]) and under a mesh. HTTP: any path that gRPC does not have is echoed as JSON; query parameters `status=`
//! (the status to answer with) and `first=` (so many times) make it fail, `hold` makes it wait for the gate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use mesh_tower::Peer;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::codegen::{BoxFuture, Context, Poll};
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::echo::{CHAT, DOWNLOAD, EchoReply, EchoRequest, UNARY, UPLOAD};
use crate::net::{self, Observer, Port, Remote};
use crate::wait;

/// What a backend has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that are being served.
    pub in_flight: u64,
    /// The most that were at any time.
    pub most_in_flight: u64,
    /// Connections whose handshake is done.
    pub connections: u64,
    /// Connections that are open.
    pub open: u64,
    /// Handshakes that failed.
    pub refused: u64,
}

/// The application: gRPC and HTTP echo with its counters. Clones are the same application.
#[derive(Debug, Clone)]
pub struct App {
    inner: Arc<Inner>,
}

/// An application on a plain socket, without mesh.
#[derive(Debug)]
pub struct Backend {
    /// What it serves.
    pub app: App,
    port: Port,
    tls: Option<Arc<ServerConfig>>,
    running: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    stats: watch::Sender<Stats>,
    gate: watch::Sender<bool>,
    attempts: Mutex<HashMap<String, u32>>,
}

/// A request that is being served; dropping it ends it in the counters, as a cancelled one ends.
struct InFlight {
    app: App,
}

// === impl App ===

impl App {
    /// An application that says its name in every reply.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        let inner = Inner {
            id: id.into(),
            stats: watch::Sender::default(),
            gate: watch::Sender::new(false),
            attempts: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats.borrow().clone()
    }

    /// Waits until the counters satisfy a condition.
    #[track_caller]
    pub fn until(&self, condition: impl FnMut(&Stats) -> bool) -> impl Future<Output = Stats> {
        wait::until(self.inner.stats.subscribe(), condition)
    }

    /// Lets every held request go, and those to come.
    pub fn open_gate(&self) {
        self.inner.gate.send_replace(true);
    }

    /// Holds what comes from now on and asks for it.
    pub fn close_gate(&self) {
        self.inner.gate.send_replace(false);
    }

    /// How often a text (or a path, for HTTP) arrived.
    #[must_use]
    pub fn attempts(&self, text: &str) -> u32 {
        self.counts().get(text).copied().unwrap_or(0)
    }

    /// The application as an axum router: gRPC on its paths, HTTP echo everywhere else.
    pub fn router(&self) -> Router {
        Router::new()
            .route_service(UNARY, GrpcMethods(self.clone()))
            .route_service(UPLOAD, GrpcMethods(self.clone()))
            .route_service(DOWNLOAD, GrpcMethods(self.clone()))
            .route_service(CHAT, GrpcMethods(self.clone()))
            .fallback(http_echo)
            .with_state(self.clone())
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.inner.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self) -> InFlight {
        self.inner.stats.send_modify(|stats| {
            stats.requests += 1;
            stats.in_flight += 1;
            stats.most_in_flight = stats.most_in_flight.max(stats.in_flight);
        });
        InFlight { app: self.clone() }
    }

    fn attempt(&self, text: &str) -> u32 {
        let mut counts = self.counts();
        let count = counts.entry(text.to_owned()).or_default();
        *count += 1;
        *count
    }

    async fn held(&self) {
        // The sender lives in `self`, so the wait ends by the gate alone.
        drop(self.inner.gate.subscribe().wait_for(|open| *open).await);
    }

    async fn answer(&self, request: EchoRequest, caller: Caller) -> Result<EchoReply, Status> {
        let attempt = self.attempt(&request.text);
        if request.hold {
            self.held().await;
        }
        if request.fail_with != 0 && (request.fail_first == 0 || attempt <= request.fail_first) {
            return Err(Status::new(
                Code::from_i32(request.fail_with),
                format!("asked to fail by {:?}", request.text),
            ));
        }
        Ok(EchoReply {
            text: request.text,
            server: self.id().to_owned(),
            peer: caller.spiffe,
            peer_certificate: caller.certificate,
            headers: caller.headers,
            attempt,
            received: request.payload.len() as u64,
            payload: request.payload,
        })
    }
}

impl Observer for App {
    fn opened(&self, _remote: &Remote) {
        self.inner.stats.send_modify(|stats| {
            stats.connections += 1;
            stats.open += 1;
        });
    }

    fn closed(&self) {
        self.inner.stats.send_modify(|stats| stats.open -= 1);
    }

    fn refused(&self, _error: &std::io::Error) {
        self.inner.stats.send_modify(|stats| stats.refused += 1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.app.inner.stats.send_modify(|stats| stats.in_flight -= 1);
    }
}

// === impl Backend ===

impl Backend {
    /// A backend on a port of its own, in plaintext.
    #[must_use]
    pub fn start(id: impl Into<String>) -> Self {
        Self::start_with(id, None)
    }

    /// A backend with TLS.
    #[must_use]
    pub fn start_tls(id: impl Into<String>, tls: Arc<ServerConfig>) -> Self {
        Self::start_with(id, Some(tls))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Cuts every connection and refuses new ones. Has happened when it returns.
    pub async fn stop(&mut self) {
        self.running.shutdown().await;
    }

    /// Listens again, on the same address.
    pub fn restart(&mut self) {
        let app = self.app.clone();
        let served = net::serve(self.port.listen(), self.tls.clone(), app.router(), Arc::new(app));
        self.running.spawn(served);
    }

    fn start_with(id: impl Into<String>, tls: Option<Arc<ServerConfig>>) -> Self {
        let mut backend = Self { app: App::new(id), port: Port::reserve(), tls, running: JoinSet::new() };
        backend.restart();
        backend
    }
}

/// What a request says about its caller.
struct Caller {
    spiffe: String,
    certificate: Bytes,
    headers: HashMap<String, String>,
}

impl Caller {
    fn of(headers: &http::HeaderMap, extensions: &http::Extensions) -> Self {
        let certificate = extensions.get::<Remote>().and_then(|remote| remote.certificate.clone());
        let headers = headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let peer = extensions.get::<Peer>().and_then(|peer| peer.spiffe());
        let spiffe = peer.map(|id| id.as_str().to_owned()).unwrap_or_default();
        Self {
            spiffe,
            certificate: certificate.map(|der| Bytes::copy_from_slice(&der)).unwrap_or_default(),
            headers,
        }
    }
}

async fn http_echo(State(app): State<App>, request: axum::extract::Request) -> Response {
    let in_flight = app.arrive();
    let caller = Caller::of(request.headers(), request.extensions());
    let path = request.uri().path().to_owned();
    let query: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('=').or(Some((pair, ""))))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let attempt = app.attempt(&path);
    let mut received: u64 = 0;
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => received += chunk.len() as u64,
            Err(_) => return http::StatusCode::BAD_REQUEST.into_response(),
        }
    }
    if query.contains_key("hold") {
        app.held().await;
    }
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u32>().ok());
    if let Some(status) = number("status") {
        let first = number("first").unwrap_or(0);
        if first == 0 || attempt <= first {
            let status = u16::try_from(status).ok().and_then(|code| http::StatusCode::from_u16(code).ok());
            return status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR).into_response();
        }
    }
    if let Some(size) = number("bytes") {
        return Response::new(Body::from_stream(chunks(u64::from(size), in_flight)));
    }
    let reply = serde_json::json!({
        "server": app.id(), "path": path, "peer": caller.spiffe, "attempt": attempt, "received": received,
        "headers": caller.headers,
    });
    ([(http::header::CONTENT_TYPE, "application/json")], reply.to_string()).into_response()
}

/// So many bytes in chunks of 64 KiB, made as they are asked for.
fn chunks(size: u64, in_flight: InFlight) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    const CHUNK: u64 = 64 << 10;
    futures_util::stream::unfold((size, in_flight), |(left, in_flight)| async move {
        let now = left.min(CHUNK);
        let chunk = Bytes::from(vec![b'x'; usize::try_from(now).ok()?]);
        (now > 0).then_some((Ok(chunk), (left - now, in_flight)))
    })
}

/// The four methods, as tonic's generated server dispatches them.
#[derive(Debug, Clone)]
struct GrpcMethods(App);

impl tower::Service<http::Request<Body>> for GrpcMethods {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<EchoReply, EchoRequest>::default())
                .apply_max_message_size_config(Some(16 << 20), Some(16 << 20));
            Ok(match request.uri().path() {
                UNARY => grpc.unary(Unary(app), request).await,
                UPLOAD => grpc.client_streaming(Upload(app), request).await,
                DOWNLOAD => grpc.server_streaming(Download(app), request).await,
                _ => grpc.streaming(Chat(app), request).await,
            })
        })
    }
}

type Replies = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<EchoReply, Status>> + Send>>;

struct Unary(App);
struct Upload(App);
struct Download(App);
struct Chat(App);

impl UnaryService<EchoRequest> for Unary {
    type Response = EchoReply;
    type Future = BoxFuture<tonic::Response<EchoReply>, Status>;

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let _in_flight = app.arrive();
            let caller = caller(&request);
            app.answer(request.into_inner(), caller).await.map(tonic::Response::new)
        })
    }
}

impl ClientStreamingService<EchoRequest> for Upload {
    type Response = EchoReply;
    type Future = BoxFuture<tonic::Response<EchoReply>, Status>;

    fn call(&mut self, request: Request<Streaming<EchoRequest>>) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let _in_flight = app.arrive();
            let caller = caller(&request);
            let mut stream = request.into_inner();
            let mut received = 0;
            let mut last = EchoRequest::default();
            while let Some(message) = stream.message().await? {
                received += message.payload.len() as u64;
                last = message;
            }
            last.payload = Bytes::new();
            let reply = app.answer(last, caller).await?;
            Ok(tonic::Response::new(EchoReply { received, ..reply }))
        })
    }
}

impl ServerStreamingService<EchoRequest> for Download {
    type Response = EchoReply;
    type ResponseStream = Replies;
    type Future = BoxFuture<tonic::Response<Replies>, Status>;

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let in_flight = app.arrive();
            let caller = caller(&request);
            let message = request.into_inner();
            let replies = message.replies;
            let reply = app.answer(message, caller).await?;
            let stream = futures_util::stream::iter(0..replies).map(move |_| {
                let _serving = &in_flight;
                Ok(reply.clone())
            });
            let stream: Replies = Box::pin(stream);
            Ok(tonic::Response::new(stream))
        })
    }
}

impl StreamingService<EchoRequest> for Chat {
    type Response = EchoReply;
    type ResponseStream = Replies;
    type Future = BoxFuture<tonic::Response<Replies>, Status>;

    fn call(&mut self, request: Request<Streaming<EchoRequest>>) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let in_flight = Arc::new(app.arrive());
            let headers = request.metadata().clone().into_headers();
            let extensions = request.extensions().clone();
            let stream = request.into_inner().then(move |message| {
                let (app, in_flight) = (app.clone(), Arc::clone(&in_flight));
                let caller = Caller::of(&headers, &extensions);
                async move {
                    let _serving = in_flight;
                    app.answer(message?, caller).await
                }
            });
            let stream: Replies = Box::pin(stream);
            Ok(tonic::Response::new(stream))
        })
    }
}

fn caller<T>(request: &Request<T>) -> Caller {
    Caller::of(request.metadata().as_ref(), request.extensions())
}
