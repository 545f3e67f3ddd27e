//! The service under test: a unary echo of 1 KiB, as a prost message and a tonic client and server in the shape that
//! a code generator emits. tonic, tonic-xds and mesh share this one client; the bare peers send the same bytes.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::server::{NamedService, UnaryService};
use tonic::{GrpcMethod, Request, Response, Status};
use tonic_prost::ProstCodec;

/// Full method path of the one unary call.
pub(crate) const PATH: &str = "/bench.v1.Echo/Unary";
/// Full service name.
pub(crate) const SERVICE: &str = "bench.v1.Echo";
/// The server fails calls that carry this header, and says how many it has failed.
pub(crate) const REFUSE: &str = "x-refuse";
/// Size of the payload that goes up and comes back.
pub(crate) const PAYLOAD: usize = 1024;

/// Request and response alike.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct EchoMessage {
    /// The bytes to be sent back.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) payload: Vec<u8>,
}

impl EchoMessage {
    /// A message of [`PAYLOAD`] bytes.
    pub(crate) fn sample() -> Self {
        Self { payload: vec![0x5a; PAYLOAD] }
    }

    /// The length-prefixed gRPC frame of this message, for peers without a codec.
    pub(crate) fn framed(&self) -> Bytes {
        let len = self.encoded_len();
        let mut frame = BytesMut::with_capacity(5 + len);
        frame.put_u8(0);
        frame.put_u32(len as u32);
        frame.put_slice(&self.encode_to_vec());
        frame.freeze()
    }
}

/// The client as generated code writes it.
#[derive(Debug, Clone)]
pub(crate) struct EchoClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> EchoClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A client over any gRPC transport.
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: tonic::client::Grpc::new(inner) }
    }

    /// One echo.
    pub(crate) async fn unary(
        &mut self,
        request: impl tonic::IntoRequest<EchoMessage>,
    ) -> Result<Response<EchoMessage>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|e| Status::unknown(format!("service was not ready: {}", e.into())))?;
        let path = http::uri::PathAndQuery::from_static(PATH);
        let mut request = request.into_request();
        request.extensions_mut().insert(GrpcMethod::new(SERVICE, "Unary"));
        self.inner.unary(request, path, ProstCodec::<EchoMessage, EchoMessage>::default()).await
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the service does with a call.
#[tonic::async_trait]
pub(crate) trait Echo: Send + Sync + 'static {
    /// Answers one call.
    async fn unary(&self, request: Request<EchoMessage>) -> Result<Response<EchoMessage>, Status>;
}

/// The server as generated code writes it.
#[derive(Debug)]
pub(crate) struct EchoServer<E> {
    inner: Arc<E>,
}

impl<E> EchoServer<E> {
    /// Serves `inner`.
    pub(crate) fn new(inner: E) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

impl<E> Clone for EchoServer<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E> NamedService for EchoServer<E> {
    const NAME: &'static str = SERVICE;
}

struct UnarySvc<E>(Arc<E>);

impl<E: Echo> UnaryService<EchoMessage> for UnarySvc<E> {
    type Response = EchoMessage;
    type Future = BoxFuture<Result<Response<EchoMessage>, Status>>;

    fn call(&mut self, request: Request<EchoMessage>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.unary(request).await })
    }
}

impl<E, B> tower::Service<http::Request<B>> for EchoServer<E>
where
    E: Echo,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let codec = ProstCodec::<EchoMessage, EchoMessage>::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(grpc.unary(UnarySvc(inner), request).await)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{EchoMessage, PAYLOAD};

    #[test]
    fn a_frame_is_the_prefix_and_the_encoded_message() {
        let frame = EchoMessage::sample().framed();
        assert_eq!(&frame[..5], [0, 0, 0, 4, 3], "flag and length 1027");
        assert_eq!(frame.len(), 5 + 3 + PAYLOAD);
    }
}
