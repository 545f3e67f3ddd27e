//! Bare hyper: one HTTP/2 connection, the framed message as a `Full` body.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Caller, Site, check_answer, connect_tls, grpc_head};
use crate::Result;
use crate::echo::EchoMessage;

/// A handle on the connection.
#[derive(Clone)]
pub(crate) struct HyperCaller {
    send: SendRequest<Full<Bytes>>,
    head: Request<()>,
    frame: Bytes,
}

impl HyperCaller {
    /// Connects.
    pub(crate) async fn connect(site: &Site) -> Result<Self> {
        let io = TokioIo::new(connect_tls(site).await?);
        let (send, connection) = handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(Self { send, head: grpc_head(site, ())?, frame: EchoMessage::sample().framed() })
    }
}

impl Caller for HyperCaller {
    async fn call(&mut self) -> Result<()> {
        let request = self.head.clone().map(|()| Full::new(self.frame.clone()));
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        let mut body = response.into_body();
        let mut received = 0;
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => received += data.len(),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        check_answer(trailers.as_ref(), received, self.frame.len())
    }
}
