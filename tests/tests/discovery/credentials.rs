//! TLS and a JWT towards a control plane, which checks both (gRFC A65, A97).

use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::snapshot::ConfigSource as _;
use mesh_tests::script::AdsScript;
use mesh_tests::wait::until_snapshot;
use mesh_xds::bootstrap::{Bootstrap, CallCreds, ChannelCreds, IdentityFiles, ServerConfig, TlsCreds};
use mesh_xds::{Kind, XdsSource};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::{ports, shop};

/// A control plane at a loopback address with a certificate for it, and the files of its client.
struct Secured {
    script: AdsScript,
    files: TempDir,
}

impl Secured {
    fn start() -> Self {
        Self::start_with(None)
    }

    /// `wanted`: whether a client must, or else may, show a certificate.
    fn start_with(wanted: Option<bool>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(files.path().join("ca.pem"), ca.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match wanted {
            None => builder.with_no_client_auth(),
            Some(demanded) => builder.with_client_cert_verifier(verifier(&ca.pem(), demanded)),
        };
        for (name, year) in [("expired", 2021), ("fresh", 2100)] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let leaf = params.signed_by(&key, &ca).unwrap();
            std::fs::write(files.path().join(format!("{name}.pem")), leaf.pem()).unwrap();
            std::fs::write(files.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut tls = builder.with_single_cert(vec![leaf.der().clone()], key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self { script: AdsScript::start_tls(Arc::new(tls)), files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn source(&self) -> XdsSource {
        self.source_with(None)
    }

    fn source_with(&self, identity: Option<&str>) -> XdsSource {
        let creds = TlsCreds::system_roots().with_ca_file(self.file("ca.pem"));
        let creds = ChannelCreds::Tls(match identity {
            Some(name) => creds.with_identity(IdentityFiles::new(
                self.file(&format!("{name}.pem")),
                self.file(&format!("{name}.key")),
            )),
            None => creds,
        });
        let server = ServerConfig::new(&self.script.address().to_string(), creds).unwrap();
        let server = server.with_call_creds(CallCreds::JwtTokenFile(self.file("token"))).unwrap();
        XdsSource::new(Bootstrap::builder("n").server(server).build().unwrap(), &Handle::current())
    }
}

fn verifier(ca: &str, demanded: bool) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if demanded { builder } else { builder.allow_unauthenticated() }.build().unwrap()
}

/// A token with no header and no signature to speak of. Its payload is `{"exp":4102444800}` or `{"exp":60}`: it ends in
/// 2100, or ended in 1970.
fn token(fresh: bool) -> &'static str {
    if fresh { "e30.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln" } else { "e30.eyJleHAiOjYwfQ.c2ln" }
}

#[tokio::test]
async fn a_stream_carries_the_token_that_the_file_holds_when_it_is_opened() {
    let mut secured = Secured::start();
    std::fs::write(secured.file("token"), token(false)).unwrap();
    let source = secured.source();
    let target = source.client("shop");
    let ads = secured.script.accept().await;
    assert_eq!(ads.authorization(), Some(format!("Bearer {}", token(false)).as_str()));
    std::fs::write(secured.file("token"), format!("{}\n", token(true))).unwrap();
    ads.fail(tonic::Status::unauthenticated("the token has expired")).await;
    let mut ads = secured.script.accept().await;
    assert_eq!(ads.authorization(), Some(format!("Bearer {}", token(true)).as_str()));
    ads.expect(Kind::Listener, &["shop"]).await;
    for kind in Kind::ALL {
        ads.send(kind, "1", shop(1)).await;
    }
    until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
}

#[tokio::test]
async fn a_token_that_cannot_be_read_is_told_by_file_and_waited_for() {
    let mut secured = Secured::start();
    let source = secured.source();
    let target = source.client("shop");
    let failed = mesh_tests::wait::until_resolved(&target, |resolution| {
        matches!(resolution, mesh_core::snapshot::Resolution::Failed(_))
    });
    let text = format!("{:?}", failed.await);
    assert!(text.contains("JWT file") && text.contains("token") && text.contains("cannot be read"), "{text}");
    std::fs::write(secured.file("token"), token(true)).unwrap();
    let ads = secured.script.accept().await;
    assert!(ads.authorization().is_some());
}

#[tokio::test]
async fn an_expired_certificate_does_not_spoil_a_valid_token() {
    for (wanted, identity) in [(Some(false), "expired"), (Some(false), "fresh"), (Some(true), "fresh")] {
        let mut secured = Secured::start_with(wanted);
        std::fs::write(secured.file("token"), token(true)).unwrap();
        let source = secured.source_with(Some(identity));
        let target = source.client("shop");
        let mut ads = secured.script.accept().await;
        assert!(ads.authorization().is_some());
        ads.expect(Kind::Listener, &["shop"]).await;
        for kind in Kind::ALL {
            ads.send(kind, "1", shop(1)).await;
        }
        until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
    }
}

#[tokio::test]
async fn a_control_plane_that_refuses_a_certificate_is_quoted_in_every_error() {
    let secured = Secured::start_with(Some(true));
    std::fs::write(secured.file("token"), token(true)).unwrap();
    for attempt in 0..30 {
        let source = secured.source_with((attempt % 2 == 0).then_some("expired"));
        let target = source.client("shop");
        let failed = mesh_tests::wait::until_resolved(&target, |resolution| {
            matches!(resolution, mesh_core::snapshot::Resolution::Failed(_))
        });
        let text = format!("{:?}", failed.await);
        assert!(text.contains("received fatal alert: CertificateRequired"), "attempt {attempt}: {text}");
    }
}
