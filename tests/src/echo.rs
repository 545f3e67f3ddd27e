//! `mesh.test.Echo`: a gRPC service in the shape that tonic's generator gives one, written by hand because the tests need
//! no protoc. The reply says who answered, who was seen to call, and with which headers.

use std::collections::HashMap;

use bytes::Bytes;
use tonic::codegen::{Body, GrpcMethod, StdError, http};
use tonic_prost::ProstCodec;

/// What to say, and how the server is to behave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoRequest {
    /// Comes back as it is. Also the name under which attempts are counted.
    #[prost(string, tag = "1")]
    pub text: String,
    /// Comes back as it is.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
    /// The status to fail with, if not 0.
    #[prost(int32, tag = "3")]
    pub fail_with: i32,
    /// So many attempts with the same text fail; 0 is all of them.
    #[prost(uint32, tag = "4")]
    pub fail_first: u32,
    /// Wait until the backend's gate is open.
    #[prost(bool, tag = "5")]
    pub hold: bool,
    /// For streams: so many replies.
    #[prost(uint32, tag = "6")]
    pub replies: u32,
}

/// What the server heard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoReply {
    /// The text of the request.
    #[prost(string, tag = "1")]
    pub text: String,
    /// The backend that answered.
    #[prost(string, tag = "2")]
    pub server: String,
    /// The SPIFFE id of the caller; empty without a verified certificate.
    #[prost(string, tag = "3")]
    pub peer: String,
    /// The caller's certificate (DER); empty without one.
    #[prost(bytes = "bytes", tag = "4")]
    pub peer_certificate: Bytes,
    /// The request's headers (ASCII).
    #[prost(map = "string, string", tag = "5")]
    pub headers: HashMap<String, String>,
    /// How many attempts with this text arrived so far, this one included.
    #[prost(uint32, tag = "6")]
    pub attempt: u32,
    /// The payload of the request.
    #[prost(bytes = "bytes", tag = "7")]
    pub payload: Bytes,
    /// Bytes received on a client stream.
    #[prost(uint64, tag = "8")]
    pub received: u64,
}

/// The client that tonic would generate.
#[derive(Debug, Clone)]
pub struct EchoClient<T> {
    inner: tonic::client::Grpc<T>,
}

/// Path of the unary method.
pub const UNARY: &str = "/mesh.test.Echo/Unary";
/// Path of the method that takes a stream and answers once.
pub const UPLOAD: &str = "/mesh.test.Echo/Upload";
/// Path of the method that answers with a stream.
pub const DOWNLOAD: &str = "/mesh.test.Echo/Download";
/// Path of the method with streams both ways.
pub const CHAT: &str = "/mesh.test.Echo/Chat";

// === impl EchoRequest ===

impl EchoRequest {
    /// Says something.
    #[must_use]
    pub fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Asks for failure with a status, the first so many times (0: always).
    #[must_use]
    pub fn failing(self, code: tonic::Code, first: u32) -> Self {
        Self { fail_with: code.into(), fail_first: first, ..self }
    }

    /// Asks to be held until the backend's gate opens.
    #[must_use]
    pub fn held(self) -> Self {
        Self { hold: true, ..self }
    }
}

// === impl EchoClient ===

impl<T> EchoClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client on a channel.
    pub fn new(inner: T) -> Self {
        let inner = tonic::client::Grpc::new(inner);
        Self { inner: inner.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE) }
    }

    /// One request, one reply.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn unary(
        &mut self,
        request: impl tonic::IntoRequest<EchoRequest>,
    ) -> Result<tonic::Response<EchoReply>, tonic::Status> {
        self.ready().await?;
        let mut request = request.into_request();
        request.extensions_mut().insert(GrpcMethod::new("mesh.test.Echo", "Unary"));
        self.inner.unary(request, path(UNARY), ProstCodec::default()).await
    }

    /// A stream of requests, one reply.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn upload(
        &mut self,
        request: impl tonic::IntoStreamingRequest<Message = EchoRequest>,
    ) -> Result<tonic::Response<EchoReply>, tonic::Status> {
        self.ready().await?;
        self.inner
            .client_streaming(request.into_streaming_request(), path(UPLOAD), ProstCodec::default())
            .await
    }

    /// One request, a stream of replies.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn download(
        &mut self,
        request: impl tonic::IntoRequest<EchoRequest>,
    ) -> Result<tonic::Response<tonic::Streaming<EchoReply>>, tonic::Status> {
        self.ready().await?;
        self.inner.server_streaming(request.into_request(), path(DOWNLOAD), ProstCodec::default()).await
    }

    /// Streams both ways.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn chat(
        &mut self,
        request: impl tonic::IntoStreamingRequest<Message = EchoRequest>,
    ) -> Result<tonic::Response<tonic::Streaming<EchoReply>>, tonic::Status> {
        self.ready().await?;
        self.inner.streaming(request.into_streaming_request(), path(CHAT), ProstCodec::default()).await
    }

    async fn ready(&mut self) -> Result<(), tonic::Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| tonic::Status::unknown(format!("not ready: {}", error.into())))
    }
}

fn path(path: &'static str) -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static(path)
}

const MAX_MESSAGE: usize = 16 << 20;
