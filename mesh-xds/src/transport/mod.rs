//! One ADS stream over one connection: bytes in, bytes out, nothing decided.
//!
//! Reference: gRFC A27 (one bidirectional stream), A65 and A97 (credentials); xDS protocol, both of its aggregated streams. HTTP/2 keepalive is always on: without it a
//! half-open connection leaves a client on stale endpoints for ever.
//!
//! Reader and writer are apart. A request is made only when there is room for one (`Stream::poll_room`), so what a slow
//! control plane has not read is never a queue; and responses are read whether or not there is room.
//! Whether the control plane sends headers before its first response makes no difference: some do not.

mod call_creds;
pub(crate) mod connect;
mod decode;
mod message;
mod tls;
mod verdicts;
mod witness;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::Extensions;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use self::call_creds::{JwtFile, TokenError};
pub use self::connect::{Connect, Connecting, Io, NameNotResolved, SystemConnect};
pub(crate) use self::decode::{Decoder, rules};

use self::message::{delta_request, discovery_request};
use self::tls::LastConfig;
use self::witness::{Cause, Witness};

use crate::ads::{Protocol, Request};
use crate::bootstrap::{Bootstrap, CallCreds, ChannelCreds, ServerConfig};
use crate::outage::Outage;

/// The longest that a connection may take, TLS and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a silent connection is asked whether it is alive.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to that may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response: one response holds all listeners, or all clusters.
const MAX_RESPONSE_BYTES: usize = 128 << 20;

/// Why there is no connection to a control plane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("connect failed")]
    Connect(#[source] std::io::Error),
    #[error(transparent)]
    Name(std::io::Error),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("HTTP/2 handshake failed{cause}")]
    Http2 {
        /// What broke the connection.
        cause: Cause,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{0:?} cannot be the authority of a request")]
    Authority(String),
}

/// The credentials of one control plane, over all its connections.
#[derive(Debug)]
pub(crate) struct Credentials {
    tls: LastConfig,
    tokens: Vec<JwtFile>,
}

/// An open ADS stream, of the protocol that the control plane is spoken to in.
pub(crate) struct Stream {
    requests: PollSender<Request>,
    inbound: Inbound,
    cause: Cause,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) enum Message {
    StateOfTheWorld(DiscoveryResponse),
    Incremental(DeltaDiscoveryResponse),
}

/// The responses. The call is under way until the control plane sends its headers.
enum Inbound {
    Opening(Call),
    Open(Messages),
}

type Call = Pin<Box<dyn Future<Output = Result<Messages, Status>> + Send>>;

type Messages = Pin<Box<dyn futures_core::Stream<Item = Result<Message, Status>> + Send>>;

type Client = AggregatedDiscoveryServiceClient<Channel>;

// === impl ConnectError ===

impl ConnectError {
    fn of_connector(error: std::io::Error) -> Self {
        if NameNotResolved::is(&error) { Self::Name(error) } else { Self::Connect(error) }
    }

    /// What it means to those who wait for the control plane.
    pub(crate) fn outage(&self) -> Outage {
        let why = render(self);
        if matches!(self, Self::Name(_)) { Outage::of_name(why) } else { Outage::from(why) }
    }
}

// === impl Credentials ===

impl Credentials {
    pub(crate) fn new(server: &ServerConfig) -> Self {
        let token = |creds: &CallCreds| match creds {
            CallCreds::JwtTokenFile(file) => JwtFile::new(file),
        };
        Self { tls: LastConfig::default(), tokens: server.call_creds().iter().map(token).collect() }
    }

    /// What every call carries.
    async fn metadata(&self) -> Result<MetadataMap, TokenError> {
        let mut metadata = MetadataMap::new();
        for token in &self.tokens {
            metadata.append("authorization", token.header(wall_clock()).await?);
        }
        Ok(metadata)
    }
}

// === impl Stream ===

impl Stream {
    /// Connects to a control plane and opens the stream, as the node of `bootstrap`.
    pub(crate) async fn open(
        bootstrap: &Arc<Bootstrap>,
        server: &ServerConfig,
        credentials: &Credentials,
        connector: &dyn Connect,
    ) -> Result<Self, ConnectError> {
        let cause = Cause::default();
        let connected = connect(server, credentials, connector, &cause);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connected);
        let (channel, metadata) = connected.await.map_err(|_| ConnectError::Timeout)??;
        // One request of room: the next is made when this one is taken.
        let (requests, outbound) = mpsc::channel(1);
        let outbound =
            tonic::Request::from_parts(metadata, Extensions::default(), ReceiverStream::new(outbound));
        let client = Client::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let bootstrap = bootstrap.clone();
        let call: Call = match server.protocol() {
            Protocol::StateOfTheWorld => Box::pin(state_of_the_world(client, outbound, bootstrap)),
            Protocol::Incremental => Box::pin(incremental(client, outbound, bootstrap)),
        };
        Ok(Self { requests: PollSender::new(requests), inbound: Inbound::Opening(call), cause })
    }

    /// Waits for room for one request; false when nobody takes requests any more. The room is kept until a request is
    /// sent, or it is released.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.requests.poll_reserve(cx).map(|room| room.is_ok())
    }

    /// Sends a request into the room that there is.
    pub(crate) fn send(&mut self, request: Request) {
        // Where nobody takes it any more, the end of the responses will say why.
        _ = self.requests.send_item(request);
    }

    /// Gives back the room that there is.
    pub(crate) fn release(&mut self) {
        self.requests.abort_send();
    }

    /// Why the stream ended with this status.
    pub(crate) fn why(&self, status: &Status) -> Arc<str> {
        self.cause.explain(render_status(status))
    }

    /// Waits for the next response; none at the end of the stream.
    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        self.inbound.poll_next(cx)
    }
}

// A machine speaks one protocol, so that no request is left out by these two.

async fn state_of_the_world(
    mut client: Client,
    requests: tonic::Request<ReceiverStream<Request>>,
    bootstrap: Arc<Bootstrap>,
) -> Result<Messages, Status> {
    let requests = requests
        .map(|requests| requests.filter_map(move |request| discovery_request(request, bootstrap.node())));
    let responses = client.stream_aggregated_resources(requests).await?.into_inner();
    Ok(Box::pin(responses.map(|response| response.map(Message::StateOfTheWorld))))
}

async fn incremental(
    mut client: Client,
    requests: tonic::Request<ReceiverStream<Request>>,
    bootstrap: Arc<Bootstrap>,
) -> Result<Messages, Status> {
    let requests =
        requests.map(|requests| requests.filter_map(move |request| delta_request(request, bootstrap.node())));
    let responses = client.delta_aggregated_resources(requests).await?.into_inner();
    Ok(Box::pin(responses.map(|response| response.map(Message::Incremental))))
}

// === impl Inbound ===

impl Inbound {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        loop {
            match self {
                Self::Open(messages) => return messages.as_mut().poll_next(cx),
                Self::Opening(call) => match ready!(call.as_mut().poll(cx)) {
                    Ok(messages) => *self = Self::Open(messages),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                },
            }
        }
    }
}

// === impl Message ===

impl Message {
    pub(crate) fn type_url(&self) -> &str {
        match self {
            Self::StateOfTheWorld(response) => &response.type_url,
            Self::Incremental(response) => &response.type_url,
        }
    }
}

/// A connection, and what every call over it carries.
async fn connect(
    server: &ServerConfig,
    credentials: &Credentials,
    connector: &dyn Connect,
    cause: &Cause,
) -> Result<(Channel, MetadataMap), ConnectError> {
    let metadata = credentials.metadata().await?;
    Ok((channel(server, credentials, connector, cause).await?, metadata))
}

async fn channel(
    server: &ServerConfig,
    credentials: &Credentials,
    connector: &dyn Connect,
    cause: &Cause,
) -> Result<Channel, ConnectError> {
    let authority = server.uri().authority();
    let uri = |scheme| {
        let uri = Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query("/").build();
        uri.map_err(|_| ConnectError::Authority(authority.clone()))
    };
    let io = connector.connect(server.uri().address()).await.map_err(ConnectError::of_connector)?;
    let (io, origin) = match server.creds() {
        ChannelCreds::Insecure => (io, uri("http")?),
        ChannelCreds::Tls(creds) => {
            let address = server.uri().address();
            (tls::secure(io, address, creds, &credentials.tls, wall_clock()).await?, uri("https")?)
        }
    };
    // TLS is done already; to tonic the connection is a plain one, whatever the scheme of its requests.
    let endpoint = Endpoint::from(uri("http")?)
        .origin(origin)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let io: Box<dyn Io> = Box::new(Witness::new(io, cause.clone()));
    let connected = endpoint.connect_with_connector(Once(Some(io))).await;
    connected.map_err(|source| ConnectError::Http2 { cause: cause.clone(), source })
}

/// The ends of tokens and certificates are points of this clock.
#[expect(clippy::disallowed_methods, reason = "a driver reads the clock, and passes it on")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Hands over one connection that is there already. A second one is the driver's to make.
struct Once(Option<Box<dyn Io>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let io = self.0.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        std::future::ready(io.map(TokioIo::new))
    }
}

/// An error with all that caused it, in one line.
pub(crate) fn render(error: &(dyn Error + 'static)) -> String {
    let mut text: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        // Many errors already hold the text of what caused them.
        if !text.last().is_some_and(|last| last.contains(&cause)) {
            text.push(cause);
        }
        next = error.source();
    }
    text.join(": ")
}

/// Why a stream ended, for messages.
fn render_status(status: &Status) -> Arc<str> {
    let cause = status.source().map(render).filter(|cause| !status.message().contains(cause));
    let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!("stream failed: {:?}: {}{cause}", status.code(), status.message()).into()
}
