//! Servers that go away in the midst of calls, as gRPC servers do all day: no call is lost, none is doubled, and nobody
//! waits for a back-off.

use std::time::Duration;

use mesh_tests::echo::EchoRequest;
use mesh_tests::fault::{FramePeer, Opened, Verdict};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::wait::{beside, soon};
use mesh_xds::server::{Cluster, UpstreamTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use crate::{Client, client, main_cluster, one_cluster, say};

/// How a call is made.
#[derive(Debug, Clone, Copy)]
enum Calls {
    Unary,
    Streaming,
}

impl Calls {
    async fn make(self, client: &mut Client, text: &str) -> Result<(), tonic::Status> {
        match self {
            Self::Unary => say(client, text).await.map(drop),
            Self::Streaming => {
                let requests = tokio_stream::iter([EchoRequest::say(text)]);
                let mut replies = client.chat(requests).await?.into_inner();
                while let Some(reply) = replies.next().await {
                    reply?;
                }
                Ok(())
            }
        }
    }
}

/// A way to go away, and the streams at which it happens.
struct Shape {
    name: &'static str,
    verdict: Verdict,
    at: fn(Opened) -> bool,
}

/// GOAWAY(last 0) on connections that are young.
const YOUNG: Shape =
    Shape { name: "last 0", verdict: Verdict::GoAwayBelow, at: |opened| opened.connection < 4 };

/// The same, and the end of the connection in the same breath.
const YOUNG_AND_CLOSED: Shape =
    Shape { name: "last 0, closed", verdict: Verdict::GoAwayAndClose, at: |opened| opened.connection < 4 };

/// GOAWAY below every seventh stream.
const BELOW: Shape = Shape { name: "below", verdict: Verdict::GoAwayBelow, at: |opened| opened.stream == 7 };

/// GOAWAY in two steps, as gRPC servers drain.
const TWO_STEPS: Shape =
    Shape { name: "two steps", verdict: Verdict::Drain, at: |opened| opened.stream == 5 };

/// The same on each connection, at its first stream.
const TWO_STEPS_YOUNG: Shape = Shape { name: "two steps at once", verdict: Verdict::Drain, at: |_| true };

/// GOAWAY right behind the first answer, as a server with one request per connection says it.
const ONE_EACH: Shape = Shape { name: "one request each", verdict: Verdict::GoAwayBehind, at: |_| true };

impl Shape {
    fn decide(&self) -> impl Fn(Opened) -> Verdict + Send + Sync + 'static {
        let (verdict, at) = (self.verdict, self.at);
        move |opened| if at(opened) { verdict } else { Verdict::Answer }
    }
}

/// `callers` at once make `calls` calls each. None may fail, none may be processed twice.
async fn call(client: &Client, peer: &FramePeer, callers: u64, calls: u64, how: Calls, case: &str) {
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let (mut client, case) = (client.clone(), case.to_owned());
        running.spawn(async move {
            for i in 0..calls {
                let called = how.make(&mut client, &format!("caller {caller} call {i}")).await;
                called.unwrap_or_else(|status| panic!("{case}: call {i}: {status}"));
            }
        });
    }
    while let Some(done) = soon(running.join_next()).await {
        done.expect("no caller failed");
    }
    let seen = peer.seen();
    assert_eq!(seen.processed.len() as u64, callers * calls, "{case}");
    assert!(seen.processed.values().all(|times| *times == 1), "{case}: a call was doubled");
    assert!(seen.connections > 1, "{case}: {} connections", seen.connections);
}

/// One caller and eight, unary and streaming, in plaintext and with TLS.
async fn loses_no_call(shape: Shape) {
    for (how, callers, calls) in
        [(Calls::Unary, 1, 20), (Calls::Unary, 8, 5), (Calls::Streaming, 1, 20), (Calls::Streaming, 8, 5)]
    {
        let fleet = Fleet::start();
        let peer = FramePeer::start(shape.decide());
        fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
        let (_mesh, client) = client(&fleet);
        let case = format!("{}, {how:?}, {callers} callers", shape.name);
        call(&client, &peer, callers, calls, how, &case).await;
    }
    let fleet = Fleet::start();
    let server = fleet.ca.identity("reviews");
    let peer = FramePeer::start_tls(fleet.ca.server_config(&server, true), shape.decide());
    let tls = UpstreamTls::mutual("default").san(server.spiffe());
    fleet.control.set(one_cluster(main_cluster(at([peer.address()])).http2().tls(tls)));
    let mesh = fleet.mesh_with("client", &fleet.ca.identity("productpage"));
    let client = Client::new(shop(&mesh));
    call(&client, &peer, 8, 5, Calls::Unary, &format!("{}, TLS", shape.name)).await;
}

#[tokio::test]
async fn goaway_on_a_young_connection_loses_no_call() {
    loses_no_call(YOUNG).await;
}

#[tokio::test]
async fn goaway_with_the_end_of_a_young_connection_loses_no_call() {
    loses_no_call(YOUNG_AND_CLOSED).await;
}

#[tokio::test]
async fn goaway_below_open_streams_loses_no_call() {
    loses_no_call(BELOW).await;
}

#[tokio::test]
async fn goaway_in_two_steps_loses_no_call() {
    loses_no_call(TWO_STEPS).await;
}

#[tokio::test]
async fn goaway_in_two_steps_on_each_connection_loses_no_call() {
    loses_no_call(TWO_STEPS_YOUNG).await;
}

#[tokio::test]
async fn goaway_right_behind_the_first_answer_loses_no_call() {
    loses_no_call(ONE_EACH).await;
}

#[tokio::test]
async fn more_callers_than_a_connection_serves_are_all_served() {
    let fleet = Fleet::start();
    let peer = FramePeer::start(|_| Verdict::GoAwayBehind);
    fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
    let (_mesh, client) = client(&fleet);
    call(&client, &peer, 50, 2, Calls::Unary, "50 callers").await;
}

#[tokio::test]
async fn a_peer_that_only_ever_goes_away_fails_the_call_and_is_not_stormed() {
    let fleet = Fleet::start();
    let peer = FramePeer::start(|_| Verdict::GoAwayBelow);
    fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
    let (_mesh, mut client) = client(&fleet);
    let mut request = tonic::Request::new(EchoRequest::say("x"));
    request.set_timeout(Duration::from_secs(2));
    let status = soon(client.unary(request)).await.expect_err("nobody serves");
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "it waits: {status}");
    let connections = peer.seen().connections;
    assert!((2..=7).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn callers_that_give_up_harm_no_other() {
    let fleet = Fleet::start();
    // Each connection is good for one burst: it goes away at the first stream after it.
    let peer = FramePeer::start(|opened| match opened.stream {
        1..=64 => Verdict::Ignore,
        65 => Verdict::GoAwayBelow,
        _ => Verdict::Ignore,
    });
    fleet.control.set(one_cluster(main_cluster(at([peer.address()]))));
    let (_mesh, client) = client(&fleet);
    for round in 1..=20 {
        let mut burst = JoinSet::new();
        for i in 0..65 {
            let mut client = client.clone();
            burst.spawn(
                async move { client.unary(EchoRequest::say(format!("{round}, {i}"))).await.map(drop) },
            );
        }
        // The 65th call makes the connection go away; nobody may fail, they only wait.
        peer.until(|seen| seen.connections > round).await;
        let failed = burst.try_join_next();
        assert!(failed.is_none(), "round {round}: {failed:?}");
        burst.shutdown().await;
    }
}

/// Answers HTTP/1.1 requests, one per connection.
async fn serve_one_each(listener: TcpListener, close: &'static str) {
    loop {
        let (mut socket, _) = listener.accept().await.expect("a listener that works");
        beside(async move {
            if read_head(&mut socket).await {
                let answer = format!("HTTP/1.1 200 OK\r\n{close}content-length: 2\r\n\r\nok");
                drop(socket.write_all(answer.as_bytes()).await);
            }
        });
    }
}

async fn read_head(socket: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_buf(&mut head).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

async fn get(channel: mesh_tower::MeshChannel) -> http::StatusCode {
    use tower::ServiceExt as _;
    let request =
        http::Request::get("/x").body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
    let response = soon(channel.oneshot(request)).await.expect("never an error");
    let status = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
    assert_eq!(body.to_bytes(), "ok");
    status
}

#[tokio::test]
async fn an_http1_server_that_closes_after_each_answer_loses_no_call() {
    for close in ["connection: close\r\n", ""] {
        let fleet = Fleet::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster: Cluster = main_cluster(at([listener.local_addr().unwrap()]));
        let _server = beside(serve_one_each(listener, close));
        fleet.control.set(one_cluster(cluster.http1()));
        let mesh = fleet.mesh("client");
        let mut running = JoinSet::new();
        for _ in 0..8 {
            let channel = shop(&mesh);
            running.spawn(async move {
                for _ in 0..10 {
                    assert_eq!(get(channel.clone()).await, http::StatusCode::OK, "{close:?}");
                }
            });
        }
        while let Some(done) = soon(running.join_next()).await {
            done.unwrap();
        }
    }
}
