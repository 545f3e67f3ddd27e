//! The only place where a [`Rejection`] becomes an answer: gRPC trailers-only, or an HTTP status with a short text.
//!
//! gRPC callers get `200` with `grpc-status` and `grpc-message` (percent-encoded as the protocol asks), other callers
//! the status of the reason and a body of text. Both carry the [`Error`] in the extensions of the response, so that
//! Rust code can look at the reason itself.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use mesh_core::error::Rejection;
use mesh_core::outcome::GrpcCode;
use mesh_core::request::RequestKind;

use crate::body::Body;
use crate::error::Error;

/// `grpc-status`.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The answer of the mesh to a request that it cannot serve.
#[must_use]
pub fn reply(kind: RequestKind, rejection: Rejection) -> Response<Body> {
    let mut response = match kind {
        RequestKind::Grpc => grpc(&rejection),
        RequestKind::Http => http(&rejection),
    };
    response.extensions_mut().insert(Error::from(rejection));
    response
}

/// The trailers that end a gRPC response whose headers were already passed on.
#[must_use]
pub fn trailers(rejection: &Rejection) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    put_status(&mut trailers, rejection.reason().grpc_code(), &rejection.to_string());
    trailers
}

fn grpc(rejection: &Rejection) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    put_status(headers, rejection.reason().grpc_code(), &rejection.to_string());
    response
}

fn http(rejection: &Rejection) -> Response<Body> {
    let text = rejection.to_string();
    let length = text.len();
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = rejection.reason().http_status();
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
    use mesh_core::error::Reason;

    use super::*;

    #[tokio::test]
    async fn an_http_caller_gets_status_and_text() {
        let response = reply(RequestKind::Http, Rejection::new(Reason::NoRoute).with_detail("shop"));
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(response.extensions().get::<Error>().unwrap().is_no_route());
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no route: shop");
    }

    #[test]
    fn a_grpc_caller_gets_trailers_only_with_an_encoded_message() {
        let response =
            reply(RequestKind::Grpc, Rejection::new(Reason::DeadlineExceeded).with_detail("50 % é\n"));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[GRPC_STATUS], "4");
        assert_eq!(response.headers()[GRPC_MESSAGE], "deadline exceeded: 50 %25 %C3%A9%0A");
        assert!(http_body::Body::is_end_stream(response.body()));
    }
}
