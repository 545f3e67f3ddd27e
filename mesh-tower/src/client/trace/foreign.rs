//! Answers to gRPC calls that are no gRPC: a gateway's error page, a health check's text.
//!
//! gRPC clients read the body of such an answer as messages, and fail with what they find in it. What it means is said by
//! its HTTP status (gRPC's http-grpc-status-mapping); what it says is for people, so the beginning of it goes into the
//! message. The event and the span keep the HTTP status.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body::Body as _;
use mesh_core::deadline::Deadline;
use mesh_core::outcome::{GrpcCode, Outcome};
use mesh_core::request::RequestKind;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::body::Body;
use crate::client::deadline::timer;
use crate::client::request::{Call, Exchange};
use crate::local_reply;

/// Bytes of the text that are shown.
const SHOWN: usize = 200;

/// How long the beginning of the text is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether an answer to a gRPC call is none of gRPC. A status of gRPC makes it one, whatever else it says; 200 without any
/// content type is given the benefit of the doubt.
pub(super) fn is_foreign(call: &Call, outcome: Outcome) -> bool {
    if call.kind != RequestKind::Grpc || !matches!(outcome, Outcome::Response { grpc: None, .. }) {
        return false;
    }
    let Some(response) = call.exchange.response() else { return false };
    // A pass over a few headers costs less than a lookup.
    let kind = response.headers().iter().find(|(name, _)| **name == CONTENT_TYPE);
    let is_grpc = kind.is_none_or(|(_, value)| RequestKind::of_content_type(value) == RequestKind::Grpc);
    !is_grpc || response.status() != StatusCode::OK
}

/// Puts the answer as gRPC has it into the place of what came. Its outcome keeps the HTTP status.
pub(super) async fn translate(call: &mut Call) -> Outcome {
    let response = call.exchange.take_response().unwrap_or_default();
    let (head, body) = response.into_parts();
    let code = match head.status {
        StatusCode::OK => GrpcCode::UNKNOWN,
        status => GrpcCode::of_http(status),
    };
    let mut message = format!("HTTP status {}", head.status);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        message.push_str(&format!(", content-type {:?}", String::from_utf8_lossy(kind.as_bytes())));
    }
    let text = beginning(body, call.deadline, &call.shared.runtime).await;
    if !text.is_empty() {
        message.push_str(": ");
        message.push_str(&text);
    }
    let mut answer = local_reply::status(code, &message);
    *answer.extensions_mut() = head.extensions;
    call.exchange = Exchange::Response(answer);
    Outcome::Response { http: head.status, grpc: Some(code) }
}

/// The beginning of a body. The rest is cancelled.
async fn beginning(body: Body, deadline: Option<Deadline>, runtime: &Handle) -> String {
    let mut at = (Instant::now() + PATIENCE).into_std();
    if let Some(deadline) = deadline {
        at = at.min(deadline.at);
    }
    let mut up = pin!(timer(at, runtime));
    let (mut body, mut text) = (pin!(body), Vec::new());
    poll_fn(|cx| {
        while text.len() < SHOWN {
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        text.extend_from_slice(data.get(..SHOWN).unwrap_or(data));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return up.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    })
    .await;
    text.truncate(SHOWN);
    String::from_utf8_lossy(&text).trim().to_owned()
}
