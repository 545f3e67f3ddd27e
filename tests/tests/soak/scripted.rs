//! What our own servers do not do: answers that end too early, answers to uploads that go on, servers that go away as soon
//! as they are there; and connections that stop being HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::fault::{FramePeer, Verdict};
use mesh_tests::frames::{FrameServer, data, frame, head, reset};
use mesh_tests::net::Port;
use mesh_tests::plain::Plain;
use mesh_tests::relay::{Relay, Wire};
use mesh_tower::drain::Drained;
use mesh_tower::{Body, Mesh, MeshChannel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::app::{App, Site, causes};
use crate::record::End;
use crate::shapes::{Caller, Shape};

/// The name of the lane.
pub(crate) const LANE: &str = "scripted";

/// Makes so many calls of each shape.
pub(crate) async fn calls(site: &Arc<Site>, each: u64) {
    let crossing = tokio::time::timeout(PATIENCE * 3, data_crosses_answers());
    match crossing.await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => site.record.fail(why),
        Err(_) => site.record.fail("answers that data crosses do not end".to_owned()),
    }
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    let polite = FrameServer::start(vec![head(Some("1000"), false), data(500, false), reset(0)], false);
    let truncated = Plain::channel(&mesh, true, polite.address());
    let (port, _answering) = answers_heads();
    let open = Plain::channel(&mesh, false, port.address());
    let leaving = FramePeer::start(|opened| {
        // Two in a row are gone before they have served.
        let is_young = !opened.connection.is_multiple_of(3) && opened.stream == 1;
        if is_young || opened.stream == 5 { Verdict::GoAwayBelow } else { Verdict::Answer }
    });
    let gone = EchoClient::new(Plain::channel(&mesh, true, leaving.address()));
    let mut working = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (site, truncated, open, mut gone) = (site.clone(), truncated.clone(), open.clone(), gone.clone());
        working.spawn(async move {
            for _ in 0..each.div_ceil(AT_ONCE) {
                record(&site, Shape::Truncated, is_truncated(truncated.clone())).await;
                record(&site, Shape::Beside, beside_an_upload(open.clone())).await;
                record(&site, Shape::GoneAway, async {
                    let reply = gone.unary(EchoRequest::say("x")).await;
                    reply.map(drop).map_err(|status| status.to_string())
                })
                .await;
            }
        });
    }
    while let Some(done) = working.join_next().await {
        done.expect("a caller does not panic");
    }
    for is_http2 in [false, true] {
        drained(site, is_http2).await;
    }
    upgraded(site).await;
}

async fn record(site: &Site, shape: Shape, call: impl Future<Output = Result<(), String>>) {
    let started = site.record.begin(shape, LANE);
    let end = match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(())) => End::Whole,
        Ok(Err(why)) => End::Failed(why),
        Err(_) => End::Failed(format!("no end within {PATIENCE:?}")),
    };
    site.record.end(started, end);
}

async fn is_truncated(channel: MeshChannel) -> Result<(), String> {
    let request = Request::get("/x").body(Body::empty()).expect("valid");
    let response = channel.oneshot(request).await.map_err(|error| causes(&error))?;
    if !response.status().is_success() {
        return Ok(());
    }
    match response.into_body().collect().await {
        Ok(body) => Err(format!("{} bytes of 1000 were taken for the whole", body.to_bytes().len())),
        Err(_) => Ok(()),
    }
}

/// A POST is answered while its body stays open; a GET is then served by another connection.
async fn beside_an_upload(channel: MeshChannel) -> Result<(), String> {
    let (ended, mut until) = watch::channel(false);
    let open = stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"abc"))) });
    let rest = stream::once(async move {
        drop(until.wait_for(|ended| *ended).await);
        Ok(Frame::data(Bytes::from_static(b"d")))
    });
    let post = Request::post("/x").body(Body::new(StreamBody::new(open.chain(rest)))).expect("valid");
    let get = Request::get("/x").body(Body::empty()).expect("valid");
    for request in [post, get] {
        let response = channel.clone().oneshot(request).await.map_err(|error| causes(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| causes(&error))?.to_bytes();
        if status != StatusCode::OK || body != "ok" {
            return Err(format!("{status}: {body:?}"));
        }
    }
    ended.send_replace(true);
    Ok(())
}

/// An HTTP/1.1 server that answers a request as soon as its head is there, and goes on with the connection.
fn answers_heads() -> (Port, JoinSet<()>) {
    let port = Port::reserve();
    let listener = port.listen();
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(async move { drop(answer_heads(socket).await) });
        }
    });
    (port, running)
}

async fn answer_heads(mut socket: TcpStream) -> std::io::Result<()> {
    let (mut read, mut within_body) = (Vec::new(), false);
    loop {
        let end: &[u8] = if within_body { b"0\r\n\r\n" } else { b"\r\n\r\n" };
        let Some(at) = read.windows(end.len()).position(|bytes| bytes == end) else {
            let mut piece = [0; 1024];
            let count = socket.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            read.extend_from_slice(&piece[..count]);
            continue;
        };
        let head: Vec<u8> = read.drain(..at + end.len()).collect();
        if within_body {
            within_body = false;
            continue;
        }
        within_body = String::from_utf8_lossy(&head).to_ascii_lowercase().contains("chunked");
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
    }
}

/// Uploads are answered unread, and their next DATA crosses the answer: more often on one connection than any count of a
/// connection's life would bear.
async fn data_crosses_answers() -> Result<(), String> {
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    let port = Port::reserve();
    let tcp = port.listen();
    let mut running = JoinSet::new();
    let refuse = tower::service_fn(|_: Request<Body>| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::FORBIDDEN;
        Ok::<_, Infallible>(response)
    });
    running.spawn(async move { mesh.serve(tcp, refuse).await });
    let broken = |error: std::io::Error| format!("a connection on which data crosses answers broke: {error}");
    let mut socket = TcpStream::connect(port.address()).await.map_err(broken)?;
    socket.set_nodelay(true).map_err(broken)?;
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.map_err(broken)?;
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.map_err(broken)?;
    for n in 0..CROSSINGS {
        let stream = 2 * n + 1;
        let post = [0x83, 0x86, 0x84, 0x01, 1, b'x'];
        socket.write_all(&frame(HEADERS, END_HEADERS, stream, &post)).await.map_err(broken)?;
        loop {
            let mut header = [0; 9];
            let read = tokio::time::timeout(PATIENCE, socket.read_exact(&mut header)).await;
            read.map_err(|_| format!("after {n} answers that data crossed: silence"))?.map_err(broken)?;
            let [a, b, c, kind, flags, of @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            socket.read_exact(&mut payload).await.map_err(broken)?;
            if kind == SETTINGS && flags & ACK == 0 {
                socket.write_all(&frame(SETTINGS, ACK, 0, &[])).await.map_err(broken)?;
            }
            if kind == GOAWAY && payload.get(4..8) != Some(&[0; 4]) {
                let why = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                return Err(format!("after {n} answers that data crossed: GOAWAY {why}"));
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 && u32::from_be_bytes(of) == stream {
                break;
            }
        }
        socket.write_all(&frame(DATA, 0, stream, b"x")).await.map_err(broken)?;
    }
    Ok(())
}

/// A server drains while its answers are still on their way, over a wire that is slower than the server.
async fn drained(site: &Arc<Site>, is_http2: bool) {
    let (mesh, server) =
        (Mesh::builder(Plain).build().expect("a mesh"), Mesh::builder(Plain).build().expect("a mesh"));
    let port = Port::reserve();
    let (serving, tcp) = (server.clone(), port.listen());
    let app = App { site: site.clone(), replica: 0 };
    let mut running = JoinSet::new();
    running.spawn(async move {
        let app = tower::service_fn(move |request| app.clone().answer(request));
        serving.serve(tcp, app).await
    });
    let relay = Relay::start(port.address(), Wire::Slow(SLOW)).await.expect("a wire");
    let channel = Plain::channel(&mesh, is_http2, relay.address());
    let caller = Caller { site: site.clone(), lane: LANE, channel };
    let (begun, mut answered) = watch::channel(0);
    let mut calling = JoinSet::new();
    for _ in 0..DRAINED {
        let (caller, begun) = (caller.clone(), begun.clone());
        calling.spawn(async move { caller.drained(&begun).await });
    }
    let all_answered = answered.wait_for(|answered| *answered == DRAINED);
    if tokio::time::timeout(PATIENCE, all_answered).await.is_err() {
        site.record.fail("no answers over a slow wire".to_owned());
    }
    if server.shutdown(PATIENCE).await != Drained::Complete {
        site.record.fail("a server had not drained over a slow wire".to_owned());
    }
    while calling.join_next().await.is_some() {}
}

/// A connection that was upgraded counts as in flight, and ends with its server.
async fn upgraded(site: &Site) {
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    let port = Port::reserve();
    let (serving, tcp) = (mesh.clone(), port.listen());
    let mut running = JoinSet::new();
    running.spawn(async move { serving.serve(tcp, tower::service_fn(upgrade)).await });
    let verdict = tokio::time::timeout(PATIENCE, async {
        let mut socket = TcpStream::connect(port.address()).await.map_err(|error| error.to_string())?;
        let head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        socket.write_all(head).await.map_err(|error| error.to_string())?;
        let mut answer = vec![0; 1024];
        let count = socket.read(&mut answer).await.map_err(|error| error.to_string())?;
        if !answer[..count].starts_with(b"HTTP/1.1 101") {
            return Err(format!("no upgrade: {}", String::from_utf8_lossy(&answer[..count])));
        }
        let drained = mesh.shutdown(Duration::from_millis(300)).await;
        if drained != Drained::Forced {
            return Err(format!("an upgraded connection is not counted: {drained:?}"));
        }
        // An end or a reset: it is over either way.
        while matches!(socket.read(&mut answer).await, Ok(count) if count > 0) {}
        Ok(())
    });
    match verdict.await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => site.record.fail(why),
        Err(_) => site.record.fail("an upgraded connection outlives its server".to_owned()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the upgraded connection belongs to the application, as it would"
)]
async fn upgrade(mut request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // Held until its peer, or its server, ends it.
        if let Ok(connection) = upgrading.await {
            let mut io = hyper_util::rt::TokioIo::new(connection);
            let mut piece = [0; 64];
            while matches!(io.read(&mut piece).await, Ok(count) if count > 0) {}
        }
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let response = response.header("connection", "upgrade").header("upgrade", "echo").body(Body::empty());
    Ok(response.expect("valid headers"))
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CROSSINGS: u32 = 3_000;
const AT_ONCE: u64 = 16;
/// Calls whose answers are on their way when their server drains.
const DRAINED: u64 = 8;
/// What each piece waits for on a slow wire.
const SLOW: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(10);
