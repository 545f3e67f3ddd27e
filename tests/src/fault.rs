//! Peers that misbehave: connections that are reset or met with silence, and HTTP/2 spoken frame by frame.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::echo::{EchoReply, EchoRequest};
use crate::net::Port;
use crate::wait;

/// What a peer does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Nobody listens.
    Refuse,
    /// It is accepted and reset at once.
    Reset,
    /// It is accepted, and nothing ever comes back.
    Silence,
}

/// A peer that is of no use to anybody.
#[derive(Debug)]
pub struct BadPeer {
    port: Port,
    accepted: watch::Receiver<u64>,
    _running: JoinSet<()>,
}

/// A stream that a client opened on a [`FramePeer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Number of the connection, from 1.
    pub connection: u64,
    /// Number of the stream on its connection, from 1.
    pub stream: u64,
    /// Number of the stream over all connections, from 1.
    pub total: u64,
}

/// What a [`FramePeer`] does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Answer it as the echo service would.
    Answer,
    /// `RST_STREAM(REFUSED_STREAM)`: not processed.
    Refuse,
    /// `RST_STREAM(INTERNAL_ERROR)`: processed or not, who knows.
    Fail,
    /// `GOAWAY` with the stream before this one as the last: this one and later ones are not processed.
    GoAwayBelow,
    /// The same, and the end of the connection behind it.
    GoAwayAndClose,
    /// Answer it, with `GOAWAY` right behind the answer in the same write: later ones are not processed.
    GoAwayBehind,
    /// Answer it, and drain as gRPC servers do: `GOAWAY` that refuses nothing, `PING`, and when that is answered `GOAWAY`
    /// with the last stream that came before.
    Drain,
    /// Nothing.
    Ignore,
    /// Cut the connection.
    Cut,
}

/// An HTTP/2 server that decides on each stream, and speaks the protocol frame by frame: what a well-behaved library cannot
/// be made to do.
#[derive(Debug)]
pub struct FramePeer {
    port: Port,
    seen: watch::Receiver<Seen>,
    _running: JoinSet<()>,
}

/// What a [`FramePeer`] has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections.
    pub connections: u64,
    /// Streams opened.
    pub streams: u64,
    /// How often the request with a text was processed.
    pub processed: HashMap<String, u64>,
}

// === impl BadPeer ===

impl BadPeer {
    /// Starts misbehaving.
    #[must_use]
    pub fn start(manner: Manner) -> Self {
        let port = Port::reserve();
        let (count, accepted) = watch::channel(0);
        let mut running = JoinSet::new();
        if manner != Manner::Refuse {
            let listener = port.listen();
            running.spawn(async move {
                let mut held = Vec::new();
                while let Ok((socket, _)) = listener.accept().await {
                    count.send_modify(|count| *count += 1);
                    match manner {
                        Manner::Silence => held.push(socket),
                        Manner::Reset | Manner::Refuse => reset(&socket),
                    }
                }
            });
        }
        Self { port, accepted, _running: running }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Waits until so many connections were accepted.
    #[track_caller]
    pub fn until_accepted(&self, count: u64) -> impl Future<Output = u64> {
        wait::until(self.accepted.clone(), move |seen| *seen >= count)
    }
}

/// Makes the drop of a socket a reset, where an ordinary close would be polite.
fn reset(socket: &TcpStream) {
    socket.set_zero_linger().expect("SO_LINGER");
}

// === impl FramePeer ===

impl FramePeer {
    /// Listens on a port of its own, and asks `decide` about each stream.
    #[must_use]
    pub fn start(decide: impl Fn(Opened) -> Verdict + Send + Sync + 'static) -> Self {
        Self::start_with(None, decide)
    }

    /// The same, with TLS.
    #[must_use]
    pub fn start_tls(
        tls: Arc<ServerConfig>,
        decide: impl Fn(Opened) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(TlsAcceptor::from(tls)), decide)
    }

    fn start_with(
        tls: Option<TlsAcceptor>,
        decide: impl Fn(Opened) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let port = Port::reserve();
        let listener = port.listen();
        let (publish, seen) = watch::channel(Seen::default());
        let shared = Arc::new(Shared { publish, decide: Box::new(decide), order: Mutex::new(()) });
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let mut connection = 0;
                shared.publish.send_modify(|seen| {
                    seen.connections += 1;
                    connection = seen.connections;
                });
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                // A connection that breaks is what half of the tests are about.
                connections.spawn(async move { drop(session(socket, tls, shared, connection).await) });
            }
        });
        Self { port, seen, _running: running }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What it has seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what it has seen satisfies a condition.
    #[track_caller]
    pub fn until(&self, condition: impl FnMut(&Seen) -> bool) -> impl Future<Output = Seen> {
        wait::until(self.seen.clone(), condition)
    }
}

struct Shared {
    publish: watch::Sender<Seen>,
    decide: Box<dyn Fn(Opened) -> Verdict + Send + Sync>,
    /// Held while a verdict is asked for, so that `decide` sees streams one at a time.
    order: Mutex<()>,
}

/// A byte stream with a socket below it.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for tokio_rustls::server::TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn session(
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    connection: u64,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let wire: Box<dyn Wire> = match tls {
        Some(tls) => Box::new(tls.accept(socket).await?),
        None => Box::new(socket),
    };
    let session = Session {
        wire,
        shared,
        connection,
        streams: 0,
        last: 0,
        bodies: HashMap::new(),
        state: State::Open,
        last_answer: None,
    };
    session.run().await
}

/// How far a connection is in going away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The first of two `GOAWAY`s was sent.
    Draining,
    /// New streams are not processed.
    GoneAway,
}

struct Session {
    wire: Box<dyn Wire>,
    shared: Arc<Shared>,
    connection: u64,
    streams: u64,
    /// The newest stream.
    last: u32,
    /// Bodies of the streams that will be answered.
    bodies: HashMap<u32, Vec<u8>>,
    state: State,
    /// The stream whose answer has `GOAWAY` behind it.
    last_answer: Option<u32>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Session {
    async fn run(mut self) -> std::io::Result<()> {
        let mut preface = [0; PREFACE_LENGTH];
        self.wire.read_exact(&mut preface).await?;
        self.write(SETTINGS, 0, 0, &[]).await?;
        loop {
            let frame = self.read().await?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await?,
                PING if frame.flags & ACK == 0 => self.write(PING, ACK, 0, &frame.payload).await?,
                PING if self.state == State::Draining => {
                    self.state = State::GoneAway;
                    self.go_away(self.last).await?;
                }
                GOAWAY => return Ok(()),
                HEADERS if self.state != State::GoneAway => {
                    self.last = frame.stream;
                    let opened = self.open(frame.stream).await?;
                    if !opened {
                        return Ok(());
                    }
                }
                DATA => {
                    if let Some(body) = self.bodies.get_mut(&frame.stream) {
                        body.extend_from_slice(&frame.payload);
                    }
                }
                RST_STREAM => drop(self.bodies.remove(&frame.stream)),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA)
                && frame.flags & END_STREAM != 0
                && let Some(body) = self.bodies.remove(&frame.stream)
            {
                self.answer(frame.stream, &body).await?;
            }
        }
    }

    /// Decides on a new stream. `false` is the end of the connection.
    async fn open(&mut self, stream: u32) -> std::io::Result<bool> {
        self.streams += 1;
        let mut total = 0;
        self.shared.publish.send_modify(|seen| {
            seen.streams += 1;
            total = seen.streams;
        });
        let opened = Opened { connection: self.connection, stream: self.streams, total };
        let verdict = {
            let _one_at_a_time = self.shared.order.lock().unwrap_or_else(PoisonError::into_inner);
            (self.shared.decide)(opened)
        };
        match verdict {
            Verdict::Answer => drop(self.bodies.insert(stream, Vec::new())),
            Verdict::Refuse => self.write(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()).await?,
            Verdict::Fail => self.write(RST_STREAM, 0, stream, &INTERNAL_ERROR.to_be_bytes()).await?,
            Verdict::GoAwayBelow | Verdict::GoAwayAndClose => {
                self.state = State::GoneAway;
                self.go_away(stream.saturating_sub(2)).await?;
                if verdict == Verdict::GoAwayAndClose {
                    self.wire.shutdown().await?;
                    return Ok(false);
                }
            }
            Verdict::GoAwayBehind => {
                self.state = State::GoneAway;
                self.last_answer = Some(stream);
                self.bodies.insert(stream, Vec::new());
            }
            Verdict::Drain => {
                self.bodies.insert(stream, Vec::new());
                if self.state == State::Open {
                    self.state = State::Draining;
                    self.go_away(LAST_STREAM).await?;
                    self.write(PING, 0, 0, &[0; 8]).await?;
                }
            }
            Verdict::Ignore => {}
            Verdict::Cut => {
                reset(self.wire.socket());
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn answer(&mut self, stream: u32, body: &[u8]) -> std::io::Result<()> {
        let request = EchoRequest::decode(body.get(GRPC_PREFIX..).unwrap_or_default()).unwrap_or_default();
        self.shared.publish.send_modify(|seen| *seen.processed.entry(request.text.clone()).or_default() += 1);
        let reply = EchoReply {
            text: request.text,
            server: "frames".into(),
            payload: Bytes::new(),
            ..Default::default()
        };
        let message = reply.encode_to_vec();
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
        data.extend_from_slice(&message);

        let mut headers = vec![HPACK_STATUS_200];
        headers.extend_from_slice(&HPACK_CONTENT_TYPE);
        push_string(&mut headers, "application/grpc");
        let mut trailers = vec![HPACK_NEW_NAME];
        push_string(&mut trailers, "grpc-status");
        push_string(&mut trailers, "0");
        let mut frames = frame(HEADERS, END_HEADERS, stream, &headers);
        frames.extend(frame(DATA, 0, stream, &data));
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers));
        if self.last_answer == Some(stream) {
            frames.extend(frame(GOAWAY, 0, 0, &go_away(stream)));
        }
        self.send(&frames).await
    }

    async fn go_away(&mut self, last: u32) -> std::io::Result<()> {
        self.write(GOAWAY, 0, 0, &go_away(last)).await
    }

    async fn read(&mut self) -> std::io::Result<Frame> {
        let [a, b, c, kind, flags, stream @ ..]: [u8; FRAME_HEADER] = {
            let mut header = [0; FRAME_HEADER];
            self.wire.read_exact(&mut header).await?;
            header
        };
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.wire.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.send(&frame(kind, flags, stream, payload)).await
    }

    async fn send(&mut self, frames: &[u8]) -> std::io::Result<()> {
        let sent = async {
            self.wire.write_all(frames).await?;
            self.wire.flush().await
        };
        // A client that does not read must not hold a test for ever.
        tokio::time::timeout(Duration::from_secs(10), sent).await?
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The payload of `GOAWAY(NO_ERROR)`.
fn go_away(last: u32) -> Vec<u8> {
    [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat()
}

/// A string of less than 127 bytes, without Huffman coding.
fn push_string(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).expect("a short string"));
    block.extend_from_slice(text.as_bytes());
}

const PREFACE_LENGTH: usize = 24;
const FRAME_HEADER: usize = 9;
/// Flag byte and length of a gRPC message.
const GRPC_PREFIX: usize = 5;

// RFC 9113: frame types, flags, error codes.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u32 = 0;
const LAST_STREAM: u32 = 0x7fff_ffff;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

// RFC 7541: `:status: 200` (indexed), `content-type` (literal, name 31), a literal with a new name.
const HPACK_STATUS_200: u8 = 0x88;
const HPACK_CONTENT_TYPE: [u8; 2] = [0x0f, 0x10];
const HPACK_NEW_NAME: u8 = 0x00;
