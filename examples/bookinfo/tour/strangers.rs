//! Callers that must be refused, and one that asks for too much.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use mesh_tower::{Body, Mesh};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::Failure;
use crate::api::Book;
use crate::api::rpc::ratings_client::RatingsClient;

/// Shakes hands, with a certificate or without, and waits for the first byte or the end.
///
/// Under TLS 1.3 a client learns only after its own handshake whether its certificate was taken.
pub(crate) async fn handshake(
    at: SocketAddr,
    identity: Option<&Path>,
) -> Result<CertificateDer<'static>, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms.supported_schemes();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(LookOnly(algorithms)));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(folder) => {
            let chain = CertificateDer::pem_file_iter(folder.join("cert.pem"))?.collect::<Result<_, _>>()?;
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(folder.join("key.pem"))?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(at).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut tls = connector.connect(ServerName::try_from("bookinfo")?, tcp).await?;
    // The first words of HTTP/2; whoever is let in is answered with SETTINGS.
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    tokio::time::timeout(Duration::from_secs(5), tls.read_exact(&mut [0; 9])).await??;
    let (_, session) = tls.get_ref();
    let served = session.peer_certificates().and_then(|chain| chain.first());
    Ok(served.ok_or("no certificate was served")?.clone().into_owned())
}

/// A call by somebody with a certificate whom no policy names: the status.
pub(crate) async fn denied(bootstrap: &str) -> Result<tonic::Code, Failure> {
    let mesh = Mesh::from_bootstrap_json(bootstrap).await?;
    let mut ratings = RatingsClient::new(mesh.channel("xds:///ratings:9080")?);
    let answer = ratings.ratings_of(Book { id: 0 }).await;
    mesh.shutdown(Duration::from_secs(1)).await;
    Ok(answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok))
}

/// So many callers at once on the capped cluster: how many were served, and how many were refused by the breaker.
pub(crate) async fn stampede(bootstrap: &str, callers: usize) -> Result<(usize, usize), Failure> {
    let mesh = Mesh::from_bootstrap_json(bootstrap).await?;
    let channel = mesh.channel("xds:///details:9080")?;
    // One first, so that the stampede meets connections that are up.
    let first = Request::get("/capped/details/0").body(Body::empty())?;
    channel.clone().oneshot(first).await?;
    let mut calls = JoinSet::new();
    for _ in 0..callers {
        let (channel, request) = (channel.clone(), Request::get("/capped/details/0").body(Body::empty())?);
        calls.spawn(async move { channel.oneshot(request).await.map(|response| response.status()) });
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(status) = calls.join_next().await {
        match status?? {
            http::StatusCode::OK => served += 1,
            http::StatusCode::SERVICE_UNAVAILABLE => refused += 1,
            other => return Err(format!("the stampede met {other}").into()),
        }
    }
    mesh.shutdown(Duration::from_secs(1)).await;
    Ok((served, refused))
}

/// Looks at what is served without judging it: what is tested is the other side's judgement.
#[derive(Debug)]
struct LookOnly(Vec<SignatureScheme>);

impl rustls::client::danger::ServerCertVerifier for LookOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
