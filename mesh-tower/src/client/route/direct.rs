//! `direct_response`: the route is the answer.
//!
//! As Envoy: 201 and 3xx point to where the request went, a body is plain text, and a gRPC
//! call gets the status that the HTTP status stands for, with the body as its message. Deviation: HEAD, 204 and 304 never
//! have content (RFC 9110 §6.4.1).

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Response, StatusCode, Uri};
use mesh_core::outcome::GrpcCode;
use mesh_core::request::RequestKind;

use crate::body::Body;
use crate::local_reply;

/// The answer to a request of this kind. `authority` is for a target that names none.
pub(super) fn respond(
    (kind, method, uri, authority): (RequestKind, &Method, &Uri, &str),
    status: StatusCode,
    text: &[u8],
) -> Response<Body> {
    if kind == RequestKind::Grpc {
        return local_reply::status(GrpcCode::of_http(status), &String::from_utf8_lossy(text));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::CREATED || status.is_redirection() {
        let scheme = uri.scheme_str().unwrap_or("http");
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // Parts of a valid target make one.
        if let Ok(location) = HeaderValue::try_from(format!("{scheme}://{authority}{path}")) {
            headers.insert(LOCATION, location);
        }
    }
    if text.is_empty()
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    if *method != Method::HEAD {
        *response.body_mut() = Body::full(Bytes::copy_from_slice(text));
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn answer(kind: RequestKind, method: Method, status: u16, text: &str) -> (Response<()>, String) {
        let uri = "http://shop.test/a?b".parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let (head, body) = respond((kind, &method, &uri, "shop.test"), status, text.as_bytes()).into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_answer_is_one_that_its_request_and_status_may_have() {
        use RequestKind::Http;
        for (method, status, text, content, location) in [
            (Method::GET, 200, "hello", "hello", false),
            (Method::GET, 200, "", "", false),
            (Method::HEAD, 200, "hello", "", false),
            (Method::POST, 201, "made", "made", true),
            (Method::GET, 204, "hello", "", false),
            (Method::GET, 302, "", "", true),
            (Method::GET, 304, "hello", "", true),
            (Method::GET, 404, "no", "no", false),
        ] {
            let (response, body) = answer(Http, method.clone(), status, text).await;
            let headers = response.headers();
            assert_eq!((response.status().as_u16(), &*body), (status, content), "{method} {status}");
            assert_eq!(headers.contains_key(LOCATION), location, "{method} {status}");
            let is_described = !text.is_empty() && !matches!(status, 204 | 304);
            assert_eq!(headers.contains_key(CONTENT_TYPE), is_described, "{method} {status}");
            assert_eq!(headers.contains_key(CONTENT_LENGTH), is_described, "{method} {status}");
            if location {
                assert_eq!(headers[LOCATION], "http://shop.test/a?b");
            }
        }
    }

    #[tokio::test]
    async fn a_grpc_call_gets_the_status_that_is_meant() {
        for (status, code) in
            [(200, "2"), (400, "13"), (401, "16"), (403, "7"), (404, "12"), (503, "14"), (302, "2")]
        {
            let (response, body) = answer(RequestKind::Grpc, Method::POST, status, "50 % off").await;
            assert_eq!((response.status(), &*body), (StatusCode::OK, ""), "{status}");
            assert_eq!(response.headers()["grpc-status"], code, "{status}");
            assert_eq!(response.headers()["grpc-message"], "50 %25 off");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        }
    }
}
