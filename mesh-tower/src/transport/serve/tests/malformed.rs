//! Requests that are malformed by RFC 9110, 9112 or 9113 reach neither policy nor application; what others are is one value
//! for policy, log and application.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_core::matcher::string::StringMatcher;
use mesh_core::outcome::GrpcCode;
use mesh_core::rbac::{Permission, Policy, Principal, RbacAction, RbacConfig};
use mesh_core::rng::{Rng as _, Xoshiro};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::service_fn;

use super::*;
use crate::server::testing::Seen;

/// A server whose application answers with the path that it sees, under these rules.
async fn echoing(rules: Option<RbacConfig>) -> (World, SocketAddr, Running, Arc<AtomicUsize>) {
    let world = World::new();
    let (tcp, address) = socket().await;
    world.publish(1, address, vec![chain("all", rules.into_iter().collect())]);
    let seen = Arc::<AtomicUsize>::default();
    let counted = seen.clone();
    let app = service_fn(move |request: http::Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
        async { Ok::<_, Infallible>(http::Response::new(Body::full(path))) }
    });
    let running = Running::new(&world, tcp, app);
    (world, address, running, seen)
}

fn deny(permission: Permission) -> RbacConfig {
    let policy = Policy { name: "p".into(), permissions: vec![permission], principals: vec![Principal::Any] };
    RbacConfig { action: RbacAction::Deny, policies: vec![policy] }
}

/// All that a server says to these bytes, whose connection is then closed.
async fn said(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let mut said = Vec::new();
    // A reset is an end as well.
    drop(soon("the end of the connection", client.read_to_end(&mut said)).await);
    said
}

fn pick<'a, T>(rng: &mut Xoshiro, of: &'a [T]) -> &'a T {
    &of[rng.below(of.len() as u64) as usize]
}

/// Lines that are in order, in any number.
fn decoration(rng: &mut Xoshiro) -> Vec<(&'static str, &'static str)> {
    let lines = [
        ("x-role", "admin"),
        ("accept", "*/*"),
        ("cookie", "a=1"),
        ("x-empty", ""),
        ("content-type", "application/grpc"),
    ];
    (0..rng.below(4)).map(|_| *pick(rng, &lines)).collect()
}

fn http1(rng: &mut Xoshiro) -> Vec<u8> {
    let (mut method, mut target, mut hosts) = ("GET", "/", "host: shop.test\r\n");
    let mut more = "";
    match rng.below(4) {
        0 => {
            (method, target) = *pick(
                rng,
                &[
                    ("GET", "*"),
                    ("POST", "*"),
                    ("GET", "shop.test:80"),
                    ("GET", "a"),
                    ("GET", "?q"),
                    ("CONNECT", "/"),
                    ("GET", "http://u@shop.test/"),
                    ("GET", "http://u:p@shop.test/a"),
                    ("GET", "http://shop.test:x/"),
                    ("GET", "http:///"),
                    ("GET", "/a b"),
                    ("G T", "/"),
                    ("OPTIONS", "*a"),
                    ("CONNECT", "http://shop.test/"),
                    ("GET", "/a#b"),
                    ("GET", "/a?b#"),
                    ("GET", "http://shop.test#b"),
                    ("OPTIONS", "*#b"),
                ],
            );
        }
        1 => {
            hosts = *pick(
                rng,
                &[
                    "",
                    "host: a\r\nhost: a\r\n",
                    "host: a\r\nhost: b\r\n",
                    "host: a b/c\r\n",
                    "host: u@a\r\n",
                    "host: a/b\r\n",
                    "host: a:b\r\n",
                    "host: a:1:2\r\n",
                    "host: a?b\r\n",
                    "host : a\r\n",
                    " host: a\r\n",
                ],
            );
        }
        2 => {
            more = *pick(
                rng,
                &[
                    "x role: a\r\n",
                    "x-role : a\r\n",
                    "x-role: a\rb\r\n",
                    "x-role: a\0b\r\n",
                    ": a\r\n",
                    "x-role\r\n",
                    "content-length: x\r\n",
                    "content-length: 1\r\ncontent-length: 2\r\n",
                    "content-length: -1\r\n",
                    "content-length: +1\r\n",
                    "transfer-encoding: gzip\r\n",
                    "transfer-encoding: chunked, gzip\r\n",
                    "x-role: a\r\n folded\r\n",
                ],
            );
        }
        _ => (target, hosts) = (*pick(rng, &["http://a@b/", "*", "a"]), *pick(rng, &["", "host: a b\r\n"])),
    }
    let lines: String = decoration(rng).iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\n{hosts}{lines}{more}\r\n").into_bytes()
}

fn http2(rng: &mut Xoshiro) -> Vec<u8> {
    let mut fields: Vec<(&str, &str)> =
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
    match rng.below(4) {
        0 => {
            fields[3].1 = *pick(rng, &["", "a", "*", "?q", "a/b", "http://a/"]);
        }
        1 => fields[2].1 = *pick(rng, &["u@a", "u:p@a", "@a", "a:b", "a b", "a/b"]),
        2 => {
            let wrong = [
                ("x-role", "admin "),
                ("x-role", " admin"),
                ("x-role", "\tadmin"),
                ("x-role", "admin\t"),
                ("x-role", " "),
                ("X-Role", "admin"),
                ("connection", "close"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
                ("x-role", "a\rb"),
                ("x-role", "a\nb"),
                ("x-role", "a\0b"),
                (":status", "200"),
                ("content-length", "x"),
            ];
            fields.push(*pick(rng, &wrong));
        }
        _ => {
            let gone = rng.below(4) as usize;
            fields.remove(gone);
        }
    }
    // What is wrong may stand before or behind what is not.
    let at = if rng.below(2) == 0 { fields.len() } else { fields.len().min(4) };
    let at = at.max(fields.iter().rposition(|(name, _)| name.starts_with(':')).map_or(0, |at| at + 1));
    fields.splice(at..at, decoration(rng));
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    out.extend_from_slice(&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    out.extend_from_slice(&block);
    out
}

#[tokio::test]
async fn no_malformed_request_reaches_policy_or_application() {
    let (_world, open, _running, seen) = echoing(None).await;
    // What a policy is asked about is refused by it, so that an answer of its own tells that it was asked.
    let (closed_world, closed, _running, _) = echoing(Some(deny(Permission::Any))).await;
    let mut rng = Xoshiro::seeded(11);
    for n in 0..3_000 {
        let request = if n % 2 == 0 { http1(&mut rng) } else { http2(&mut rng) };
        let answer = said(open, &request).await;
        let text = String::from_utf8_lossy(&request).into_owned();
        assert_eq!(seen.load(Ordering::SeqCst), 0, "it was served: {text:?}");
        // A caller that claims to speak gRPC hears it in gRPC.
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            !answer.starts_with("HTTP/1.1 2") || answer.contains("grpc-status: 13"),
            "{text:?}: {answer}"
        );
        said(closed, &request).await;
    }
    let told = closed_world.events.wait_for(1).await;
    let by_policy = |event: &&Seen| event.status == 403 || event.grpc == Some(GrpcCode::PERMISSION_DENIED);
    assert_eq!(told.iter().find(by_policy), None);
    // Others are served, and asked about.
    let well_formed = b"GET /a HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let answer = said(open, well_formed).await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"/a"));
    assert!(said(closed, well_formed).await.starts_with(b"HTTP/1.1 403"));
}

#[tokio::test]
async fn policy_log_and_application_see_one_path() {
    for (method, target, path) in [
        ("GET", "/a", "/a"),
        ("GET", "/a?b", "/a"),
        ("GET", "//a", "//a"),
        ("GET", "/%61", "/%61"),
        ("GET", "/a/../b", "/a/../b"),
        ("GET", "http://shop.test", "/"),
        ("GET", "http://shop.test?q", "/"),
        ("GET", "http://shop.test/a?b", "/a"),
        ("OPTIONS", "/a", "/a"),
        ("OPTIONS", "*", "*"),
        ("OPTIONS", "http://shop.test", "*"),
        ("OPTIONS", "http://shop.test/", "/"),
        ("OPTIONS", "http://shop.test?q", "/"),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        let (world, address, _running, _) = echoing(None).await;
        let answer = said(address, request.as_bytes()).await;
        let answer = String::from_utf8(answer).unwrap();
        // `*` is no path: there is no route for it.
        let has_route = path != "*";
        let seen = answer.rsplit("\r\n\r\n").next().unwrap().split('?').next().unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 200") && seen == path, has_route, "{target}: {answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 404"), !has_route, "{target}: {answer}");
        assert_eq!(world.events.wait_for(1).await[0].path, path, "{target}");
        for (matcher, denied) in [
            (StringMatcher::exact(path), true),
            (StringMatcher::prefix("/"), path.starts_with('/')),
            (StringMatcher::exact("/other"), false),
        ] {
            let rules = deny(Permission::UrlPath(matcher.clone()));
            let (_world, address, _running, seen) = echoing(Some(rules)).await;
            let answer = said(address, request.as_bytes()).await;
            assert_eq!(answer.starts_with(b"HTTP/1.1 403"), denied, "{target} under {matcher:?}");
            assert_eq!(seen.load(Ordering::SeqCst), usize::from(!denied && has_route));
        }
    }
}
