//! tonic's own `Channel` and `Server` over mTLS.

use std::path::Path;

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server, ServerTlsConfig};

use super::{Caller, Site};
use crate::Result;
use crate::certs::{Files, SERVER_NAME};
use crate::echo::{Echo, EchoClient, EchoMessage, EchoServer, PAYLOAD, REFUSE};

/// The generated client over any tonic-compatible channel.
#[derive(Clone)]
pub(crate) struct GrpcCaller<T> {
    client: EchoClient<T>,
    message: EchoMessage,
}

impl<T> GrpcCaller<T> {
    /// Wraps a client.
    pub(crate) fn new(client: EchoClient<T>) -> Self {
        Self { client, message: EchoMessage::sample() }
    }
}

impl<T> GrpcCaller<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    /// A call that the server fails as often as it is tried; how often that was.
    pub(crate) async fn call_refused(&mut self) -> Result<u64> {
        let mut request = tonic::Request::new(EchoMessage::default());
        request.metadata_mut().insert(REFUSE, tonic::metadata::MetadataValue::from_static("1"));
        match self.client.unary(request).await {
            Ok(_) => Err("the server served what it should refuse".into()),
            Err(status) => Ok(status.message().parse().map_err(|e| format!("{status}: {e}"))?),
        }
    }
}

impl<T> Caller for GrpcCaller<T>
where
    T: tonic::client::GrpcService<tonic::body::Body> + Clone + 'static,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    async fn call(&mut self) -> Result<()> {
        let response = self.client.unary(self.message.clone()).await?;
        if response.get_ref().payload.len() != PAYLOAD {
            return Err("the echo came back with another length".into());
        }
        Ok(())
    }
}

/// Connects tonic's channel.
pub(crate) async fn connect(site: &Site) -> Result<GrpcCaller<Channel>> {
    let files = Files::client(&site.certs);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(std::fs::read(&files.ca)?))
        .identity(identity(&files)?)
        .domain_name(SERVER_NAME);
    let channel =
        Channel::from_shared(format!("https://{}", site.server))?.tls_config(tls)?.connect().await?;
    Ok(GrpcCaller::new(EchoClient::new(channel)))
}

/// Serves the echo until the process ends.
pub(crate) async fn serve<E: Echo>(listener: TcpListener, certs: &Path, echo: E) -> Result<()> {
    let files = Files::server(certs);
    let tls = ServerTlsConfig::new()
        .identity(identity(&files)?)
        .client_ca_root(Certificate::from_pem(std::fs::read(&files.ca)?));
    Server::builder()
        .tls_config(tls)?
        .add_service(EchoServer::new(echo))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

fn identity(files: &Files) -> Result<Identity> {
    Ok(Identity::from_pem(std::fs::read(&files.cert)?, std::fs::read(&files.key)?))
}
