//! The application of every replica: it does what the query says, and checks what it is sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mesh_tower::{Body, Peer};
use tokio::sync::watch;

use crate::record::{Record, lock};

/// What all replicas of a run share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) record: Record,
    /// Requests that are being served, their response bodies included.
    in_flight: AtomicUsize,
    /// Requests that wait for the gate.
    pub(crate) held: watch::Sender<usize>,
    pub(crate) gate: watch::Sender<bool>,
    /// Early answers by connection.
    pub(crate) early: Mutex<HashMap<SocketAddr, u64>>,
}

/// The application of one replica.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) site: Arc<Site>,
    pub(crate) replica: u64,
}

/// A request that is being served.
struct InFlight(Arc<Site>);

/// Frames of a body, in the making.
pub(crate) type Framed = Result<Frame<Bytes>, Infallible>;

// === impl Site ===

impl Site {
    pub(crate) fn new() -> Self {
        Self {
            record: Record::default(),
            in_flight: AtomicUsize::new(0),
            held: watch::Sender::new(0),
            gate: watch::Sender::new(false),
            early: Mutex::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    fn arrive(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl App ===

impl App {
    pub(crate) async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let in_flight = self.site.arrive();
        let query = request.uri().query().unwrap_or_default();
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .find_map(|(_, value)| value.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let (call, wait, down, count) = (number("call"), number("ms"), number("down"), number("n"));
        self.site.record.saw(call, self.replica);
        let path = request.uri().path().to_owned();
        if path == "/early" {
            self.early(&request);
            // So that the upload is in full swing.
            tokio::time::sleep(Duration::from_millis(wait)).await;
            // The upload is not read: it is dropped here.
            drop(request);
            return Ok(http_reply(call, 0, down, in_flight));
        }
        if path == "/half" {
            let body = request.into_body();
            if let Err(why) = read_some(body).await {
                return Ok(refuse(StatusCode::BAD_REQUEST, &why));
            }
            // The rest is dropped, the call goes on.
            tokio::time::sleep(Duration::from_millis(wait)).await;
            return Ok(http_reply(call, 0, down, in_flight));
        }
        if path == "/hold" {
            self.hold().await;
        }
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if path == "/grpc/chat" {
            return Ok(chat(request.into_body(), in_flight));
        }
        let is_grpc = path.starts_with("/grpc/");
        let received = match read(request.into_body(), call, is_grpc, |_| std::future::ready(())).await {
            Ok(received) => received,
            Err(why) => return Ok(refuse(StatusCode::BAD_REQUEST, &why)),
        };
        let response = match path.as_str() {
            "/none" => no_content(in_flight),
            _ if is_grpc => grpc_reply(call, count, received.messages, in_flight),
            _ => http_reply(call, received.bytes, down, in_flight),
        };
        Ok(response)
    }

    fn early(&self, request: &Request<Body>) {
        if let Some(remote) = request.extensions().get::<Peer>().and_then(|peer| peer.remote) {
            *lock(&self.site.early).entry(remote).or_default() += 1;
        }
    }

    async fn hold(&self) {
        let mut gate = self.site.gate.subscribe();
        self.site.held.send_modify(|held| *held += 1);
        // The site holds the gate, and the replica the site.
        drop(gate.wait_for(|open| *open).await);
        self.site.held.send_modify(|held| *held -= 1);
    }
}

/// Reads a part of a body, and drops it.
async fn read_some(mut body: Body) -> Result<(), String> {
    let mut read = 0;
    while read < HALF {
        let frame = body.frame().await.ok_or("the body ends early")?.map_err(|error| causes(&error))?;
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(why.as_bytes())));
    *response.status_mut() = status;
    response
}

fn no_content(_in_flight: InFlight) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// `down` bytes of the call's own kind, in pieces that are made as they are asked for. Every other call says how many.
fn http_reply(call: u64, received: u64, down: u64, in_flight: InFlight) -> Response<Body> {
    let body = Body::new(StreamBody::new(alive(bytes_of(call, down), in_flight)));
    let mut response = Response::builder().header("x-received", received);
    if call.is_multiple_of(2) {
        response = response.header(http::header::CONTENT_LENGTH, down);
    }
    response.body(body).expect("valid headers")
}

/// `count` messages, or one, and the status; `received` is told in the trailers.
fn grpc_reply(call: u64, count: u64, received: u64, in_flight: InFlight) -> Response<Body> {
    use futures_util::StreamExt as _;
    let frames = messages_of(call, count.max(1)).chain(stream::once(async move { trailers(received, 0) }));
    grpc_response(Body::new(StreamBody::new(alive(frames, in_flight))))
}

/// Sends back what comes, piece by piece, and then the status.
fn chat(body: Body, in_flight: InFlight) -> Response<Body> {
    let frames = stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match body.frame().await {
            Some(Ok(frame)) => Some((Ok(frame), Some(body))),
            Some(Err(_)) => Some((trailers(0, 13), None)),
            None => Some((trailers(0, 0), None)),
        }
    });
    grpc_response(Body::new(StreamBody::new(alive(frames, in_flight))))
}

fn grpc_response(body: Body) -> Response<Body> {
    let response = Response::builder().header(http::header::CONTENT_TYPE, "application/grpc");
    response.body(body).expect("valid headers")
}

fn trailers(received: u64, status: u32) -> Framed {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    trailers.insert("x-received", received.into());
    Ok(Frame::trailers(trailers))
}

/// Keeps the count of a request in flight until its body is gone.
fn alive(
    frames: impl Stream<Item = Framed> + Send,
    in_flight: InFlight,
) -> impl Stream<Item = Framed> + Send {
    use futures_util::StreamExt as _;
    frames.map(move |frame| {
        let _serving = &in_flight;
        frame
    })
}

/// `length` bytes of a call's own kind.
pub(crate) fn bytes_of(call: u64, length: u64) -> impl Stream<Item = Framed> + Send {
    stream::unfold(length, move |left| async move {
        let now = left.min(PIECE as u64);
        (now > 0).then(|| (Ok(Frame::data(piece(call, now as usize))), left - now))
    })
}

/// `count` messages of 5 to 30 bytes with their prefix, each a frame of its own.
pub(crate) fn messages_of(call: u64, count: u64) -> impl Stream<Item = Framed> + Send {
    stream::unfold(0, move |sent| async move {
        (sent < count).then(|| {
            let length = (sent % 26) as usize;
            let mut message = vec![0, 0, 0, 0, length as u8];
            message.extend_from_slice(&piece(call, length));
            (Ok(Frame::data(Bytes::from(message))), sent + 1)
        })
    })
}

/// So many bytes of a call's own kind; they are shared, not made.
pub(crate) fn piece(call: u64, length: usize) -> Bytes {
    static PIECES: OnceLock<Vec<Bytes>> = OnceLock::new();
    let pieces = PIECES.get_or_init(|| (0..=u8::MAX).map(|byte| Bytes::from(vec![byte; PIECE])).collect());
    pieces[usize::from(call as u8)].slice(..length)
}

/// What a body brought.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Reads a body to its end, which every byte of has to be of the call's own kind. `pause` is called with the number of
/// bytes after each frame.
pub(crate) async fn read<P: Future<Output = ()>>(
    mut body: Body,
    call: u64,
    is_grpc: bool,
    mut pause: impl FnMut(u64) -> P,
) -> Result<Received, String> {
    let mut received = Received::default();
    let mut messages = Messages::default();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| format!("the body, after {} bytes: {}", received.bytes, causes(&error)))?;
        match frame.into_data() {
            Ok(data) => {
                received.bytes += data.len() as u64;
                let foreign = if is_grpc {
                    messages.take(&data, call as u8)
                } else {
                    data.iter().any(|byte| *byte != call as u8)
                };
                if foreign {
                    return Err(format!("bytes of another call, of {} received", received.bytes));
                }
                pause(received.bytes).await;
            }
            Err(other) => received.trailers = other.into_trailers().ok(),
        }
    }
    if !messages.is_between() {
        return Err("the body ends within a message".to_owned());
    }
    received.messages = messages.count;
    Ok(received)
}

/// Counts gRPC messages of less than 256 bytes.
#[derive(Debug, Default)]
struct Messages {
    count: u64,
    prefix: usize,
    left: usize,
}

// === impl Messages ===

impl Messages {
    /// Whether a byte is not of the call's kind.
    fn take(&mut self, data: &[u8], of: u8) -> bool {
        let mut foreign = false;
        for byte in data {
            if self.left > 0 {
                foreign |= *byte != of;
                self.left -= 1;
            } else if self.prefix < PREFIX - 1 {
                foreign |= *byte != 0;
                self.prefix += 1;
            } else {
                self.prefix = 0;
                self.left = usize::from(*byte);
                self.count += 1;
            }
        }
        foreign
    }

    fn is_between(&self) -> bool {
        self.left == 0 && self.prefix == 0
    }
}

/// An error with all its causes.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Bytes of a piece of a body.
pub(crate) const PIECE: usize = 16 << 10;
/// What is read of a body of which not all is.
const HALF: usize = 64 << 10;
/// Flag byte and length of a gRPC message.
const PREFIX: usize = 5;
