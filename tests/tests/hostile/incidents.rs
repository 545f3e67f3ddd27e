//! Streams and connections that end at every point at which they can, or never do.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use mesh_tests::wire::{WireConnection, WireStream};
use mesh_xds::{Kind, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::lane::Lane;
use crate::{Alone, BOTH, FULL, held};

/// How much of the heap all meshes may come to hold by losing their control plane again and again.
const GROWTH: usize = 8 << 20;

/// Lanes of each protocol: they wait for their next connections beside each other.
const LANES: usize = 4;

/// How often each lane goes through its incidents.
const ROUNDS: usize = if FULL { 6 } else { 1 };

/// What happens to a connection before there is a response on it.
#[derive(Debug, Clone, Copy)]
enum Early {
    /// It is reset at once.
    Reset,
    /// It is closed, politely.
    Close,
    /// It speaks another protocol.
    Http1,
    /// It speaks none.
    Noise,
    /// It is reset when HTTP/2 is agreed on.
    ResetAfterHandshake,
    /// It is reset when the client has opened its stream.
    ResetAfterCall,
    /// The stream is answered by an HTTP status.
    Status(u16),
    /// The stream is reset when its headers are sent.
    ResetStream(Reason),
    /// The stream ends with a gRPC error.
    Fail(tonic::Code),
    /// The stream ends without any status.
    End,
    /// The connection is reset when the first request has come.
    ResetAfterRequest,
    /// `GOAWAY` with an error.
    GoAway(Reason),
    /// A message longer than any may be.
    TooLong,
    /// A message that is not protobuf.
    NotProtobuf,
    /// A message that is compressed, which nobody asked for.
    Compressed,
}

/// What happens to a stream that has brought responses.
#[derive(Debug, Clone, Copy)]
enum Late {
    /// It is reset after so many responses.
    ResetAfter(usize),
    /// It is reset within a message, after so many bytes of it.
    ResetWithin(usize),
    Fail(tonic::Code),
    End,
    ResetStream(Reason),
    /// `GOAWAY`, and the stream goes on; then it ends.
    GoAway,
    Abort(Reason),
    TooLong,
    NotProtobuf,
}

/// From where on a peer is there, and neither reads nor writes.
#[derive(Debug, Clone, Copy)]
enum Hang {
    /// Its system took the connection.
    Connection,
    /// HTTP/2 is agreed on, and the client's call stays without an answer.
    Call,
    /// The stream has brought responses.
    Stream,
    /// The stream is within a message.
    Message,
}

const HANGS: [Hang; 4] = [Hang::Connection, Hang::Call, Hang::Stream, Hang::Message];

const EARLY: [Early; 20] = [
    Early::Reset,
    Early::Close,
    Early::Http1,
    Early::Noise,
    Early::ResetAfterHandshake,
    Early::ResetAfterCall,
    Early::Status(503),
    Early::Status(404),
    Early::Status(200),
    Early::ResetStream(Reason::INTERNAL_ERROR),
    Early::ResetStream(Reason::REFUSED_STREAM),
    Early::Fail(tonic::Code::Unimplemented),
    Early::Fail(tonic::Code::PermissionDenied),
    Early::Fail(tonic::Code::Ok),
    Early::End,
    Early::ResetAfterRequest,
    Early::GoAway(Reason::ENHANCE_YOUR_CALM),
    Early::TooLong,
    Early::NotProtobuf,
    Early::Compressed,
];

const LATE: [Late; 20] = [
    Late::ResetAfter(1),
    Late::ResetAfter(2),
    Late::ResetAfter(3),
    Late::ResetAfter(4),
    Late::ResetAfter(5),
    Late::ResetWithin(1),
    Late::ResetWithin(5),
    Late::ResetWithin(6),
    Late::ResetWithin(40),
    Late::Fail(tonic::Code::Unavailable),
    Late::Fail(tonic::Code::Internal),
    Late::Fail(tonic::Code::Ok),
    Late::End,
    Late::ResetStream(Reason::CANCEL),
    Late::ResetStream(Reason::PROTOCOL_ERROR),
    Late::GoAway,
    Late::Abort(Reason::NO_ERROR),
    Late::Abort(Reason::INTERNAL_ERROR),
    Late::TooLong,
    Late::NotProtobuf,
];

#[test]
fn a_stream_that_ends_at_any_point_is_opened_again_and_no_call_notices() {
    Alone::new().run(async {
        let lanes = BOTH.into_iter().flat_map(|protocol| (0..LANES).map(move |lane| (protocol, lane)));
        let lanes: Vec<_> = join_all(lanes.map(|(protocol, lane)| async move {
            let (mesh, stream) = Lane::start(protocol, 1).await;
            (mesh, stream, lane)
        }))
        .await;
        let before = held();
        let lanes: Vec<Lane> =
            join_all(lanes.into_iter().map(|(mesh, stream, lane)| suffer(mesh, stream, lane))).await;
        let now = held();
        assert!(now <= before + GROWTH, "{before} bytes became {now}");
        let calls: u64 = lanes.iter().map(Lane::assert_no_call_failed).sum();
        eprintln!("{} lanes, {calls} calls, {before} bytes became {now}", lanes.len());
    });
}

/// Every incident of a lane, the early and the late ones in turn, so that no wait grows: a response ends the back-off.
async fn suffer(mut mesh: Lane, mut stream: WireStream, lane: usize) -> Lane {
    for _ in 0..ROUNDS {
        let of_lane = |i: &usize| i % LANES == lane;
        for i in (0..LATE.len()).filter(of_lane) {
            late(&mut mesh, stream, LATE[i]).await;
            mesh.more_calls(5).await;
            early(&mesh, EARLY[i]).await;
            mesh.more_calls(5).await;
            stream = mesh.control.open().await.expect("the client comes back");
            mesh.settle(&mut stream).await;
        }
    }
    mesh.repair(&mut stream).await;
    mesh
}

/// Meets a client that connects, and gets rid of it.
async fn early(mesh: &Lane, how: Early) {
    let socket = mesh.control.accept().await;
    match how {
        Early::Reset => drop(socket),
        Early::Close => close(socket).await,
        Early::Http1 => {
            write_and_close(socket, b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await
        }
        Early::Noise => write_and_close(socket, &[0xff; 4096]).await,
        _ => after_handshake(socket, how).await,
    }
}

async fn after_handshake(socket: TcpStream, how: Early) {
    // The client may hang up at any point, which is what is wanted of it.
    let Ok(connection) = WireConnection::over(socket).await else { return };
    if matches!(how, Early::ResetAfterHandshake) {
        return;
    }
    let Some(call) = connection.call().await else { return };
    if let Early::Status(status) = how {
        return call.refuse(status);
    }
    if matches!(how, Early::ResetAfterCall) {
        return;
    }
    let Ok(mut stream) = call.answer() else { return };
    match how {
        Early::ResetStream(reason) => stream.reset(reason),
        Early::Fail(code) => stream.fail(code, "no"),
        Early::End => stream.end(),
        Early::ResetAfterRequest => return drop(stream.next().await),
        Early::GoAway(reason) => stream.abort(reason).await,
        Early::TooLong => stream.send_bytes(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])),
        Early::NotProtobuf => stream.send_message(&[0xff; 100]),
        Early::Compressed => stream.send_bytes(Bytes::from_static(&[1, 0, 0, 0, 1, 0])),
        _ => unreachable!("an incident before the handshake"),
    }
    until_gone(stream).await;
}

/// Ends a stream that is open.
async fn late(mesh: &mut Lane, mut stream: WireStream, how: Late) {
    match how {
        Late::ResetAfter(responses) => {
            for kind in Kind::ALL.into_iter().cycle().take(responses) {
                let nonce = mesh.send_good(&mut stream, kind);
                drop(mesh.answer(&mut stream, &nonce).await);
            }
            return;
        }
        Late::ResetWithin(bytes) => {
            let mut frame = vec![0, 0, 0, 0, 100];
            frame.resize(5 + 100, 0);
            frame.truncate(bytes);
            stream.send_bytes(frame.into());
            return mesh.more_calls(5).await;
        }
        Late::Fail(code) => stream.fail(code, "no more"),
        Late::End => stream.end(),
        Late::ResetStream(reason) => stream.reset(reason),
        Late::GoAway => {
            stream.go_away().await;
            let nonce = mesh.send_good(&mut stream, Kind::Route);
            drop(mesh.answer(&mut stream, &nonce).await);
            stream.end();
        }
        Late::Abort(reason) => stream.abort(reason).await,
        Late::TooLong => stream.send_bytes(Bytes::from_static(&[0, 0x20, 0, 0, 0, 1, 2, 3])),
        Late::NotProtobuf => stream.send_message(&[0xff; 100]),
    }
    until_gone(stream).await;
}

/// The client has to be the one that ends the rest.
async fn until_gone(mut stream: WireStream) {
    while stream.next().await.is_some() {}
}

async fn close(mut socket: TcpStream) {
    drop(socket.shutdown().await);
    let mut rest = Vec::new();
    drop(socket.read_to_end(&mut rest).await);
}

async fn write_and_close(mut socket: TcpStream, bytes: &[u8]) {
    drop(socket.write_all(bytes).await);
    close(socket).await;
}

/// Keepalive (30 s, and 10 s for the answer) is what finds a peer that has vanished, so this takes its time.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes a minute of real time")]
fn a_control_plane_that_hangs_at_any_point_is_given_up_and_no_call_notices() {
    Alone::new().run(async {
        let lanes = BOTH.into_iter().flat_map(|protocol| HANGS.map(|how| hang(protocol, how)));
        join_all(lanes).await;
    });
}

async fn hang(protocol: Protocol, how: Hang) {
    let (mut mesh, mut stream) = Lane::start(protocol, 1).await;
    let next = match how {
        Hang::Connection => {
            drop(stream);
            let held = mesh.control.accept().await;
            until_given_up(&mesh, held).await
        }
        Hang::Call => {
            drop(stream);
            let held = WireConnection::over(mesh.control.accept().await).await.expect("HTTP/2");
            held.hang().await;
            until_given_up(&mesh, held).await
        }
        Hang::Stream => {
            stream.hang().await;
            until_given_up(&mesh, stream).await
        }
        Hang::Message => {
            stream.send_bytes(Bytes::from_static(&[0, 0, 0, 0, 100, 1, 2, 3]));
            mesh.more_calls(5).await;
            stream.hang().await;
            until_given_up(&mesh, stream).await
        }
    };
    let connection = WireConnection::over(next).await.expect("HTTP/2");
    let mut stream = connection.call().await.expect("a stream").answer().expect("headers");
    mesh.settle(&mut stream).await;
    mesh.repair(&mut stream).await;
    mesh.assert_no_call_failed();
}

/// The client's next connection, while the one that hangs stays as it is.
async fn until_given_up<T>(mesh: &Lane, held: T) -> TcpStream {
    let next = mesh.control.accept_within(Duration::from_secs(90)).await;
    drop(held);
    next
}
