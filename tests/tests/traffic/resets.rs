//! RST_STREAM as gRPC reads it, in each phase of each shape of call; and a server whose timer is faster than ours.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use h2::server::SendResponse;
use http::{Request, StatusCode};
use mesh_core::deadline::caller_timeout;
use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::frames::{FrameServer, Scripted, head, reset};
use mesh_tests::net::Port;
use mesh_tests::plain::Plain;
use mesh_tests::wait::soon;
use mesh_tower::{Body, Mesh, MeshChannel};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tower::ServiceExt as _;

/// Codes of RFC 9113 §7, one that it does not know, and what gRPC makes of them.
const CODES: [(u32, Code); 15] = [
    (0x0, Code::Internal),
    (0x1, Code::Internal),
    (0x2, Code::Internal),
    (0x3, Code::Internal),
    (0x4, Code::Internal),
    (0x5, Code::Internal),
    (0x6, Code::Internal),
    (0x7, Code::Unavailable),
    (0x8, Code::Cancelled),
    (0x9, Code::Internal),
    (0xa, Code::Internal),
    (0xb, Code::ResourceExhausted),
    (0xc, Code::PermissionDenied),
    (0xd, Code::Internal),
    (0xff, Code::Internal),
];

#[derive(Debug, Clone, Copy)]
enum Shape {
    Unary,
    Upload,
    Download,
    Chat,
}

const SHAPES: [Shape; 4] = [Shape::Unary, Shape::Upload, Shape::Download, Shape::Chat];

fn channel(mesh: &Mesh, address: SocketAddr) -> MeshChannel {
    Plain::channel(mesh, true, address)
}

/// The status with which a call ends.
async fn ends(client: &mut EchoClient<MeshChannel>, shape: Shape) -> Status {
    let request = EchoRequest::say("x");
    let result = match shape {
        Shape::Unary => client.unary(request).await.map(drop),
        Shape::Upload => client.upload(stream::iter([request])).await.map(drop),
        Shape::Download => drained(client.download(request).await).await,
        // The caller has more to say when the stream is reset.
        Shape::Chat => drained(client.chat(stream::iter([request]).chain(stream::pending())).await).await,
    };
    result.expect_err("the stream was reset")
}

async fn drained<T>(response: Result<tonic::Response<tonic::Streaming<T>>, Status>) -> Result<(), Status> {
    let mut replies = response?.into_inner();
    while replies.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn a_reset_ends_a_call_with_the_status_that_grpc_has_for_it() {
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    let empty_message: Scripted = (0, 0, vec![0; 5]);
    for before in [vec![], vec![head(None, true)], vec![head(None, true), empty_message]] {
        for (code, status) in CODES {
            let answer = [before.clone(), vec![reset(code)]].concat();
            let server = FrameServer::start(answer, false);
            let mut client = EchoClient::new(channel(&mesh, server.address()));
            for shape in SHAPES {
                let seen = soon(ends(&mut client, shape)).await;
                let frames = before.len();
                assert_eq!(seen.code(), status, "{shape:?}, {code:#x} after {frames} frames: {seen:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_reset_of_a_plain_request_is_503_and_told_as_the_peers_reset() {
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    for (code, _) in CODES {
        let server = FrameServer::start(vec![reset(code)], false);
        let request = Request::get("/x").body(Body::empty()).expect("valid");
        let response = soon(channel(&mesh, server.address()).oneshot(request)).await.expect("a reply");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{code:#x}");
        let error = response.extensions().get::<mesh_tower::Error>().expect("a reply of the mesh");
        assert_eq!(error.flags().to_string(), "UR", "{code:#x}: {error}");
    }
}

/// A server that keeps each call's own deadline, and then cancels its stream.
async fn keeps_deadlines(listener: tokio::net::TcpListener, answers: bool) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut calls = JoinSet::new();
            let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
            while let Some(Ok((request, respond))) = connection.accept().await {
                let timeout = caller_timeout(request.headers()).expect("the deadline travels");
                calls.spawn(cancels(respond, timeout, answers));
            }
        });
    }
}

async fn cancels(mut respond: SendResponse<bytes::Bytes>, after: Duration, answers: bool) {
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).expect("valid");
    let open = answers.then(|| respond.send_response(head, false).expect("an open stream"));
    tokio::time::sleep(after).await;
    match open {
        Some(mut open) => open.send_reset(h2::Reason::CANCEL),
        None => respond.send_reset(h2::Reason::CANCEL),
    }
}

#[tokio::test]
async fn a_call_whose_server_keeps_the_same_deadline_ends_by_the_deadline() {
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    let mut servers = JoinSet::new();
    for answers in [false, true] {
        let port = Port::reserve();
        servers.spawn(keeps_deadlines(port.listen(), answers));
        let client = EchoClient::new(channel(&mesh, port.address()));
        let mut calls = JoinSet::new();
        for i in 0..250u64 {
            let mut client = client.clone();
            calls.spawn(async move {
                let mut request = tonic::Request::new(EchoRequest::say("x"));
                request.set_timeout(Duration::from_micros(20_000 + i * 97));
                client.unary(request).await.expect_err("nobody answers").code()
            });
        }
        let codes = soon(calls.join_all()).await;
        let others: Vec<&Code> = codes.iter().filter(|code| **code != Code::DeadlineExceeded).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}
