//! Bare h2: the caller enqueues its own HEADERS and DATA.

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use http::Request;

use super::{Caller, Evidence, Site, check_answer, connect_tls, grpc_head};
use crate::Result;
use crate::echo::{EchoMessage, PATH};

/// A handle on the connection.
#[derive(Clone)]
pub(crate) struct H2Caller {
    send: SendRequest<Bytes>,
    head: Request<()>,
    frame: Bytes,
}

impl H2Caller {
    /// Connects.
    pub(crate) async fn connect(site: &Site) -> Result<Self> {
        let (send, connection) = handshake(connect_tls(site).await?).await?;
        tokio::spawn(connection);
        Ok(Self { send, head: grpc_head(site, ())?, frame: EchoMessage::sample().framed() })
    }
}

impl Caller for H2Caller {
    async fn call(&mut self) -> Result<()> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(self.head.clone(), false)?;
        stream.send_data(self.frame.clone(), true)?;
        let mut body = response.await?.into_body();
        let mut received = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            received += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body.trailers().await?;
        check_answer(trailers.as_ref(), received, self.frame.len())
    }

    async fn evidence(&mut self) -> Result<Evidence> {
        let mut head = self.head.clone();
        *head.uri_mut() = head.uri().to_string().replace(PATH, "/bench.v1.Foreign/Unary").parse()?;
        let mut send = self.send.clone().ready().await?;
        let (response, _) = send.send_request(head, true)?;
        let response = response.await?;
        let status = response.headers().get("grpc-status").and_then(|value| value.to_str().ok());
        Ok(Evidence { foreign_status: status.map(str::to_owned), ..Evidence::default() })
    }
}
