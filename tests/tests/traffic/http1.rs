//! HTTP/1.1 connections that are shared by calls: none of them harms another.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::TokioIo;
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_tower::{Body, Mesh, MeshBuilder, MeshChannel};
use mesh_xds::server::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::{main_cluster, one_cluster};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that is written by hand, and a mesh that calls it.
struct Script {
    channel: MeshChannel,
    connections: Arc<AtomicUsize>,
    _running: JoinSet<()>,
    _mesh: Mesh,
    _fleet: Fleet,
    _port: Port,
}

impl Script {
    fn start<F>(handle: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(|builder| builder, handle)
    }

    fn start_with<F>(
        complete: impl FnOnce(MeshBuilder) -> MeshBuilder,
        handle: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let fleet = Fleet::start();
        let port = Port::reserve();
        let (listener, connections) = (port.listen(), Arc::new(AtomicUsize::new(0)));
        let mut running = JoinSet::new();
        let accepted = connections.clone();
        running.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                open.spawn(handle(tcp));
            }
        });
        fleet.control.set(one_cluster(main_cluster(at([port.address()])).http1()));
        let mesh = complete(fleet.mesh_builder("client")).build().expect("a mesh");
        let channel = shop(&mesh);
        Self { channel, connections, _running: running, _mesh: mesh, _fleet: fleet, _port: port }
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        soon(self.channel.clone().oneshot(request)).await.expect("never an error")
    }

    async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        let response =
            self.call(Request::get(path).body(Body::empty()).expect("the exchange goes as written")).await;
        let status = response.status();
        (status, soon(response.into_body().collect()).await.expect("the exchange goes as written").to_bytes())
    }
}

/// The head of the next request; its body of known length is skipped.
async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("the exchange goes as written");
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    tcp.read_exact(&mut vec![0; length]).await.ok()?;
    Some(head)
}

/// Answers each request by its head, and reads on.
async fn answer_by(mut tcp: TcpStream, answer: fn(&str) -> String) {
    while let Some(head) = head(&mut tcp).await {
        if tcp.write_all(answer(&head).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A body that goes on as long as its sender lives.
fn endless() -> (mpsc::Sender<&'static str>, Body) {
    let (parts, rest) = mpsc::channel::<&'static str>(8);
    let frames = futures_util::stream::unfold(rest, |mut rest| async move {
        let part = rest.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(part))), rest))
    });
    (parts, Body::new(StreamBody::new(frames)))
}

#[tokio::test]
async fn a_request_that_goes_on_after_its_answer_keeps_no_other_waiting() {
    for answer in [
        OK,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
    ] {
        let script = Script::start(move |mut tcp: TcpStream| async move {
            while let Some(head) = head(&mut tcp).await {
                let answer = if head.starts_with("POST") { answer } else { OK };
                tcp.write_all(answer.as_bytes()).await.expect("the exchange goes as written");
            }
        });
        let (parts, body) = endless();
        parts.send("begun").await.expect("the exchange goes as written");
        let response =
            script.call(Request::post("/upload").body(body).expect("the exchange goes as written")).await;
        soon(response.into_body().collect()).await.expect("the exchange goes as written");
        for _ in 0..3 {
            assert_eq!(script.get("/").await, (StatusCode::OK, Bytes::from("ok")), "{answer}");
        }
        parts.send("and going on").await.expect("the exchange goes as written");
        assert_eq!(script.connections.load(Ordering::SeqCst), 2, "{answer}");
    }
}

#[tokio::test]
async fn what_a_server_says_between_two_requests_answers_none() {
    let (spoke, spoken) = watch::channel(0_usize);
    let spoke = Arc::new(spoke);
    let script = Script::start(move |mut tcp: TcpStream| {
        let spoke = spoke.clone();
        async move {
            while head(&mut tcp).await.is_some() {
                let unasked = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
                tcp.write_all(OK.as_bytes()).await.expect("the exchange goes as written");
                tokio::task::yield_now().await;
                let _ = tcp.write_all(unasked.as_bytes()).await;
                spoke.send_modify(|n| *n += 1);
            }
        }
    });
    for n in 1..20 {
        assert_eq!(script.get("/").await, (StatusCode::OK, Bytes::from("ok")));
        soon(spoken.clone().wait_for(|spoken| *spoken >= n)).await.expect("the exchange goes as written");
    }
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_fails_its_call_alone() {
    let script = Script::start(|tcp| {
        answer_by(tcp, |head| match head.starts_with("GET /odd") {
            true => {
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: odd\r\nconnection: upgrade\r\n\r\n".to_owned()
            }
            false => OK.to_owned(),
        })
    });
    for _ in 0..3 {
        assert_eq!(script.get("/odd").await.0, StatusCode::BAD_GATEWAY);
        assert_eq!(script.get("/").await, (StatusCode::OK, Bytes::from("ok")));
    }
}

#[tokio::test]
async fn a_head_of_a_mebibyte_fails_its_call_alone() {
    let script = Script::start(|tcp| {
        answer_by(tcp, |head| match head.starts_with("GET /large") {
            true => {
                format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(1 << 20))
            }
            false => OK.to_owned(),
        })
    });
    for _ in 0..3 {
        assert_eq!(script.get("/large").await.0, StatusCode::BAD_GATEWAY);
        assert_eq!(script.get("/").await, (StatusCode::OK, Bytes::from("ok")));
    }
}

#[tokio::test]
async fn a_request_of_another_length_than_it_announces_fails_alone() {
    let script = Script::start(|tcp| answer_by(tcp, |_| OK.to_owned()));
    let stream = |parts: &'static [&'static str]| {
        let frames = futures_util::stream::iter(parts).then(|part| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(*part)))
        });
        Body::new(StreamBody::new(frames))
    };
    let bodies: [(&str, Body); 6] = [
        ("five bytes", Body::from("hello")),
        ("twelve bytes", Body::from("hello, world")),
        ("none", Body::empty()),
        ("a stream of five", stream(&["hello"])),
        ("a stream of five in two parts", stream(&["hel", "lo"])),
        ("a stream of twelve", stream(&["hello, world"])),
    ];
    for (what, body) in bodies {
        let request = Request::post("/wrong")
            .header(CONTENT_LENGTH, "9")
            .body(body)
            .expect("the exchange goes as written");
        let refused = script.call(request).await.status();
        assert!(refused.is_client_error() || refused.is_server_error(), "{what}: {refused}");
        assert_eq!(script.get("/").await, (StatusCode::OK, Bytes::from("ok")), "{what}");
    }
}

/// Takes the connection over and says back what it hears.
async fn echo(request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if let Some(protocol) = request.headers().get(UPGRADE).cloned() {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, "upgrade".parse().expect("the exchange goes as written"));
        response.headers_mut().insert(UPGRADE, protocol);
        drop(mesh_tests::wait::beside(async move {
            let mut io =
                TokioIo::new(hyper::upgrade::on(request).await.expect("the exchange goes as written"));
            let mut heard = [0; 64];
            while let Ok(n @ 1..) = io.read(&mut heard).await {
                io.write_all(&heard[..n]).await.expect("the exchange goes as written");
            }
        }));
    }
    Ok(response)
}

#[tokio::test]
async fn an_upgraded_connection_passes_through_and_ends_with_its_server() {
    let fleet = Fleet::start();
    let serving = fleet.mesh("server");
    let port = Port::reserve();
    fleet.control.set(Listener::server(port.address()));
    let (server, tcp) = (serving.clone(), port.listen());
    let mut running = JoinSet::new();
    running.spawn(async move { server.serve(tcp, tower::service_fn(echo)).await });
    fleet.control.set(one_cluster(main_cluster(at([port.address()])).http1()));
    let mesh = fleet.mesh("client");
    let upgrade = || {
        let request = Request::get("/chat").header(CONNECTION, "upgrade").header(UPGRADE, "echo");
        request.body(Body::empty()).expect("the exchange goes as written")
    };
    let response = soon(async {
        loop {
            let response = shop(&mesh).oneshot(upgrade()).await.expect("the exchange goes as written");
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return response;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut io =
        TokioIo::new(soon(hyper::upgrade::on(response)).await.expect("the exchange goes as written"));
    io.write_all(b"ping").await.expect("the exchange goes as written");
    let mut heard = [0; 4];
    soon(io.read_exact(&mut heard)).await.expect("the exchange goes as written");
    assert_eq!(&heard, b"ping");
    let drained = soon(serving.shutdown(std::time::Duration::from_millis(100))).await;
    assert_eq!(drained, mesh_tower::drain::Drained::Forced);
    assert_eq!(soon(io.read(&mut heard)).await.unwrap_or(0), 0);
}

/// A server that answers one request of each connection, and ends the connection when it has read the second one: as if it
/// had been closed while it was idle. How often each method was read on a reused connection or after it.
async fn ends_reused_connections(repeat: bool) -> Vec<(Method, StatusCode, usize)> {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let script = Script::start_with(
        |builder| builder.repeat_safe_requests(repeat),
        move |mut tcp| {
            let seen = counted.clone();
            async move {
                let Some(first) = head(&mut tcp).await else { return };
                seen.fetch_add(1, Ordering::SeqCst);
                let content = if first.starts_with("HEAD") { "" } else { "ok" };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{content}");
                tcp.write_all(answer.as_bytes()).await.expect("the exchange goes as written");
                if head(&mut tcp).await.is_some() {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        },
    );
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::DELETE,
        Method::PUT,
        Method::POST,
    ];
    let mut ends = Vec::new();
    for method in methods {
        // A connection to be reused.
        soon(async { while script.get("/").await.0 != StatusCode::OK {} }).await;
        seen.store(0, Ordering::SeqCst);
        let request = Request::builder().method(method.clone()).uri("/x").body(Body::empty());
        let response = script.call(request.expect("the exchange goes as written")).await;
        let status = response.status();
        soon(response.into_body().collect()).await.expect("the exchange goes as written");
        ends.push((method, status, seen.load(Ordering::SeqCst)));
    }
    ends
}

#[tokio::test]
async fn only_safe_methods_are_repeated_when_a_reused_connection_ends_and_only_if_that_is_wanted() {
    for (method, status, sent) in ends_reused_connections(true).await {
        let expected = match method.is_safe() {
            true => (StatusCode::OK, 2),
            false => (StatusCode::SERVICE_UNAVAILABLE, 1),
        };
        assert_eq!((status, sent), expected, "{method}");
    }
    for (method, status, sent) in ends_reused_connections(false).await {
        assert_eq!((status, sent), (StatusCode::SERVICE_UNAVAILABLE, 1), "{method}, switched off");
    }
}
