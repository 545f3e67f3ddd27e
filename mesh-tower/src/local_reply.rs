//! The only place where a [`Rejection`] becomes an answer: gRPC trailers-only, or an HTTP status with a short text.
//!
//! gRPC callers get `200` with `grpc-status` and `grpc-message` (percent-encoded as the protocol asks), other callers
//! the status of the reason and a body of text. Either text is response flags and a few words (`UF: no connection to the
//! upstream`), because a response travels on to people who have no business with our clusters, addresses and files. What
//! happened in detail is in the [`Error`] among the extensions of the response, and in the log, once a second for each
//! reason; [`MeshBuilder::detailed_local_replies`](crate::MeshBuilder::detailed_local_replies) puts it into the texts.
//!
//! Either has `proxy-status` (RFC 9209), so that anybody can tell the answer from one of an application:
//! `mesh; error=destination_not_found; details="target_not_found"`.

use std::fmt;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use mesh_core::error::{Reason, Rejection};
use mesh_core::outcome::GrpcCode;
use mesh_core::request::RequestKind;
use tokio::time::Instant;

use crate::body::Body;
use crate::error::Error;
use crate::telemetry::throttle::Throttle;

/// `grpc-status`.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `proxy-status`, RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// How one mesh answers in the place of applications.
#[derive(Debug, Default)]
pub(crate) struct LocalReplies {
    detailed: bool,
    lines: Lines,
}

/// Which side of a connection answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Client,
    Server,
}

/// One line of log a second for each reason.
#[derive(Debug)]
struct Lines([Throttle; Reason::COUNT]);

/// The answer of a mesh to a request that it cannot serve, without detail in its text.
#[must_use]
pub(crate) fn reply(kind: RequestKind, rejection: Rejection) -> Response<Body> {
    let text = rejection.public().to_string();
    answer(kind, Error::from(rejection), text)
}

fn answer(kind: RequestKind, error: Error, text: String) -> Response<Body> {
    let mut response = match kind {
        RequestKind::Grpc => status(error.grpc_code(), &text),
        RequestKind::Http => http(&error, text),
    };
    if let Some(reason) = error.reason()
        && let Ok(value) = HeaderValue::from_str(&proxy_status(reason))
    {
        response.headers_mut().insert(PROXY_STATUS, value);
    }
    response.extensions_mut().insert(error);
    response
}

/// Whose answer it is, and what the matter was; the details are a word of ours, never of the configuration.
fn proxy_status(reason: Reason) -> String {
    format!("mesh; error={}; details=\"{}\"", reason.proxy_error(), reason.details())
}

// === impl LocalReplies ===

impl LocalReplies {
    /// With the details of refusals in the texts, or without.
    pub(crate) fn new(detailed: bool) -> Self {
        Self { detailed, lines: Lines::default() }
    }

    /// The error that a refusal is to whoever gets no answer.
    pub(crate) fn error(&self, rejection: Rejection) -> Error {
        Error::of(rejection, self.detailed)
    }

    /// The answer to a request that cannot be served.
    pub(crate) fn reply(&self, side: Side, kind: RequestKind, rejection: Rejection) -> Response<Body> {
        self.lines.tell(side, &rejection);
        let text = self.text(&rejection);
        answer(kind, self.error(rejection), text)
    }

    /// The trailers that end a gRPC response whose headers were already passed on.
    pub(crate) fn trailers(&self, side: Side, rejection: &Rejection) -> HeaderMap {
        self.lines.tell(side, rejection);
        let mut trailers = HeaderMap::with_capacity(2);
        put_status(&mut trailers, rejection.reason().grpc_code(), &self.text(rejection));
        trailers
    }

    fn text(&self, rejection: &Rejection) -> String {
        if self.detailed { rejection.to_string() } else { rejection.public().to_string() }
    }
}

// === impl Lines ===

impl Lines {
    fn tell(&self, side: Side, rejection: &Rejection) {
        let (flags, reason) = (rejection.flags(), rejection.reason());
        // A denial has been told already, with its principal.
        let throttle = self.0.get(reason as usize).filter(|_| reason != Reason::Denied);
        match throttle.and_then(|throttle| throttle.take(Instant::now())) {
            Some(left_out) => tracing::info!(%side, %flags, %rejection, left_out, "refused"),
            None => tracing::debug!(%side, %flags, %rejection, "refused"),
        }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self([const { Throttle::new(1) }; Reason::COUNT])
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// A whole gRPC response: a status.
pub(crate) fn status(code: GrpcCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    put_status(headers, code, message);
    response
}

fn http(error: &Error, text: String) -> Response<Body> {
    let length = text.len();
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = error.http_status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn put_status(headers: &mut HeaderMap, code: GrpcCode, message: &str) {
    headers.insert(GRPC_STATUS, HeaderValue::from_static(code.as_str()));
    if let Ok(value) = HeaderValue::from_str(&percent_encode(message)) {
        headers.insert(GRPC_MESSAGE, value);
    }
}

/// `grpc-message` keeps printable ASCII but for `%`; every other byte becomes `%XX`.
fn percent_encode(message: &str) -> String {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => encoded.push(char::from(byte)),
            _ => {
                encoded.push('%');
                encoded.extend(HEX.get(usize::from(byte >> 4)));
                encoded.extend(HEX.get(usize::from(byte & 15)));
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;

    fn secret() -> Rejection {
        Rejection::new(Reason::NoRoute).with_detail("shop 50 % \u{e9}\n")
    }

    #[tokio::test]
    async fn an_http_caller_gets_status_and_text() {
        for (detailed, text) in [(false, "NR: no route"), (true, "no route: shop 50 % \u{e9}\n")] {
            let response = LocalReplies::new(detailed).reply(Side::Client, RequestKind::Http, secret());
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            let error = response.extensions().get::<Error>().unwrap();
            assert!(error.is_no_route() && error.to_string().contains("shop"));
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
        }
    }

    #[test]
    fn a_local_reply_is_told_from_an_applications_and_from_other_local_ones() {
        for kind in [RequestKind::Http, RequestKind::Grpc] {
            let status = |reason| {
                let response = reply(kind, Rejection::new(reason).with_detail("secret"));
                response.headers()[PROXY_STATUS].to_str().unwrap().to_owned()
            };
            assert_eq!(
                status(Reason::UnknownTarget),
                r#"mesh; error=destination_not_found; details="target_not_found""#
            );
            assert_eq!(
                status(Reason::NoRoute),
                r#"mesh; error=destination_not_found; details="route_not_found""#
            );
            assert_eq!(
                status(Reason::NoHealthyUpstream),
                r#"mesh; error=destination_unavailable; details="no_healthy_upstream""#
            );
            assert_eq!(
                status(Reason::Denied),
                r#"mesh; error=http_request_denied; details="rbac_access_denied""#
            );
        }
    }

    #[test]
    fn a_grpc_caller_gets_trailers_only_with_an_encoded_message() {
        for (detailed, text) in [(false, "NR: no route"), (true, "no route: shop 50 %25 %C3%A9%0A")] {
            let replies = LocalReplies::new(detailed);
            let response = replies.reply(Side::Server, RequestKind::Grpc, secret());
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[GRPC_STATUS], "14");
            assert_eq!(response.headers()[GRPC_MESSAGE], text);
            assert!(http_body::Body::is_end_stream(response.body()));
            assert!(response.extensions().get::<Error>().unwrap().to_string().contains("shop"));
            assert_eq!(replies.trailers(Side::Server, &secret())[GRPC_MESSAGE], text);
        }
    }
}
