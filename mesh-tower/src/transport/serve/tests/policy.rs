//! Who may talk: mutual TLS, identities, RBAC.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::time::Duration;

use http::{HeaderName, StatusCode};
use mesh_core::config::cluster::UpstreamProtocol;
use mesh_core::config::endpoints::Address;
use mesh_core::config::listener::FilterChain;
use mesh_core::matcher::header::{HeaderMatcher, HeaderRule, MatchedHeader};
use mesh_core::matcher::string::StringMatcher;
use mesh_core::rbac::{Permission, Policy, Principal, RbacAction, RbacConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::server::{Peer, ServerLimits};
use crate::tls::provider::static_::StaticProvider;
use crate::tls::testing::{Ca, downstream, runtime, upstream};
use crate::tls::{TlsError, TlsRuntime};

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const THIEF: &str = "spiffe://cluster.local/ns/shop/sa/thief";

fn rules(action: RbacAction, permission: Permission, principal: Principal) -> RbacConfig {
    let policy = Policy { name: Arc::from("p"), permissions: vec![permission], principals: vec![principal] };
    RbacConfig { action, policies: vec![policy] }
}

fn only(principal: &str) -> RbacConfig {
    let named = Principal::Authenticated(Some(StringMatcher::exact(principal)));
    rules(RbacAction::Allow, Permission::Any, named)
}

fn no_admin() -> RbacConfig {
    let path = Permission::UrlPath(StringMatcher::prefix("/admin"));
    rules(RbacAction::Deny, path, Principal::Any)
}

fn secured(chain: FilterChain) -> FilterChain {
    FilterChain { tls: Some(downstream()), ..chain }
}

fn identity(ca: &Ca, id: &str) -> Arc<TlsRuntime> {
    runtime(&StaticProvider::new(Some(ca.spiffe(id)), Some(ca.roots())))
}

/// A mutually authenticated HTTP/2 connection as `id`.
async fn as_whom(ca: &Ca, id: &str, address: SocketAddr) -> Result<H2, TlsError> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = identity(ca, id).client(&upstream(Some(SERVER)));
    let to = Address::Socket(address);
    let secured = tls.connect(Box::new(tcp), &to, UpstreamProtocol::Http2).await?;
    Ok(http2_over(secured.io).await)
}

fn who() -> Router {
    let who =
        |peer: Peer| async move { peer.spiffe().map_or_else(|| "nobody".to_owned(), ToString::to_string) };
    Router::new().route("/who", route_get(who))
}

async fn serving(tls: Arc<TlsRuntime>, chain: FilterChain, app: Router) -> (World, SocketAddr, Running) {
    let world = World::with(ServerLimits::default(), Some(tls));
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain]);
    let running = Running::new(&world, tcp, app);
    (world, address, running)
}

#[tokio::test]
async fn the_allowed_principal_gets_in_and_another_of_the_same_trust_domain_does_not() {
    let ca = Ca::new();
    let chain = secured(chain("mtls", vec![only(WEB)]));
    let (world, address, _running) = serving(identity(&ca, SERVER), chain, who()).await;
    let response = as_whom(&ca, WEB, address).await.unwrap().send_request(get("/who")).await.unwrap();
    assert_eq!(text(response).await, WEB);
    let mut thief = as_whom(&ca, THIEF, address).await.unwrap();
    assert_eq!(thief.send_request(get("/who")).await.unwrap().status(), StatusCode::FORBIDDEN);
    let refused = thief.send_request(grpc("/who")).await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "7");
    let seen = world.events.wait_for(3).await;
    assert_eq!((seen[0].principal.as_deref(), seen[0].flags.as_str()), (Some(WEB), "-"));
    assert_eq!((seen[1].principal.as_deref(), seen[1].flags.as_str()), (Some(THIEF), "UAEX"));
}

#[tokio::test]
async fn a_claimed_identity_in_a_header_is_nothing() {
    let ca = Ca::new();
    let forged = rules(
        RbacAction::Deny,
        Permission::Header(HeaderMatcher {
            name: MatchedHeader::Name(HeaderName::from_static("x-forwarded-client-cert")),
            rule: HeaderRule::Present(true),
            invert: false,
            missing_as_empty: false,
        }),
        Principal::Any,
    );
    let chain = secured(chain("mtls", vec![only(WEB), forged]));
    let (_world, address, _running) = serving(identity(&ca, SERVER), chain, who()).await;
    let mut request = get("/who");
    let claim = format!("By={SERVER};URI={THIEF}");
    request.headers_mut().insert("x-forwarded-client-cert", claim.parse().unwrap());
    let response = as_whom(&ca, WEB, address).await.unwrap().send_request(request).await.unwrap();
    assert_eq!(text(response).await, WEB, "the header was gone before policy could see it");
}

#[tokio::test]
async fn a_route_added_after_everything_else_is_still_authorized() {
    let app = hello().route("/admin/keys", route_get(|| async { "secret" }));
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", vec![no_admin()])]);
    let app = app.route("/admin/later", route_get(|| async { "secret" }));
    let _running = Running::new(&world, tcp, app);
    for path in ["/admin/keys", "/admin/later", "/admin/nowhere"] {
        let status = http1(address).await.send_request(get(path)).await.unwrap().status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(text(http1(address).await.send_request(get("/hello")).await.unwrap()).await, "hello");
}

#[tokio::test]
async fn network_rules_close_a_connection_without_a_byte() {
    let world = World::new();
    let (tcp, address) = socket().await;
    let mut chain = chain("all", vec![]);
    let nobody =
        rules(RbacAction::Deny, Permission::Any, Principal::DirectRemoteIp("127.0.0.0/8".parse().unwrap()));
    chain.network_rbac = vec![Arc::new(nobody)];
    world.publish(1, address, vec![chain]);
    let _running = Running::new(&world, tcp, hello());
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon("the close", client.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_client_without_a_certificate_and_one_in_plaintext_are_refused() {
    let ca = Ca::new();
    let (world, address, _running) =
        serving(identity(&ca, SERVER), secured(chain("mtls", vec![])), who()).await;
    let anonymous = runtime(&StaticProvider::new(None, Some(ca.roots())));
    let mut context = (*upstream(Some(SERVER))).clone();
    context.identity = None;
    let tls = anonymous.client(&Arc::new(context));
    let tcp = TcpStream::connect(address).await.unwrap();
    let met = tls.connect(Box::new(tcp), &Address::Socket(address), UpstreamProtocol::Http2).await;
    if let Ok(mut secured) = met {
        // TLS 1.3: the client learns of the refusal with its first read.
        assert_eq!(soon("the refusal", secured.io.read(&mut [0; 1])).await.unwrap_or(0), 0);
    }
    let tcp = TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tcp);
    let (mut plain, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let _connection = tokio::task::spawn(connection);
    assert!(soon("the refusal", plain.send_request(get("/who"))).await.is_err());
    assert_eq!(world.server.requests.used(), 0);
}

#[tokio::test]
async fn without_our_certificate_nobody_gets_in_least_of_all_in_plaintext() {
    let ca = Ca::new();
    let empty = runtime(&StaticProvider::new(None, None));
    let (_world, address, _running) = serving(empty, secured(chain("mtls", vec![])), who()).await;
    assert!(soon("the refusal", as_whom(&ca, WEB, address)).await.is_err());

    let world = World::new(); // a mesh without any TLS at all
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![secured(chain("mtls", vec![]))]);
    let _running = Running::new(&world, tcp, who());
    assert!(soon("the refusal", as_whom(&ca, WEB, address)).await.is_err());
}

#[tokio::test]
async fn five_hundred_silent_clients_delay_nobodys_handshake() {
    let ca = Ca::new();
    let chain = secured(chain("mtls", vec![]));
    let (_world, address, _running) = serving(identity(&ca, SERVER), chain, who()).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Against the same handshake measured without them, because the machine may be busy.
    let alone = fastest(&ca, address, 3).await;
    drop(silent);
    let without = fastest(&ca, address, 3).await;
    assert!(
        alone < without + Duration::from_millis(50),
        "{alone:?} with silent clients, {without:?} without"
    );
}

async fn fastest(ca: &Ca, address: SocketAddr, tries: u32) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..tries {
        let began = Instant::now();
        assert!(soon("a handshake", as_whom(ca, WEB, address)).await.is_ok());
        best = best.min(began.elapsed());
    }
    best
}
