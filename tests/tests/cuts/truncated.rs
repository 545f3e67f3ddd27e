//! Responses that end too early by frames that are well formed.

use http::Request;
use http_body_util::BodyExt as _;
use mesh_tests::plain::Plain;
use mesh_tests::wait::soon;
use mesh_tower::{Body, Mesh};
use tower::ServiceExt as _;

use mesh_tests::frames::{FrameServer, Scripted, data, go_away, head, reset};

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

/// What a reader gets of an answer: the number of bytes, or why not.
async fn read(answer: Vec<Scripted>, closes: bool, grpc: bool) -> Result<usize, String> {
    let server = FrameServer::start(answer, closes);
    let mesh = Mesh::builder(Plain).build().expect("a mesh");
    let channel = Plain::channel(&mesh, true, server.address());
    let request = Request::builder().uri("/x");
    let request =
        if grpc { request.method("POST").header("content-type", "application/grpc") } else { request };
    let request = request.body(Body::empty()).expect("valid");
    let response = soon(channel.oneshot(request)).await.map_err(|error| error.to_string())?;
    if let Some(error) = response.extensions().get::<mesh_tower::Error>() {
        return Err(error.to_string());
    }
    let body = soon(response.into_body().collect()).await.map_err(|error| error.to_string())?;
    // What broke a gRPC stream is its status, as the mesh tells it.
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    if let Some(status) = status.filter(|status| *status != "0") {
        return Err(format!("grpc-status {status:?}"));
    }
    Ok(body.to_bytes().len())
}

#[tokio::test]
async fn a_response_that_ends_too_early_is_an_error_however_politely_it_does() {
    let length = Some("1000");
    let short: [(&str, Vec<Scripted>, bool); 9] = [
        (
            "500 of 1000 bytes, reset without error",
            vec![head(length, false), data(500, false), reset(NO_ERROR)],
            false,
        ),
        ("none of 1000 bytes, reset without error", vec![head(length, false), reset(NO_ERROR)], false),
        (
            "500 bytes without a length, reset without error",
            vec![head(None, false), data(500, false), reset(NO_ERROR)],
            false,
        ),
        ("500 of 1000 bytes, cancelled", vec![head(length, false), data(500, false), reset(CANCEL)], false),
        ("500 of 1000 bytes, ended", vec![head(length, false), data(500, true)], false),
        (
            "500 of 1000 bytes, GOAWAY and closed",
            vec![head(length, false), data(500, false), go_away(1)],
            true,
        ),
        ("500 of 1000 bytes, closed", vec![head(length, false), data(500, false)], true),
        ("500 bytes without a length, closed", vec![head(None, false), data(500, false)], true),
        ("1500 of 1000 bytes", vec![head(length, false), data(1500, true)], false),
    ];
    let mut wrong = Vec::new();
    for (what, answer, closes) in short {
        if let Ok(bytes) = read(answer, closes, false).await {
            wrong.push(format!("{what}: {bytes} bytes were taken for whole"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_grpc_response_without_its_end_is_an_error() {
    let mut wrong = Vec::new();
    for (what, answer, closes) in [
        ("reset without error", vec![head(None, true), data(9, false), reset(NO_ERROR)], false),
        ("reset without error, no message", vec![head(None, true), reset(NO_ERROR)], false),
        ("closed", vec![head(None, true), data(9, false)], true),
    ] {
        if let Ok(bytes) = read(answer, closes, true).await {
            wrong.push(format!("{what}: {bytes} bytes were taken for whole"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_whole_response_is_whole_also_when_its_stream_is_then_reset_without_error() {
    assert_eq!(
        read(vec![head(Some("500"), false), data(500, true), reset(NO_ERROR)], false, false).await,
        Ok(500)
    );
    assert_eq!(read(vec![head(None, false), data(500, true)], false, false).await, Ok(500));
    assert_eq!(read(vec![head(Some("500"), false), data(500, true), go_away(1)], true, false).await, Ok(500));
}
