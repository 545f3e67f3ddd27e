//! ADS by hand, in both protocols: the test decides on each connection, each frame and each byte, so that it can do what no
//! library lets a server do.
//!
//! Connections that the test does not accept are accepted by the system alone: half open. Those that it drops are reset.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use mesh_xds::{Kind, Protocol};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::net::Port;
use crate::wait::{self, soon};

/// A listening socket, and nobody behind it but the test.
#[derive(Debug)]
pub struct WireControlPlane {
    port: Port,
    listener: TcpListener,
}

/// An HTTP/2 connection of a client.
pub struct WireConnection {
    streams: mpsc::Receiver<Opened>,
    orders: mpsc::Sender<Order>,
    running: JoinSet<()>,
}

/// An ADS stream that a client opened, not answered yet.
pub struct WireCall {
    opened: Opened,
    orders: mpsc::Sender<Order>,
    running: JoinSet<()>,
}

/// An ADS stream.
pub struct WireStream {
    /// Which protocol the client chose.
    pub protocol: Protocol,
    requests: RecvStream,
    received: BytesMut,
    responses: SendStream<Bytes>,
    orders: mpsc::Sender<Order>,
    _running: JoinSet<()>,
}

/// A request, of either protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireRequest {
    /// Its type.
    pub type_url: String,
    /// All names in state of the world, the new ones in incremental.
    pub names: Vec<String>,
    /// Names that are no longer wanted (incremental).
    pub dropped: Vec<String>,
    /// Versions that are held (incremental).
    pub held: BTreeMap<String, String>,
    /// The version in force (state of the world).
    pub version: String,
    /// The response that it answers.
    pub nonce: String,
    /// Why that is refused.
    pub refusal: Option<String>,
}

/// A response, of either protocol.
#[derive(Debug, Clone, Default)]
pub struct WireResponse {
    /// Its type.
    pub type_url: String,
    /// Its version.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// Names and messages of the resources. State of the world sends the message alone.
    pub resources: Vec<(String, Any)>,
    /// Names that are gone (incremental).
    pub removed: Vec<String>,
}

type Opened = (Request<RecvStream>, SendResponse<Bytes>);

/// What the task of a connection is told to do.
enum Order {
    /// GOAWAY, and streams go on.
    GoAway,
    /// GOAWAY with an error, and the end.
    Abort(Reason),
    /// Neither reads nor writes any more.
    Hang,
}

// === impl WireControlPlane ===

impl WireControlPlane {
    /// Listens on a port of its own.
    #[must_use]
    pub fn start() -> Self {
        let port = Port::reserve();
        let listener = port.listen();
        Self { port, listener }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The next connection, of which nothing was read. Dropping it is a reset.
    ///
    /// # Panics
    /// If none comes.
    pub async fn accept(&self) -> TcpStream {
        self.accept_within(wait::LIMIT).await
    }

    /// The same, from a client that may take its time.
    ///
    /// # Panics
    /// If none comes.
    pub async fn accept_within(&self, limit: Duration) -> TcpStream {
        let accepted = tokio::time::timeout(limit, self.listener.accept()).await.expect("a client in time");
        let (socket, _) = accepted.expect("a listener that works");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_zero_linger().expect("SO_LINGER");
        socket
    }

    /// The next ADS stream.
    ///
    /// # Errors
    /// When the client goes away before it has opened one.
    pub async fn open(&self) -> io::Result<WireStream> {
        let call = WireConnection::over(self.accept().await).await?.call().await;
        call.ok_or(io::ErrorKind::ConnectionReset)?.answer()
    }
}

// === impl WireConnection ===

impl WireConnection {
    /// The server's side of HTTP/2 over a byte stream.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn over<I>(io: I) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut connection = h2::server::handshake(io).await.map_err(io::Error::other)?;
        let (arrivals, streams) = mpsc::channel(8);
        let (orders, mut told) = mpsc::channel(8);
        let mut running = JoinSet::new();
        running.spawn(async move {
            loop {
                tokio::select! {
                    accepted = connection.accept() => match accepted {
                        Some(Ok(opened)) => drop(arrivals.try_send(opened)),
                        Some(Err(_)) | None => return,
                    },
                    Some(order) = told.recv() => match order {
                        Order::GoAway => connection.graceful_shutdown(),
                        Order::Abort(reason) => connection.abrupt_shutdown(reason),
                        Order::Hang => std::future::pending().await,
                    },
                }
            }
        });
        Ok(Self { streams, orders, running })
    }

    /// Neither reads nor writes from now on: PINGs stay unanswered, and the socket stays open while this lives.
    pub async fn hang(&self) {
        drop(self.orders.send(Order::Hang).await);
    }

    /// The first stream; none if the client goes away before.
    pub async fn call(mut self) -> Option<WireCall> {
        let opened = soon(self.streams.recv()).await?;
        Some(WireCall { opened, orders: self.orders, running: self.running })
    }
}

impl fmt::Debug for WireConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireConnection").finish_non_exhaustive()
    }
}

// === impl WireCall ===

impl WireCall {
    /// Sends the headers of the response.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn answer(self) -> io::Result<WireStream> {
        let Self { opened: (request, mut respond), orders, running } = self;
        let is_delta = request.uri().path().ends_with("/DeltaAggregatedResources");
        let protocol = if is_delta { Protocol::Incremental } else { Protocol::StateOfTheWorld };
        let head = Response::builder().header("content-type", "application/grpc").body(());
        let head = head.expect("headers of constants");
        let responses = respond.send_response(head, false).map_err(io::Error::other)?;
        Ok(WireStream {
            protocol,
            requests: request.into_body(),
            received: BytesMut::new(),
            responses,
            orders,
            _running: running,
        })
    }

    /// Answers with this HTTP status, and no gRPC at all.
    pub fn refuse(self, status: u16) {
        let Self { opened: (_request, mut respond), orders: _orders, mut running } = self;
        let head = Response::builder().status(status).body(()).expect("a status");
        // If the client is gone, it has been refused.
        drop(respond.send_response(head, true));
        running.detach_all();
    }
}

impl fmt::Debug for WireCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireCall").finish_non_exhaustive()
    }
}

// === impl WireStream ===

impl WireStream {
    /// The next request; none when the client has ended the stream or the connection.
    pub async fn next(&mut self) -> Option<WireRequest> {
        soon(self.next_ever()).await
    }

    /// The same, from a client that may have nothing to say for long.
    pub async fn next_ever(&mut self) -> Option<WireRequest> {
        loop {
            if let Some(message) = self.take() {
                return Some(match self.protocol {
                    Protocol::StateOfTheWorld => DiscoveryRequest::decode(message).ok()?.into(),
                    Protocol::Incremental => DeltaDiscoveryRequest::decode(message).ok()?.into(),
                });
            }
            let data = self.requests.data().await?.ok()?;
            // The window is the client's to lose.
            drop(self.requests.flow_control().release_capacity(data.len()));
            self.received.extend_from_slice(&data);
        }
    }

    /// Sends a response. If the client is gone, that is seen at the next request.
    pub fn send(&mut self, response: &WireResponse) {
        self.send_message(&response.encoded(self.protocol));
    }

    /// Sends bytes as a message.
    pub fn send_message(&mut self, message: &[u8]) {
        let mut frame = BytesMut::with_capacity(PREFIX + message.len());
        frame.extend_from_slice(&prefix(message.len()));
        frame.extend_from_slice(message);
        self.send_bytes(frame.freeze());
    }

    /// Sends bytes, whatever they are.
    pub fn send_bytes(&mut self, bytes: Bytes) {
        drop(self.responses.send_data(bytes, false));
    }

    /// Sends the beginning of a message of this length, and so much of it as `chunks` are, as fast as they are read. False
    /// when the client did not read them all.
    pub async fn stream(&mut self, length: usize, chunks: impl IntoIterator<Item = Bytes>) -> bool {
        self.send_bytes(Bytes::copy_from_slice(&prefix(length)));
        for mut chunk in chunks {
            while !chunk.is_empty() {
                self.responses.reserve_capacity(chunk.len());
                let room = soon(std::future::poll_fn(|cx| self.responses.poll_capacity(cx))).await;
                let Some(Ok(room)) = room else { return false };
                let part = chunk.split_to(room.min(chunk.len()));
                if self.responses.send_data(part, false).is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Ends the stream with a gRPC status.
    pub fn fail(&mut self, code: tonic::Code, message: &'static str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code as i32));
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        drop(self.responses.send_trailers(trailers));
    }

    /// Ends the stream without a status, as no gRPC server does.
    pub fn end(&mut self) {
        drop(self.responses.send_data(Bytes::new(), true));
    }

    /// `RST_STREAM`.
    pub fn reset(&mut self, reason: Reason) {
        self.responses.send_reset(reason);
    }

    /// `GOAWAY`; the stream may go on.
    pub async fn go_away(&self) {
        drop(self.orders.send(Order::GoAway).await);
    }

    /// `GOAWAY` with an error; the connection ends.
    pub async fn abort(&self, reason: Reason) {
        drop(self.orders.send(Order::Abort(reason)).await);
    }

    /// Neither reads nor writes from now on: PINGs stay unanswered, and the socket stays open while this lives.
    pub async fn hang(&self) {
        drop(self.orders.send(Order::Hang).await);
    }

    fn take(&mut self) -> Option<Bytes> {
        let (_compressed, length) = self.received.split_first_chunk::<PREFIX>().map(|(prefix, _)| {
            let [compressed, length @ ..] = *prefix;
            (compressed, u32::from_be_bytes(length) as usize)
        })?;
        if self.received.len() < PREFIX + length {
            return None;
        }
        self.received.advance(PREFIX);
        Some(self.received.split_to(length).freeze())
    }
}

impl fmt::Debug for WireStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireStream").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

// === impl WireRequest ===

impl WireRequest {
    /// Its type, if it is one of the mesh.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_type_url(&self.type_url)
    }
}

impl From<DiscoveryRequest> for WireRequest {
    fn from(request: DiscoveryRequest) -> Self {
        Self {
            type_url: request.type_url,
            names: request.resource_names,
            version: request.version_info,
            nonce: request.response_nonce,
            refusal: request.error_detail.map(|status| status.message),
            ..Self::default()
        }
    }
}

impl From<DeltaDiscoveryRequest> for WireRequest {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self {
            type_url: request.type_url,
            names: request.resource_names_subscribe,
            dropped: request.resource_names_unsubscribe,
            held: request.initial_resource_versions.into_iter().collect(),
            nonce: request.response_nonce,
            refusal: request.error_detail.map(|status| status.message),
            ..Self::default()
        }
    }
}

// === impl WireResponse ===

impl WireResponse {
    /// The bytes of the message in a protocol.
    #[must_use]
    pub fn encoded(&self, protocol: Protocol) -> Vec<u8> {
        let Self { type_url, version, nonce, resources, removed } = self.clone();
        match protocol {
            Protocol::StateOfTheWorld => DiscoveryResponse {
                version_info: version,
                resources: resources.into_iter().map(|(_, any)| any).collect(),
                type_url,
                nonce,
                ..DiscoveryResponse::default()
            }
            .encode_to_vec(),
            Protocol::Incremental => {
                let wrap = |(name, any): (String, Any)| Resource {
                    name,
                    version: version.clone(),
                    resource: Some(any),
                    ..Resource::default()
                };
                DeltaDiscoveryResponse {
                    system_version_info: version.clone(),
                    resources: resources.into_iter().map(wrap).collect(),
                    type_url,
                    removed_resources: removed,
                    nonce,
                    ..DeltaDiscoveryResponse::default()
                }
                .encode_to_vec()
            }
        }
    }
}

/// The prefix of a gRPC message.
fn prefix(length: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(length).expect("a length of four bytes").to_be_bytes();
    [0, a, b, c, d]
}

/// Flag byte and length of a gRPC message.
const PREFIX: usize = 5;
