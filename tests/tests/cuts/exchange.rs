//! What is exchanged, with whom, and when that went wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mesh_tests::net::Port;
use mesh_tests::plain::Plain;
use mesh_tests::relay::Cutter;
use mesh_tower::{Body, Mesh, MeshChannel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

/// What is exchanged. `Raw…` is with a server that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    H1Get,
    H1Chunked,
    H1Post,
    /// Two POSTs, one after the other.
    H1KeptAlive,
    RawLength,
    RawChunked,
    RawTrailers,
    H2Get,
    H2Post,
    H2KeptAlive,
    GrpcUnary,
    /// Three messages back.
    GrpcStream,
}

/// Who answers, and how often each call has arrived there.
#[derive(Debug)]
pub(crate) struct Server {
    port: Port,
    arrived: Arc<Mutex<Arrived>>,
    _running: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Arrived {
    calls: HashMap<String, u32>,
    /// Requests that were taken for whole and were not.
    truncated: Vec<String>,
}

// === impl Exchange ===

impl Exchange {
    /// Makes the exchange's calls, and judges them.
    pub(crate) async fn run(
        self,
        mesh: &Mesh,
        relay: &Cutter,
        server: &Server,
        run: usize,
    ) -> Result<(), String> {
        let channel = Plain::channel(mesh, self.is_http2(), relay.address());
        let kept_alive = matches!(self, Self::H1KeptAlive | Self::H2KeptAlive);
        for n in 0..=usize::from(kept_alive) {
            let call = format!("{run}.{n}");
            let outcome = self.call(channel.clone(), &call).await;
            let arrived = server.arrived(&call);
            if arrived > 1 && !self.is_safe() {
                return Err(format!("call {n} arrived {arrived} times; it ended with {outcome:?}"));
            }
            match outcome {
                Ok(true) => {}
                Ok(false) => return Err(format!("call {n} took a truncated response for whole")),
                Err(why) if run == 0 => return Err(why),
                Err(_) => {}
            }
        }
        let truncated = server.truncated();
        if truncated.is_empty() { Ok(()) } else { Err(format!("the server took for whole: {truncated:?}")) }
    }

    /// Whether the response was whole, where it ended without an error.
    async fn call(self, channel: MeshChannel, call: &str) -> Result<bool, String> {
        let response = channel.oneshot(self.request(call)).await.map_err(|error| error.to_string())?;
        if let Some(error) = response.extensions().get::<mesh_tower::Error>() {
            return Err(error.to_string());
        }
        let status = response.status();
        if !status.is_success() {
            return Err(format!("{status} of the server's own"));
        }
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned();
        let trailer = |name: &str| trailers.as_ref().is_some_and(|trailers| trailers.contains_key(name));
        // What broke a gRPC stream is its status, as the mesh tells it.
        let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        if let Some(status) = status.filter(|status| *status != "0") {
            return Err(format!("grpc-status {status:?}"));
        }
        let is_whole = body.to_bytes() == self.answer();
        let wanted = match self {
            Self::GrpcUnary | Self::GrpcStream => trailer("grpc-status"),
            Self::RawTrailers => trailer("x-sum"),
            _ => true,
        };
        Ok(is_whole && wanted)
    }

    fn request(self, call: &str) -> Request<Body> {
        let request = Request::builder().uri("/x").header("x-call", call);
        let request = match self {
            Self::H1Get | Self::H1Chunked | Self::H2Get => request.body(Body::empty()),
            Self::RawLength | Self::RawChunked | Self::RawTrailers => {
                request.method("POST").header("te", "trailers").body(Body::full(UPLOAD))
            }
            Self::H1Post | Self::H1KeptAlive | Self::H2Post | Self::H2KeptAlive => {
                request.method("POST").body(Body::full(UPLOAD))
            }
            Self::GrpcUnary | Self::GrpcStream => request
                .method("POST")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Body::full(MESSAGE)),
        };
        request.expect("a valid request")
    }

    fn answer(self) -> Bytes {
        match self {
            Self::GrpcUnary => Bytes::from_static(MESSAGE),
            Self::GrpcStream => Bytes::from(MESSAGE.repeat(3)),
            _ => Bytes::from_static(ANSWER),
        }
    }

    fn is_http2(self) -> bool {
        matches!(self, Self::H2Get | Self::H2Post | Self::H2KeptAlive | Self::GrpcUnary | Self::GrpcStream)
    }

    fn is_safe(self) -> bool {
        matches!(self, Self::H1Get | Self::H1Chunked | Self::H2Get)
    }

    /// How our server answers.
    fn response(self) -> Response<Body> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let frames = |count| (0..count).map(|_| Frame::data(Bytes::from_static(MESSAGE)));
        let stream = |frames: Vec<Frame<Bytes>>| {
            let frames = frames.into_iter().map(Ok::<_, Infallible>);
            Body::new(StreamBody::new(futures_util::stream::iter(frames)))
        };
        let grpc = |count| {
            let body = stream(frames(count).chain([Frame::trailers(trailers.clone())]).collect());
            Response::builder().header("content-type", "application/grpc").body(body).expect("valid")
        };
        match self {
            Self::GrpcUnary => grpc(1),
            Self::GrpcStream => grpc(3),
            Self::H1Chunked => Response::new(stream(
                ANSWER.chunks(9).map(|piece| Frame::data(Bytes::from_static(piece))).collect(),
            )),
            _ => Response::new(Body::full(ANSWER)),
        }
    }

    /// How another server answers, to the byte.
    fn raw_response(self) -> Option<Vec<u8>> {
        let chunks = || {
            let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            ANSWER.chunks(9).map(chunk).collect::<Vec<_>>().concat()
        };
        match self {
            Self::RawLength => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER.len());
                Some([head.as_bytes(), ANSWER].concat())
            }
            Self::RawChunked => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                Some([head, chunks().as_slice(), b"0\r\n\r\n"].concat())
            }
            Self::RawTrailers => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
                Some([head, chunks().as_slice(), b"0\r\nx-sum: 42\r\n\r\n"].concat())
            }
            _ => None,
        }
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn start(exchange: Exchange) -> Self {
        let port = Port::reserve();
        let listener = port.listen();
        let arrived = Arc::new(Mutex::new(Arrived::default()));
        let mut running = JoinSet::new();
        let seen = Arc::clone(&arrived);
        if let Some(response) = exchange.raw_response() {
            running.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    let (seen, response) = (Arc::clone(&seen), response.clone());
                    connections.spawn(async move { drop(serve_raw(socket, &response, &seen).await) });
                }
            });
        } else {
            let mesh = Mesh::builder(Plain).build().expect("a mesh");
            let service = tower::service_fn(move |request: Request<Body>| {
                let seen = Arc::clone(&seen);
                async move { Ok::<_, Infallible>(serve_ours(exchange, request, &seen).await) }
            });
            running.spawn(async move { mesh.serve(listener, service).await.expect("it serves") });
        }
        Self { port, arrived, _running: running }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn arrived(&self, call: &str) -> u32 {
        self.lock().calls.get(call).copied().unwrap_or(0)
    }

    fn truncated(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().truncated)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn arrive(seen: &Mutex<Arrived>, call: &str) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    *seen.calls.entry(call.to_owned()).or_default() += 1;
}

async fn serve_ours(exchange: Exchange, request: Request<Body>, seen: &Mutex<Arrived>) -> Response<Body> {
    let call = request.headers().get("x-call").and_then(|call| call.to_str().ok()).unwrap_or("?").to_owned();
    // Counted when it arrives, whether its body comes or not: the application has begun.
    arrive(seen, &call);
    let wanted = request.method() == http::Method::POST;
    if let Ok(body) = request.into_body().collect().await {
        let body = body.to_bytes();
        if wanted && body != UPLOAD && body != MESSAGE {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.truncated.push(format!("{call}: {} bytes", body.len()));
        }
    }
    exchange.response()
}

/// Answers each whole request with the same bytes.
async fn serve_raw(mut socket: TcpStream, response: &[u8], seen: &Mutex<Arrived>) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let count = socket.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        read.extend_from_slice(&piece[..count]);
        let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        if read.len() < end + 4 + UPLOAD.len() {
            continue;
        }
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let call =
            head.lines().find_map(|line| line.strip_prefix("x-call:")).unwrap_or("?").trim().to_owned();
        arrive(seen, &call);
        read.clear();
        socket.write_all(response).await?;
    }
}

const UPLOAD: &[u8] = b"an upload of 32 bytes in a piece";
const ANSWER: &[u8] = b"an answer that is not very long";
/// A message of four bytes, with its prefix.
const MESSAGE: &[u8] = b"\0\0\0\0\x04\x0a\x02hi";
