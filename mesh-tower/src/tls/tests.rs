use std::sync::Arc;

use mesh_core::config::cluster::UpstreamProtocol;
use mesh_core::config::endpoints::Address;
use mesh_core::config::security::DownstreamTls;
use mesh_core::matcher::san::{SanKind, SanMatcher};
use mesh_core::matcher::string::StringMatcher;
use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, SanType, date_time_ymd};
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::client::ClientTls;
use super::provider::static_::StaticProvider;
use super::san::{check_sans, peer_identity};
use super::server::ServerTls;
use super::testing::{Ca, accept, dns, downstream, runtime, upstream, uri};
use super::*;
use crate::transport::io::{BoxIo, Counted, Traffic};
use crate::transport::testing::spawn;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// Both sides of one connection's TLS, each with a provider that a test may rotate.
struct World {
    ca: Ca,
    client_provider: Arc<StaticProvider>,
    server_provider: Arc<StaticProvider>,
    client: Arc<ClientTls>,
    server: Arc<ServerTls>,
}

/// What one handshake came to.
struct Met {
    client: Result<BoxIo, TlsError>,
    server: Result<Accepted, TlsError>,
}

struct Accepted {
    kind: HandshakeKind,
    group: Option<NamedGroup>,
    peer: mesh_core::identity::TlsPeer,
    io: tokio_rustls::server::TlsStream<DuplexStream>,
}

impl World {
    fn new() -> Self {
        Self::with(&upstream(Some(SERVER)), downstream())
    }

    fn with(up: &Arc<UpstreamTls>, down: Arc<DownstreamTls>) -> Self {
        let ca = Ca::new();
        let client_provider = StaticProvider::new(Some(ca.spiffe(CLIENT)), Some(ca.roots()));
        let server_provider = StaticProvider::new(Some(ca.spiffe(SERVER)), Some(ca.roots()));
        let client = runtime(&client_provider).client(up);
        let server = runtime(&server_provider).server(down);
        Self { ca, client_provider, server_provider, client, server }
    }

    /// One handshake, and one byte in each direction where it succeeds: tickets follow the handshake.
    async fn meet(&self) -> Met {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let tls = self.server.clone();
        let accepting = spawn(async move {
            let (mut io, peer) = accept(&tls, server).await?;
            let _ = io.write_all(b"!").await;
            let _ = io.read_u8().await;
            let session = io.get_ref().1;
            let kind = session.handshake_kind().unwrap();
            let group = session.negotiated_key_exchange_group().map(|g| g.name());
            Ok(Accepted { kind, group, peer, io })
        });
        let address = Address::Socket("127.0.0.1:1".parse().unwrap());
        let mut met = self.client.connect(Box::new(client), &address, UpstreamProtocol::Http2).await;
        if let Ok(secured) = &mut met {
            assert_eq!(secured.alpn, Some(UpstreamProtocol::Http2));
            let _ = secured.io.read_u8().await;
            let _ = secured.io.write_all(b"?").await;
        }
        let client = met.map(|secured| secured.io);
        Met { client, server: accepting.await.unwrap() }
    }

    async fn meet_well(&self) -> (BoxIo, Accepted) {
        let met = self.meet().await;
        (met.client.unwrap(), met.server.unwrap())
    }
}

fn spiffe_of(accepted: &Accepted) -> &str {
    accepted.peer.certificate.as_ref().unwrap().spiffe.as_ref().unwrap().as_str()
}

#[tokio::test]
async fn both_sides_know_each_other_and_the_key_exchange_is_hybrid() {
    let (_, accepted) = World::new().meet_well().await;
    assert_eq!(spiffe_of(&accepted), CLIENT);
    assert_eq!(accepted.kind, HandshakeKind::Full);
    assert_eq!(accepted.group, Some(NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn a_server_of_another_name_is_refused_inside_the_handshake() {
    let world = World::with(&upstream(Some("spiffe://cluster.local/ns/shop/sa/ratings")), downstream());
    let met = world.meet().await;
    let error = met.client.err().unwrap();
    assert!(matches!(error, TlsError::PeerMismatch(_)), "{error}");
    assert!(error.to_string().contains(SERVER), "the error names whom we met: {error}");
    assert!(met.server.is_err(), "the server saw no established connection, so no byte of a request");
}

#[tokio::test]
async fn sessions_are_resumed_while_identity_and_roots_stay() {
    let world = World::new();
    assert_eq!(world.meet_well().await.1.kind, HandshakeKind::Full);
    let (_, again) = world.meet_well().await;
    assert_eq!((again.kind, spiffe_of(&again)), (HandshakeKind::Resumed, CLIENT));
}

#[tokio::test]
async fn a_rotated_client_certificate_is_shown_by_each_new_handshake() {
    let world = World::new();
    let (mut old_client, mut old_server) = world.meet_well().await;
    let renewed = "spiffe://cluster.local/ns/shop/sa/web-renewed";
    world.client_provider.set_identity(world.ca.spiffe(renewed));
    let (_, accepted) = world.meet_well().await;
    assert_eq!((accepted.kind, spiffe_of(&accepted)), (HandshakeKind::Full, renewed));

    old_client.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    old_server.io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here", "the established connection is not touched");
}

#[tokio::test]
async fn a_rotated_server_certificate_ends_the_old_sessions() {
    let world = World::new();
    world.meet_well().await;
    world.server_provider.set_identity(world.ca.spiffe("spiffe://cluster.local/ns/shop/sa/impostor"));
    let error = world.meet().await.client.err().unwrap();
    assert!(matches!(error, TlsError::PeerMismatch(_)), "the old session would have hidden it: {error}");
    world.server_provider.set_identity(world.ca.spiffe(SERVER));
    assert_eq!(world.meet_well().await.1.kind, HandshakeKind::Full);
}

#[tokio::test]
async fn replaced_roots_distrust_old_peers_on_both_sides() {
    let world = World::new();
    world.meet_well().await;
    world.client_provider.set_roots(Ca::new().roots());
    let error = world.meet().await.client.err().unwrap();
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");

    let world = World::new();
    world.meet_well().await;
    world.server_provider.set_roots(Ca::new().roots());
    let error = world.meet().await.server.err().unwrap();
    assert!(matches!(error, TlsError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn a_missing_certificate_refuses_and_writes_nothing() {
    let world = World::new();
    let provider = StaticProvider::new(None, Some(world.ca.roots()));
    let client = runtime(&provider).client(&upstream(None));
    let (io, _server) = tokio::io::duplex(1024);
    let traffic = Arc::new(Traffic::default());
    let io = Box::new(Counted::new(Box::new(io), traffic.clone()));
    let address = Address::Socket("127.0.0.1:1".parse().unwrap());
    let error = client.connect(io, &address, UpstreamProtocol::Http2).await.err().unwrap();
    assert_eq!(error.to_string(), r#"certificate provider "default": it was given no certificate"#);
    assert_eq!(traffic.written(), 0, "neither plaintext nor an anonymous handshake");

    let server = runtime(&StaticProvider::new(None, None)).server(downstream());
    let (_client, io) = tokio::io::duplex(1024);
    assert!(matches!(accept(&server, io).await, Err(TlsError::NoMaterial { .. })));
}

#[tokio::test]
async fn an_unknown_provider_instance_names_itself() {
    let tls = TlsRuntime::new(CryptoBackend::Auto.provider().unwrap(), CertificateProviders::new());
    let error = tls.server(downstream()).config().unwrap_err();
    assert!(error.to_string().contains("\"default\""), "{error}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let anonymous = Arc::new(UpstreamTls { identity: None, ..UpstreamTls::clone(&upstream(None)) });
    let met = World::with(&anonymous, downstream()).meet().await;
    assert!(met.server.is_err());

    let optional = DownstreamTls { require_client_certificate: false, ..DownstreamTls::clone(&downstream()) };
    let (_, accepted) = World::with(&anonymous, Arc::new(optional)).meet_well().await;
    assert!(accepted.peer.certificate.is_none());
}

#[tokio::test]
async fn clients_of_other_names_are_refused() {
    let sans = vec![SanMatcher { kind: None, matcher: StringMatcher::exact("spiffe://other/a") }];
    let picky = DownstreamTls { client_sans: sans, ..DownstreamTls::clone(&downstream()) };
    let met = World::with(&upstream(None), Arc::new(picky)).meet().await;
    assert!(matches!(met.server, Err(TlsError::PeerMismatch(_))));
}

#[tokio::test]
async fn certificates_that_are_no_server_certificates_are_refused() {
    let client_only = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let authority = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let changes: [fn(&mut rcgen::CertificateParams); 3] = [client_only, authority, expired];
    for change in changes {
        let world = World::new();
        world.server_provider.set_identity(world.ca.leaf_with(&[uri(SERVER)], change).identity());
        assert!(matches!(world.meet().await.client, Err(TlsError::Handshake(_))));
    }
}

#[test]
fn equal_contexts_are_one_context_and_share_their_sessions() {
    let ca = Ca::new();
    let tls = runtime(&StaticProvider::new(None, Some(ca.roots())));
    let first = tls.client(&upstream(Some("a")));
    assert!(Arc::ptr_eq(&first, &tls.client(&upstream(Some("a")))));
    let other = tls.client(&upstream(Some("b")));
    assert!(!first.is_same(&other));
}

#[test]
fn every_kind_of_name_can_be_matched_and_one_match_is_enough() {
    let ca = Ca::new();
    let names = [
        dns("*.example.com"),
        uri(SERVER),
        SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
        SanType::IpAddress("10.0.0.7".parse().unwrap()),
    ];
    let identity = ca.leaf(&names).identity();
    let matcher = |text: &str| SanMatcher { kind: None, matcher: StringMatcher::exact(text) };
    for good in ["api.example.com", SERVER, "ops@example.com", "10.0.0.7"] {
        assert!(check_sans(identity.chain(), &[matcher("no"), matcher(good)]).is_ok(), "{good}");
    }
    for bad in ["a.b.example.com", "example.com", "10.0.0.8", "spiffe://cluster.local"] {
        assert!(check_sans(identity.chain(), &[matcher(bad)]).is_err(), "{bad}");
    }
    let kind = SanMatcher { kind: Some(SanKind::Dns), matcher: StringMatcher::exact(SERVER) };
    assert!(check_sans(identity.chain(), &[kind]).is_err(), "right name, wrong kind");
    assert!(check_sans(identity.chain(), &[]).is_ok());
    assert!(check_sans(&[], &[matcher(SERVER)]).is_err());
}

#[test]
fn the_names_of_a_peer_are_read_from_its_leaf() {
    let ca = Ca::new();
    let leaf = ca.leaf_with(&[uri(SERVER), dns("reviews.shop")], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc");
        params.distinguished_name.push(DnType::CommonName, "reviews");
    });
    let names = peer_identity(leaf.identity().chain()).unwrap();
    assert_eq!(names.spiffe.unwrap().as_str(), SERVER);
    assert_eq!(names.dns.iter().map(|n| &**n).collect::<Vec<_>>(), ["reviews.shop"]);
    assert_eq!(&*names.subject, r"CN=reviews,O=Shop\, Inc");

    let two = ca.leaf(&[uri(SERVER), uri(CLIENT)]);
    assert!(peer_identity(two.identity().chain()).unwrap().spiffe.is_none(), "two URIs are no identity");
}

#[test]
fn keys_are_never_shown() {
    let text = format!("{:?}", Ca::new().spiffe(SERVER));
    assert!(text.starts_with("Identity { not_after: "), "{text}");
}

#[tokio::test]
async fn a_configuration_is_built_once_per_identity() {
    let world = World::new();
    let first = world.server.config().unwrap();
    world.meet_well().await;
    assert!(Arc::ptr_eq(&first, &world.server.config().unwrap()));
    world.server_provider.set_identity(world.ca.spiffe(SERVER));
    assert!(!Arc::ptr_eq(&first, &world.server.config().unwrap()));
}
